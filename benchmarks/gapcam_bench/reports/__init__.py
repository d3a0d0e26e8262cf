"""Results for people: a table in the terminal, Markdown, CSV, and a page with plots."""
