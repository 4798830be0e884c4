"""What is there, missing or broken in a data folder: HowTo100M and the benchmarks, with what to run next.

Annotation files are read as the evaluation reads them; of features the headers are read, or every value and checksum.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from mmpt_plugin.data.caption_files import read_header
from mmpt_plugin.data.corpus import PROGRESS_DELAY, VideoTextCorpus, open_shards, read_video_list
from mmpt_plugin.data.feature_folder import FeatureFolder
from mmpt_plugin.data.shards import Shard
from mmpt_plugin.evaluation.benchmark_files import BenchmarkFiles
from mmpt_plugin.evaluation.benchmarks import BENCHMARKS, coin, crosstask, didemo, msrvtt, msrvtt_qa, youcook2
from mmpt_plugin.features.manifest import check_feature_settings, read_failures, read_settings
from mmpt_plugin.finetuning.training_sets import TRAINING_SETS
from mmpt_plugin.preparation.shard_plan import LISTS

FEATURE_SIZE = 512
"""Width of features whose folder does not state it."""

PAPER_VIDEOS = "the paper: 1.1 million, of which 4,000 in val.txt"


@dataclass
class Report:
    """What was found of one data set."""

    name: str
    present: bool = False  #: anything at all
    facts: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    next_steps: list[str] = field(default_factory=list)

    @property
    def state(self) -> str:
        """The report in one word."""
        if self.broken:
            return "BROKEN"
        if not self.present:
            return "absent"
        return "incomplete" if self.missing else "complete"


@dataclass(frozen=True)
class OfficialFiles:
    """The annotation files of a benchmark in its folder."""

    files: Mapping[str, str]  #: path -> the official file that belongs there, in words
    videos: Callable[[Path], list[str]]  #: the folder -> the video of each item of the test set
    extract_options: str = ""


# ------------------------------------------------------------------------------------------------------- test sets


def youcook2_videos(folder: Path) -> list[str]:
    """The video of each clip."""
    return [
        clip.video_id for clip in youcook2.read_youcook2(folder / youcook2.CLIP_LIST, folder / youcook2.ANNOTATIONS)
    ]


def msrvtt_videos(folder: Path) -> list[str]:
    """The video of each sentence."""
    return [query.video_id for query in msrvtt.read_msrvtt(folder / msrvtt.TEST_FILE)]


def msrvtt_qa_videos(folder: Path) -> list[str]:
    """The video of each question."""
    return [question.video_id for question in msrvtt_qa.read_msrvtt_qa(folder / msrvtt_qa.TEST_FILE)]


def didemo_moment_videos(folder: Path) -> list[str]:
    """The video of each sentence."""
    return [query.video_id for query in didemo.read_didemo(folder / "test_data.json")]


def didemo_retrieval_videos(folder: Path) -> list[str]:
    """The distinct videos."""
    return list(dict.fromkeys(didemo_moment_videos(folder)))


def coin_videos(folder: Path) -> list[str]:
    """The test videos."""
    return [video.video_id for video in coin.read_coin(folder / "COIN.json") if video.subset == "testing"]


def crosstask_videos(folder: Path) -> list[str]:
    """The test videos; their steps' files are read too."""
    release = folder / "crosstask_release"
    content = crosstask.read_release(release)
    test = crosstask.held_out_videos(content.candidates, content.primary)
    for task, video in test:
        steps = content.tasks[task].steps
        crosstask.read_step_intervals(release / "annotations" / f"{task}_{video}.csv", len(steps))
    return [video for _, video in test]


DIDEMO_FILES = {"test_data.json": didemo.OFFICIAL_FILE}

OFFICIAL: dict[str, OfficialFiles] = {
    "youcook2": OfficialFiles(
        {youcook2.CLIP_LIST: youcook2.OFFICIAL_LIST, youcook2.ANNOTATIONS: youcook2.OFFICIAL_ANNOTATIONS},
        youcook2_videos,
    ),
    "msrvtt": OfficialFiles({msrvtt.TEST_FILE: msrvtt.OFFICIAL_FILE}, msrvtt_videos),
    "msrvtt_qa": OfficialFiles({msrvtt_qa.TEST_FILE: msrvtt_qa.OFFICIAL_FILE}, msrvtt_qa_videos),
    "didemo_moment": OfficialFiles(DIDEMO_FILES, didemo_moment_videos, " --keep-suffix"),
    "didemo_retrieval": OfficialFiles(DIDEMO_FILES, didemo_retrieval_videos, " --keep-suffix"),
    "coin": OfficialFiles({"COIN.json": coin.OFFICIAL_FILE}, coin_videos),
    "crosstask": OfficialFiles(
        {
            "crosstask_release/tasks_primary.txt": crosstask.OFFICIAL_TASKS,
            "crosstask_release/tasks_related.txt": crosstask.OFFICIAL_TASKS,
            "crosstask_release/videos.csv": crosstask.OFFICIAL_VIDEOS,
            "crosstask_release/videos_val.csv": crosstask.OFFICIAL_VIDEOS,
            "crosstask_release/annotations": crosstask.OFFICIAL_STEPS,
        },
        crosstask_videos,
    ),
}


def check_benchmark(name: str, data: Path, trained_on: Mapping[str, Any] | None, full: bool, show: int) -> Report:
    """Looks at the official files of a benchmark and at the features that it needs.

    Args:
        name: of the benchmark.
        data: the data folder.
        trained_on: settings of the features to pre-train on, if known; a test set's must equal them.
        full: read all features, not only their headers.
        show: how many ids of missing videos are shown.
    """
    report = Report(name)
    benchmark, official = BENCHMARKS[name], OFFICIAL[name]
    folder = data / benchmark.folder
    report.present = any((folder / file).exists() for file in official.files)
    absent = [file for file in official.files if not (folder / file).exists()]
    for file in absent:
        report.missing.append(f"{folder / file}: {official.files[file]} belongs there")
    if absent:
        report.next_steps.append(f"get {', '.join(absent)} into {folder}")
        return report
    report.facts.append("official files: " + ", ".join(official.files))
    try:
        items = official.videos(folder)
        if not items:
            raise ValueError(f"{folder}: no test video in the annotation files")
    except (OSError, ValueError) as error:
        report.broken.append(str(error))
        return report
    comparable = len(items) in (benchmark.official_items, benchmark.paper_items)
    note = "" if comparable else ", so its numbers do not compare with published ones"
    report.facts.append(f"{len(items)} test items, the official set has {benchmark.official_items}{note}")
    features = folder / "features"
    with_features = check_features(report, features, set(items), trained_on, full, show)
    report.facts.append(f"{sum(video in with_features for video in items)} of them with features")
    if name in TRAINING_SETS and not report.broken:
        report.facts += training_split(name, data)
    if report.missing:
        report.next_steps.append(
            f"python scripts/extract_features.py --videos VIDEOS --out {features} --checkpoint s3d_howto100m.pth"
            + official.extract_options
        )
    else:
        report.next_steps.append(f"scripts/evaluate_{name}.sh CHECKPOINT {data} RESULTS")
    return report


def training_split(name: str, data: Path) -> list[str]:
    """How much there is to fine-tune on; nothing where the file is absent that only this needs."""
    folder = data / BENCHMARKS[name].folder
    if folder.name == "msrvtt" and not (folder / msrvtt.CAPTIONS_FILE).exists():
        return []
    features = folder / "features"
    settings = read_settings(features) if features.is_dir() else None
    width = settings["feature_size"] if settings else FEATURE_SIZE
    try:
        split = TRAINING_SETS[name](BenchmarkFiles(data, on_missing="skip", feature_size=width))
    except (OSError, ValueError) as error:
        return [f"nothing to fine-tune on: {error}"]
    items = f"{len(split.clips)} clips" if split.clips else f"{len(split.videos)} videos"
    return [f"to fine-tune on: {items}; {len(split.missing)} of its videos without features"]


def check_features(
    report: Report, folder: Path, wanted: set[str], trained_on: Mapping[str, Any] | None, full: bool, show: int
) -> set[str]:
    """Looks for the features of some videos; reports those that are missing or broken.

    Returns:
        The videos that have a feature file.
    """
    if not folder.is_dir():
        report.missing.append(f"{folder}: features of {len(wanted)} videos")
        return set()
    try:
        settings = read_settings(folder)
        if settings and trained_on:
            check_feature_settings(folder, trained_on)
        width = settings["feature_size"] if settings else FEATURE_SIZE
    except ValueError as error:
        report.broken.append(str(error))
        return set()
    features = FeatureFolder(folder, width)
    present = wanted & set(features.ids())
    for video_id in tqdm(sorted(present), desc=report.name, unit="file", delay=PROGRESS_DELAY):
        try:
            features.load(video_id) if full else features.seconds(video_id)
        except ValueError as error:
            report.broken.append(str(error))
    missing = sorted(wanted - present)
    if missing:
        report.missing.append(f"{folder}: features of {len(missing)} of {len(wanted)} videos: {some(missing, show)}")
    failed = wanted & set(read_failures(folder))
    if failed:
        report.facts.append(f"{len(failed)} videos could not be extracted: {folder / 'failures.tsv'} says why")
    return present


def some(ids: list[str], show: int) -> str:
    """The first ids of a list."""
    return ", ".join(ids[:show]) + (f", ... ({len(ids) - show} more; --all shows them)" if len(ids) > show else "")


# -------------------------------------------------------------------------------------------------------- HowTo100M


def check_howto100m(data: Path, full: bool, show: int) -> tuple[Report, Mapping[str, Any] | None]:
    """Looks at the shards and lists to pre-train on, or at how far their making has come.

    Args:
        data: the data folder.
        full: compare all checksums and look at all values.
        show: how many ids of missing videos are shown.

    Returns:
        The report; and the settings of the features in the shards, if there are shards that say.
    """
    report = Report("howto100m")
    folder = data / "howto100m"
    files = {name: folder / name for name in ("raw_caption.json", "captions.jsonl", "features", "shards")}
    lists = {split: folder / name for split, name in LISTS.items()}
    report.present = any(path.exists() for path in [*files.values(), *lists.values()])
    for path in [files["shards"], *lists.values()]:
        if not path.exists():
            report.missing.append(f"{path}: scripts/make_shards.py makes it")
    shards = check_shards(report, files["shards"], full) if files["shards"].exists() else []
    listed: dict[str, str] = {}
    for split, path in lists.items():
        if path.exists():
            check_list(report, split, path, shards, listed, full, show)
    if report.missing:
        report.next_steps += steps_to_shards(report, files, folder)
    else:
        report.facts.append(PAPER_VIDEOS)
        report.next_steps.append(
            "fairseq-hydra-train --config-dir projects/videoclip --config-name pretrain "
            f"task.data={data} checkpoint.save_dir=RUN"
        )
    source = shards[0].source.get("features") if shards else None
    return report, source if isinstance(source, Mapping) else None


def check_shards(report: Report, folder: Path, full: bool) -> list[Shard]:
    """Opens the shards; none if they are broken."""
    try:
        shards = open_shards(folder, "full" if full else "size")
    except (OSError, ValueError) as error:
        report.broken.append(str(error))
        return []
    videos, size = sum(len(shard.video_ids) for shard in shards), sum(shard.nbytes for shard in shards)
    report.facts.append(f"{len(shards)} shards, {videos} videos, {size / 2**30:.2f} GiB")
    return shards


def check_list(
    report: Report, split: str, path: Path, shards: list[Shard], listed: dict[str, str], full: bool, show: int
) -> None:
    """Reads a split's list, compares it with the shards and with the lists before.

    Args:
        report: added to.
        split: train or val.
        path: of the list.
        shards: those that opened.
        listed: videos of the lists before, by split; added to.
        full: look at all values.
        show: how many ids of missing videos are shown.
    """
    try:
        video_ids = read_video_list(path)
        twice = [video_id for video_id in video_ids if video_id in listed]
        if twice:
            raise ValueError(f"{path}: {len(twice)} videos are also in {listed[twice[0]]}: {some(twice, show)}")
        listed |= dict.fromkeys(video_ids, split)
        report.facts.append(f"{split}: {len(video_ids)} videos listed")
        if shards:
            width = shards[0].features.data.shape[1]
            corpus = VideoTextCorpus(shards, video_ids, on_missing="skip", feature_size=width)
            if corpus.missing:
                report.missing.append(
                    f"{path}: {len(corpus.missing)} of {len(video_ids)} videos are in no shard, or are empty there: "
                    + some(corpus.missing, show)
                )
            if full:
                corpus.check_finite(np.arange(len(corpus)))
    except (OSError, ValueError) as error:
        report.broken.append(str(error))


def steps_to_shards(report: Report, files: Mapping[str, Path], folder: Path) -> list[str]:
    """What is still to be run before there are shards; the report is told of what is there."""
    steps = []
    raw, captions, features = files["raw_caption.json"], files["captions.jsonl"], files["features"]
    if captions.exists():
        try:
            report.facts.append(f"captions prepared of {read_header(captions)['counts'].get('videos', 0)} videos")
        except ValueError as error:
            report.broken.append(str(error))
    else:
        if not raw.exists():
            steps.append(f"get HowTo100M's raw_caption.json into {folder}")
        steps.append(f"python scripts/prepare_captions.py {raw} --bert bert-base-uncased --out {captions}")
    if features.is_dir():
        report.facts.append(f"features of {len(FeatureFolder(features).ids())} videos")
    else:
        steps.append(
            f"python scripts/extract_features.py --videos VIDEOS --out {features} --checkpoint s3d_howto100m.pth"
        )
    return [*steps, f"python scripts/make_shards.py --features {features} --captions {captions} --out {folder}"]


def check_folder(data: Path, *, full: bool = False, show: int = 5) -> list[Report]:
    """Looks at HowTo100M and all benchmarks in a data folder.

    Args:
        data: the data folder.
        full: read all features and compare all checksums.
        show: how many ids of missing videos are shown.
    """
    first, trained_on = check_howto100m(data, full, show)
    return [first, *(check_benchmark(name, data, trained_on, full, show) for name in BENCHMARKS)]
