"""A run that is asked to stop ends after the update under way with a checkpoint; resumed, it ends with the same weights."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from mmpt_plugin.runs import stopping
from mmpt_plugin.runs.stopping import EXIT_CODE, SIGNALS, StopRequest
from mmpt_plugin.tasks import base

from ..conftest import WholeRun
from ..together import together, train_one_of

STOP_AT = 3  # of 12 updates, 6 an epoch; by two processes of 6, 3 an epoch


def raise_in_update(monkeypatch: pytest.MonkeyPatch, number: signal.Signals, update: int) -> None:
    """A signal comes while this update is computed."""
    original = base.TrainingTask.train_step

    def step(task, sample, model, criterion, optimizer, update_num, *rest, **named):
        if update_num == update - 1:
            os.kill(os.getpid(), number)
        return original(task, sample, model, criterion, optimizer, update_num, *rest, **named)

    monkeypatch.setattr(base.TrainingTask, "train_step", step)


def content(folder: Path) -> dict:
    return torch.load(folder / "checkpoint_last.pt", weights_only=True)


def assert_same_weights(one: Path, other: Path) -> None:
    ours, theirs = content(one)["model"], content(other)["model"]
    assert ours.keys() == theirs.keys() and all(torch.equal(value, theirs[name]) for name, value in ours.items())


@pytest.mark.parametrize(
    ("number", "update"),
    [
        (signal.SIGTERM, STOP_AT),
        pytest.param(signal.SIGUSR1, 6, marks=pytest.mark.slow),  # the last update of an epoch
        pytest.param(signal.SIGINT, STOP_AT, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_resumed_weights_are_those_of_an_undisturbed_run(
    pretrain, whole_run: WholeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, update: int
) -> None:
    before = [signal.getsignal(each) for each in SIGNALS]
    with monkeypatch.context() as patched:
        raise_in_update(patched, number, update)
        with pytest.raises(SystemExit) as end:
            pretrain(tmp_path / "run")
    assert end.value.code == EXIT_CODE == 75
    assert [signal.getsignal(each) for each in SIGNALS] == before
    saved = content(tmp_path / "run")
    assert saved["optimizer_history"][-1]["num_updates"] == update
    assert saved["extra_state"]["val_loss"] is None  # a stop does not wait for validation
    pretrain(tmp_path / "run")
    assert_same_weights(tmp_path / "run", whole_run.folder)


def stop_one(rank: int, folder: Path, overrides: tuple, stop: bool) -> None:
    """A process's part in a run of two; the second gets a signal, and both stop."""
    with pytest.MonkeyPatch.context() as patched:
        if stop and rank == 1:
            raise_in_update(patched, signal.SIGTERM, STOP_AT)
        train_one_of(rank, 2, folder, "pretrain", overrides, exit_code=EXIT_CODE if stop else 0)


@pytest.mark.slow
def test_two_processes_agree_on_the_update(tiny_settings: tuple, tmp_path: Path) -> None:
    def run(name: str, save_dir: Path, stop: bool) -> None:
        overrides = (*tiny_settings, f"checkpoint.save_dir={save_dir}")
        together(stop_one, 2, tmp_path / name, tmp_path / name, overrides, stop, joined=False)

    run("first", tmp_path / "run", stop=True)
    assert content(tmp_path / "run")["optimizer_history"][-1]["num_updates"] == STOP_AT
    run("second", tmp_path / "run", stop=False)
    run("whole", tmp_path / "undisturbed", stop=False)
    assert_same_weights(tmp_path / "run", tmp_path / "undisturbed")


LISTEN = """
import os, signal, time
from mmpt_plugin.runs import stopping
stopping.ECHO_SECONDS = 0.2
stop = stopping.StopRequest()
with stop.listening():
    print("ready", flush=True)
    while True:
        time.sleep(0.01)
"""


@pytest.mark.parametrize("number", SIGNALS, ids=str)
def test_a_second_signal_ends_the_run_at_once(number: signal.Signals, monkeypatch: pytest.MonkeyPatch) -> None:
    killed: list[tuple[int, int]] = []
    stop = StopRequest()
    with stop.listening():
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), number)  # a launcher's echo of the same
        assert stop.asked and not stop.agreed
        monkeypatch.setattr(stopping, "ECHO_SECONDS", 0.0)
        monkeypatch.setattr(stopping.os, "kill", lambda *given: killed.append(given))
        signal.raise_signal(number)
        assert killed == [(os.getpid(), number)] and signal.getsignal(number) == signal.SIG_DFL


@pytest.mark.slow
def test_the_second_signal_of_a_process(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", LISTEN], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout is not None and process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == -signal.SIGTERM


@pytest.mark.slow
def test_workers_live_on_through_a_signal_to_the_whole_job(
    pretrain, whole_run: WholeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = base.TrainingTask.train_step

    def step(task, sample, model, criterion, optimizer, update_num, *rest, **named):
        if update_num == STOP_AT - 1:
            children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
            workers = [int(child) for child in children if b"resource_tracker" not in _command(child)]
            assert len(workers) >= 2
            for process in (*workers, os.getpid()):
                subprocess.run(["kill", "-TERM", str(process)], check=True)  # by another than their parent
        return original(task, sample, model, criterion, optimizer, update_num, *rest, **named)

    with monkeypatch.context() as patched:
        patched.setattr(base.TrainingTask, "train_step", step)
        with pytest.raises(SystemExit) as end:
            pretrain(tmp_path / "run", "dataset.num_workers=2")
    assert end.value.code == EXIT_CODE
    pretrain(tmp_path / "run", "dataset.num_workers=2")
    assert_same_weights(tmp_path / "run", whole_run.folder)


def _command(process: str) -> bytes:
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return b"resource_tracker"
