"""Whether an evaluation gets a page, and where its pictures come from."""

from __future__ import annotations

import logging
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

logger = logging.getLogger(__name__)

PAGE_LIBRARIES = ("altair", "vl_convert", "jinja2")


def missing_page_libraries() -> list[str]:
    """Which of the libraries that pages need are not installed."""
    return [name for name in PAGE_LIBRARIES if find_spec(name) is None]


def page_pictures(report: bool, videos: str | None) -> Callable[[str, float], str | None] | None:
    """Where the pictures of a page come from; None where no page is to be written.

    Raises:
        NotADirectoryError: if there is no such folder of videos.
    """
    if not report:
        return None
    if missing := missing_page_libraries():
        logger.warning(
            f"no page will be written: {', '.join(missing)} is not installed. Install with pip install "
            "'mmpt_plugin[report]' and run scripts/report.py on the results, or set task.report=false"
        )
        return None
    from mmpt_plugin.report.frames import pictures_from
    from mmpt_plugin.report.parts import no_pictures

    return pictures_from(Path(videos)) if videos else no_pictures
