"""Command lines of processes that are this Python, and that import nothing from the working folder.

`python -m` and `python -c` look for every module there first: a random.py that lies beside a user's photographs would
be run in the place of Python's own. What PYTHONPATH and sitecustomize say counts as ever.
"""

from __future__ import annotations

import sys

_KNOWS_P = hasattr(sys.flags, "safe_path")
"""Python from 3.11 on. From 3.13 on, -c imports something of its own before the code could change the path."""
_WITHOUT_FOLDER = "import sys\nif sys.path[:1] == ['']:\n    del sys.path[0]\n"
_AS_MAIN = "del sys.argv[0]\nimport runpy\nrunpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)\n"


def child_module(module: str, *arguments: str, knows_p: bool = _KNOWS_P) -> list[str]:
    """What `python -m module arguments...` would be.

    Args:
        module: its whole name.
        arguments: of it.
        knows_p: whether this Python has the option -P.
    """
    if knows_p:
        return [sys.executable, "-P", "-m", module, *arguments]
    return child_code(_AS_MAIN, module, *arguments, knows_p=False)


def child_code(code: str, *arguments: str, knows_p: bool = _KNOWS_P) -> list[str]:
    """What `python -c code arguments...` would be.

    Args:
        code: Python.
        arguments: its sys.argv[1:].
        knows_p: whether this Python has the option -P.
    """
    if knows_p:
        return [sys.executable, "-P", "-c", code, *arguments]
    return [sys.executable, "-c", _WITHOUT_FOLDER + code, *arguments]
