"""Pages of evaluations and of training runs, from what they left: one HTML file that needs nothing else.

Examples:
    python scripts/report.py runs/demo/results/coin.json                     # writes runs/demo/results/coin.html
    python scripts/report.py runs/demo/results runs/other/results --output compare.html
    python scripts/report.py runs/demo                                       # the training run's report.html
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mmpt_plugin.extras import naming_extras
from mmpt_plugin.report.collect import results_files
from mmpt_plugin.report.parts import no_pictures
from mmpt_plugin.report.run_log import LOG_FILE


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
        MissingExtra: if what draws pages is not installed.
        ValueError: for files that are no results or do not fit each other.
    """
    with naming_extras("report", "a page"):  # imported here, for --help does not wait for them
        from mmpt_plugin.report.evaluation_pages import write_evaluation_page
        from mmpt_plugin.report.training import write_training_page

    runs = [path for path in inputs if (path / LOG_FILE).is_file()]
    inputs = [path for path in inputs if path not in runs]
    if runs and output is not None:
        raise ValueError("--output takes results; a training run's page is always its report.html")
    pages = [write_training_page(run) for run in runs]
    if not inputs:
        return pages
    from mmpt_plugin.report.frames import pictures_from  # with torch, for which --help does not wait

    pictures = pictures_from(videos) if videos else no_pictures
    files = results_files(inputs)
    if output is not None:
        return [*pages, write_evaluation_page(files, output, pictures)]
    return [*pages, *(write_evaluation_page([file], None, pictures) for file in files)]


def main(arguments: list[str] | None = None) -> None:
    """Reads the command line and writes the pages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "inputs",
        nargs="+",
        type=Path,
        metavar="RESULTS",
        help="results file, results folder or a training run's folder",
    )
    parser.add_argument("--output", type=Path, help="one page about all results; default: a page beside each")
    parser.add_argument(
        "--videos",
        type=Path,
        metavar="DIR",
        help="folder of <video>.<ending>, or library of mmpt-search, to take small pictures from",
    )
    options = parser.parse_args(arguments)
    try:
        for page in make_pages(options.inputs, options.output, options.videos):
            sys.stdout.write(f"{page}\n")
    except (OSError, ValueError) as error:
        parser.exit(1, f"{parser.prog}: {error}\n")
