"""gapcam: explained image classification on edge devices."""
