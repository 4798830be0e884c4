"""One table over benchmarks and checkpoints, from the results files that evaluations wrote.

Example:
    python scripts/collect_results.py runs/demo/results runs/ablation/results --format markdown
    python scripts/collect_results.py --compare BEFORE AFTER
"""

from __future__ import annotations

import argparse
import csv
import io
import sys
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from mmpt_plugin.evaluation.bootstrap import paired_differences
from mmpt_plugin.evaluation.results import (
    found_items,
    markdown_table,
    read_results,
    read_sums,
    shown_difference,
    table_rows,
)
from mmpt_plugin.extras import naming_extras
from mmpt_plugin.files import is_hidden

Rows = list[dict[str, str]]


def results_files(outputs: Sequence[Path]) -> list[Path]:
    """The results files among files and in folders (their own level only), each once.

    Raises:
        FileNotFoundError: if a path does not exist or a folder holds none.
    """
    files: dict[Path, None] = {}
    for output in outputs:
        found = [output]
        if output.is_dir():
            found = sorted(file for file in output.glob("*.json") if not is_hidden(file))
        if not found or not all(file.is_file() for file in found):
            raise FileNotFoundError(f"{output}: no results file (<benchmark>.json) there; run scripts/evaluate_*.sh")
        files |= dict.fromkeys(file.resolve() for file in found)
    return list(files)


def checkpoint_name(results: dict[str, Any]) -> str:
    """Path and beginning of the hash of the weights that were evaluated."""
    checkpoint = results["checkpoint"]
    return f"{checkpoint.get('path', '')} ({str(checkpoint.get('sha256', ''))[:8]})"


def collect(all_results: Sequence[dict[str, Any]]) -> Rows:
    """Rows of all results; one benchmark's rows together, a metric's checkpoints below each other."""
    rows = []
    for results in all_results:
        identity = {"checkpoint": checkpoint_name(results), "found": found_items(results["counts"])}
        for order, row in enumerate(table_rows(results)):
            named = {"benchmark": results["benchmark"], "metric": row["metric"], **identity, **row}
            rows.append((results["benchmark"], order, named))
    return [row for _, _, row in sorted(rows, key=lambda entry: entry[:2])]


def compare(files: Sequence[Path]) -> Rows:
    """How far each later checkpoint is above the first one of the same benchmark, with the paired bootstrap 95% interval.

    Raises:
        ValueError: if no benchmark has two results, a scores file is missing, or two were measured on other videos.
    """
    read = sorted(((read_results(file), file) for file in files), key=lambda entry: entry[0]["benchmark"])
    rows = []
    for benchmark, group in groupby(read, key=lambda entry: entry[0]["benchmark"]):
        (first, first_file), *others = sorted(group, key=lambda entry: files.index(entry[1]))
        for other, file in others:
            try:
                differences = paired_differences(read_sums(first_file), read_sums(file))
            except ValueError as error:
                raise ValueError(f"{first_file} and {file}: {error}") from error
            for metric, (difference, low, high) in differences.items():
                rows.append(
                    {
                        "benchmark": benchmark,
                        "metric": metric,
                        "first": checkpoint_name(first),
                        "second": checkpoint_name(other),
                        "second less first": shown_difference(metric, difference),
                        "95% interval": f"{shown_difference(metric, low)} to {shown_difference(metric, high)}",
                    }
                )
    if not rows:
        raise ValueError("nothing to compare: give the results of two checkpoints on one benchmark")
    return rows


def brief(rows: Rows) -> Rows:
    """Only chance, ours and the best possible, and where there are several the checkpoint; no metric of a group."""
    several = len({row["checkpoint"] for row in rows}) > 1
    wanted = ("benchmark", "metric", *(["checkpoint"] if several else []), "chance", "ours", "best possible")
    return [
        {name: row.get(name, "") for name in wanted}
        for row in rows
        if not row["metric"].startswith(("recall_per_task/", "video_to_text/"))
    ]


def format_rows(rows: Rows, style: str) -> str:
    """The rows as "markdown" or "csv"; columns without any content are left out."""
    columns = [c for c in dict.fromkeys(c for row in rows for c in row) if any(row.get(c) for row in rows)]
    filled = [{column: row.get(column, "") for column in columns} for row in rows]
    if style == "markdown":
        return markdown_table(filled, columns) + "\n"
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(filled)
    return text.getvalue()


def main(arguments: list[str] | None = None) -> None:
    """Reads the command line and prints or writes the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("outputs", nargs="+", type=Path, metavar="OUT", help="results folder or results file")
    parser.add_argument("--format", choices=("markdown", "csv"), default="markdown")
    parser.add_argument(
        "--brief", action="store_true", help="only chance, ours and, in a generated world, the best possible"
    )
    parser.add_argument(
        "--compare",
        action="store_true",
        help="instead: how far each later checkpoint is above the first, with paired intervals over videos",
    )
    parser.add_argument("--html", type=Path, metavar="PAGE", help="write the numbers side by side as a page, too")
    parser.add_argument("--output", type=Path, help="write there instead of to the terminal")
    options = parser.parse_args(arguments)
    try:
        files = results_files(options.outputs)
        if options.html:
            with naming_extras("report", "--html"):
                from mmpt_plugin.report.evaluation_pages import write_table_page

            write_table_page(files, options.html)
        rows = compare(files) if options.compare else collect([read_results(file) for file in files])
        table = format_rows(brief(rows) if options.brief and not options.compare else rows, options.format)
    except (FileNotFoundError, ValueError) as error:
        parser.exit(1, f"{parser.prog}: {error}\n")
    if options.output:
        options.output.write_text(table, encoding="utf-8")
    else:
        sys.stdout.write(table)


if __name__ == "__main__":
    main()
