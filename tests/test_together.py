"""The helper that runs a test's several processes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from .together import REPOSITORY

PARENT = """
import sys, time
from pathlib import Path
from tests.test_together import wait_for_ever
from tests.together import start_together
start_together(wait_for_ever, 2, Path(sys.argv[1]), Path(sys.argv[1]))
time.sleep(600)
"""


def wait_for_ever(rank: int, folder: Path) -> None:
    (folder / f"{rank}.pid").write_text(f"{os.getpid()}\n")
    if rank == 0:
        torch.distributed.barrier()  # the other never comes
    time.sleep(600)


def is_alive(process: int) -> bool:
    status = Path(f"/proc/{process}/status")
    try:
        return "State:\tZ" not in status.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.slow
def test_processes_end_with_a_test_run_that_is_killed(tmp_path: Path) -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT, tmp_path], cwd=REPOSITORY)
    try:
        files = [tmp_path / "0.pid", tmp_path / "1.pid"]
        while not all(file.exists() and file.read_text().endswith("\n") for file in files):
            assert parent.poll() is None
            time.sleep(0.05)
        children = [int(file.read_text()) for file in files]
        assert all(map(is_alive, children))
    finally:
        parent.kill()
        parent.wait()
    deadline = time.monotonic() + 10
    while alive := [child for child in children if is_alive(child)]:
        if time.monotonic() > deadline:
            for child in alive:
                os.kill(child, signal.SIGKILL)
            raise AssertionError(f"still there: {alive}")
        time.sleep(0.05)
