#!/usr/bin/env python
"""One table over benchmarks and checkpoints, from the results files that evaluations wrote.

Example:
    python scripts/collect_results.py runs/demo/results runs/ablation/results --format markdown
"""

from __future__ import annotations

import argparse
import csv
import io
import sys
from pathlib import Path
from typing import Any

from mmpt_plugin.evaluation.report import markdown_table, read_results, table_rows


def results_files(outputs: list[Path]) -> list[Path]:
    """The results files among files and in folders (their own level only), each once.

    Raises:
        FileNotFoundError: if a path does not exist or a folder holds none.
    """
    files: dict[Path, None] = {}
    for output in outputs:
        found = sorted(output.glob("*.json")) if output.is_dir() else [output]
        if not found or not all(file.is_file() for file in found):
            raise FileNotFoundError(f"{output}: no results file (<benchmark>.json) there; run scripts/evaluate_*.sh")
        files |= dict.fromkeys(file.resolve() for file in found)
    return list(files)


def collect(all_results: list[dict[str, Any]]) -> list[dict[str, str]]:
    """Rows of all results; one benchmark's rows together, a metric's checkpoints below each other."""
    rows = []
    for results in all_results:
        counts, checkpoint = results["counts"], results["checkpoint"]
        for order, row in enumerate(table_rows(results)):
            identity = {
                "benchmark": results["benchmark"],
                "metric": row["metric"],
                "checkpoint": f"{checkpoint.get('path', '')} ({str(checkpoint.get('sha256', ''))[:8]})",
                "found": f"{counts['found']} of {counts['expected']}",
            }
            rows.append((results["benchmark"], order, identity | row))
    return [row for _, _, row in sorted(rows, key=lambda entry: entry[:2])]


def brief(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """Only chance, ours and the best possible; of a metric by group (a task of CrossTask) only the whole."""
    wanted = ("benchmark", "metric", "chance", "ours", "best possible")
    return [
        {name: row.get(name, "") for name in wanted} for row in rows if not row["metric"].startswith("recall_per_task/")
    ]


def format_rows(rows: list[dict[str, str]], style: str) -> str:
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
    parser.add_argument("--output", type=Path, help="write there instead of to the terminal")
    options = parser.parse_args(arguments)
    try:
        rows = collect([read_results(file) for file in results_files(options.outputs)])
        table = format_rows(brief(rows) if options.brief else rows, options.format)
    except (FileNotFoundError, ValueError) as error:
        parser.exit(1, f"{parser.prog}: {error}\n")
    if options.output:
        options.output.write_text(table, encoding="utf-8")
    else:
        sys.stdout.write(table)


if __name__ == "__main__":
    main()
