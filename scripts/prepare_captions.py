#!/usr/bin/env python3
"""Prepare captions: raw_caption.json in, word pieces to train on out.

Takes away the words that rolling captions repeat, tokenizes with the model's tokenizer and splits long captions at word
boundaries. Reads the file as a stream and writes in parts: a run that was stopped goes on where it was, one that is
complete is not repeated.

Example:
    python scripts/prepare_captions.py raw_caption.json --bert bert-base-uncased --out data/howto100m/captions.jsonl
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import logging
import os
import random
import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from tqdm import tqdm

from mmpt_plugin.data.caption_files import merge_captions, read_header, read_raw_captions, write_captions
from mmpt_plugin.data.captions import (
    ORIGINAL_CHARACTERS,
    ORIGINAL_PIECES,
    Caption,
    TimedText,
    Tokenize,
    clean_lines,
    deduplicate,
    encode_captions,
    original_deduplicate,
    original_encode_captions,
    vocabulary_sha256,
)
from mmpt_plugin.data.ray_cluster import TASK_RETRIES, ray_cluster

logger = logging.getLogger(__name__)

QUEUED_PARTS = 2
"""Parts that wait for a free worker. Each holds its videos' text in memory."""

Lines = tuple[list[Any], list[Any], list[Any]]  # starts, ends, texts


@dataclass(frozen=True)
class Job:
    """What every worker must know."""

    bert: str
    max_pieces: int
    compat: bool
    settings: dict[str, Any]


@dataclass(frozen=True)
class Part:
    """Some videos and the file that their captions go to; `malformed` counts those that could not be used."""

    path: Path
    video_ids: list[str]
    lines: list[Lines]  # of each video; or, in the original's rule,
    deduplicated: list[list[TimedText]]  # its captions
    malformed: int


# -------------------------------------------------------------------------------------------------------- one worker


_tokenizers: dict[tuple[str, bool], Tokenize] = {}  # a dict, as Ray cannot send functools.cache to its workers


def load_tokenize(bert: str, special_words_are_text: bool) -> Tokenize:
    """The model's tokenizer as a function; made once a process.

    Args:
        bert: folder or hub name.
        special_words_are_text: whether "[SEP]" in a caption is a word like others, not the special token.
    """
    key = (bert, special_words_are_text)
    if key not in _tokenizers:
        _tokenizers[key] = _make_tokenize(*key)
    return _tokenizers[key]


def _make_tokenize(bert: str, special_words_are_text: bool) -> Tokenize:
    from mmpt_plugin.models.text_backbone import load_tokenizer  # imports torch

    tokenizer = load_tokenizer(bert)
    if tokenizer.is_fast:  # without the wrapper it takes half the time
        backend = tokenizer.backend_tokenizer
        backend.no_truncation()
        backend.no_padding()
        backend.encode_special_tokens = special_words_are_text
        return lambda texts: [encoding.ids for encoding in backend.encode_batch_fast(texts, add_special_tokens=False)]
    plain = {"add_special_tokens": False, "split_special_tokens": special_words_are_text, "verbose": False}
    return lambda texts: tokenizer(texts, **plain)["input_ids"] if texts else []


def make_part(job: Job, part: Part) -> None:
    """Prepares the captions of a part's videos and writes them."""
    tokenize = load_tokenize(job.bert, not job.compat)
    counts = Counter(malformed_videos=part.malformed)
    captions: list[list[Caption]]
    if job.compat:
        captions = original_encode_captions(part.deduplicated, tokenize)
    else:
        texts = []
        for lines in part.lines:
            usable, own_counts = clean_lines(*lines)
            texts.append(deduplicate(usable))
            counts.update(own_counts)
        captions, own_counts = encode_captions(texts, tokenize, job.max_pieces)
        counts.update(own_counts)
    write_captions(part.path, zip(part.video_ids, captions), settings=job.settings, counts=+counts)


def run_parts(job: Job, parts: Iterator[Part], workers: int) -> None:
    """Makes all parts, in this process or in several; few parts wait at a time.

    Workers are forked: they need not import torch, which the tokenizers' library takes some ten seconds for, again.

    Raises:
        ValueError: a worker process died.
    """
    if workers == 1:
        for part in parts:
            make_part(job, part)
        return
    running: set[Future[None]] = set()
    try:
        with ProcessPoolExecutor(workers, get_context("fork")) as pool:
            for part in parts:
                running.add(pool.submit(make_part, job, part))
                if len(running) >= workers + QUEUED_PARTS:
                    done, running = wait(running, return_when=FIRST_COMPLETED)
                    for future in done:
                        future.result()
            for future in running:
                future.result()
    except BrokenProcessPool as error:
        raise ValueError(
            "a worker process died (killed, or out of memory). Finished parts are kept: run the same command again, "
            "with fewer --workers if memory was short."
        ) from error


def run_parts_on_ray(job: Job, parts: Iterator[Part], address: str, workers: int) -> None:
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
                if len(running) >= ray.cluster_resources().get("CPU", 1) + QUEUED_PARTS:
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


# ------------------------------------------------------------------------------------------------------- the raw file


def checked_lines(video_id: str, record: Any, numbers: bool) -> Lines | None:
    """The lists `start`, `end` and `text` of a video; None, with a warning, if it has no such lists of one length.

    Args:
        video_id: for the warning.
        record: what the file says of the video.
        numbers: also every start and end must be a number.
    """
    match record:
        case {"start": list(starts), "end": list(ends), "text": list(texts)}:
            if not len(starts) == len(ends) == len(texts):
                problem = f"{len(starts)} starts, {len(ends)} ends and {len(texts)} texts"
            elif numbers and not all(isinstance(second, (int, float)) for second in starts + ends):
                problem = "a time is not a number"
            else:
                return starts, ends, texts
        case _:
            problem = "no lists 'start', 'end' and 'text'"
    logger.warning("video %s is malformed and left out: %s", video_id, problem)
    return None


def split_into_parts(raw: Path, folder: Path, videos_per_part: int, rng: random.Random | None) -> Iterator[Part]:
    """Reads the raw file part by part, with a progress bar; parts whose file is there already are passed over.

    Args:
        raw: raw_caption.json.
        folder: where the parts' files go.
        videos_per_part: videos of a part.
        rng: in the original's rule, its coin: as one coin serves all videos in turn, captions are de-duplicated here.
    """
    with raw.open("rb") as file, tqdm(total=raw.stat().st_size, unit="B", unit_scale=True, desc=raw.name) as bar:
        videos = read_raw_captions(file)
        number = 0
        while batch := list(islice(videos, videos_per_part)):
            checked = {video_id: checked_lines(video_id, record, rng is not None) for video_id, record in batch}
            usable = {video_id: lines for video_id, lines in checked.items() if lines}
            deduplicated = [original_deduplicate(*lines, rng) for lines in usable.values()] if rng else []
            path = part_path(folder, number)
            if not path.exists():
                lines = [] if rng else list(usable.values())
                yield Part(path, list(usable), lines, deduplicated, len(batch) - len(usable))
            bar.update(file.tell() - bar.n)
            number += 1


def part_path(folder: Path, number: int) -> Path:
    """The file of a part."""
    return folder / f"{number:06d}.jsonl"


# ------------------------------------------------------------------------------------------------------------ the run


def describe(options: argparse.Namespace) -> dict[str, Any]:
    """What the prepared file says of its making: tokenizer, vocabulary, rule and source."""
    from mmpt_plugin.models.text_backbone import load_tokenizer  # imports torch

    vocabulary = load_tokenizer(options.bert).get_vocab()
    rule: dict[str, Any] = {"deduplication": "words", "max_pieces": options.max_pieces, "long_captions": "split"}
    if options.compat:
        rule = {
            "deduplication": "as the original, by characters",
            "seed": options.seed,
            "max_pieces": ORIGINAL_PIECES,
            "long_captions": f"cut at {ORIGINAL_CHARACTERS} characters and {ORIGINAL_PIECES} pieces",
        }
    return {
        "tokenizer": Path(options.bert).name,
        "vocabulary_size": len(vocabulary),
        "vocabulary_sha256": vocabulary_sha256(vocabulary),
        **rule,
        "raw": {"file": options.raw.name, "bytes": options.raw.stat().st_size},
    }


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Makes the folder and keeps other runs out of it.

    Raises:
        ValueError: another run is at work there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(f"another run is making this file, its parts are in {folder}. Wait for it.") from error
        yield


def is_complete(out: Path, settings: dict[str, Any], overwrite: bool) -> bool:
    """Whether the file is there already, made with these settings.

    Raises:
        ValueError: something else is there, and `overwrite` is not set.
    """
    if not out.exists() or overwrite:
        return False
    found = read_header(out)["settings"]
    if found != settings:
        differing = [name for name in {**found, **settings} if found.get(name) != settings.get(name)]
        raise ValueError(
            f"{out} was made with other settings: "
            + "; ".join(f"{name} is {found.get(name)!r}, now {settings.get(name)!r}" for name in differing)
            + ". Choose another --out, or replace it with --overwrite."
        )
    return True


def prepare(options: argparse.Namespace) -> dict[str, int]:
    """Makes the prepared file, unless it is there; returns its counts.

    Raises:
        FileNotFoundError: there is no raw file.
        ValueError: raw file, tokenizer or an earlier result are not as they should be; another run is at work.
    """
    if not options.raw.is_file():
        raise FileNotFoundError(f"{options.raw}: missing. HowTo100M's raw_caption.json belongs there.")
    bert = str(Path(options.bert).absolute()) if Path(options.bert).exists() else options.bert
    settings = describe(options)
    if is_complete(options.out, settings, options.overwrite):
        print(f"{options.out} is there already, made with the same settings")
        return read_header(options.out)["counts"]
    job = Job(bert, options.max_pieces, options.compat, settings)
    fingerprint = hashlib.sha256(json.dumps([settings, options.videos_per_part]).encode()).hexdigest()[:12]
    folder = options.out.absolute().with_name(f".{options.out.name}.{fingerprint}.parts")
    with exclusive(folder):
        parts = split_into_parts(
            options.raw, folder, options.videos_per_part, random.Random(options.seed) if options.compat else None
        )
        if options.ray:
            run_parts_on_ray(job, parts, options.ray, options.workers)
        else:
            run_parts(job, parts, options.workers)
        counts = merge_captions(sorted(folder.glob("*.jsonl")), options.out)
        shutil.rmtree(folder)
    return counts


def parse(arguments: list[str] | None) -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("raw", type=Path, metavar="RAW.json", help="HowTo100M's raw_caption.json")
    parser.add_argument("--bert", required=True, help="folder or hub name of the model's tokenizer, as model.bert")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="prepared captions, JSON lines")
    parser.add_argument("--workers", type=positive, default=os.cpu_count(), metavar="N", help="default: %(default)s")
    parser.add_argument("--ray", metavar="ADDRESS", help="run on a Ray cluster; 'local' starts one of --workers here")
    parser.add_argument(
        "--max-pieces", type=positive, default=32, metavar="N", help="captions above are split (default: %(default)s)"
    )
    parser.add_argument(
        "--compat",
        action="store_true",
        help="the original's rule instead: overlaps by characters, decided by coin, cut at "
        f"{ORIGINAL_CHARACTERS} characters and {ORIGINAL_PIECES} pieces",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the coin of --compat (default: %(default)s)")
    parser.add_argument(
        "--videos-per-part", type=positive, default=256, metavar="N", help="what a worker does at a time (%(default)s)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a file made with other settings")
    return parser, parser.parse_args(arguments)


def positive(text: str) -> int:
    """A whole number above 0."""
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def main(arguments: list[str] | None = None) -> None:
    """Reads the command line, prepares the captions, prints what was counted."""
    parser, options = parse(arguments)
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # a core a worker
    began = time.monotonic()
    try:
        counts = prepare(options)
    except (OSError, ValueError) as error:
        parser.exit(1, f"{parser.prog}: {error}\n")
    for name, number in counts.items():
        print(f"{name:>24} {number:>14,}")
    print(f"{options.out}, {time.monotonic() - began:.0f} s", file=sys.stdout)


if __name__ == "__main__":
    main()
