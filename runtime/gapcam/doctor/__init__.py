"""What is installed for inference and the GPU, what fits together, and the command that mends what does not.

Two halves: `gather` asks a machine for `Facts`, `judge` turns facts into `Findings` without looking at anything else.
"""
