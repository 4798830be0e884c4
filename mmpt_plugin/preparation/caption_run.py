"""Prepares captions: reads caption files as a stream, makes word pieces in workers, writes in parts.

A run that was stopped goes on where it was. One that is complete is not repeated.
"""

from __future__ import annotations

import hashlib
import json
import logging
import random
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from tqdm import tqdm

from mmpt_plugin.captions.collection import Collection, collect
from mmpt_plugin.captions.deduplication import deduplicate, original_deduplicate
from mmpt_plugin.captions.tidying import Tidying, tidy
from mmpt_plugin.captions.transcript import Left, TimedText, Transcript
from mmpt_plugin.data.caption_files import merge_captions, read_header, write_captions
from mmpt_plugin.data.captions import (
    ORIGINAL_CHARACTERS,
    ORIGINAL_PIECES,
    Caption,
    encode_captions,
    original_encode_captions,
    vocabulary_sha256,
)
from mmpt_plugin.data.ray_cluster import TASK_RETRIES, ray_cluster
from mmpt_plugin.data.video_ids import id_problem
from mmpt_plugin.files import LockHeld, clear_left_overs, lock
from mmpt_plugin.preparation.tokenizing import load_tokenize, vocabulary_of
from mmpt_plugin.preparation.workers import QUEUED, run_in_workers

logger = logging.getLogger(__name__)

SHOWN = 20
"""Of the videos and files that are left out so many are named; all are counted."""

MOST_UNKNOWN = 0.5
"""A video of which more word pieces are unknown to the tokenizer is in another language."""

LEAST_PIECES = 20
"""Fewer word pieces do not tell in which language they are."""


@dataclass(frozen=True)
class Settings:
    """How captions are prepared.

    Attributes:
        bert: folder or hub name of the model's tokenizer.
        max_pieces: word pieces above which a caption is split at word boundaries.
        compat: the original's rule instead: overlaps by characters, decided by coin, captions cut. Nothing is tidied.
        seed: of its coin.
        tidying: what is changed in the captions' text and times.
        videos_per_part: what a worker does at a time.
    """

    bert: str
    max_pieces: int = 32
    compat: bool = False
    seed: int = 0
    tidying: Tidying = field(default_factory=Tidying)
    videos_per_part: int = 256


@dataclass(frozen=True)
class Job:
    """What every worker must know."""

    settings: Settings
    header: dict[str, Any]
    unknown: int | None


@dataclass(frozen=True)
class Part:
    """Some videos and the file that their captions go to; `counts` has those that could not be used."""

    path: Path
    transcripts: list[Transcript]  # or, in the original's rule,
    deduplicated: list[list[TimedText]]  # their captions
    counts: Counter[str]


def prepare(
    paths: Sequence[Path],
    out: Path,
    settings: Settings,
    *,
    videos: Sequence[Path] | None = None,
    languages: Sequence[str] = (),
    encoding: str = "",
    workers: int = 1,
    ray: str | None = None,
    overwrite: bool = False,
) -> dict[str, int]:
    """Makes the prepared file, unless it is there.

    Args:
        paths: caption files and folders of them.
        out: the prepared file.
        settings: how.
        videos: see `collect`.
        languages: see `collect`.
        encoding: of the captions' text; told by the content where empty.
        workers: processes.
        ray: address of a Ray cluster that does the work instead.
        overwrite: replace a file made in another way.

    Returns:
        What was counted.

    Raises:
        FileNotFoundError: there is no caption file.
        ValueError: a file, the tokenizer or an earlier result is not as it should be, no caption is left, or another
            run is at work.
    """
    collection = collect(paths, videos=videos, languages=languages)
    vocabulary, unknown = vocabulary_of(settings.bert)
    header = describe(settings, collection, vocabulary_sha256(vocabulary), len(vocabulary))
    if is_complete(out, header, overwrite):
        logger.warning("%s is there already, made with the same settings", out)
        return read_header(out)["counts"]
    out.absolute().parent.mkdir(parents=True, exist_ok=True)
    fingerprint = hashlib.sha256(json.dumps([header, settings.videos_per_part]).encode()).hexdigest()[:12]
    folder = out.absolute().with_name(f".{out.name}.{fingerprint}.parts")
    folder.mkdir(exist_ok=True)
    bert = str(Path(settings.bert).absolute()) if Path(settings.bert).exists() else settings.bert
    job = Job(Settings(**{**settings.__dict__, "bert": bert}), header, unknown)
    try:
        with lock(folder / "lock", purpose=f"{folder}, where parts of {out.name} are made,"):
            clear_left_overs(folder)
            clear_left_overs(folder.parent)
            parts = split_into_parts(collection, encoding, folder, settings)
            if ray:
                run_on_ray(job, parts, ray, workers)
            else:
                for _ in run_in_workers(_MakePart(job), parts, workers, "Finished parts are kept."):
                    pass
            finished = sorted(folder.glob("*.jsonl"))
            totals = _totals(finished)
            if not totals["captions"]:
                shutil.rmtree(folder)
                raise ValueError(
                    f"no caption is left of {', '.join(map(str, paths))}: "
                    + (
                        ", ".join(f"{name} {number}" for name, number in sorted(totals.items()) if number)
                        or "nothing there"
                    )
                )
            counts = merge_captions(finished, out)
            shutil.rmtree(folder)
    except LockHeld as error:
        raise ValueError(str(error)) from error
    return counts


def _totals(parts: Sequence[Path]) -> Counter[str]:
    totals: Counter[str] = Counter()
    for part in parts:
        totals.update(read_header(part)["counts"])
    return totals


def describe(settings: Settings, collection: Collection, vocabulary: str, vocabulary_size: int) -> dict[str, Any]:
    """What the prepared file says of its making: tokenizer, vocabulary, rule and source.

    The source is told by its content: an edit that keeps a file's size is another source.
    """
    rule: dict[str, Any] = {
        "deduplication": "words",
        "max_pieces": settings.max_pieces,
        "long_captions": "split",
        "tidying": {
            name: value for name, value in settings.tidying.__dict__.items() if value != getattr(Tidying(), name)
        },
    }
    if settings.compat:
        rule = {
            "deduplication": "as the original, by characters",
            "seed": settings.seed,
            "max_pieces": ORIGINAL_PIECES,
            "long_captions": f"cut at {ORIGINAL_CHARACTERS} characters and {ORIGINAL_PIECES} pieces",
        }
    digest, size = hashlib.sha256(), 0
    for file in tqdm(collection.files, desc="looking at the files", unit="file", delay=5):
        try:
            with file.path.open("rb") as content:
                digest.update(json.dumps([file.path.name, file.video_id]).encode())
                digest.update(hashlib.file_digest(content, "sha256").digest())
            size += file.path.stat().st_size
        except OSError:  # one that was found in a folder is counted when it is read
            if file.named:
                raise
    name = collection.files[0].path.name if len(collection.files) == 1 else f"{len(collection.files)} files"
    return {
        "tokenizer": Path(settings.bert).name,
        "vocabulary_size": vocabulary_size,
        "vocabulary_sha256": vocabulary,
        **rule,
        "raw": {"file": name, "bytes": size, "sha256": digest.hexdigest()},
    }


def is_complete(out: Path, header: dict[str, Any], overwrite: bool) -> bool:
    """Whether the file is there already, made in this way.

    Raises:
        ValueError: something else is there, and `overwrite` is not set.
    """
    if not out.exists() or overwrite:
        return False
    found = read_header(out)["settings"]
    if found != header:
        differing = [name for name in {**found, **header} if found.get(name) != header.get(name)]
        raise ValueError(
            f"{out} was made with other settings: "
            + "; ".join(f"{name} is {found.get(name)!r}, now {header.get(name)!r}" for name in differing)
            + ". Choose another --out, or replace it with --overwrite."
        )
    return True


def split_into_parts(collection: Collection, encoding: str, folder: Path, settings: Settings) -> Iterator[Part]:
    """Reads the captions part by part; parts whose file is there already are passed over.

    In the original's rule captions are de-duplicated here, as one coin serves all videos in turn.
    """
    rng = random.Random(settings.seed) if settings.compat else None
    shown = Counter[str]()
    entries = iter(tqdm(collection.read(encoding), desc="captions", unit="video"))
    number = 0
    while batch := list(islice(entries, settings.videos_per_part)):
        counts: Counter[str] = Counter()
        transcripts = []
        for entry in batch:
            left = entry if isinstance(entry, Left) else _unusable(entry, rng is not None)
            if left is None:
                transcripts.append(entry)
                continue
            counts[left.reason] += 1
            shown[left.reason] += 1
            if shown[left.reason] <= SHOWN:
                logger.warning("left out (%s): %s", left.reason, left.message)
        deduplicated = [original_deduplicate(t.starts, t.ends, t.texts, rng) for t in transcripts] if rng else []
        path = part_path(folder, number)
        if not path.exists():
            yield Part(path, transcripts, deduplicated, counts)
        number += 1
    for reason, count in shown.items():
        if count > SHOWN:
            logger.warning("left out (%s): %d in all", reason, count)


def part_path(folder: Path, number: int) -> Path:
    """The file of a part."""
    return folder / f"{number:06d}.jsonl"


def _unusable(transcript: Transcript, compat: bool) -> Left | None:
    """Why a video is left out before a worker sees it; None if it is not."""
    problem = id_problem(transcript.video_id)
    if problem:
        return Left(transcript.video_id, "malformed_videos", f"the video id {transcript.video_id!r} {problem}")
    times = [*transcript.starts, *transcript.ends] if compat else []
    if not all(isinstance(time, (int, float)) for time in times):
        return Left(transcript.video_id, "malformed_videos", f"video {transcript.video_id}: a time is not a number")
    return None


def make_part(job: Job, part: Part) -> None:
    """Prepares the captions of a part's videos and writes them."""
    settings = job.settings
    tokenize = load_tokenize(settings.bert, not settings.compat)
    counts = Counter(part.counts)
    captions: list[list[Caption]]
    if settings.compat:
        captions = original_encode_captions(part.deduplicated, tokenize)
    else:
        texts = []
        for transcript in part.transcripts:
            try:
                usable, own_counts = tidy(transcript, settings.tidying)
            except ValueError as error:
                logger.warning("left out (doubtful_times): %s", error)
                usable, own_counts = [], Counter(doubtful_times=1)
            texts.append(deduplicate(usable))
            counts.update(own_counts)
        captions, own_counts = encode_captions(texts, tokenize, settings.max_pieces)
        counts.update(own_counts)
        captions = [_without_unknown(own, job.unknown, counts) for own in captions]
    video_ids = [transcript.video_id for transcript in part.transcripts]
    write_captions(part.path, zip(video_ids, captions), settings=job.header, counts=+counts)


def _without_unknown(captions: list[Caption], unknown: int | None, counts: Counter[str]) -> list[Caption]:
    """A video's captions; none if the tokenizer does not know most of their word pieces."""
    pieces = sum(len(caption.pieces) for caption in captions)
    unknown_pieces = sum(caption.pieces.count(unknown) for caption in captions) if unknown is not None else 0
    counts["unknown_pieces"] += unknown_pieces
    if pieces < LEAST_PIECES or unknown_pieces <= MOST_UNKNOWN * pieces:
        return captions
    counts["unknown_language"] += 1
    return []


class _MakePart:
    """`make_part` of one job."""

    def __init__(self, job: Job) -> None:
        self.job = job

    def __call__(self, part: Part) -> None:
        make_part(self.job, part)


def run_on_ray(job: Job, parts: Iterator[Part], address: str, workers: int) -> None:
    """Makes all parts as tasks of a Ray cluster, which repeats those of a worker that died; few parts wait at a time.

    Args:
        job: what every task must know.
        parts: what to make; their folder has to be reachable under the same path on all machines.
        address: of a running cluster, or "local" for one on this machine that lives as long as the run.
        workers: of the local cluster.

    Raises:
        ValueError: there is no Ray, or a part's worker died again and again.
    """
    with ray_cluster(address, workers) as ray:
        task = ray.remote(num_cpus=1, max_retries=TASK_RETRIES)(make_part)
        shared_job = ray.put(job)
        running: list[Any] = []
        try:
            for part in parts:
                running.append(task.remote(shared_job, part))
                if len(running) >= ray.cluster_resources().get("CPU", 1) + QUEUED:
                    (done,), running = ray.wait(running)
                    ray.get(done)
            ray.get(running)
        except (
            ray.exceptions.WorkerCrashedError,
            ray.exceptions.OutOfMemoryError,
            ray.exceptions.NodeDiedError,
        ) as error:
            raise ValueError(
                f"the worker of a part died {TASK_RETRIES + 1} times ({error}). Finished parts are kept: run the same "
                "command again, with more memory for each worker if that was short."
            ) from error
