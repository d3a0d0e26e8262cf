"""Which logit belongs to which class folder."""

from __future__ import annotations

from collections.abc import Sequence

from gapcam.errors import UsageError
from gapcam_export.labels import imagenet_labels


def class_order(folders: Sequence[str], labels: Sequence[str], classes: int, notes: list[str]) -> tuple[str, ...]:
    """The folders' names in the order of the logits.

    Where the network has labels and the folders are called like them, each folder goes to its label; a network of 1000
    classes without labels has ImageNet-1k's. Else they are taken in sorted order, as torchvision's ImageFolder does,
    which is ImageNet's order for its WordNet numbers (n01440764, ...), too.

    Args:
        folders: names, sorted.
        labels: that the network has on record, or none.
        classes: K, how many logits it gives.
        notes: gets what the user should know.

    Raises:
        UsageError: there are more or fewer folders than logits.
    """
    if len(folders) != classes:
        raise UsageError(
            f"the data has {len(folders)} classes, the network {classes}. Give it as many with: gapcam gap SOURCE "
            f"--classes {len(folders)}"
        )
    # What `gapcam export` calls the 1000 classes of a network without labels.
    known = labels or (imagenet_labels() if classes == 1000 else ())
    if set(folders) == set(known):
        return tuple(known)
    if labels:
        notes.append(
            f"the folders are not called like the network's labels ({labels[0]!r}, ...): they were taken in sorted "
            "order and are its labels from now on"
        )
    else:
        notes.append("the network has no labels: the class folders were taken in sorted order, as ImageFolder does")
    if all(name.isdecimal() for name in folders) and sorted(folders, key=int) != list(folders):
        notes.append(f"sorted as text: {folders[0]}, {folders[1]}, {folders[2]}, ...; zeros in front would change that")
    return tuple(folders)
