"""What `scripts/report.py` does: finds results and runs among its arguments and writes their pages."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mmpt_plugin.report.collect import results_files
from mmpt_plugin.report.evaluation_pages import write_evaluation_page
from mmpt_plugin.report.frames import VideoFolder
from mmpt_plugin.report.parts import no_pictures


def make_pages(inputs: Sequence[Path], output: Path | None = None, videos: Path | None = None) -> list[Path]:
    """Writes the pages.

    Args:
        inputs: results files, folders of them.
        output: one page about all results; else a page beside each.
        videos: folder of videos to take pictures from.

    Returns:
        The pages, in order.

    Raises:
        FileNotFoundError: if nothing is found.
        ValueError: for files that are no results or do not fit each other.
    """
    pictures = VideoFolder(videos) if videos else no_pictures
    files = results_files(inputs)
    if output is not None:
        return [write_evaluation_page(files, output, pictures)]
    return [write_evaluation_page([file], None, pictures) for file in files]
