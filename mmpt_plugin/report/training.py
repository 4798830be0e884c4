"""The page of a training run, from the log that it keeps and the settings that hydra keeps beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmpt_plugin.report.charts import curves
from mmpt_plugin.report.page import render_within, write_page
from mmpt_plugin.report.parts import Detail, Figure, Figures, Hit, Page, Part, Queries, Query, Section, Table
from mmpt_plugin.report.run_log import LOG_FILE, Record, RunHistory, read_run
from mmpt_plugin.report.run_settings import differing_settings, paper_settings, run_settings

PAGE_FILE = "report.html"
POINTS = 500  # of a curve; longer ones are averaged
CLIPPED_OFTEN = 50  # percent


def points(records: Sequence[Record], value: str, name: str, series: str = "", wanted: int = POINTS) -> list[dict]:
    """One quantity over updates, averaged over stretches where there are too many.

    Args:
        records: of a log.
        value: its key; records without it, or with null, are left out.
        name: column of the chart.
        series: name of the line, where a chart has several.
        wanted: how many points at most.
    """
    known = [(record["update"], record[value]) for record in records if _is_number(record.get(value))]
    parts = np.array_split(np.array(known, float).reshape(-1, 2), min(wanted, max(1, len(known))))
    rows = [{"update": int(part[-1, 0]), name: float(part[:, 1].mean())} for part in parts if len(part)]
    return [row | {"line": series} for row in rows] if series else rows


def curve_parts(history: RunHistory) -> list[Part]:
    """Loss and accuracy large; what tells of the run's health small, side by side."""
    steps, valid = history.steps, history.valid
    parts: list[Part] = []
    loss = points(steps, "loss", "loss", "train") + points(valid, "loss", "loss", "valid")
    if loss:
        reading = (
            "A point of training is the mean since the last one. Batches of similar videos are harder than random ones."
        )
        parts.append(Figure("Loss", reading, curves(loss, x="update", y="loss", series="line", points=len(loss) < 60)))
    accuracy = [
        row
        for records, split in ((steps, "train"), (valid, "valid"))
        for key, name in (("text_to_video", "text to video"), ("video_to_text", "video to text"))
        for row in points(records, key, "in-batch accuracy", f"{split}, {name}")
    ]
    if accuracy:
        chart = curves(
            accuracy, x="update", y="in-batch accuracy", series="line", percent=True, points=len(accuracy) < 120
        )
        reading = "Share of the batch's texts that find their own video, and of its videos that find their own text."
        parts.append(Figure("In-batch accuracy", reading, chart))
    small = [
        ("lr", "learning rate"),
        ("gnorm", "gradient norm"),
        ("clip", "clipped updates"),
        ("pairs_per_s", "pairs a second"),
        ("memory_gb", "peak memory of the process, GB"),
        ("gpu_memory_gb", "peak memory of the GPU, GB"),
    ]
    members = []
    for key, name in small:
        if rows := points(steps, key, name):
            log = key == "gnorm" and min(row[name] for row in rows) > 0
            if key == "clip":  # fairseq counts in percent
                rows = [row | {name: row[name] / 100} for row in rows]
            chart = curves(rows, x="update", y=name, percent=key == "clip", points=len(rows) < 60, log_y=log)
            members.append(Figure(name[0].upper() + name[1:], "", chart))
    if members:
        parts.append(Figures("The run itself", "Every point is a mean since the last one.", members))
    return parts


def hook_parts(clusters: Sequence[Record]) -> list[Part]:
    """The retrieval hook by epoch, and its last gallery."""
    if not clusters:
        return []

    def by_epoch(keys: Mapping[str, str], name: str) -> list[dict]:
        return [
            {"epoch": record["epoch"], name: float(record[key]), "line": line}
            for key, line in keys.items()
            for record in clusters
            if _is_number(record.get(key))
        ]

    charts = [
        (
            "Distance of two videos",
            {"within_cluster_distance": "of a cluster", "random_distance": "random"},
            "distance",
            False,
        ),
        ("Videos seen in an epoch", {"share_of_videos_seen": "in at least one cluster"}, "share", True),
        (
            "Seconds of the hook",
            {"seconds_embed": "embedding", "seconds_index": "index", "seconds_search": "search"},
            "seconds",
            False,
        ),
    ]
    members = [
        Figure(title, "", curves(rows, x="epoch", y=name, series="line", percent=percent, points=True))
        for title, keys, name, percent in charts
        if (rows := by_epoch(keys, name))
    ]
    reading = "Clusters of similar videos become batches. Their videos should be nearer to each other than random ones."
    parts: list[Part] = [Figures("The retrieval hook by epoch", reading, members)] if members else []
    latest = next((record for record in reversed(clusters) if record.get("gallery")), None)
    if latest:
        shown = [
            Query(
                f"The {cluster['kind']} cluster",
                f"mean distance from its middle {cluster['spread']:.2f}, {len(cluster['videos'])} videos",
                [Hit(caption["text"], caption["video"], "", False) for caption in cluster["captions"]],
            )
            for cluster in latest["gallery"]
        ]
        reading = "Captions whose words many videos of the cluster use, and few others."
        parts.append(Queries(f"Three clusters of epoch {latest['epoch']}", reading, shown))
    return parts


def remarks(history: RunHistory) -> list[str]:
    """What should not be overlooked."""
    said = []
    lost = [record["update"] for record in history.steps if "loss" in record and not _is_number(record["loss"])]
    if lost:
        said.append(
            f"The loss was no number at {len(lost):,} recorded updates, first at update {lost[0]:,}: training diverged."
        )
    recent = [record["clip"] for record in history.steps[-20:] if _is_number(record.get("clip"))]
    if recent and np.mean(recent) > CLIPPED_OFTEN:
        said.append(
            f"{np.mean(recent):.0f}% of the last recorded updates were clipped: the gradient's direction counts, its size "
            "hardly does. Compare optimization.clip_norm with the gradient norm below."
        )
    if history.starts > 1:
        said.append(f"The run was resumed {history.starts - 1} times; what was done again is shown once.")
    if history.unreadable:
        said.append(f"{history.unreadable} lines of the log cannot be read and are left out.")
    if not history.steps:
        said.append("No step is recorded yet: steps are, every common.log_interval updates.")
    return said


def training_page(
    history: RunHistory, differing: Sequence[tuple[str, Any, Any]] | None, detail: Detail, name: str
) -> Page:
    """The page.

    Args:
        history: of the run.
        differing: setting, this run's value, the paper's; None where they are not known.
        detail: nothing of it matters here yet: curves are short.
        name: of the run.
    """
    last = max(history.steps + history.valid, key=lambda record: record["update"], default={"update": 0, "epoch": 0})
    progress = f"{last['update']:,} updates, epoch {last['epoch']}"
    sections = [Section("Training", curve_parts(history), remarks(history), progress)]
    hook = hook_parts(history.clusters)
    if hook:
        sections.append(Section("Batches of similar videos", hook))
    if differing:
        rows = [[setting, str(ours), str(paper)] for setting, ours, paper in differing]
        sections.append(
            Section("Settings that differ from the paper's", [Table("", ["setting", "this run", "paper"], rows)])
        )
    elif differing is not None:
        sections.append(Section("Settings that differ from the paper's", [], ["None: these are the paper's settings."]))
    return Page(f"Training: {name}", sections)


def write_training_page(folder: Path) -> Path:
    """Writes `report.html` into a run's folder.

    Args:
        folder: the run's checkpoint.save_dir.

    Raises:
        FileNotFoundError, ValueError: as `read_run`.
    """
    history = read_run(folder / LOG_FILE)
    ours, paper = run_settings(folder), paper_settings(folder)
    differing = differing_settings(ours, paper) if ours and paper else None
    page = render_within(lambda detail: training_page(history, differing, detail, folder.resolve().name))
    return write_page(folder / PAGE_FILE, page)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
