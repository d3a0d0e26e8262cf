"""Figures from raw samples, what is too noisy, and which differences are real."""
