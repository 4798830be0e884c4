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
from mmpt_plugin.evaluation.benchmarks import (
    BENCHMARKS,
    coin,
    crosstask,
    didemo,
    hirest,
    msrvtt,
    msrvtt_qa,
    own_data,
    youcook2,
)
from mmpt_plugin.features.manifest import check_feature_settings, read_failures, read_settings
from mmpt_plugin.files.names import without_video_suffix
from mmpt_plugin.finetuning.training_sets import TRAINING_SETS
from mmpt_plugin.preparation.shard_plan import LISTS

FEATURE_SIZE = 512
"""Width of features whose folder does not state it."""

SUFFIXED = (
    ". Some are there under names with the video's suffix: --drop-suffix, and task.drop_suffix=true in evaluations"
)
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


def hirest_videos(folder: Path) -> list[str]:
    """The video of each query with a moment."""
    return [pair.video_id for pair in hirest.read_hirest(folder / hirest.TEST_FILE) if pair.moment is not None]


def own_videos(folder: Path) -> list[str]:
    """The video of each row of the table."""
    return [clip.video_id for clip in own_data.read_own_data(folder / own_data.TEST_FILE)[1]]


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
    "hirest": OfficialFiles({hirest.TEST_FILE: hirest.OFFICIAL_FILE}, hirest_videos),
    "csv": OfficialFiles({own_data.TEST_FILE: own_data.OFFICIAL_FILE}, own_videos),
}


@dataclass(frozen=True)
class How:
    """How closely to look.

    Attributes:
        full: read all features and compare all checksums.
        show: how many ids of missing videos are shown.
        drop_suffix: features are named as in `FeatureFolder`'s argument of this name.
    """

    full: bool = False
    show: int = 5
    drop_suffix: bool = False


def check_benchmark(name: str, data: Path, trained_on: Mapping[str, Any] | None, how: How) -> Report:
    """Looks at the official files of a benchmark and at the features that it needs.

    Args:
        name: of the benchmark.
        data: the data folder.
        trained_on: settings of the features to pre-train on, if known; a test set's must equal them.
        how: how closely.
    """
    report = Report(name)
    official = OFFICIAL[name]
    folder = folder_of(name, data)
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
    size = ""
    if benchmark := BENCHMARKS.get(name):
        comparable = len(items) in (benchmark.official_items, benchmark.paper_items)
        note = "" if comparable else ", so its numbers do not compare with published ones"
        size = f", the official set has {benchmark.official_items}{note}"
    report.facts.append(f"{len(items)} test items{size}")
    features = folder / "features"
    with_features = check_features(report, features, set(items), trained_on, how)
    report.facts.append(f"{sum(video in with_features for video in items)} of them with features")
    if name in TRAINING_SETS and not report.broken:
        report.facts += training_split(name, data, how.drop_suffix)
    if report.missing:
        report.next_steps.append(
            f"python scripts/extract_features.py --videos VIDEOS --out {features} --checkpoint s3d_howto100m.pth"
            + official.extract_options
        )
    else:
        report.next_steps.append(
            f"scripts/evaluate_{name}.sh CHECKPOINT {data} RESULTS" + " task.drop_suffix=true" * how.drop_suffix
        )
    return report


def folder_of(name: str, data: Path) -> Path:
    """Where the files of a benchmark lie."""
    return data / (BENCHMARKS[name].folder if name in BENCHMARKS else name)


def training_split(name: str, data: Path, drop_suffix: bool) -> list[str]:
    """How much there is to fine-tune on; nothing where the file is absent that only this needs."""
    folder = folder_of(name, data)
    only_to_train = {"msrvtt": msrvtt.CAPTIONS_FILE, "csv": own_data.TRAINING_FILE}
    if folder.name in only_to_train and not (folder / only_to_train[folder.name]).exists():
        return []
    features = folder / "features"
    settings = read_settings(features) if features.is_dir() else None
    width = settings["feature_size"] if settings else FEATURE_SIZE
    try:
        files = BenchmarkFiles(data, on_missing="skip", feature_size=width, drop_suffix=drop_suffix)
        split = TRAINING_SETS[name](files)
    except (OSError, ValueError) as error:
        return [f"nothing to fine-tune on: {error}"]
    items = f"{len(split.clips)} clips" if split.clips else f"{len(split.videos)} videos"
    return [f"to fine-tune on: {items}; {len(split.missing)} of its videos without features"]


def check_features(
    report: Report, folder: Path, wanted: set[str], trained_on: Mapping[str, Any] | None, how: How
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
        features = FeatureFolder(folder, width, drop_suffix=how.drop_suffix)
    except ValueError as error:
        report.broken.append(str(error))
        return set()
    present = wanted & set(features.ids())
    for video_id in tqdm(sorted(present), desc=report.name, unit="file", delay=PROGRESS_DELAY):
        try:
            features.load(video_id) if how.full else features.seconds(video_id)
        except ValueError as error:
            report.broken.append(str(error))
    missing = sorted(wanted - present)
    if missing:
        suffixed = "" if set(missing).isdisjoint(map(without_video_suffix, features.ids())) else SUFFIXED
        report.missing.append(
            f"{folder}: features of {len(missing)} of {len(wanted)} videos: {some(missing, how.show)}{suffixed}"
        )
    failed = wanted & set(read_failures(folder))
    if failed:
        report.facts.append(f"{len(failed)} videos could not be extracted: {folder / 'failures.tsv'} says why")
    return present


def some(ids: list[str], show: int) -> str:
    """The first ids of a list."""
    return ", ".join(ids[:show]) + (f", ... ({len(ids) - show} more; --all shows them)" if len(ids) > show else "")


# -------------------------------------------------------------------------------------------------------- HowTo100M


def check_howto100m(data: Path, how: How) -> tuple[Report, Mapping[str, Any] | None]:
    """Looks at the shards and lists to pre-train on, or at how far their making has come.

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
    shards = check_shards(report, files["shards"], how.full) if files["shards"].exists() else []
    listed: dict[str, str] = {}
    for split, path in lists.items():
        if path.exists():
            check_list(report, split, path, shards, listed, how)
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


def check_list(report: Report, split: str, path: Path, shards: list[Shard], listed: dict[str, str], how: How) -> None:
    """Reads a split's list, compares it with the shards and with the lists before.

    Args:
        report: added to.
        split: train or val.
        path: of the list.
        shards: those that opened.
        listed: videos of the lists before, by split; added to.
        how: how closely.
    """
    try:
        video_ids = read_video_list(path)
        twice = [video_id for video_id in video_ids if video_id in listed]
        if twice:
            raise ValueError(f"{path}: {len(twice)} videos are also in {listed[twice[0]]}: {some(twice, how.show)}")
        listed |= dict.fromkeys(video_ids, split)
        report.facts.append(f"{split}: {len(video_ids)} videos listed")
        if shards:
            width = shards[0].features.data.shape[1]
            corpus = VideoTextCorpus(shards, video_ids, on_missing="skip", feature_size=width)
            if corpus.missing:
                report.missing.append(
                    f"{path}: {len(corpus.missing)} of {len(video_ids)} videos are in no shard, or are empty there: "
                    + some(corpus.missing, how.show)
                )
            if how.full:
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


def check_folder(data: Path, *, full: bool = False, show: int = 5, drop_suffix: bool = False) -> list[Report]:
    """Looks at HowTo100M, at the paper's benchmarks, and at others whose folder is there.

    Args:
        data: the data folder.
        full: read all features and compare all checksums.
        show: how many ids of missing videos are shown.
        drop_suffix: as for `FeatureFolder`.
    """
    how = How(full, show, drop_suffix)
    first, trained_on = check_howto100m(data, how)
    names = [name for name in OFFICIAL if name in BENCHMARKS or folder_of(name, data).is_dir()]
    return [first, *(check_benchmark(name, data, trained_on, how) for name in names)]
