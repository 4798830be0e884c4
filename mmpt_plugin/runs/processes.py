"""The processes of a run, and how it was started."""

from __future__ import annotations

import os
from datetime import timedelta
from functools import cache
from typing import Any

import torch

LIMIT = timedelta(days=1)  # of waiting for the first process, which may search among millions of videos


class NotJoined(RuntimeError):
    """Processes that were started together would each run alone."""


def world() -> tuple[int, int]:
    """This process's rank and the number of processes."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


def host_group() -> Any:
    """All processes, through the memory of their hosts and with a long limit on every wait.

    The usual group has a limit of ten minutes and, on GPUs, no way to send what lies in main memory. All processes must
    call it for the first time at the same point.
    """
    return _group_beside(torch.distributed.group.WORLD)


@cache
def _group_beside(usual: Any) -> Any:
    return torch.distributed.new_group(backend="gloo", timeout=LIMIT)


def wait_for_all() -> None:
    """Returns when every process has called it."""
    if world()[1] > 1:
        torch.distributed.barrier(group=host_group())


def check_launch() -> None:
    """Refuse processes that were started together and would each train alone, into the same files.

    fairseq joins the processes of a launcher by itself only where each of them sees more than one GPU.

    Raises:
        NotJoined: with the settings that join them.
    """
    if world()[1] > 1:
        return
    for variable, launcher, rank in (
        ("WORLD_SIZE", "torchrun", "RANK"),
        ("SLURM_STEP_NUM_TASKS", "srun", "SLURM_PROCID"),
    ):
        started = os.environ.get(variable, "1")
        if started.isdigit() and int(started) > 1:
            slurm = "" if launcher == "torchrun" else " (and MASTER_ADDR and MASTER_PORT to the environment)"
            raise NotJoined(
                f"{launcher} started {started} processes ({variable}), but they are not joined: each would run alone and "
                f"write the same files. Add{slurm}\n"
                "    distributed_training.distributed_init_method=env:// distributed_training.distributed_no_spawn=true\n"
                f"    distributed_training.distributed_world_size={started} "
                f"'distributed_training.distributed_rank=${{oc.env:{rank}}}'\n"
                "and, where each process sees one GPU alone\n"
                "    distributed_training.device_id=0\n"
                "or, on CPUs\n"
                "    distributed_training.distributed_backend=gloo distributed_training.ddp_backend=legacy_ddp "
                "common.cpu=true"
            )
