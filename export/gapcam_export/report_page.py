"""Reports as one self-contained page: a template, its style sheet, and a policy that allows nothing else."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from typing import Any

from gapcam.errors import MissingExtraError

try:
    import jinja2
except ModuleNotFoundError as missing:
    raise MissingExtraError("jinja2", "export") from missing


def report_page(template: str, style: str, *, finalize: Callable[[Any], Any] | None = None, **values: object) -> str:
    """The page.

    All text that comes from elsewhere is escaped.

    Args:
        template: Jinja's; it has `style` in its style element, and `style_hash` in its content security policy.
        style: the style sheet.
        finalize: is applied to every value that the template shows.
        values: what the template shows.
    """
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=finalize
    )
    style_hash = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return environment.from_string(template).render(style=style, style_hash=style_hash, **values)
