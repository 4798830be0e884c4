"""What `scripts/report.py` does: finds results and runs among its arguments and writes their pages."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mmpt_plugin.report.collect import results_files
from mmpt_plugin.report.evaluation_pages import write_evaluation_page
from mmpt_plugin.report.frames import VideoFolder
from mmpt_plugin.report.parts import no_pictures
from mmpt_plugin.report.run_log import LOG_FILE
from mmpt_plugin.report.training import write_training_page


def make_pages(inputs: Sequence[Path], output: Path | None = None, videos: Path | None = None) -> list[Path]:
    """Writes the pages.

    Args:
        inputs: results files, folders of them, folders of training runs.
        output: one page about all results; else a page beside each.
        videos: folder of videos to take pictures from.

    Returns:
        The pages, in order.

    Raises:
        FileNotFoundError: if nothing is found.
        ValueError: for files that are no results or do not fit each other.
    """
    runs = [path for path in inputs if (path / LOG_FILE).is_file()]
    inputs = [path for path in inputs if path not in runs]
    if runs and output is not None:
        raise ValueError("--output takes results; a training run's page is always its report.html")
    pages = [write_training_page(run) for run in runs]
    if not inputs:
        return pages
    pictures = VideoFolder(videos) if videos else no_pictures
    files = results_files(inputs)
    if output is not None:
        return [*pages, write_evaluation_page(files, output, pictures)]
    return [*pages, *(write_evaluation_page([file], None, pictures) for file in files)]
