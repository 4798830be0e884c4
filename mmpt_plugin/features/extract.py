"""A folder of videos becomes a folder of features: `<video id>.npy`, (seconds, feature_size), one row a second.

A video is claimed by a lock on a file, and an output appears by a rename: so runs can be broken off, repeated and run
side by side on one folder. How the videos are shared out within a run is told in `runners`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from mmpt_plugin.features.locks import claim, claim_state
from mmpt_plugin.features.manifest import Failures, FeatureSettings, VideoRecord, append_record, write_settings
from mmpt_plugin.features.networks import FeatureNetwork, NetworkConfig, load_network
from mmpt_plugin.features.one_video import FeatureExtractor, VideoFeatures
from mmpt_plugin.files import UnusableFile, clear_left_overs, open_array, write_whole

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """What every worker has to know."""

    out: Path
    network: NetworkConfig
    fps: int = 30
    frame_size: int = 224
    features_per_second: int = 1
    batch_seconds: int = 1
    torch_threads: int = 0  #: 0: torch decides
    decode_threads: int = 0  #: 0: ffmpeg decides
    started: float = 0.0  #: when the run began, in seconds since 1970; videos that failed since are not tried again


@dataclass(frozen=True)
class Outcome:
    """What became of one video."""

    video_id: str
    source: str
    seconds: int = 0  #: of video that went through the network
    failure: str | None = None
    warning: str | None = None


@dataclass
class Summary:
    """What became of a folder of videos in one run."""

    done_before: int = 0
    extracted: int = 0
    seconds: int = 0  #: of video, extracted
    failures: dict[str, tuple[str, str]] = field(default_factory=dict)  #: video id -> source, reason
    warnings: list[str] = field(default_factory=list)
    held_by_others: list[str] = field(default_factory=list)  #: other runs were at them when this one ended
    not_reached: list[str] = field(default_factory=list)  #: all workers died before


class Runner(Protocol):
    """Yields the outcomes of the videos that this run has dealt with; not of those that others hold or have done."""

    def __call__(self, job: Job, videos: Mapping[str, Path]) -> Iterator[Outcome]: ...


def run(
    job: Job, videos: Mapping[str, Path], runner: Runner, unusable: Mapping[str, tuple[str, str]] | None = None
) -> Summary:
    """Extracts what is not done yet.

    Args:
        job: settings; `job.out` is created where needed.
        videos: files by id.
        runner: how the work is shared out.
        unusable: path and reason by id of what counts as failed from the start.

    Returns:
        Counts and failures; the failures are in the folder's list as well.

    Raises:
        ValueError: if the folder holds features made with other settings, or the network cannot take such frames.
        OSError: if the folder of features cannot be written to, or its file system knows no locks.
    """
    job = replace(job, started=time.time())
    network = _probed_network(job)
    job.out.mkdir(parents=True, exist_ok=True)
    clear_left_overs(job.out)
    write_settings(job.out, feature_settings(network, job))
    done = {video_id for video_id in videos if is_done(job.out, video_id, network.feature_size)}
    todo = {video_id: path for video_id, path in videos.items() if video_id not in done}
    summary = Summary(done_before=len(done), failures=dict(unusable or {}))
    failures = Failures(job.out)
    for video_id, (source, reason) in summary.failures.items():
        logger.warning("%s failed: %s", source, reason)
        failures.add(video_id, source, reason)
    reported: set[str] = set()
    with logging_redirect_tqdm(), tqdm(total=len(todo), unit="video", desc="features", smoothing=0.05) as progress:
        for outcome in runner(job, todo):
            if outcome.video_id in reported:  # failed with one worker, and seen by another
                continue
            reported.add(outcome.video_id)
            if outcome.failure is not None:
                logger.warning("%s failed: %s", outcome.video_id, outcome.failure)
                summary.failures[outcome.video_id] = (outcome.source, outcome.failure)
            else:
                done.add(outcome.video_id)
                summary.extracted += 1
                summary.seconds += outcome.seconds
            if outcome.warning is not None:
                logger.warning("%s", outcome.warning)
                summary.warnings.append(outcome.warning)
            elapsed = progress.format_dict["elapsed"]
            progress.set_postfix_str(f"{summary.seconds / max(elapsed, 1e-3):.1f} s of video/s")
            progress.update()
    for video_id in todo.keys() - reported:
        if is_done(job.out, video_id, network.feature_size):
            done.add(video_id)
            continue
        fate = claim_state(job.out, video_id)
        if fate == "abandoned":
            reason = "the process that worked on it died (killed, out of memory?)"
            summary.failures[video_id] = (str(todo[video_id]), reason)
            failures.add(video_id, str(todo[video_id]), reason)
        else:
            (summary.held_by_others if fate == "held" else summary.not_reached).append(video_id)
    failures.settle(done)
    return summary


def feature_settings(network: FeatureNetwork, job: Job) -> FeatureSettings:
    """What the manifest says of the features of this job."""
    return FeatureSettings(
        network=network.name,
        weights_sha256=network.weights_sha256,
        feature_size=network.feature_size,
        precision=job.network.precision,
        fps=job.fps,
        frame_size=job.frame_size,
        features_per_second=job.features_per_second,
    )


def is_done(out: Path, video_id: str, feature_size: int) -> bool:
    """Whether the video has a whole output. Outputs appear by rename; this finds files that were cut off later."""
    path = out / f"{video_id}.npy"
    try:
        features = open_array(path, dtypes=["float16"], dimensions=2)
    except (OSError, UnusableFile):
        return False
    return features.shape[1] == feature_size


def extract_one(job: Job, video_id: str, source: Path) -> Outcome | None:
    """Extracts one video, unless somebody else has done it or holds its claim (None).

    Whatever goes wrong with the video is its failure; what is wrong with the folder of features is raised.
    """
    extractor = _extractor(job)
    failures = _failures(job.out)
    with claim(job.out, video_id) as claimed:
        if not claimed or is_done(job.out, video_id, extractor.network.feature_size):
            return None
        known = failures.rows().get(video_id)
        if known is not None and known[2] >= job.started:  # another worker or another run has just tried it
            return Outcome(video_id, str(source), failure=known[1])
        try:
            video = extractor.extract(source)
        except Exception as error:  # a lack of memory too: the next video may be smaller
            speaks = isinstance(error, ValueError | OSError) and str(error)
            reason = str(error) if speaks else f"{type(error).__name__}: {error}".rstrip(": ")
            failures.add(video_id, str(source), reason)
            return Outcome(video_id, str(source), failure=reason)
        _write_output(job.out, video_id, source, video)
    doubts = f"{source}: {', '.join(video.doubts)}" if video.doubts else None
    return Outcome(video_id, str(source), -(-len(video.features) // job.features_per_second), warning=doubts)


def _write_output(out: Path, video_id: str, source: Path, video: VideoFeatures) -> None:
    """Writes the output; its record comes first, so that no output is without one."""
    record = VideoRecord(
        video_id=video_id,
        source=str(source),
        seconds=len(video.features),
        frames=video.frames,
        declared_seconds=video.declared_seconds,
        damaged=video.damaged,
    )
    with write_whole(out / f"{video_id}.npy") as file:
        np.save(file, video.features)
        append_record(out, record)


def _probed_network(job: Job) -> FeatureNetwork:
    """The job's network on the CPU, once it has taken a second of such frames.

    The driver of a cluster need not have the workers' devices.
    """
    network = _cached_network(replace(job.network, device="cpu", precision="fp32", compiled=False))
    try:
        frames = job.fps // job.features_per_second
        network(torch.zeros(1, frames, job.frame_size, job.frame_size, 3, dtype=torch.uint8))
    except (ValueError, RuntimeError) as error:
        raise ValueError(
            f"--network {job.network.network} does not take {job.fps} frames (--fps) of {job.frame_size} x "
            f"{job.frame_size} pixels (--frame-size) a second: {error}"
        ) from error
    return network


@cache
def _cached_network(config: NetworkConfig) -> FeatureNetwork:
    return load_network(config)


@cache
def _failures(out: Path) -> Failures:
    return Failures(out)


def _extractor(job: Job) -> FeatureExtractor:
    """The job's network, loaded once in a process, with its settings of decoding."""
    if job.torch_threads:
        torch.set_num_threads(job.torch_threads)
    try:
        network = _cached_network(job.network)
    except RuntimeError as error:
        raise ValueError(f"--device {job.network.device}: the network cannot be put there ({error})") from error
    return FeatureExtractor(
        network, job.fps, job.frame_size, job.batch_seconds, job.decode_threads, job.features_per_second
    )
