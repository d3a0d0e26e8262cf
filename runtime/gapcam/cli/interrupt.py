"""What Ctrl-C becomes on its way through libraries."""

from __future__ import annotations

import click


def is_interrupt(error: BaseException) -> bool:
    """Whether the user broke off.

    Libraries raise errors of their own from it: one whose compiled part is being imported says "initialization failed".
    What is raised from None has a message of its own, such as how to go on.
    """
    chain: list[BaseException] = []
    while error not in chain:
        chain.append(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__) or error
    return any(isinstance(each, (KeyboardInterrupt, click.Abort)) for each in chain)
