"""A folder has one run at a time."""

import os
import socket
from pathlib import Path

import pytest

from mmpt_plugin.files import LockHeld
from mmpt_plugin.runs.folder import hold_folder

from ..together import start_together, together


def hold(rank: int, folder: Path, name: str = "run") -> int:
    hold_folder(folder, name)
    return os.getpid()


def hold_for_ever(rank: int, folder: Path) -> None:
    hold_folder(folder)
    (folder / "held").write_text(str(os.getpid()))
    import time

    time.sleep(600)


def test_a_second_run_is_told_who_has_the_folder(tmp_path: Path) -> None:
    run = tmp_path / "run"
    (holder,) = start_together(hold_for_ever, 1, tmp_path, run, joined=False)
    try:
        while not (run / "held").exists():
            assert holder.is_alive()
        told = rf"checkpoint\.save_dir={run} is in use by process {holder.pid} on {socket.gethostname()}"
        with pytest.raises(LockHeld, match=told):
            hold_folder(run)
        hold_folder(run, "youcook2")  # another name: evaluations of other benchmarks
    finally:
        holder.kill()
        holder.join()
    hold_folder(run)  # a killed run's lock ended with it
    with pytest.raises(AssertionError, match="LockHeld"):
        together(hold, 1, tmp_path / "second", run, joined=False)
    hold_folder(run)  # one process may start another run there


def test_only_the_first_process_of_a_run_holds_it(tmp_path: Path) -> None:
    assert len(set(together(hold, 2, tmp_path / "two", tmp_path / "run"))) == 2
