"""gapcam_bench: what a map costs."""

import os

# As `import gapcam` does, which is not imported here: its import is among what is timed.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
