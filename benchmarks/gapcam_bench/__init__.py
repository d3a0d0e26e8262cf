"""gapcam_bench: what a map costs."""
