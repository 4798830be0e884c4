"""Processes that were started together, and those that only look so."""

import pytest
import torch

from mmpt_plugin.runs.processes import check_launch, host_group, wait_for_all, world


@pytest.mark.parametrize(
    ("variable", "value"), [("WORLD_SIZE", "1"), ("WORLD_SIZE", ""), ("SLURM_STEP_NUM_TASKS", "1"), ("OTHER", "8")]
)
def test_a_process_alone_is_as_it_should_be(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    monkeypatch.setenv(variable, value)
    check_launch()
    assert world() == (0, 1)
    wait_for_all()  # for nobody


@pytest.mark.parametrize(
    ("variable", "launcher", "rank"),
    [("WORLD_SIZE", "torchrun", "RANK"), ("SLURM_STEP_NUM_TASKS", "srun", "SLURM_PROCID")],
)
def test_processes_that_are_not_joined_are_refused(
    monkeypatch: pytest.MonkeyPatch, variable: str, launcher: str, rank: str
) -> None:
    monkeypatch.setenv(variable, "4")
    with pytest.raises(RuntimeError, match=f"{launcher} started 4 processes .*each would run alone") as refusal:
        check_launch()
    for part in (
        "distributed_init_method=env://",
        "distributed_world_size=4",
        f"distributed_rank=${{oc.env:{rank}}}",
        "device_id=0",
        "common.cpu=true",
    ):
        assert part in str(refusal.value)


def test_joined_processes_are_let_through(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    torch.distributed.init_process_group("gloo", f"file://{tmp_path / 'meeting'}", rank=0, world_size=1)
    try:
        monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 4)
        check_launch()
        monkeypatch.undo()
        assert host_group() is host_group()  # made once
    finally:
        torch.distributed.destroy_process_group()
