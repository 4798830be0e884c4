"""Several processes for a test, forked from a server that has made the imports already: seconds less than by torchrun."""

import logging
import multiprocessing
import os
import pickle
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from fairseq import checkpoint_utils
from fairseq.dataclass.initialize import hydra_init
from fairseq_cli.hydra_train import _hydra_main
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigNode, ConfigStore
from omegaconf import DictConfig

import demo.tasks.demo  # noqa: F401 (registers its task: fairseq leaves that out where a test has imported demo before)
from mmpt_plugin.criterions.contrastive import VideoTextContrastiveCriterion
from mmpt_plugin.data.workers import end_with_parent
from mmpt_plugin.tasks.zeroshot import LOGGERS_AFTER_RESULTS, silence

REPOSITORY = Path(__file__).resolve().parents[1]
SECONDS = 600  # after which a test that waits has failed


@cache
def server() -> Any:
    """The context of processes that are forked from one that has imported the package."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["mmpt_plugin", "fairseq_cli.hydra_train", "faiss"])
    return context


def together(work: Callable[..., Any], processes: int, folder: Path, *arguments: Any, joined: bool = True) -> list[Any]:
    """What `work(rank, *arguments)` gives in each process.

    Args:
        work: a function of a module.
        processes: how many.
        folder: for the results and the processes' meeting.
        arguments: can be pickled.
        joined: as a process group of gloo; else each is to join by itself.
    """
    folder.mkdir(parents=True, exist_ok=True)
    started = start_together(work, processes, folder, *arguments, joined=joined)
    for process in started:
        process.join(SECONDS)
    failed = [rank for rank, process in enumerate(started) if process.exitcode != 0]
    for process in started:
        process.kill()
    words = {
        rank: (folder / f"{rank}.log").read_text()[-3000:] for rank in failed if (folder / f"{rank}.log").is_file()
    }
    assert not failed, "\n".join([f"process {rank}: {said}" for rank, said in words.items()]) or failed
    return [pickle.loads((folder / f"{rank}.pkl").read_bytes()) for rank in range(processes)]


def start_together(
    work: Callable[..., Any], processes: int, folder: Path, *arguments: Any, joined: bool = True
) -> list[Any]:
    """The processes, which go on by themselves."""
    context = server()
    started = [
        context.Process(target=_one, args=(rank, processes, folder, joined, work, arguments))
        for rank in range(processes)
    ]
    for process in started:
        process.start()
    return started


def _one(rank: int, processes: int, folder: Path, joined: bool, work: Callable[..., Any], arguments: tuple) -> None:
    log = os.open(folder / f"{rank}.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    torch.set_num_threads(1)
    end_with_parent()  # a test that was killed leaves nobody waiting in a collective
    try:
        if joined:
            meeting = f"file://{folder / 'meeting'}"
            torch.distributed.init_process_group("gloo", meeting, rank=rank, world_size=processes)
        result = work(rank, *arguments)
        (folder / f"{rank}.pkl").write_bytes(pickle.dumps(result))
        if joined:
            torch.distributed.destroy_process_group()
    except Exception:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)


def criterion_of(kind: type = VideoTextContrastiveCriterion, **settings: Any) -> Any:
    """A criterion with these settings, the others as by default."""
    return kind(SimpleNamespace(), getattr(kind, "__dataclass")(**settings))  # fairseq registers it under this name


@cache
def fairseq_schema() -> ConfigNode:
    """fairseq's settings with their types. Made once, because that takes a fifth of a small run's time."""
    hydra_init("schema")
    return ConfigStore.instance().repo.pop("schema.yaml")


@contextmanager
def schema_of(config_name: str) -> Iterator[None]:
    """fairseq's schema under this name, and no other: hydra would lay it under a listed file of that name too."""
    repo = ConfigStore.instance().repo
    repo[f"{config_name}.yaml"] = replace(fairseq_schema(), name=f"{config_name}.yaml")
    yield
    del repo[f"{config_name}.yaml"]


def composed(config_name: str, *overrides: object, return_hydra_config: bool = False) -> DictConfig:
    """What `fairseq-hydra-train` makes of a configuration's name and overrides."""
    local = f"common.user_dir={REPOSITORY / ('demo' if config_name == 'demo' else 'mmpt_plugin')}"
    folder = str(REPOSITORY / "projects" / "videoclip")
    with schema_of(config_name), initialize_config_dir(folder, version_base="1.1"):
        return compose(config_name, [local, *map(str, overrides)], return_hydra_config)


def train(config_name: str, *overrides: object) -> None:
    """`fairseq-hydra-train` in this process: call it with a configuration's name and overrides."""
    checkpoint_utils.save_checkpoint.__dict__.clear()  # fairseq keeps the best loss there from one run to the next
    for name in LOGGERS_AFTER_RESULTS:
        logging.getLogger(name).removeFilter(silence)  # of an evaluation before
    _hydra_main(composed(config_name, "common.reset_logging=false", "common.cpu=true", *overrides))


def joined_settings(rank: int, processes: int, folder: Path) -> tuple[str, ...]:
    """What makes a run one of several processes on one machine's CPU."""
    return (
        f"distributed_training.distributed_init_method=file://{folder / 'meeting'}",
        "distributed_training.distributed_no_spawn=true",
        f"distributed_training.distributed_world_size={processes}",
        f"distributed_training.distributed_rank={rank}",
        "distributed_training.distributed_backend=gloo",
        "distributed_training.ddp_backend=legacy_ddp",
    )


def train_one_of(rank: int, processes: int, folder: Path, config: str, overrides: tuple, exit_code: int = 0) -> None:
    """A process's part in a training run."""
    try:
        train(config, *joined_settings(rank, processes, folder), *overrides)
    except SystemExit as end:
        assert end.code == exit_code, end.code
        return
    assert exit_code == 0, "the run ended as if it had not been stopped"


def train_together(processes: int, folder: Path, config: str, *overrides: object) -> None:
    """`fairseq-hydra-train` by several processes on one machine's CPU (gloo); `folder` must be new."""
    given = tuple(str(override) for override in overrides)
    together(train_one_of, processes, folder, processes, folder, config, given, joined=False)
