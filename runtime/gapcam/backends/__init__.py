"""Inference engines, one file each. They run a model and know nothing of class activation maps."""

from gapcam.backends.protocol import Backend, TensorInfo

__all__ = ["Backend", "TensorInfo"]
