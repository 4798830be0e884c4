"""The page of an evaluation, from `<NAME>.json` and `<NAME>_scores.npz` alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmpt_plugin.evaluation.results import found_items, read_results, read_scores, scores_file
from mmpt_plugin.report import moments, multiple_choice, retrieval, segmentation, steps
from mmpt_plugin.report.headline import TITLES, checkpoint_names, comparison, facts, headline, remarks
from mmpt_plugin.report.page import LIMIT, render_within, write_page
from mmpt_plugin.report.parts import Detail, Page, Part, Pictures, Section, no_pictures

NEEDED = {  # what tells the scores of one kind of benchmark from another's
    "retrieval": {"similarities"},
    "multiple choice": {"scores", "options"},
    "moments": {"scores", "seconds"},
    "segmentation": {"logits", "video_lengths", "label_similarity"},
    "classified segmentation": {"logits", "video_lengths", "label_ids"},
    "steps": {"logits", "video_steps", "tasks"},
}
KINDS = {
    "youcook2": {"retrieval"},
    "msrvtt": {"retrieval"},
    "didemo_retrieval": {"retrieval"},
    "msrvtt_qa": {"multiple choice"},
    "didemo_moment": {"moments"},
    "coin": {"segmentation", "classified segmentation"},
    "crosstask": {"steps"},
}
SCORES_WITHOUT_NAMES = {"msrvtt_qa": {"scores"}}  # older formats, which are told from others by the benchmark alone


@dataclass(frozen=True)
class Evaluated:
    """What one evaluation left.

    Attributes:
        path: of the JSON file.
        results: its content.
        scores: the arrays beside it, or None.
        trouble: why there are none, in a sentence; "" where there are.
    """

    path: Path
    results: dict[str, Any]
    scores: dict[str, np.ndarray] | None
    trouble: str = ""


def read_evaluated(path: Path) -> Evaluated:
    """Reads a results file and, as far as there are usable ones, the scores beside it.

    Raises:
        ValueError: if the JSON file is none of results, or the scores are another benchmark's.
    """
    results = read_results(path)
    beside = scores_file(path)
    try:
        scores = read_scores(path)
    except FileNotFoundError:
        trouble = f"There is no {beside.name} beside the results: only their table can be shown."
        return Evaluated(path, results, None, trouble)
    except ValueError as error:
        return Evaluated(path, results, None, f"Only the table of results can be shown: {error}.")
    check_kind(results, scores, beside)
    return Evaluated(path, results, scores)


def check_kind(results: dict[str, Any], scores: dict[str, np.ndarray], path: Path) -> None:
    """
    Raises:
        ValueError: if the arrays are not those of the benchmark that the results name.
    """
    name = results["benchmark"]
    if name not in KINDS or kind_of(scores) in KINDS[name] or scores.keys() == SCORES_WITHOUT_NAMES.get(name):
        return
    found = kind_of(scores) or "unknown"
    raise ValueError(
        f"{path}: the results are of {name}, whose scores are of kind {' or '.join(sorted(KINDS[name]))}; these are of kind "
        f"{found} (arrays {', '.join(sorted(scores))}). The files of two evaluations were mixed: evaluate {name} again"
    )


def kind_of(scores: dict[str, np.ndarray]) -> str | None:
    """Which kind of benchmark left these arrays; None if none that pages are made for."""
    return next((kind for kind, needed in NEEDED.items() if needed <= scores.keys()), None)


def section_of(evaluated: Evaluated, detail: Detail, pictures: Pictures = no_pictures, checkpoint: str = "") -> Section:
    """Everything about one evaluation.

    Raises:
        ValueError: if its arrays do not fit each other; the message names the file.
    """
    results, scores = evaluated.results, evaluated.scores
    pictures = pictures if detail.pictures else no_pictures
    parts: list[Part] = headline(results)
    said = remarks(results) + ([evaluated.trouble] if evaluated.trouble else [])
    kind = kind_of(scores) if scores is not None else None
    try:
        if results["benchmark"] == "crosstask" or kind == "steps":
            own, more = steps.section_parts(results, scores, detail)
        elif scores is None:
            own, more = [], []
        elif kind == "retrieval":
            own, more = retrieval.section_parts(scores, detail, pictures)
        elif kind == "multiple choice" or results["benchmark"] == "msrvtt_qa":
            own, more = multiple_choice.section_parts(scores, detail, pictures)
        elif kind == "moments":
            own, more = moments.section_parts(scores, detail, pictures)
        elif kind is not None:
            own, more = segmentation.section_parts(scores, detail)
        else:
            own, more = [], [f"No pictures are made for arrays {', '.join(sorted(scores))}: only the table is shown."]
    except (ValueError, IndexError, KeyError) as error:
        raise ValueError(f"{scores_file(evaluated.path)}: {error}") from error
    counts = results["counts"]
    sizes = f"{found_items(counts)}, {counts['queries']:,} queries"
    title = TITLES.get(results["benchmark"], str(results["benchmark"]))
    subtitle = f"{sizes}; checkpoint {checkpoint or checkpoint_names([results])[0]}"
    return Section(title, [*parts, *own], [*said, *more], subtitle)


def evaluation_page(evaluations: Sequence[Evaluated], detail: Detail, pictures: Pictures = no_pictures) -> Page:
    """One page about one or several evaluations."""
    all_results = [evaluated.results for evaluated in evaluations]
    names = checkpoint_names(all_results)
    sections = [section_of(evaluated, detail, pictures, name) for evaluated, name in zip(evaluations, names)]
    if len(evaluations) == 1:
        return Page(f"Evaluation: {all_results[0]['benchmark']}", sections, facts=facts(all_results[0]))
    return Page("Evaluations side by side", [comparison(all_results, names), *sections])


def write_evaluation_page(
    files: Sequence[Path], output: Path | None = None, pictures: Pictures = no_pictures, limit: int = LIMIT
) -> Path:
    """Writes one page about one or several results files.

    Args:
        files: `<NAME>.json`, each with its scores beside it.
        output: the page; default `<NAME>.html` beside a single results file.
        pictures: small pictures of videos.
        limit: bytes of the page.

    Raises:
        ValueError: for files that are no results, or that do not fit each other; without `output` for several files.
    """
    if output is None and len(files) != 1:
        raise ValueError(f"a page about {len(files)} results files needs a place: give --output")
    evaluations = [read_evaluated(file) for file in files]
    target = output or files[0].with_suffix(".html")
    return write_page(target, render_within(lambda detail: evaluation_page(evaluations, detail, pictures), limit))


def write_table_page(files: Sequence[Path], output: Path) -> Path:
    """Writes the table of `scripts/collect_results.py` as a page: numbers side by side, nothing of single queries.

    Raises:
        ValueError: for files that are no results.
    """
    all_results = [read_results(file) for file in files]
    section = comparison(all_results, checkpoint_names(all_results))
    return write_page(output, render_within(lambda detail: Page("Results", [section])))
