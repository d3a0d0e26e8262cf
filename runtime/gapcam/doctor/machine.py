"""Where facts come from: a machine's files, its environment, its Python's folders, and its libraries' answers.

`ThisMachine` is the one that gapcam runs on. Tests put a folder with another machine's files in its place.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from gapcam.cache_folder import cache_folder
from gapcam.doctor.facts import Answer, Version
from gapcam.doctor.native import ask


class Machine(Protocol):
    """What `gapcam.doctor.gather` may look at, and nothing else."""

    @property
    def root(self) -> Path:
        """The folder in which /etc, /proc, /usr lie."""

    @property
    def environ(self) -> Mapping[str, str]:
        """The environment variables."""

    @property
    def search_path(self) -> Sequence[str]:
        """Python's sys.path: absolute paths on that machine."""

    @property
    def uname(self) -> tuple[str, str]:
        """The operating system's name and the processor's, as Python's `platform` has them."""

    @property
    def python(self) -> Version:
        """The version of its Python."""

    @property
    def virtual(self) -> bool:
        """Whether that is a virtual environment's."""

    @property
    def cache(self) -> str:
        """The folder that gapcam keeps compiled kernels and timing caches in: an absolute path on that machine."""

    def may_open(self, node: Path) -> bool:
        """Whether this user may read and write a device file."""

    def ask(self, question: str) -> Answer:
        """Ask a library. See `gapcam.doctor.native`."""


class ThisMachine:
    """The machine that gapcam runs on."""

    root = Path("/")
    python = sys.version_info[:3]

    @property
    def environ(self) -> Mapping[str, str]:
        """The process's."""
        return os.environ

    @property
    def search_path(self) -> Sequence[str]:
        """The process's, without folders that are not absolute."""
        return [folder for folder in sys.path if os.path.isabs(folder)]  # noqa: PTH117 - text

    @property
    def uname(self) -> tuple[str, str]:
        """By Python's `platform`."""
        return platform.system(), platform.machine()

    @property
    def virtual(self) -> bool:
        """Whether Python's prefix is another than its base."""
        return sys.prefix != sys.base_prefix

    @property
    def cache(self) -> str:
        """As `gapcam.cache_folder` chooses it."""
        return os.path.abspath(cache_folder())  # noqa: PTH100 - text

    def may_open(self, node: Path) -> bool:
        """By the file's permissions."""
        return os.access(node, os.R_OK | os.W_OK)

    def ask(self, question: str) -> Answer:
        """In a process of its own."""
        return ask(question)
