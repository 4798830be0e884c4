"""The results file of an evaluation and the table that shows it."""

from __future__ import annotations

import fcntl
import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import numpy as np
from tabulate import tabulate

from mmpt_plugin.evaluation.benchmark import Benchmark, Evaluation, Scores
from mmpt_plugin.evaluation.bootstrap import VideoSums
from mmpt_plugin.files import UnusableFile, read_arrays, read_json

NOT_FRACTIONS = ("median_rank", "mean_rank")  # shown as they are, everything else in percent
INTERVALS = "intervals: 95%, bootstrap over videos in the gallery as it is"


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
                "expected": benchmark.official_items,
                "paper": benchmark.paper_items or benchmark.official_items,
                "found": benchmark.found,
                "missing": benchmark.missing,
                "queries": evaluation.queries,
            },
            "intervals": evaluation.intervals,
            "checkpoint": checkpoint,
            "config": config,
        }
    )


def write_results(
    folder: Path, benchmark: Benchmark, evaluation: Evaluation, results: Mapping[str, Any], scores: Scores
) -> Path:
    """Writes `<name>_scores.npz` and `<name>.json`, each whole or not at all.

    The scores file holds the scores, what their rows and columns stand for (`Benchmark.describe`) and the sums by video that
    the metrics come from (`VideoSums.arrays`). The JSON file is renamed last, so where it stands the scores beside it are its
    own.

    Args:
        folder: made if it does not exist.
        benchmark: what was evaluated.
        evaluation: its numbers.
        results: as from `results_json`.
        scores: arrays of any shape, of numbers or text.

    Returns:
        The JSON file's path.

    Raises:
        ValueError: if an array holds Python objects (it would have to be pickled).
        OSError: if the folder cannot be made or written.
    """
    arrays = {**scores, **benchmark.describe(), **evaluation.sums.arrays()}
    objects = [key for key, array in arrays.items() if np.asarray(array).dtype.hasobject]
    if objects:
        raise ValueError(f"scores {objects} hold Python objects; save arrays of numbers or text")
    text = json.dumps(results, indent=1, allow_nan=False, ensure_ascii=False) + "\n"
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{benchmark.name}.json"
    with TemporaryDirectory(prefix=f".{benchmark.name}.", suffix=".partial", dir=folder) as aside:
        np.savez(scores_file(Path(aside) / target.name), allow_pickle=False, **arrays)
        (Path(aside) / target.name).write_text(text, encoding="utf-8")
        with _alone_in(folder):
            target.unlink(missing_ok=True)  # never an old result beside new scores
            for written in (scores_file(Path(aside) / target.name), Path(aside) / target.name):
                os.replace(written, folder / written.name)
    return target


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Another evaluation that writes into the folder waits, so that the two files of one are never parted."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # some network file systems have no locks on folders
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def scores_file(results: Path) -> Path:
    """The scores beside a results file."""
    return results.with_name(f"{results.stem}_scores.npz")


class Counts(msgspec.Struct):
    """How many items an evaluation had, as a results file says it."""

    expected: int
    found: int
    missing: list[str]
    queries: int
    paper: int | None = None


Number = float | None
Numbers = dict[str, Number | dict[str, Number]]


class ResultsFile(msgspec.Struct):
    """The parts of a results file that its readers use (docs/data.md)."""

    benchmark: str
    metrics: Numbers
    baselines: dict[str, Numbers]
    paper: Numbers
    counts: Counts
    checkpoint: dict[str, Any]
    original: Numbers = {}
    intervals: dict[str, tuple[Number, Number]] = {}


def read_results(path: Path) -> dict[str, Any]:
    """Reads a file that `write_results` wrote.

    Raises:
        ValueError: if it is no JSON or has not the parts of a results file.
    """
    try:
        results = read_json(path)
        msgspec.convert(results, ResultsFile)
    except ValueError as error:
        raise ValueError(f"{path} is not a results file that an evaluation wrote: {error}") from error
    return results


def read_scores(results: Path) -> dict[str, np.ndarray]:
    """The arrays beside a results file: scores, what they stand for, and sums by video (see `write_results`).

    Args:
        results: the JSON file.

    Raises:
        FileNotFoundError: if there is no `<name>_scores.npz` beside it.
        UnusableFile: if that is no whole file of arrays.
    """
    path = scores_file(results)
    try:
        return read_arrays(path)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path} not found: it belongs beside {results.name}; evaluate again") from error
    except UnusableFile as error:
        raise UnusableFile(f"{error}. Evaluate again") from error


def read_sums(results: Path) -> VideoSums:
    """What the metrics of a results file add up from, video by video.

    Raises:
        FileNotFoundError, ValueError: as `read_scores`; if the sums are not among the arrays.
    """
    arrays = read_scores(results)
    try:
        return VideoSums.from_arrays(arrays)
    except (KeyError, ValueError, TypeError, IndexError) as error:
        raise ValueError(f"{scores_file(results)} holds no sums by video ({error}): evaluate again") from error


def table_rows(results: Mapping[str, Any]) -> list[dict[str, str]]:
    """One row per metric: `metric`, `ours`, `95% interval`, `paper`, `original's rule`, then each baseline.

    Fractions are shown in percent, ranks as they are, unknown numbers as "". Metrics of a nested group read
    "group/metric". Baselines keep their names (`_` as a space); `chance` and `best possible` stand last.
    """
    columns = {
        "ours": flat_numbers(results["metrics"]),
        "95% interval": flat_numbers(results.get("intervals", {})),
        "paper": flat_numbers(results["paper"]),
        "original's rule": flat_numbers(results.get("original", {})),
    }
    last = ("chance", "best_possible")
    names = [name for name in results["baselines"] if name not in last]
    names += [name for name in last if name in results["baselines"]]
    columns |= {name.replace("_", " "): flat_numbers(results["baselines"][name]) for name in names}
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
    head = f"{results['benchmark']}: {found_items(counts)}, {counts['queries']} queries"
    if counts["found"] not in (counts["expected"], counts.get("paper")):
        head += " (another set than the paper's: not comparable with its numbers)"
    return f"{head}; percent, ranks as they are; {INTERVALS}\n\n{markdown_table(rows, columns)}"


def found_items(counts: Mapping[str, Any]) -> str:
    """How many items were found, of how many; and how many the paper had, where it had others."""
    paper = counts.get("paper", counts["expected"])
    note = f" (the paper's numbers are on {paper})" if paper not in (None, counts["expected"]) else ""
    return f"{counts['found']} of {counts['expected']} official items{note}"


def markdown_table(rows: list[dict[str, str]], columns: list[str]) -> str:
    """Some columns of the rows as a Markdown table; cells stay as they are written."""
    body = [[row[column].replace("|", "\\|") for column in columns] for row in rows]
    return tabulate(body, headers=columns, tablefmt="github", disable_numparse=True)


def flat_numbers(numbers: Mapping[str, Any], group: str = "") -> dict[str, Any]:
    """Numbers of nested groups in one level: "group/metric" -> number."""
    flat: dict[str, Any] = {}
    for name, value in numbers.items():
        flat |= flat_numbers(value, f"{group}{name}/") if isinstance(value, Mapping) else {group + name: value}
    return flat


def _shown(metric: str, value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, (list, tuple)):
        shown = [_shown(metric, end) for end in value]
        return " - ".join(shown) if all(shown) else ""
    return f"{value:.1f}" if metric.rpartition("/")[2] in NOT_FRACTIONS else f"{100 * value:.1f}"


def shown_difference(metric: str, value: float) -> str:
    """A difference of two values of a metric, with its sign; fractions in percent points."""
    return f"{value:+.1f}" if metric.rpartition("/")[2] in NOT_FRACTIONS else f"{100 * value:+.1f}"


def _plain(value: Any) -> Any:
    """The same with plain dicts, lists and Python numbers; NaN becomes None."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and math.isnan(value) else value
