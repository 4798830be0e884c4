"""From the parts of a page to one HTML file that needs nothing else: no network, no further file."""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Callable
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import vl_convert
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from mmpt_plugin.files import write_whole
from mmpt_plugin.report.parts import Detail, Page

logger = logging.getLogger(__name__)

TEMPLATES = Path(__file__).with_name("templates")
COLOURS = 128  # of a PNG picture
LIMIT = 5_000_000  # bytes: what mail servers and reviewers' tools take


def render(page: Page) -> str:
    """The page as HTML. All text is escaped by the template, that inside of scripts too."""
    return _environment().get_template("page.html.j2").render(page=page)


def render_within(build: Callable[[Detail], Page], limit: int = LIMIT) -> str:
    """The page in as much detail as fits.

    Args:
        build: makes the page with so much detail.
        limit: bytes.

    Raises:
        ValueError: if even the least detail is too large.
    """
    detail, left_out = Detail(), False
    while True:
        page = build(detail)
        if left_out:
            remark = f"Some pictures or examples are left out, so that this page stays below {limit / 1e6:.0f} MB."
            page = Page(page.title, page.sections, [*page.remarks, remark], page.facts)
        text = render(page)
        if len(text.encode()) <= limit:
            return text
        if detail.least:
            raise ValueError(
                f"the page has {len(text.encode())} bytes, allowed are {limit}: show fewer results on one page"
            )
        detail, left_out = detail.smaller(), True


def write_page(path: Path, text: str) -> Path:
    """Writes the page: where it stands, it is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_whole(path, text=True) as file:
        file.write(text)
    return path


@cache
def drawing_script() -> str:
    """Vega, Vega-Lite and Vega-Embed in one script of 0.9 MB; kept in the user's cache, since it takes seconds to make."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mmpt_plugin"
    kept = folder / f"vega-{version('vl-convert-python')}.js"
    try:
        return kept.read_text(encoding="utf-8")
    except (OSError, ValueError):
        script = vl_convert.javascript_bundle()  # type: ignore[call-arg]  # its stub knows no default
    try:
        write_page(kept, script)
    except OSError as error:  # a page does not need the cache
        logger.debug(f"the drawing script is not kept in {folder}: {error}")
    return script


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False, "separators": (",", ":"), "ensure_ascii": False}
    environment.globals["own_file"] = lambda name: Markup((TEMPLATES / name).read_text(encoding="utf-8"))
    environment.globals["drawing_script"] = lambda: Markup(drawing_script().replace("</script", "<\\/script"))
    return environment


def picture(spec: dict[str, Any], path: Path, *, width: int = 760, title: str = "") -> Path:
    """One chart as a PNG file, for a README; drawn without a browser."""
    # the same look as on a light page
    config = {"background": "white", "view": {"stroke": None}, "font": "sans-serif", "axis": {"gridColor": "#e6e8eb"}}
    whole = spec | {"width": width, "config": config} | ({"title": title} if title else {})
    path.parent.mkdir(parents=True, exist_ok=True)
    drawn = Image.open(io.BytesIO(vl_convert.vegalite_to_png(whole, scale=2)))
    drawn.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)  # a tenth of the size
    return path
