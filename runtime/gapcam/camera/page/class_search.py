"""Classes by a part of their label."""

from __future__ import annotations

import re
from collections.abc import Sequence


def search_labels(labels: Sequence[str], text: str) -> list[int]:
    """Indices of the labels that hold a text, whatever its case.

    First the class of that index, where the text is one, then labels that begin with the text, then the others.

    Args:
        labels: K labels.
        text: white space around it does not count; an empty one finds all.
    """
    wanted = text.strip().casefold()
    if not wanted:
        return list(range(len(labels)))
    numbered = [int(wanted)] if re.fullmatch(r"[0-9]{1,9}", wanted) and int(wanted) < len(labels) else []
    begins: list[int] = []
    holds: list[int] = []
    for index, label in enumerate(labels):
        folded = label.casefold()
        if wanted in folded and index not in numbered:
            (begins if folded.startswith(wanted) else holds).append(index)
    return numbered + begins + holds
