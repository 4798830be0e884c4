"""Copies on a local disk: whole, made by one process, used again until the original changes."""

import multiprocessing
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import fsspec
import numpy as np
import pytest

from mmpt_plugin.data import local_copy
from mmpt_plugin.data.feature_folder import FeatureFolder
from mmpt_plugin.data.local_copy import INVENTORY, local_folder
from mmpt_plugin.extras import MissingExtra

SETTING = "task.features"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    (folder / "train_00000").mkdir(parents=True)
    (folder / "train_00000" / "index.json").write_text("{}")
    (folder / "one.npy").write_bytes(b"1" * 1000)
    (folder / ".hidden.partial").write_text("of a process that died")
    return folder


@pytest.fixture
def remote() -> str:
    """An object store in this process's memory."""
    store = fsspec.filesystem("memory")
    rows = np.ones((5, 512), np.float16)
    with store.open("/bucket/features/one.npy", "wb") as file:
        np.save(file, rows)
    yield "memory://bucket/features"
    store.rm("/bucket", recursive=True)


def content(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != INVENTORY and not path.name.startswith(".")
    }


def test_without_a_place_for_copies_the_folder_itself_is_read(source: Path) -> None:
    assert local_folder(source, None, SETTING) == source


def test_a_copy_is_whole_and_used_again(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = local_folder(source, tmp_path / "disk", SETTING)
    assert copy.is_relative_to(tmp_path / "disk") and content(copy) == content(source)
    monkeypatch.setattr(local_copy, "_copy", lambda *arguments: pytest.fail("copied again"))
    assert local_folder(str(source), tmp_path / "disk", SETTING) == copy


@pytest.mark.parametrize("what", ["original", "new", "removed", "copy", "inventory"])
def test_what_has_changed_is_copied_anew(source: Path, tmp_path: Path, what: str) -> None:
    copy = local_folder(source, tmp_path / "disk", SETTING)
    if what == "original":
        before = (source / "one.npy").stat()
        (source / "one.npy").write_bytes(b"2" * 1000)  # of the same size
        os.utime(source / "one.npy", (before.st_atime, before.st_mtime + 10))
    elif what == "new":
        (source / "two.npy").write_bytes(b"2")
    elif what == "removed":
        (source / "one.npy").unlink()
    elif what == "copy":
        (copy / "one.npy").write_bytes(b"1" * 999)
    else:
        (copy / INVENTORY).write_text("[]")
    assert local_folder(source, tmp_path / "disk", SETTING) == copy
    assert content(copy) == content(source)


def test_an_object_store(remote: str, tmp_path: Path) -> None:
    features = FeatureFolder(local_folder(remote, tmp_path / "disk", SETTING))
    assert features.ids() == ["one"] and features.seconds("one") == 5
    with pytest.raises(ValueError, match=r"task\.features is memory://bucket/features: set task\.local_copy"):
        local_folder(remote, None, SETTING)


def test_a_copy_that_breaks_off_leaves_nothing(remote: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks_off(self: object, path: str, target: str) -> None:
        Path(target).write_bytes(b"half")

    with monkeypatch.context() as patched:
        patched.setattr(type(fsspec.filesystem("memory")), "get_file", breaks_off)
        with pytest.raises(ValueError, match=r"one\.npy: 4 of its 5248 bytes came"):
            local_folder(remote, tmp_path / "disk", SETTING)
    assert [path.name for path in (tmp_path / "disk").iterdir() if not path.name.endswith(".lock")] == []
    local_folder(remote, tmp_path / "disk", SETTING)


def test_what_is_refused(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError, match=r"task\.features=.*nowhere: no files there"):
        local_folder(tmp_path / "nowhere", tmp_path / "disk", SETTING)
    with pytest.raises(ValueError, match="fsspec knows no address of this kind"):
        local_folder("ssss3://bucket/features", tmp_path / "disk", SETTING)
    with pytest.raises(ValueError, match="would be copied into itself"):
        local_folder(source, source / "copies", SETTING)
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(MissingExtra, match=r"needs the package s3fs, .*pip install 'mmpt_plugin\[remote\]'"):
        local_folder("s3://bucket/features", tmp_path / "disk", SETTING)
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=1 << 20))
    with pytest.raises(OSError, match=r"takes 0\.0 GiB, and 0\.0 GiB are free there: make room"):
        local_folder(source, tmp_path / "disk", SETTING)


def copy_and_count(source: Path, disk: Path, counted: Path) -> None:
    """In a process of its own: note each time that files are copied."""
    copy = local_copy._copy

    def noted(*arguments: object) -> None:
        (counted / str(os.getpid())).touch()
        copy(*arguments)

    local_copy._copy = noted
    assert content(local_folder(source, disk, SETTING)) == content(source)


def test_one_process_copies_and_the_others_wait(source: Path, tmp_path: Path) -> None:
    (source / "large.npy").write_bytes(bytes(30_000_000))
    counted = tmp_path / "counted"
    counted.mkdir()
    context = multiprocessing.get_context("fork")
    started = [context.Process(target=copy_and_count, args=(source, tmp_path / "disk", counted)) for _ in range(4)]
    for process in started:
        process.start()
    for process in started:
        process.join(60)
    assert [process.exitcode for process in started] == [0] * 4 and len(list(counted.iterdir())) == 1
