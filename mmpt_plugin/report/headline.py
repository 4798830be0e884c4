"""The numbers of one or several evaluations: table, intervals, and in words what must be known before comparing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmpt_plugin.evaluation.results import NOT_FRACTIONS, flat_numbers, table_rows
from mmpt_plugin.report.charts import intervals
from mmpt_plugin.report.parts import Figure, Part, Section, Table

Results = Mapping[str, Any]

TITLES = {
    "youcook2": "YouCook2: which clip does a sentence describe?",
    "msrvtt": "MSR-VTT: which video does a sentence describe?",
    "msrvtt_qa": "MSR-VTT multiple choice: which of five sentences describes the video?",
    "didemo_moment": "DiDeMo: when in a known video is what a sentence describes?",
    "didemo_retrieval": "DiDeMo: which video does a paragraph describe?",
    "coin": "COIN: which step is shown in every second?",
    "crosstask": "CrossTask: when is each step of a task shown?",
}
COMPARED = ("chance", "all_background", "moment_prior", "uniform_spread", "best_possible")
NOT_COMPARABLE = (
    "These numbers are not comparable with the paper's or with those of other galleries; where videos are searched, a "
    "smaller gallery is easier."
)
GROUPS = ("recall_per_task/", "video_to_text/")  # in the table, but neither in charts nor side by side
MOST_MISSING = 20  # ids that are named on the page


def remarks(results: Results) -> list[str]:
    """What a reader would get wrong without being told."""
    counts, said = results["counts"], []
    found, expected, missing = counts["found"], counts["expected"], counts.get("missing", [])
    if found not in (expected, counts.get("paper")):
        said.append(
            f"Another gallery than the paper's: {found:,} items instead of the official {expected:,}. {NOT_COMPARABLE}"
        )
    if missing:
        named = ", ".join(map(str, missing[:MOST_MISSING])) + (", ..." if len(missing) > MOST_MISSING else "")
        said.append(f"{len(missing):,} videos have no features and were left out: {named}")
    if tuned := results["checkpoint"].get("fine_tuned_on"):
        compared = "the paper's numbers are its fine-tuned ones" if results["paper"] else "the paper has no such number"
        said.append(f"Not zero-shot: the checkpoint was fine-tuned on {tuned}; {compared}.")
    if unknown := [name for name, value in flat_numbers(results["metrics"]).items() if value is None]:
        said.append(f"Undefined, because there was nothing to average over: {', '.join(unknown)}.")
    return said


def headline(results: Results) -> list[Part]:
    """The table of one evaluation, and its fractions beside what they are compared with."""
    rows = table_rows(results)
    columns = [column for column in rows[0] if any(row[column] for row in rows)] if rows else []
    parts: list[Part] = [
        Table("Results in percent, ranks as they are", columns, [[r[c] for c in columns] for r in rows])
    ]
    lines = [line for line in interval_rows(results) if not line["name"].startswith(GROUPS)]
    if lines:
        reading = "A point is a number, its line the bootstrap 95% interval over videos."
        parts.append(Figure("The same, with intervals", reading, intervals(lines)))
    return parts


def interval_rows(results: Results, ours: str = "ours") -> list[dict[str, Any]]:
    """Rows for `charts.intervals`: ours, the paper's and every baseline's fractions.

    Args:
        results: of one evaluation.
        ours: what the evaluated checkpoint is called.
    """
    bounds = flat_intervals(results)
    rows = []
    for name, value in flat_numbers(results["metrics"]).items():
        if _no_fraction(name):
            continue
        low, high = bounds.get(name, (None, None))
        rows.append({"name": name, "what": ours, "value": value, "low": low, "high": high})
    compared = {"paper": results["paper"]} | {key: results["baselines"].get(key, {}) for key in COMPARED}
    for what, numbers in compared.items():
        for name, value in flat_numbers(numbers).items():
            if not _no_fraction(name):
                rows.append({"name": name, "what": what.replace("_", " "), "value": value, "low": None, "high": None})
    return [row for row in rows if row["value"] is not None]


def flat_intervals(results: Results) -> dict[str, tuple[float | None, float | None]]:
    """Metric -> (low, high), of the results' `intervals`; a metric without one is absent."""
    flat = flat_numbers(results.get("intervals") or {})
    return {
        name: (ends[0], ends[1]) for name, ends in flat.items() if isinstance(ends, (list, tuple)) and len(ends) == 2
    }


def comparison(all_results: Sequence[Results], names: Sequence[str]) -> Section:
    """Several evaluations side by side: a table of every metric, and a chart a benchmark.

    Args:
        all_results: of any benchmarks and checkpoints.
        names: what each one's checkpoint is called.
    """
    benchmarks = list(dict.fromkeys(results["benchmark"] for results in all_results))
    checkpoints = list(dict.fromkeys(names))
    table, figures = [], []
    for benchmark in benchmarks:
        own = [(results, name) for results, name in zip(all_results, names) if results["benchmark"] == benchmark]
        shown = {name: {row["metric"]: row for row in table_rows(results)} for results, name in own}
        metrics = dict.fromkeys(metric for rows in shown.values() for metric in rows if not metric.startswith(GROUPS))
        for metric in metrics:
            row = next(rows[metric] for rows in shown.values() if metric in rows)
            ours = [_with_interval(shown.get(name, {}).get(metric)) for name in checkpoints]
            table.append(
                [f"{benchmark} {metric}", row.get("chance", ""), *ours, row["paper"], row.get("best possible", "")]
            )
        lines = [line for results, name in own for line in interval_rows(results, name)]
        kept = [line for line in lines if not line["name"].startswith(GROUPS)]
        lines = list({(line["name"], line["what"]): line for line in kept}.values())
        if lines:
            figures.append(Figure(TITLES.get(benchmark, benchmark), "", intervals(lines)))
    columns = ["benchmark and metric", "chance", *checkpoints, "paper", "best possible"]
    filled = [i for i, _ in enumerate(columns) if i == 0 or any(row[i] for row in table)]
    cells = [[row[i] for i in filled] for row in table]
    title = "Percent with the 95% interval, ranks as they are"
    parts: list[Part] = [Table(title, [columns[i] for i in filled], cells), *figures]
    said = []
    others = dict.fromkeys(
        f"{results['benchmark']} ({results['counts']['found']:,} of {results['counts']['expected']:,})"
        for results in all_results
        if any(NOT_COMPARABLE in text for text in remarks(results))
    )
    if others:
        said.append(f"Another gallery than the paper's: {', '.join(others)}. {NOT_COMPARABLE}")
    said += [f"{r['benchmark']}: {text}" for r in all_results for text in remarks(r) if NOT_COMPARABLE not in text]
    return Section("Side by side", parts, list(dict.fromkeys(said)))


def checkpoint_names(all_results: Sequence[Results]) -> list[str]:
    """A short name for each evaluation's checkpoint: its file, with folder or hash where several share one."""
    paths = [str(results["checkpoint"].get("path") or "checkpoint") for results in all_results]
    hashes = [str(results["checkpoint"].get("sha256") or "")[:8] for results in all_results]
    identity = list(zip(paths, hashes))
    for parts in (1, 2, 3):
        names = ["/".join(path.split("/")[-parts:]) for path in paths]
        if len(set(names)) == len(set(identity)):
            return names
    return [f"{path} ({digest})" for path, digest in identity]


def facts(results: Results) -> dict[str, str]:
    """Small print: what was evaluated."""
    checkpoint = results["checkpoint"]
    task = (results.get("config") or {}).get("task") or {}
    said = {
        "checkpoint": checkpoint.get("path"),
        "sha256": checkpoint.get("sha256"),
        "data": task.get("data"),
        "queries": f"{results['counts'].get('queries', 0):,}",
    }
    return {name: str(value) for name, value in said.items() if value}


def _with_interval(row: Mapping[str, str] | None) -> str:
    if row is None:
        return ""
    return f"{row['ours']} ({row['95% interval']})" if row["95% interval"] else row["ours"]


def _no_fraction(name: str) -> bool:
    return name.rpartition("/")[2] in NOT_FRACTIONS
