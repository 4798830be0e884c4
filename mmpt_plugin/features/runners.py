"""How the videos of a run are shared out: in this process, over worker processes, or as tasks of a Ray cluster."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

from mmpt_plugin.data.ray_cluster import TASK_RETRIES, ray_cluster
from mmpt_plugin.data.workers import end_with_parent
from mmpt_plugin.features.extract import Job, Outcome, extract_one
from mmpt_plugin.features.manifest import Failures

logger = logging.getLogger(__name__)


def in_this_process(job: Job, videos: Mapping[str, Path]) -> Iterator[Outcome]:
    """Runner: one video after the other. What comes between and afterwards has torch's number of threads as it was."""
    threads = torch.get_num_threads()
    for video_id, source in videos.items():
        outcome = extract_one(job, video_id, source)
        torch.set_num_threads(threads)
        if outcome is not None:
            yield outcome


@dataclass(frozen=True)
class InProcesses:
    """Runner: several processes walk over the same list; the claims keep them apart. If one dies, the others go on.

    With the device "cuda" the processes take turns over the GPUs of this machine.
    """

    count: int

    def __call__(self, job: Job, videos: Mapping[str, Path]) -> Iterator[Outcome]:
        context = get_context("spawn")
        workers: dict[Connection, BaseProcess] = {}
        for device in shared_out(job.network.device, self.count):
            own_job = replace(job, network=replace(job.network, device=device))
            receiver, sender = context.Pipe(duplex=False)
            process: BaseProcess = context.Process(target=_walk, args=(own_job, dict(videos), sender), daemon=True)
            process.start()
            sender.close()  # so that the worker's death ends the connection
            workers[receiver] = process
        try:
            while workers:
                for ready in wait(list(workers)):
                    assert isinstance(ready, Connection)
                    try:
                        message = ready.recv()
                    except EOFError:
                        ended = workers.pop(ready)
                        ended.join()
                        if ended.exitcode:
                            logger.error("a worker process died with exit code %s", ended.exitcode)
                        continue
                    if isinstance(message, Exception):
                        raise message
                    yield message
        finally:
            for process in workers.values():
                process.terminate()


def shared_out(device: str, count: int) -> list[str]:
    """The device of each of `count` workers: with "cuda" one GPU after the other, else the same for all."""
    gpus = torch.cuda.device_count() if device == "cuda" else 0
    return [f"cuda:{worker % gpus}" if gpus else device for worker in range(count)]


def _walk(job: Job, videos: dict[str, Path], outcomes: Connection) -> None:
    """Body of a worker process."""
    end_with_parent()
    try:
        for outcome in in_this_process(job, videos):
            outcomes.send(outcome)
    except Exception as error:  # of the folder, not of a video: the whole run ends with it
        outcomes.send(error)


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
        needs = {"CPU": 1, "GPU": int(job.network.device == "cuda")}
        with ray_cluster(self.address, self.count) as ray:
            there = ray.cluster_resources()
            for kind, number in needs.items():
                if there.get(kind, 0) < number:
                    raise ValueError(
                        f"--ray {self.address}: each task needs {number} {kind}, and the cluster has {there.get(kind, 0):g}"
                        f": with --device {job.network.device} no task would ever start"
                    )
            task = ray.remote(num_cpus=1, num_gpus=needs["GPU"], max_retries=TASK_RETRIES)(extract_one)
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
                    Failures(job.out).add(video_id, str(source), reason)
                    outcome = Outcome(video_id, str(source), failure=reason)
                except ray.exceptions.RayTaskError as error:  # of the folder, not of a video
                    raise error.cause from None
                if outcome is not None:
                    yield outcome
