"""A folder of videos becomes a folder of features: `<video id>.npy`, (seconds, feature_size), one row a second.

One video is decoded in a thread while the network works on the seconds before. Videos are shared out in three ways:
in this process, over worker processes, or as tasks of a Ray cluster. In all three a video is claimed by a lock on a
file, which the system lifts when its holder dies, and an output appears by a rename: so runs can be broken off,
repeated and run side by side on one folder.
"""

from __future__ import annotations

import ctypes
import fcntl
import logging
import os
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from mmpt_plugin.data.ray_cluster import TASK_RETRIES, ray_cluster
from mmpt_plugin.features.manifest import FeatureSettings, VideoRecord, append_record, update_failures, write_settings
from mmpt_plugin.features.networks import FeatureNetwork, NetworkConfig, load_network
from mmpt_plugin.features.video import VideoBlocks

logger = logging.getLogger(__name__)

VIDEO_SUFFIXES = (
    *(".3gp", ".avi", ".flv", ".gif", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ogv"),
    *(".ts", ".vob", ".webm", ".wmv"),
)
TRIM_SECONDS = 4  #: of video, between two returns of free memory
WORK_FOLDER = ".work"  #: claims and unfinished outputs, inside the folder of features
T = TypeVar("T")


@dataclass(frozen=True)
class Job:
    """What every worker has to know."""

    out: Path
    network: NetworkConfig
    fps: int = 30
    frame_size: int = 224
    batch_seconds: int = 1
    torch_threads: int = 0  #: 0: torch decides
    decode_threads: int = 0  #: 0: ffmpeg decides


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
    """Yields one outcome for each video that this run has dealt with; not for those that others hold or have done."""

    def __call__(self, job: Job, videos: Mapping[str, Path]) -> Iterator[Outcome]: ...


def run(job: Job, videos: Mapping[str, Path], runner: Runner) -> Summary:
    """Extracts what is not done yet.

    Args:
        job: settings; `job.out` is created where needed.
        videos: files by id.
        runner: how the work is shared out.

    Returns:
        Counts and failures; the failures are in the folder's list as well.

    Raises:
        ValueError: if the folder holds features made with other settings, or the network cannot take such frames.
    """
    # The driver of a cluster need not have the workers' devices.
    network = _cached_network(replace(job.network, device="cpu", precision="fp32", compiled=False))
    network(torch.zeros(1, job.fps, job.frame_size, job.frame_size, 3, dtype=torch.uint8))
    job.out.mkdir(parents=True, exist_ok=True)
    write_settings(job.out, feature_settings(network, job))
    todo = {video_id: path for video_id, path in videos.items() if not is_done(job.out, video_id, network.feature_size)}
    summary = Summary(done_before=len(videos) - len(todo))
    reported: set[str] = set()
    with logging_redirect_tqdm(), tqdm(total=len(todo), unit="video", desc="features", smoothing=0.05) as progress:
        for outcome in runner(job, todo):
            reported.add(outcome.video_id)
            if outcome.failure is not None:
                logger.warning("%s failed: %s", outcome.video_id, outcome.failure)
                summary.failures[outcome.video_id] = (outcome.source, outcome.failure)
                update_failures(job.out, summary.failures, set())
            else:
                summary.extracted += 1
                summary.seconds += outcome.seconds
            if outcome.warning is not None:
                logger.warning("%s", outcome.warning)
                summary.warnings.append(outcome.warning)
            elapsed = progress.format_dict["elapsed"]
            progress.set_postfix_str(f"{summary.seconds / max(elapsed, 1e-3):.1f} s of video/s")
            progress.update()
    for video_id, path in todo.items():
        if video_id not in reported and not is_done(job.out, video_id, network.feature_size):
            fate = claim_state(job.out, video_id)
            if fate == "abandoned":
                summary.failures[video_id] = (str(path), "the process that worked on it died (killed, out of memory?)")
            else:
                (summary.held_by_others if fate == "held" else summary.not_reached).append(video_id)
    done = {video_id for video_id in videos if is_done(job.out, video_id, network.feature_size)}
    update_failures(job.out, summary.failures, done)
    return summary


def find_videos(folder: Path, keep_suffix: bool = False) -> dict[str, Path]:
    """Videos under a folder by id, sorted.

    Args:
        folder: searched with all its subfolders.
        keep_suffix: whether the id is the whole file name ("clip.avi", as DiDeMo's annotations have it) or goes without
            its suffix.

    Raises:
        FileNotFoundError: if there is no such folder or no video in it.
        ValueError: if two files would have the same id.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"--videos {folder}: no such folder")
    videos: dict[str, Path] = {}
    others = 0
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() not in VIDEO_SUFFIXES or not path.is_file():
            others += path.is_file()
            continue
        video_id = path.name if keep_suffix else path.stem
        if video_id in videos:
            raise ValueError(f"{videos[video_id]} and {path} would both become {video_id}.npy: rename or remove one")
        videos[video_id] = path
    if others:
        logger.warning("%d files in %s are no videos by their suffix and are passed over", others, folder)
    if not videos:
        raise FileNotFoundError(f"--videos {folder}: no video in it (known: {' '.join(VIDEO_SUFFIXES)})")
    return videos


def feature_settings(network: FeatureNetwork, job: Job) -> FeatureSettings:
    """What the manifest says of the features of this job."""
    return FeatureSettings(
        network=network.name,
        weights_sha256=network.weights_sha256,
        feature_size=network.feature_size,
        precision=job.network.precision,
        fps=job.fps,
        frame_size=job.frame_size,
    )


def embed_blocks(blocks: Iterable[np.ndarray], network: FeatureNetwork, batch_seconds: int) -> np.ndarray:
    """One L2-normalised row for each block of frames.

    Args:
        blocks: uint8 (fps, size, size, 3) each; decoded ahead in a thread, at most two batches.
        network: what embeds them.
        batch_seconds: blocks that go through the network together.

    Returns:
        (blocks, feature_size) float16.

    Raises:
        ValueError: if the network gives NaN or infinite values.
    """
    rows: list[torch.Tensor] = []
    batch: list[np.ndarray] = []

    def embed_batch() -> None:
        real = len(batch)
        if network.fixed_batch:
            batch.extend([np.zeros_like(batch[0])] * (batch_seconds - real))
        rows.append(network(torch.from_numpy(np.stack(batch)))[:real])
        batch.clear()

    for second, block in enumerate(ahead(blocks, 2 * batch_seconds), start=1):
        batch.append(block)
        if second % TRIM_SECONDS == 0:
            return_free_memory()
        if len(batch) == batch_seconds:
            embed_batch()
    if batch:
        embed_batch()
    return_free_memory()
    features = F.normalize(torch.cat(rows), dim=1)
    if not features.isfinite().all():
        raise ValueError("the network gave NaN or infinite values: are its weights sound? Try --precision fp32")
    return features.numpy().astype(np.float16)


def return_free_memory() -> None:
    """Gives free memory back to the system.

    glibc before 2.38 seldom uses a freed aligned block again (its bug 14581), and tensors are aligned: a network that is
    as fast as the decoding made the heap grow by 15 MB for each second of video.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # other C libraries have none, and no need
    if trim is not None:
        trim(0)


def ahead(items: Iterable[T], depth: int) -> Iterator[T]:
    """The same items, fetched in a thread of its own, at most `depth` before they are asked for."""
    iterator = iter(items)
    end: Any = object()
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="decode") as thread:
        fetched = deque(thread.submit(next, iterator, end) for _ in range(depth))
        try:
            while (item := fetched.popleft().result()) is not end:
                fetched.append(thread.submit(next, iterator, end))
                yield item
        finally:
            for future in fetched:
                future.cancel()


def is_done(out: Path, video_id: str, feature_size: int) -> bool:
    """Whether the video has a whole output. Outputs appear by rename; this finds files that were cut off later."""
    try:
        features = np.load(out / f"{video_id}.npy", mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return False
    return features.dtype == np.float16 and features.ndim == 2 and features.shape[1] == feature_size


def extract_one(job: Job, network: FeatureNetwork, video_id: str, source: Path) -> Outcome | None:
    """Extracts one video, unless somebody else has done it or holds its claim (None)."""
    with claim(job.out, video_id) as claimed:
        if not claimed or is_done(job.out, video_id, network.feature_size):
            return None
        blocks = VideoBlocks(source, job.fps, job.frame_size, job.decode_threads)
        try:
            features = embed_blocks(blocks, network, job.batch_seconds)
        except (ValueError, OSError) as error:  # of the video; what is wrong with the machine stops the run
            return Outcome(video_id, str(source), failure=str(error))
        record = VideoRecord(
            video_id=video_id,
            source=str(source),
            seconds=len(features),
            frames=blocks.frames,
            declared_seconds=blocks.declared_seconds,
            damaged=blocks.damaged,
        )
        _write_output(job.out, record, features)
        return Outcome(video_id, str(source), len(features), warning=_doubts(record, job.fps))


def in_this_process(job: Job, videos: Mapping[str, Path]) -> Iterator[Outcome]:
    """Runner: one video after the other."""
    network = _network(job)
    for video_id, source in videos.items():
        outcome = extract_one(job, network, video_id, source)
        if outcome is not None:
            yield outcome


@dataclass(frozen=True)
class InProcesses:
    """Runner: several processes walk over the same list; the claims keep them apart. If one dies, the others go on."""

    count: int

    def __call__(self, job: Job, videos: Mapping[str, Path]) -> Iterator[Outcome]:
        context = get_context("spawn")
        workers: dict[Connection, BaseProcess] = {}
        for _ in range(self.count):
            receiver, sender = context.Pipe(duplex=False)
            process: BaseProcess = context.Process(target=_walk, args=(job, dict(videos), sender), daemon=True)
            process.start()
            sender.close()  # so that the worker's death ends the connection
            workers[receiver] = process
        try:
            while workers:
                for ready in wait(list(workers)):
                    assert isinstance(ready, Connection)
                    try:
                        outcome = ready.recv()
                    except EOFError:
                        ended = workers.pop(ready)
                        ended.join()
                        if ended.exitcode:
                            logger.error("a worker process died with exit code %s", ended.exitcode)
                        continue
                    yield outcome
        finally:
            for process in workers.values():
                process.terminate()


@dataclass(frozen=True)
class OnRay:
    """Runner: one Ray task for each video. Ray leases the tasks to its workers and repeats those of a dead worker.

    Args:
        address: of a running cluster, or "local" for one on this machine that lives as long as the run. The folders
            have to be reachable under the same paths on all nodes.
        count: workers of a local cluster.
    """

    address: str
    count: int = 1

    def __call__(self, job: Job, videos: Mapping[str, Path]) -> Iterator[Outcome]:
        on_gpu = job.network.device.startswith("cuda")
        with ray_cluster(self.address, self.count) as ray:
            task = ray.remote(num_cpus=1, num_gpus=int(on_gpu), max_retries=TASK_RETRIES)(_ray_task)
            shared_job = ray.put(job)
            left = deque(videos.items())
            running: dict[Any, tuple[str, Path]] = {}
            while left or running:
                # A window of tasks: a million at once would burden the driver for nothing.
                while left and len(running) < 2 * max(1, int(ray.cluster_resources().get("CPU", 1))):
                    video_id, source = left.popleft()
                    running[task.remote(shared_job, video_id, source)] = (video_id, source)
                (finished,), _ = ray.wait(list(running), num_returns=1)
                video_id, source = running.pop(finished)
                try:
                    outcome = ray.get(finished)
                except (
                    ray.exceptions.WorkerCrashedError,
                    ray.exceptions.OutOfMemoryError,
                    ray.exceptions.NodeDiedError,
                ):
                    reason = f"its worker process died {TASK_RETRIES + 1} times"
                    outcome = Outcome(video_id, str(source), failure=reason)
                if outcome is not None:
                    yield outcome


@contextmanager
def claim(out: Path, video_id: str) -> Iterator[bool]:
    """Tells whether this process may work on the video; if so, nobody else may until the block ends.

    Raises:
        OSError: if the file system knows no locks.
    """
    path = out / WORK_FOLDER / f"{video_id}.claim"
    path.parent.mkdir(exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The last holder takes the file away. Whoever opened it before that holds the lock of a nameless file.
            claimed = path.exists() and path.stat().st_ino == os.fstat(file.fileno()).st_ino
        except BlockingIOError:
            claimed = False
        try:
            yield claimed
        finally:
            if claimed:
                path.unlink()


def claim_state(out: Path, video_id: str) -> str:
    """ "free", "held" by a living process, or "abandoned" by a dead one."""
    path = out / WORK_FOLDER / f"{video_id}.claim"
    try:
        with path.open() as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return "abandoned"
    except FileNotFoundError:
        return "free"
    except BlockingIOError:
        return "held"


def _write_output(out: Path, record: VideoRecord, features: np.ndarray) -> None:
    """Writes aside and renames; the record comes first, so that no output is without one."""
    aside = out / WORK_FOLDER / f"{record.video_id}.partial"
    with aside.open("wb") as file:
        np.save(file, features)
        file.flush()
        os.fsync(file.fileno())
    append_record(out, record)
    aside.replace(out / f"{record.video_id}.npy")


def _doubts(record: VideoRecord, fps: int) -> str | None:
    """What a user should know about an output that is perhaps not the whole video."""
    doubts = []
    decoded = record.frames / fps
    if record.declared_seconds is not None and decoded < 0.95 * record.declared_seconds - 1:
        doubts.append(f"{decoded:.1f} s decoded of {record.declared_seconds:.1f} s declared")
    if record.damaged:
        doubts.append(f"{record.damaged} damaged packets or frames")
    return f"{record.source}: {', '.join(doubts)}" if doubts else None


@cache
def _cached_network(config: NetworkConfig) -> FeatureNetwork:
    return load_network(config)


def _network(job: Job) -> FeatureNetwork:
    """The job's network, loaded once in a process."""
    if job.torch_threads:
        torch.set_num_threads(job.torch_threads)
    return _cached_network(job.network)


def _walk(job: Job, videos: dict[str, Path], outcomes: Connection) -> None:
    """Body of a worker process."""
    for outcome in in_this_process(job, videos):
        outcomes.send(outcome)


def _ray_task(job: Job, video_id: str, source: Path) -> Outcome | None:
    """Body of a Ray task; Ray keeps the process, and with it the network, for the next one."""
    return extract_one(job, _network(job), video_id, source)
