"""The view that a request's query asks for."""

from __future__ import annotations

import re
from typing import Annotated, cast

from fastapi import Depends, Query, Request

from gapcam.camera.page.page_state import PageState
from gapcam.camera.page.view import View

SourceQuery = Annotated[str | None, Query(description="the source's name; by default the first", max_length=200)]


async def _asked_view(
    request: Request,
    source: SourceQuery = None,
    target: Annotated[
        str | None,
        Query(alias="class", description="index or label; by default the class that is shown", max_length=200),
    ] = None,
    map_: Annotated[bool, Query(alias="map", description="whether the map is drawn")] = True,
    boxes: Annotated[bool, Query(description="whether boxes are drawn")] = True,
    threshold: Annotated[float | None, Query(description="of the boxes, in [0, 1)")] = None,
    alpha: Annotated[float | None, Query(description="of the map, in [0, 1]")] = None,
    colormap: Annotated[str | None, Query(description="see /api/settings", max_length=80)] = None,
    max_width: Annotated[int | None, Query(description="of the picture in pixels")] = None,
) -> View:
    """The view of the whole query.

    Raises:
        GapcamError: a value is out of its range.
    """
    return view_of(
        cast(PageState, request.app.state.page),
        source=source,
        target=target,
        map=map_,
        boxes=boxes,
        threshold=threshold,
        alpha=alpha,
        colormap=colormap,
        max_width=max_width,
    )


AskedView = Annotated[View, Depends(_asked_view)]
"""As a parameter of a request: its query's parts, and the view that they make."""


def view_of(state: PageState, **wishes: object) -> View:
    """A view of the wishes that are not None.

    Raises:
        GapcamError: one of them is out of its range.
    """
    named: dict[str, object] = {name: value for name, value in wishes.items() if value is not None}
    target = named.pop("target", None)
    if isinstance(target, str):
        named["class"] = int(target) if re.fullmatch(r"[0-9]{1,9}", target) else target
    return state.first_view.changed(named, state.sources, state.pipeline.session.classes)
