"""Two machines, as docs/machines.md starts them: torchrun twice, and two processes as srun would start them."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ..conftest import REPOSITORY

pytestmark = pytest.mark.slow
CPU = (
    "distributed_training.distributed_backend=gloo",
    "distributed_training.ddp_backend=legacy_ddp",
    "common.cpu=true",
)
HYDRA = ("-m", "fairseq_cli.hydra_train", "--config-dir", str(REPOSITORY / "projects" / "videoclip"))


def settings_of(launcher: str) -> list[str]:
    """The settings that the page's command for a launcher gives to fairseq, with its GPUs left out."""
    page = (REPOSITORY / "docs" / "machines.md").read_text()
    block = next(block for block in re.findall(r"```bash\n(.*?)```", page, re.DOTALL) if f"{launcher} " in block)
    words = [word.strip("'") for word in block.split()]
    settings = [word for word in words if word.startswith("distributed_training.") and "device_id" not in word]
    assert len(settings) == 4
    return settings


def free_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return str(server.getsockname()[1])


def together(commands: list[list[str]], environments: list[dict[str, str]], folder: Path) -> None:
    """Run the commands of two machines at once; both must succeed."""
    started = []
    for number, (command, environment) in enumerate(zip(commands, environments, strict=True)):
        log = (folder / f"machine{number}.log").open("w")
        env = os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"} | environment
        started.append(subprocess.Popen(command, cwd=folder, env=env, stdout=log, stderr=subprocess.STDOUT))
    try:
        codes = [process.wait(600) for process in started]
    finally:
        for process in started:
            process.kill()
    assert codes == [0, 0], "\n".join((folder / f"machine{number}.log").read_text()[-2000:] for number in (0, 1))


def outcome(folder: Path) -> tuple[int, dict[str, torch.Tensor]]:
    content = torch.load(folder / "run" / "checkpoint_last.pt", weights_only=True)
    return content["optimizer_history"][-1]["num_updates"], content["model"]


def test_two_machines(tiny_settings: tuple[str, ...], tmp_path: Path) -> None:
    """Clusters from the first epoch on; each machine copies the shards to a disk of its own, the clusters are shared."""
    common = [*HYDRA, "--config-name", "pretrain", *tiny_settings, *CPU, "checkpoint.save_dir=run"]
    common += ["task.retrieval.start_epoch=1"]
    outcomes = {}
    for launcher in ("torchrun", "srun"):
        folder, port = tmp_path / launcher, free_port()
        folder.mkdir()
        given = [*common, *settings_of(launcher)]
        commands, environments = [], []
        for node in ("0", "1"):
            own = [*given, f"task.local_copy={folder / f'disk{node}'}"]
            if launcher == "torchrun":
                place = ["--nnodes=2", f"--node-rank={node}", "--nproc-per-node=1"]
                place += ["--master-addr=127.0.0.1", f"--master-port={port}"]
                commands.append([sys.executable, "-m", "torch.distributed.run", *place, *own])
                environments.append({})
            else:
                commands.append([sys.executable, *own])
                slurm = {"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": node, "SLURM_LOCALID": "0", "SLURM_NTASKS": "2"}
                environments.append({**slurm, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port})
        together(commands, environments, folder)
        copied = [sorted(path.name for path in (folder / f"disk{node}").rglob("*.npy")) for node in (0, 1)]
        assert copied[0] == copied[1] and "features.npy" in copied[0]
        assert "copied anew" not in (folder / "machine0.log").read_text()
        outcomes[launcher] = outcome(folder)
    assert outcomes["torchrun"][0] == outcomes["srun"][0] == 6  # two epochs of 6 groups, two groups an update
    for key, value in outcomes["torchrun"][1].items():
        torch.testing.assert_close(outcomes["srun"][1][key], value, rtol=0, atol=1e-6)
