"""The version, as the installed distribution knows it."""

from importlib.metadata import version

__version__ = version("gapcam")
