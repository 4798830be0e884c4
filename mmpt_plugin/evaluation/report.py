"""The results file of an evaluation and the table that shows it."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate

from mmpt_plugin.evaluation.benchmark import Benchmark, Evaluation, Scores

NOT_FRACTIONS = ("median_rank",)  # shown as they are, everything else in percent


def results_json(
    benchmark: Benchmark, evaluation: Evaluation, *, checkpoint: Mapping[str, Any], config: Mapping[str, Any]
) -> dict[str, Any]:
    """The results of one evaluation as plain JSON types (docs/data.md).

    Args:
        benchmark: what was evaluated; gives name, the paper's numbers and the counts.
        evaluation: its numbers.
        checkpoint: `path` and `sha256` of the weights.
        config: the settings of the run, JSON types only.

    Returns:
        `benchmark`, `metrics`, `baselines`, `original`, `paper`, `counts`, `intervals`, `checkpoint`, `config`;
        undefined numbers (NaN) are None.
    """
    return _plain(
        {
            "benchmark": benchmark.name,
            "metrics": evaluation.metrics,
            "baselines": evaluation.baselines,
            "original": evaluation.original,
            "paper": benchmark.paper,
            "counts": {
                "expected": benchmark.expected,
                "found": benchmark.found,
                "missing": benchmark.missing,
                "queries": evaluation.queries,
            },
            "intervals": evaluation.intervals,
            "checkpoint": checkpoint,
            "config": config,
        }
    )


def write_results(folder: Path, name: str, results: Mapping[str, Any], scores: Scores) -> Path:
    """Writes `<name>_scores.npz` and `<name>.json`, each whole or not at all.

    Both are written aside first; the JSON file is renamed last, so where it stands the scores beside it are its own.

    Args:
        folder: made if it does not exist.
        name: the benchmark.
        results: as from `results_json`.
        scores: arrays of any shape, of numbers or text.

    Returns:
        The JSON file's path.

    Raises:
        ValueError: if an array holds Python objects (it would have to be pickled).
        OSError: if the folder cannot be made or written.
    """
    objects = [key for key, array in scores.items() if np.asarray(array).dtype.hasobject]
    if objects:
        raise ValueError(f"scores {objects} hold Python objects; save arrays of numbers or text")
    text = json.dumps(results, indent=1, allow_nan=False, ensure_ascii=False) + "\n"
    folder.mkdir(parents=True, exist_ok=True)
    targets = folder / f"{name}_scores.npz", folder / f"{name}.json"
    aside = [target.with_name(f"{target.name}.partial") for target in targets]
    try:
        with aside[0].open("wb") as file:
            np.savez(file, allow_pickle=False, **scores)
        aside[1].write_text(text, encoding="utf-8")
        targets[1].unlink(missing_ok=True)  # never an old result beside new scores
        for written, target in zip(aside, targets, strict=True):
            os.replace(written, target)
    finally:
        for path in aside:
            path.unlink(missing_ok=True)
    return targets[1]


def read_results(path: Path) -> dict[str, Any]:
    """Reads a file that `write_results` wrote.

    Raises:
        ValueError: if it is no JSON or has not the parts of a results file.
    """
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not a results file: {error}") from error
    needed = {"benchmark", "metrics", "baselines", "paper", "counts", "checkpoint"}
    if not isinstance(results, dict) or not needed <= results.keys():
        raise ValueError(f"{path} is not a results file: it needs the keys {sorted(needed)}")
    return results


def table_rows(results: Mapping[str, Any]) -> list[dict[str, str]]:
    """One row per metric: `metric`, `ours`, `95% interval`, `paper`, `original's rule`, then each baseline.

    Fractions are shown in percent, ranks as they are, unknown numbers as "". Metrics of a nested group read
    "group/metric". Baselines keep their names (`_` as a space); `chance` and `best possible` stand last.
    """
    columns = {
        "ours": _flat(results["metrics"]),
        "95% interval": _flat(results.get("intervals", {})),
        "paper": _flat(results["paper"]),
        "original's rule": _flat(results.get("original", {})),
    }
    last = ("chance", "best_possible")
    names = [name for name in results["baselines"] if name not in last]
    names += [name for name in last if name in results["baselines"]]
    columns |= {name.replace("_", " "): _flat(results["baselines"][name]) for name in names}
    metrics = dict.fromkeys([*columns["ours"], *columns["original's rule"]])
    return [
        {"metric": metric} | {column: _shown(metric, numbers.get(metric)) for column, numbers in columns.items()}
        for metric in metrics
    ]


def format_table(results: Mapping[str, Any]) -> str:
    """The results as a Markdown table under a line of counts; columns without any number are left out."""
    rows = table_rows(results)
    columns = [column for column in rows[0] if any(row[column] for row in rows)] if rows else []
    counts = results["counts"]
    head = (
        f"{results['benchmark']}: {counts['found']} of {counts['expected']} official items, {counts['queries']} queries"
    )
    if counts["found"] != counts["expected"]:
        head += " (another set than the paper's: not comparable with its numbers)"
    return f"{head}; percent, ranks as they are\n\n{markdown_table(rows, columns)}"


def markdown_table(rows: list[dict[str, str]], columns: list[str]) -> str:
    """Some columns of the rows as a Markdown table; cells stay as they are written."""
    body = [[row[column].replace("|", "\\|") for column in columns] for row in rows]
    return tabulate(body, headers=columns, tablefmt="github", disable_numparse=True)


def _flat(numbers: Mapping[str, Any], group: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in numbers.items():
        flat |= _flat(value, f"{group}{name}/") if isinstance(value, Mapping) else {group + name: value}
    return flat


def _shown(metric: str, value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, (list, tuple)):
        shown = [_shown(metric, end) for end in value]
        return " - ".join(shown) if all(shown) else ""
    return f"{value:.1f}" if metric.rpartition("/")[2] in NOT_FRACTIONS else f"{100 * value:.1f}"


def _plain(value: Any) -> Any:
    """The same with plain dicts, lists and Python numbers; NaN becomes None."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and math.isnan(value) else value
