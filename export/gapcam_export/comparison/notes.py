"""What a reader of a comparison should know of the two models."""

from __future__ import annotations

from collections.abc import Sequence

import gapcam
from gapcam_export.comparison.comparison import Comparison

_GEOMETRY = ("size", "resize", "crop_pct", "pad")


def notes_on(
    reference: gapcam.Session, other: gapcam.Session, names: Sequence[str], comparison: Comparison
) -> tuple[str, ...]:
    """What makes the figures mean something else than between a model and its copy of lower precision.

    Args:
        reference: the model that the other one is held to.
        other: the other one.
        names: what the two are called.
        comparison: of the two.
    """
    maps = _maps((reference, other), names, comparison)
    return (*_labels(reference, other), *_views(reference, other), *maps)


def _labels(reference: gapcam.Session, other: gapcam.Session) -> list[str]:
    one, two = reference.contract.labels, other.contract.labels
    if not (one and two) or one == two:
        return []
    different = [index for index in range(len(one)) if one[index] != two[index]]
    first = different[0]
    return [
        f"the labels of {len(different)} of {len(one)} classes differ (class {first} is {one[first]!r} and "
        f"{two[first]!r}); classes are compared by their number"
    ]


def _views(reference: gapcam.Session, other: gapcam.Session) -> list[str]:
    one, two = reference.contract.preprocessing, other.contract.preprocessing
    notes = []
    different = [name for name in _GEOMETRY if getattr(one, name) != getattr(two, name)]
    if different or reference.map_size != other.map_size:
        settings = ", ".join(f"{name} {getattr(one, name)} and {getattr(two, name)}" for name in different)
        grids = "maps of {} x {} and {} x {} cells".format(*reference.map_size, *other.map_size)
        notes.append(
            f"the models see an image differently ({settings or grids}); maps are compared at the pixels of the first "
            "model's input that show what both see"
        )
    values = [name for name in ("interpolation", "color", "mean", "std") if getattr(one, name) != getattr(two, name)]
    if values:
        notes.append(f"the models' preprocessing differs in {', '.join(values)}")
    return notes


def _maps(sessions: Sequence[gapcam.Session], names: Sequence[str], comparison: Comparison) -> list[str]:
    notes = []
    inexact = [name for session, name in zip(sessions, names, strict=True) if not session.exact]
    if inexact:
        heads = "their heads are" if len(inexact) == 2 else "its head is"
        notes.append(f"the maps of {' and '.join(inexact)} are not exact: {heads} nonlinear")
    notes += (
        f"{name} is not right on {session.engine}: logits differ from mean(map) + bias by {session.identity_error:.2g} "
        f"of the greatest of them; at most {session.identity_tolerance:.2g} was expected. Its maps are not what its "
        "logits are made of"
        for session, name in zip(sessions, names, strict=True)
        if not session.identity_error <= session.identity_tolerance  # NaN, too
    )
    if comparison.images_without_map:
        notes.append(
            f"on {comparison.images_without_map} of {len(comparison.rows)} images the models do not both have a map of "
            "the class that the first finds best; these count for the classes alone"
        )
    return notes
