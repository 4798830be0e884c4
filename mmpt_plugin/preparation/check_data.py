"""Check a data folder: what is there, what is missing, what is broken, what to run next.

For HowTo100M, the seven benchmarks, and csv/ and hirest/ where these are there: the official files, expected and found counts,
missing features. Annotation files are read as the evaluation reads them; of features the headers are read, with --full every
value and every checksum. What only fine-tuning needs is told as well, but breaks nothing and is no part of "complete".

Exit code: 0 all that is there is sound (much may be missing), 1 something that is there is broken.

Example:
    mmpt-check data/
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmpt_plugin.preparation.folder_check import Report


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="DIR", help="the data folder, task.data")
    parser.add_argument("--full", action="store_true", help="read all features and compare all checksums")
    parser.add_argument("--all", action="store_true", help="show all missing videos, not only the first five")
    parser.add_argument(
        "--drop-suffix", action="store_true", help="features are named <video id>.mp4.npy (or .webm, .mkv, ...)"
    )
    return parser


def print_report(report: Report) -> None:
    """A report on the terminal."""
    print(f"{report.name}: {report.state}")
    if report.state != "absent":
        for mark, lines in (("", report.facts), ("missing: ", report.missing), ("broken: ", report.broken)):
            for line in lines:
                print(f"    {mark}{line}")
    for step in [] if report.broken else report.next_steps:
        print(f"    next: {step}")


def main(argv: Sequence[str] | None = None) -> int:
    """Checks and prints; returns the exit code."""
    parser = make_parser()
    options = parser.parse_args(argv)
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.ERROR)
    if not options.data.is_dir():
        parser.exit(1, f"{parser.prog}: {options.data}: no such folder\n")
    from mmpt_plugin.preparation.folder_check import check_folder  # --help does not wait for it

    reports = check_folder(
        options.data, full=options.full, show=sys.maxsize if options.all else 5, drop_suffix=options.drop_suffix
    )
    for report in reports:
        print_report(report)
    return int(any(report.broken for report in reports))
