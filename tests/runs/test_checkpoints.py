"""Checkpoints are whole whatever happens while they are written, and a run goes on from a whole one."""

import logging
import os
import shutil
from pathlib import Path

import pytest
import torch
from fairseq import checkpoint_utils

from mmpt_plugin.files import UnusableFile
from mmpt_plugin.runs.checkpoints import WholeCopies, checkpoint_to_start_from, write_whole_checkpoints


def save(path: Path, update: int, seconds: int) -> None:
    """A file that looks like a checkpoint of fairseq, with a time of its own."""
    content = {"model": {"weight": torch.full((999,), float(update))}, "last_optimizer_state": {"state": {"step": 1}}}
    torch.save(content, path)
    os.utime(path, (seconds, seconds))


def update_of(path: Path) -> float:
    return torch.load(path, weights_only=True)["model"]["weight"][0].item()


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A folder with a last checkpoint, of update 30, and older ones."""
    save(tmp_path / "checkpoint1.pt", 10, 1000)
    save(tmp_path / "checkpoint_best.pt", 20, 2000)
    save(tmp_path / "checkpoint_last.pt", 30, 3000)
    (tmp_path / "checkpoint_note.txt").write_text("not a checkpoint")
    return tmp_path


def start(run: Path) -> Path | None:
    return checkpoint_to_start_from(str(run), "checkpoint_last.pt", None)


def cut(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def flip(path: Path) -> None:
    """One bit of a weight."""
    content = bytearray(path.read_bytes())
    content[content.find(torch.full((9,), update_of(path)).numpy().tobytes()) + 5] ^= 1
    path.write_bytes(content)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def test_the_last_one_where_it_is_whole(run: Path) -> None:
    assert start(run) == run / "checkpoint_last.pt" and update_of(run / "checkpoint_last.pt") == 30
    assert {path.name for path in run.iterdir()} >= {"checkpoint1.pt", "checkpoint_best.pt", "checkpoint_last.pt"}


@pytest.mark.parametrize("damage", [cut, flip, empty])
def test_a_damaged_last_one_gives_way_to_the_newest_whole_one(
    run: Path, damage, caplog: pytest.LogCaptureFixture
) -> None:
    damage(run / "checkpoint_last.pt")
    caplog.set_level(logging.WARNING)
    assert start(run) == run / "checkpoint_last.pt"
    assert update_of(run / "checkpoint_last.pt") == 20
    assert (run / "checkpoint_last.pt.damaged").is_file()
    assert "checkpoint_last.pt cannot be read" in caplog.text and "goes on from checkpoint_best.pt" in caplog.text


def test_other_damaged_ones_are_passed_over(run: Path, caplog: pytest.LogCaptureFixture) -> None:
    flip(run / "checkpoint_best.pt")
    cut(run / "checkpoint_last.pt")
    start(run)
    assert update_of(run / "checkpoint_last.pt") == 10 and "checkpoint_best.pt is passed over" in caplog.text


def test_a_kill_before_the_first_copy_is_no_start_from_zero(run: Path, caplog: pytest.LogCaptureFixture) -> None:
    (run / "checkpoint_last.pt").unlink()
    start(run)
    assert update_of(run / "checkpoint_last.pt") == 20 and "checkpoint_last.pt is not there" in caplog.text


def test_a_checkpoint_without_an_optimizer_is_no_run_to_go_on_with(run: Path) -> None:
    torch.save({"model": {}}, run / "checkpoint_best.pt")
    cut(run / "checkpoint_last.pt")
    start(run)
    assert update_of(run / "checkpoint_last.pt") == 10


def test_without_any_whole_one_the_run_is_refused(run: Path) -> None:
    for path in run.glob("*.pt"):
        cut(path)
    with pytest.raises(UnusableFile, match=r"checkpoint_last\.pt: .*no whole checkpoint .*move .* away to start anew"):
        start(run)
    assert (run / "checkpoint_last.pt").is_file()  # as it was


def test_an_empty_folder_is_a_new_run(tmp_path: Path) -> None:
    assert start(tmp_path) is None and start(tmp_path / "yet to be made") is None


def test_a_checkpoint_that_was_asked_for(run: Path, tmp_path: Path) -> None:
    asked = str(run / "checkpoint1.pt")
    assert checkpoint_to_start_from(str(tmp_path / "new"), asked, None) == run / "checkpoint1.pt"
    assert checkpoint_to_start_from(str(tmp_path / "new"), "checkpoint_last.pt", asked) == run / "checkpoint1.pt"
    with pytest.raises(FileNotFoundError, match=r"checkpoint\.restore_file: no checkpoint at .*gone\.pt"):
        checkpoint_to_start_from(str(tmp_path / "new"), str(run / "gone.pt"), None)
    with pytest.raises(FileNotFoundError, match=r"checkpoint\.finetune_from_model"):
        checkpoint_to_start_from(str(tmp_path / "new"), "checkpoint_last.pt", str(run / "gone.pt"))
    flip(run / "checkpoint1.pt")
    with pytest.raises(ValueError, match=r"checkpoint\.restore_file: .*checkpoint1\.pt.*damaged"):
        checkpoint_to_start_from(str(tmp_path / "new"), asked, None)


def test_copies_are_second_names_and_replace_in_one_step(run: Path) -> None:
    best, last = run / "checkpoint_best.pt", run / "checkpoint_last.pt"
    with last.open("rb") as before:
        WholeCopies.copy(str(best), str(last), overwrite=True)
        assert torch.load(before, weights_only=True)["model"]["weight"][0] == 30  # nothing was written in place
    assert update_of(last) == 20 and last.samefile(best)
    WholeCopies.copy(str(best), str(last))  # again
    assert not list(run.glob("*.partial"))


def test_copies_on_a_file_system_without_second_names(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*given: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "link", refuse)
    best, last = run / "checkpoint_best.pt", run / "checkpoint_last.pt"
    WholeCopies.copy(str(best), str(last))
    assert update_of(last) == 20 and not last.samefile(best)

    def full(*given: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", full)
    with pytest.raises(OSError, match="No space left"):
        WholeCopies.copy(str(run / "checkpoint1.pt"), str(last))
    assert update_of(last) == 20 and not list(run.glob("*.partial"))


def test_fairseq_copies_that_way(run: Path) -> None:
    write_whole_checkpoints()
    assert checkpoint_utils.PathManager.copy is WholeCopies.copy
    assert checkpoint_utils.PathManager.isfile(str(run / "checkpoint_last.pt"))  # all else is fairseq's own
