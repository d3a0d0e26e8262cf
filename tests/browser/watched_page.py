"""What tests ask of a page: the picture that it shows, and when it shows what."""

from __future__ import annotations

import base64
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from playwright.sync_api import Page

WAIT_MS = 15_000

# Whatever a page must not do is an error on its console.
REPORT_VIOLATIONS = """addEventListener("securitypolicyviolation", (event) =>
    console.error(`CSP: ${event.violatedDirective} ${event.blockedURI} ${event.sourceFile}:${event.lineNumber}`));"""


def shown_number(page: Page) -> int:
    """The number of the frame on the canvas; -1 before the first."""
    return int(page.evaluate("Number(document.getElementById('picture')?.dataset.number ?? -1)"))


def wait_for_frames(page: Page, count: int = 1) -> None:
    """Until so many numbers further on."""
    page.wait_for_function(
        "least => Number(document.getElementById('picture')?.dataset.number ?? -1) >= least",
        arg=shown_number(page) + count,
        timeout=WAIT_MS,
    )


def shown_picture(page: Page, canvas: str = "picture") -> NDArray[np.uint8]:
    """What a canvas holds: H x W x 3 uint8 BGR."""
    url: str = page.evaluate("id => document.getElementById(id).toDataURL('image/png')", canvas)
    data = np.frombuffer(base64.b64decode(url.split(",", 1)[1]), np.uint8)
    picture = cv2.imdecode(data, cv2.IMREAD_COLOR)
    assert picture is not None
    return picture  # type: ignore[return-value]


def difference(one: NDArray[Any], other: NDArray[Any]) -> float:
    """The mean absolute difference of two pictures, in levels of 255; the second is brought to the first's size."""
    if one.shape != other.shape:
        other = cv2.resize(other, one.shape[1::-1], interpolation=cv2.INTER_AREA)
    return float(np.abs(one.astype(np.float32) - other.astype(np.float32)).mean())


def wait_until_drawn(page: Page, more: int) -> None:
    """Until the page has drawn so many pictures more."""
    page.wait_for_function("wanted => window.drawn >= wanted", arg=drawn(page) + more, timeout=WAIT_MS)


def drawn(page: Page) -> int:
    """How many pictures the page has drawn since it was opened."""
    return int(page.evaluate("window.drawn ?? 0"))


# Counts what is drawn on the canvas, from outside of the page's own code.
COUNT_DRAWN = """{
    const draw = CanvasRenderingContext2D.prototype.drawImage;
    CanvasRenderingContext2D.prototype.drawImage = function (...what) {
        window.drawn = (window.drawn ?? 0) + 1;
        return draw.apply(this, what);
    };
}"""
