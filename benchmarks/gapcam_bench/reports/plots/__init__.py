"""The page's plots: matplotlib draws them, and their colours are the page's."""
