"""A model's classes by index and by label."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any, TypeAlias

import numpy as np

from gapcam.errors import ClassNotFoundError, UsageError

ClassRef: TypeAlias = "int | np.integer[Any] | str"
"""A class as a caller names it: its index in the logits, or its label."""


class ClassNames:
    """The labels of K classes. Where a model has none, class 17 is called "class 17".

    Args:
        labels: K labels in the order of the logits, or none.
        count: K.
    """

    def __init__(self, labels: tuple[str, ...], count: int) -> None:
        self.labels = labels or tuple(f"class {index}" for index in range(count))

    def resolve(self, ref: ClassRef) -> int:
        """The index of a class.

        A label is compared exactly, then without regard to case.

        Raises:
            ClassNotFoundError: there is no such class, or several share the label (ImageNet has two 'crane').
            UsageError: `ref` is neither an integer nor a text.
        """
        if not isinstance(ref, str):
            if isinstance(ref, bool) or not isinstance(ref, int | np.integer):
                raise UsageError(f"got {ref!r} as a class; give its index, an integer, or its label")
            index = int(ref)
            if not 0 <= index < len(self.labels):
                raise ClassNotFoundError(
                    f"there is no class {index}: this model has {len(self.labels)}, 0 to {len(self.labels) - 1}"
                )
            return index
        found = [index for index, label in enumerate(self.labels) if label == ref]
        found = found or [index for index, label in enumerate(self.labels) if label.casefold() == ref.casefold()]
        if len(found) == 1:
            return found[0]
        if found:
            indices = " or ".join(str(index) for index in found)
            raise ClassNotFoundError(f"{len(found)} classes are called {ref!r}; name one by its index: {indices}")
        raise ClassNotFoundError(f"there is no class called {ref!r}.{self._suggestion(ref)}")

    def resolve_text(self, text: str) -> int:
        """The index of a class that was typed: a label, or else an index.

        A model of digits has labels that look like indices.

        Raises:
            ClassNotFoundError: as in `resolve`.
        """
        try:
            return self.resolve(text)
        except ClassNotFoundError:
            if not re.fullmatch(r"-?\d{1,9}", text.strip()):
                raise
        return self.resolve(int(text))

    def resolve_each(self, refs: Sequence[ClassRef]) -> list[int]:
        """The indices of several classes, in their order; one may be named twice.

        Raises:
            ClassNotFoundError: there is no such class, or several share the label.
            UsageError: `refs` is no list, or one of them is neither an integer nor a text.
        """
        if isinstance(refs, str) or not isinstance(refs, Iterable):
            raise UsageError(f"got {refs!r} as classes; give a list of them: [{refs!r}]")
        return [self.resolve(ref) for ref in refs]

    def _suggestion(self, ref: str) -> str:
        by_folded = {label.casefold(): label for label in self.labels}
        close = get_close_matches(ref.casefold(), by_folded, n=3)
        # A part of a label ('tabby') is nearer to what people mean than difflib's letters.
        containing = [folded for folded in by_folded if ref.strip() and ref.casefold() in folded][:3]
        names = ", ".join(repr(by_folded[folded]) for folded in dict.fromkeys(containing + close))
        if names:
            return f" Did you mean {names}?"
        return f" Labels look like {self.labels[0]!r}; an index from 0 to {len(self.labels) - 1} works too."
