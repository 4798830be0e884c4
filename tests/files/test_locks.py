"""One holder at a time; the lock ends with its process and does not pass to its children."""

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mmpt_plugin.files import LockHeld, UnusableFile, lock

HOLD = """
import sys, time
from mmpt_plugin.files import lock
with lock(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path: Path):
    """Another process that holds tmp_path/lock."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "lock")], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_the_holder_is_named_and_its_death_frees_the_lock(tmp_path: Path, holder: subprocess.Popen):
    refusal = pytest.raises(LockHeld, match=f"the run folder is in use by process {holder.pid} on ")
    with refusal, lock(tmp_path / "lock", purpose="the run folder"):
        pass
    holder.kill()
    with lock(tmp_path / "lock", wait_seconds=10):
        pass


def test_twice_in_one_process(tmp_path: Path, holder: subprocess.Popen):
    with lock(tmp_path / "mine"):
        with pytest.raises(LockHeld, match="this very process"), lock(tmp_path / "mine"):
            pass
        check = "import sys; from mmpt_plugin.files import lock; lock(sys.argv[1]).__enter__()"  # the refusal kept it
        other = subprocess.run([sys.executable, "-c", check, str(tmp_path / "mine")], capture_output=True, text=True)
        assert f"process {os.getpid()} on" in other.stderr
    with lock(tmp_path / "mine"):
        pass


def test_forked_children_do_not_keep_the_lock(tmp_path: Path):
    code = """
import multiprocessing, os, sys, time
from mmpt_plugin.files import lock
with lock(sys.argv[1]):
    child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
    child.start()
    print(child.pid, flush=True)
    os._exit(1)
"""
    parent = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "lock")], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.wait()
    try:
        os.kill(child, 0)  # it lives on
        with lock(tmp_path / "lock"):
            pass
    finally:
        os.kill(child, 9)


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*arguments: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", refuse)
    with pytest.raises(UnusableFile, match="the file system has no locks"), lock(tmp_path / "lock"):
        pass
