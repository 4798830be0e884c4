#!/usr/bin/env python
"""Pages of evaluations and of training runs, from what they left: one HTML file that needs nothing else.

Examples:
    python scripts/report.py runs/demo/results/coin.json                     # writes runs/demo/results/coin.html
    python scripts/report.py runs/demo/results runs/other/results --output compare.html
    python scripts/report.py runs/demo                                       # the training run's report.html
"""

from __future__ import annotations

import argparse
from pathlib import Path

from mmpt_plugin.report.command import make_pages


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
        "--videos", type=Path, metavar="DIR", help="folder of <video>.<ending> to take small pictures from"
    )
    options = parser.parse_args(arguments)
    try:
        for page in make_pages(options.inputs, options.output, options.videos):
            print(page)
    except (OSError, ValueError) as error:
        parser.exit(1, f"{parser.prog}: {error}\n")


if __name__ == "__main__":
    main()
