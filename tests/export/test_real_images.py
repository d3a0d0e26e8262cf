"""ImageNet's own weights on ImageNet's own images, where they are at hand: labels, and boxes against people's boxes."""

from __future__ import annotations

import csv
from collections import defaultdict
from pathlib import Path

import gapcam

# Every fifth of the images that may be used for figures: enough to notice what is wrong, few enough for a test.
EVERY = 5


def overlap(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    """Intersection over union of two boxes x0, y0, x1, y1."""
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    areas = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return width * height / (areas - width * height)


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_labels_and_boxes_on_imagenet_are_those_of_a_working_network(demo_model: Path, data: Path) -> None:
    boxes = defaultdict(list)
    for row in table(data / "boxes.csv"):
        boxes[row["file"]].append(tuple(float(row[side]) for side in ("x0", "y0", "x1", "y1")))
    rows = [row for row in table(data / "labels.csv") if row["split"] == "check"][::EVERY]
    right, located = [], []
    with gapcam.load(demo_model) as session:
        for row in rows:
            index = int(row["class_index"])
            result = session(gapcam.read_image(data / row["file"]))
            right.append(result.top[0].index == index)
            found = result.boxes(index)
            located.append(any(overlap(tuple(found[0]), box) >= 0.5 for box in boxes[row["file"]]))
    assert len(right) >= 60
    # A separate script on the set these are from gave 0.82 and 0.65; a box around each whole image gives 0.48.
    assert sum(right) / len(right) > 0.72
    assert sum(located) / len(located) > 0.54
