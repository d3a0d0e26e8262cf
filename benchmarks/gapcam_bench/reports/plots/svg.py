"""A figure of matplotlib as SVG inside a page: its colours are the page's, its text is text, nothing is fetched.

matplotlib writes a style attribute at each shape, which a page with a strict policy forbids. So every style becomes a
class of the page's one style sheet, and a colour of the palette a variable there.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from gapcam.cli.printable import printable
from gapcam_bench.reports.plots.palette import LINE, QUIET, TEXT, VARIABLES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SVG, _LINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}href"
_NO_XML = re.compile("[\ud800-\udfff\ufffe\uffff]")
_REFERENCE = re.compile(r"url\(#([^)]+)\)")
_COLOUR = re.compile(r"#[0-9a-f]{6}\b")
_FONT = re.compile(r"font: ([\d.]+)px [^;]*")
_NUMBER = re.compile(r"-?\d+\.\d{2,}")


class StyleSheet:
    """The classes of all plots of a page: one for each distinct style."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}

    def class_of(self, style: str) -> str:
        """The class of a style attribute; a new one is noted."""
        style = _FONT.sub(r"font-size: \1px", style)
        style = _COLOUR.sub(lambda colour: _variable(colour[0]), style)
        return self._names.setdefault(style, f"p{len(self._names)}")

    def text(self) -> str:
        """The rules."""
        return "\n".join(f".{name} {{ {style} }}" for style, name in self._names.items())


@contextmanager
def plot_style(font_size: float) -> Iterator[None]:
    """Draw with the page's colours, and without what matplotlib's user has set."""
    import matplotlib as mpl

    settings = {
        "axes.axisbelow": True,
        "axes.edgecolor": LINE,
        "axes.facecolor": "none",
        "axes.grid": True,
        "axes.labelcolor": QUIET,
        "axes.linewidth": 0.8,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "axes.titlecolor": TEXT,
        "axes.titlelocation": "left",
        "axes.titlesize": font_size,
        "figure.facecolor": "none",
        "font.size": font_size,
        "grid.color": LINE,
        "grid.linewidth": 0.6,
        "hatch.linewidth": 0.8,
        "legend.fontsize": font_size,
        "legend.frameon": False,
        "legend.labelcolor": QUIET,
        "savefig.facecolor": "none",
        "svg.fonttype": "none",
        "svg.hashsalt": "gapcam",
        "text.color": TEXT,
        "text.parse_math": False,  # a file's name may have dollars
        "xtick.color": QUIET,
        "xtick.labelsize": font_size,
        "ytick.color": QUIET,
        "ytick.labelsize": font_size,
    }
    with mpl.rc_context(), warnings.catch_warnings():
        # matplotlib's own font may lack a name's letters; the page's reader has others
        warnings.filterwarnings("ignore", message="Glyph .* missing from font", category=UserWarning)
        mpl.rcdefaults()
        mpl.rcParams.update(settings)
        yield


def plottable(text: str) -> str:
    """Text that a terminal and XML can hold."""
    return _NO_XML.sub("\ufffd", printable(text))


def svg_of(figure: Figure, name: str, title: str, sheet: StyleSheet, tips: Mapping[str, str], css_class: str) -> str:
    """A figure as an <svg> element.

    Args:
        figure: drawn within `plot_style`.
        name: that makes its identifiers unique in the page.
        title: what it shows, for those who do not see it.
        sheet: takes its styles.
        tips: what a shape says of itself when it is pointed at, by the shape's gid.
        css_class: of the element.
    """
    written = io.StringIO()
    figure.savefig(written, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    root = ElementTree.fromstring(written.getvalue())  # noqa: S314 - matplotlib's own
    _drop(root, {f"{_SVG}metadata", f"{_SVG}style"})
    wanted = {reference for element in root.iter() for reference in _references(element)}
    for element in list(root.iter()):
        _clean(element, name, wanted, sheet, tips)
    box = root.get("viewBox", "")
    root.attrib.clear()
    root.attrib.update({"class": css_class, "viewBox": box, "role": "img", "aria-labelledby": f"{name}-title"})
    heading = ElementTree.Element("title", {"id": f"{name}-title"})
    heading.text = title
    root.insert(0, heading)
    return ElementTree.tostring(root, encoding="unicode", short_empty_elements=True)


def _variable(colour: str) -> str:
    found = VARIABLES.get(colour)
    return colour if found is None else f"var(--{found[0]})"


def _drop(root: ElementTree.Element, tags: set[str]) -> None:
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in tags:
                parent.remove(child)


def _references(element: ElementTree.Element) -> Iterator[str]:
    if _LINK in element.attrib:
        yield element.attrib[_LINK].removeprefix("#")
    for value in element.attrib.values():
        yield from _REFERENCE.findall(value)


def _clean(
    element: ElementTree.Element, name: str, wanted: set[str], sheet: StyleSheet, tips: Mapping[str, str]
) -> None:
    element.tag = element.tag.removeprefix(_SVG)
    if element.text is not None and element.tag != "text" and not element.text.strip():
        element.text = None
    element.tail = None if element.tag != "tspan" else element.tail
    own: dict[str, Any] = {}
    for key, value in element.attrib.items():
        if key == "id":
            if value in tips:
                tip = ElementTree.Element("title")
                tip.text = tips[value]
                element.insert(0, tip)
            if value in wanted:
                own["id"] = f"{name}-{value}"
        elif key == "style":
            inner = _REFERENCE.search(value)
            if inner is not None:  # a pattern to fill with: its identifier is this plot's own
                own["fill"] = f"url(#{name}-{inner[1]})"
                value = re.sub(r"fill: url\([^)]*\);? ?", "", value)
            own["class"] = sheet.class_of(value)
        elif key == _LINK:
            own["href"] = f"#{name}-{value.removeprefix('#')}"
        elif key in ("d", "transform", "points", "x", "y"):
            own[key] = " ".join(_NUMBER.sub(_rounded, value).split())
        else:
            own[key] = _REFERENCE.sub(lambda found: f"url(#{name}-{found[1]})", value)
    element.attrib.clear()
    element.attrib.update(own)


def _rounded(number: re.Match[str]) -> str:
    return f"{float(number[0]):.2f}".rstrip("0").rstrip(".")
