"""From a folder of videos to a corpus: what is done is kept, so that a later call does only what is new.

<cache>/transcripts/<video>.json    made from speech
<cache>/features/<video>.npy        of videos with a transcript
<cache>/split.json                  which videos train, validate and test
<cache>/corpus-<hash>/              one corpus: transcripts, captions, howto100m/, val.csv, test.csv, corpus.json
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mmpt_plugin.data.caption_files import PreparedCaptions
from mmpt_plugin.data.feature_folder import FeatureFolder
from mmpt_plugin.data.workers import available_cores
from mmpt_plugin.features.extract import Job, run
from mmpt_plugin.features.manifest import read_settings
from mmpt_plugin.features.networks import NetworkConfig
from mmpt_plugin.features.runners import InProcesses, in_this_process
from mmpt_plugin.files import read_json, whole_folder, write_whole
from mmpt_plugin.own_videos.corpus import CORPUS_FILE, NAMED, Corpus, open_corpus
from mmpt_plugin.own_videos.held_out import write_clips
from mmpt_plugin.own_videos.sources import Lines, Sources, gather_sources
from mmpt_plugin.own_videos.splits import deal_videos
from mmpt_plugin.preparation import caption_run, shard_plan, shard_run
from mmpt_plugin.preparation.speech import SpeechSettings

logger = logging.getLogger(__name__)

OTHER_LANGUAGE = "other language"


@dataclass(frozen=True)
class Preparation:
    """How a folder is prepared.

    Attributes:
        videos: the folder.
        cache: where everything made is kept.
        bert: folder or hub name of the text model, whose tokenizer makes word pieces.
        network: as for `mmpt-extract --network`.
        fps, frame_size: frames of each second that it sees, and their side.
        captions, languages, speech: see `gather_sources`.
        validation_videos, test_videos, seed: see `deal_videos`.
        workers: processes that transcribe and extract.
        device: "cpu" or "cuda".
    """

    videos: Path
    cache: Path
    bert: str
    network: str
    fps: int
    frame_size: int = 224
    captions: Path | None = None
    languages: tuple[str, ...] = ()
    speech: SpeechSettings | None = None
    validation_videos: int = 0
    test_videos: int = 0
    seed: int = 1
    workers: int = 1
    device: str = "cpu"


@contextmanager
def timed(stage: str) -> Iterator[None]:
    """Logs how long a stage has taken."""
    wall, processor = time.perf_counter(), time.process_time()
    yield
    logger.info(
        f"{stage}: {time.perf_counter() - wall:.0f} s, {time.process_time() - processor:.0f} s of this process on all cores"
    )


def prepare(settings: Preparation) -> Corpus:
    """Makes transcripts, features, shards and the clips to find; what is there already is not made again.

    Raises:
        FileNotFoundError: there is no such folder, or no video in it.
        ValueError: too few videos can be used, ids clash, or features in the cache were made in another way.
    """
    cache = settings.cache
    with timed("transcripts"):
        sources = gather_sources(
            settings.videos,
            cache,
            captions=settings.captions,
            languages=settings.languages,
            speech=settings.speech,
            workers=settings.workers,
            device=settings.device,
        )
    if not sources.lines:
        raise ValueError(
            f"task.videos: no video in {settings.videos} has anything that is said in it:\n{_why(sources)}"
        )
    with timed("features"):
        seconds = extract(settings, sources)
    for video_id, length in seconds.items():
        starts = np.array([[line.start, line.end] for line in sources.lines[video_id]])
        if 2 * shard_run.captions_beyond(starts, length) > len(starts):
            sources.left_out[video_id] = f"other length: most of its captions begin after its end ({length} s)"
    usable = [video_id for video_id in seconds if video_id not in sources.left_out]
    features = read_settings(cache / "features") or {}
    name = _fingerprint(settings, {video_id: sources.lines[video_id] for video_id in usable}, seconds, features)
    folder = cache / f"corpus-{name}"
    if not (folder / CORPUS_FILE).exists():
        with timed("shards"), whole_folder(folder) as aside:
            _make_corpus(settings, sources, usable, seconds, Path(aside), name, features)
    else:  # the newest is the one in use
        before = Corpus(**read_json(folder / CORPUS_FILE))
        unread = {video: reason for video, reason in before.left_out.items() if reason.startswith(OTHER_LANGUAGE)}
        _write_corpus(folder, replace(before, left_out=sources.left_out | unread))
    for other in cache.glob("corpus-*"):
        if other != folder:
            shutil.rmtree(other)
    return open_corpus(cache)[1]


def extract(settings: Preparation, sources: Sources) -> dict[str, int]:
    """Makes the features of videos with a transcript; seconds of each that has them. Failures are added to `left_out`."""
    folder = settings.cache / "features"
    job = Job(
        out=folder.absolute(),
        network=NetworkConfig(settings.network, device=settings.device),
        fps=settings.fps,
        frame_size=settings.frame_size,
        batch_seconds=32 if settings.device.startswith("cuda") else 2,
        torch_threads=max(1, available_cores() // settings.workers),
        decode_threads=0 if settings.device.startswith("cuda") else 1,
    )
    videos = {video_id: sources.videos[video_id] for video_id in sources.lines}
    runner = InProcesses(settings.workers) if settings.workers > 1 else in_this_process
    summary = run(job, videos, runner)
    for video_id in summary.held_by_others + summary.not_reached:
        sources.left_out[video_id] = "its features are not made yet: start again"
    for video_id, (_, reason) in summary.failures.items():
        sources.left_out[video_id] = f"cannot be decoded: {reason}"
    logger.info(f"made now: {sources.made_now} transcripts from speech, features of {summary.extracted} videos")
    store = FeatureFolder(folder, (read_settings(folder) or {})["feature_size"])
    seconds = {video_id: store.seconds(video_id) for video_id in videos if video_id not in sources.left_out}
    for video_id in [video_id for video_id, length in seconds.items() if length == 0]:
        sources.left_out[video_id] = "has no pictures"
        del seconds[video_id]
    return seconds


def _fingerprint(
    settings: Preparation, lines: Mapping[str, Lines], seconds: Mapping[str, int], features: Mapping[str, Any]
) -> str:
    """Hash of all that a corpus is made of."""
    vocabulary, _ = caption_run.vocabulary_of(settings.bert)
    parts = [
        lines,
        seconds,
        features,
        sorted(vocabulary.items()),
        settings.seed,
        settings.validation_videos,
        settings.test_videos,
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]


def _make_corpus(
    settings: Preparation,
    sources: Sources,
    usable: list[str],
    seconds: Mapping[str, int],
    folder: Path,
    name: str,
    features: dict[str, Any],
) -> None:
    """Fills a corpus's folder."""
    with write_whole(folder / "transcripts.jsonl", text=True) as file:
        for video_id in usable:
            captions = [{"start": line.start, "end": line.end, "text": line.text} for line in sources.lines[video_id]]
            file.write(json.dumps({"video_id": video_id, "captions": captions}, ensure_ascii=False) + "\n")
    captions_file = folder / "captions.jsonl"
    caption_run.prepare([folder / "transcripts.jsonl"], captions_file, caption_run.Settings(settings.bert))
    known = PreparedCaptions(captions_file).offsets
    for video_id in usable:
        if video_id not in known:
            sources.left_out[video_id] = (
                f"{OTHER_LANGUAGE}: the tokenizer of {settings.bert} knows few of its word pieces"
            )
    usable = [video_id for video_id in usable if video_id in known]
    record = settings.cache / "split.json"
    before = read_json(record) if record.exists() else {}
    splits = deal_videos(usable, before, settings.seed, settings.validation_videos, settings.test_videos)
    out = folder / "howto100m"
    out.mkdir()
    shard_run.write_list(out / "val.txt", splits["val"])
    plan = shard_plan.plan_from_captions(
        settings.cache / "features", captions_file, out, val_list=out / "val.txt"
    )  # the test videos are in its shards, and in no list that is read
    shard_run.make(plan, out, workers=1)
    for split, own in splits.items():
        shard_run.write_list(out / f"{split}.txt", own)
    clips = {
        split: write_clips(folder / f"{split}.csv", splits[split], sources.lines, seconds) for split in ("val", "test")
    }
    for split, number in clips.items():
        if number < 2:
            raise ValueError(
                f"the {len(splits[split])} videos for {split} give {number} clips to find, and 2 are needed: too little is "
                f"said in them. Add videos, or raise task.{'validation' if split == 'val' else 'test'}_videos"
            )
    found = sum(video_id in sources.found for video_id in usable)
    corpus = Corpus(
        name,
        splits,
        clips,
        {split: round(sum(seconds[video_id] for video_id in own) / 3600, 3) for split, own in splits.items()},
        {"found": found, "made": len(usable) - found},
        sources.left_out,
        features,
    )
    with write_whole(record, text=True) as file:
        json.dump(before | {video_id: split for split, own in splits.items() for video_id in own}, file, indent=1)
    _write_corpus(folder, corpus)


def _write_corpus(folder: Path, corpus: Corpus) -> None:
    with write_whole(folder / CORPUS_FILE, text=True) as file:
        json.dump(asdict(corpus), file, indent=1, ensure_ascii=False)


def _why(sources: Sources) -> str:
    return "\n".join(f"    {name}: {reason}" for name, reason in list(sources.left_out.items())[:NAMED])
