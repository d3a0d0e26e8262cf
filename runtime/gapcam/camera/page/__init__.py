"""The page on which people watch, and the API behind it."""
