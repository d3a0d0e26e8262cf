"""Colours that colour-blind people tell apart, for light and for dark pages.

The light ones are Paul Tol's scheme "muted" (Colour Schemes, SRON 2021), the dark ones the same hues as bright as
a dark ground asks for. A plot is drawn with the light ones, and each becomes a variable of the page's style sheet.
"""

from __future__ import annotations

TEXT, QUIET, LINE, GROUND = "#1d1f23", "#5c636d", "#d8dce2", "#ffffff"
SHADE, OTHER_SHADE = "#eef0f4", "#dfe3ea"

VARIABLES = {
    TEXT: ("text", "#e7e9ed"),
    QUIET: ("quiet", "#9ba3af"),
    LINE: ("line", "#343a43"),
    GROUND: ("ground", "#14161a"),
    SHADE: ("shade", "#1e222a"),
    OTHER_SHADE: ("shade-2", "#2a303a"),
    "#332288": ("indigo", "#8f86e8"),
    "#88ccee": ("cyan", "#88ccee"),
    "#44aa99": ("teal", "#3fa796"),
    "#117733": ("green", "#3fae62"),
    "#999933": ("olive", "#a9a93a"),
    "#ddcc77": ("sand", "#ddcc77"),
    "#cc6677": ("rose", "#d9758a"),
    "#882255": ("wine", "#c2508a"),
    "#aa4499": ("purple", "#c36bb4"),
    "#8b929d": ("grey", "#79818d"),
}
"""By the colour on a light page: the variable's name, and the colour on a dark page."""

SERIES = ("#332288", "#cc6677", "#117733", "#aa4499", "#44aa99", "#999933")
"""Of lines in one plot, in this order; each has its own dashes, too."""
DASHES = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)), (0, (9, 3)), (0, (3, 1, 1, 1, 1, 1)))

STAGES = {
    "decode": "#88ccee",
    "preprocess": "#332288",
    "host-to-device": "#ddcc77",
    "inference": "#117733",
    "cam": "#cc6677",
    "overlay": "#44aa99",
    "boxes": "#882255",
    "device-to-host": "#999933",
    "unexplained": "#8b929d",
}


def variables(*, dark: bool) -> str:
    """The style sheet's declarations."""
    return " ".join(f"--{name}: {other if dark else light};" for light, (name, other) in VARIABLES.items())
