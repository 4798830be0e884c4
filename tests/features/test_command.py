"""The command line: settings that are refused, what is said of the machine and the folder, exit codes."""

from __future__ import annotations

import ast
import errno
import fcntl
import logging
import os
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from mmpt_plugin import extras
from mmpt_plugin.data.ray_cluster import check_reachable
from mmpt_plugin.data.workers import available_cores
from mmpt_plugin.features import command, networks, runners
from mmpt_plugin.features.command import checked_device, main
from mmpt_plugin.features.extract import Job
from mmpt_plugin.features.manifest import read_failures
from mmpt_plugin.features.networks import FeatureNetwork, NetworkConfig
from mmpt_plugin.features.runners import OnRay, shared_out
from mmpt_plugin.features.s3d import S3D

from .video_files import moving_square, write_video


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    write_video(folder / "a.mp4", moving_square(40, 64, 48))
    write_video(folder / "b.mp4", moving_square(40, 64, 48))
    return folder


@pytest.fixture(autouse=True)
def stub(monkeypatch) -> None:
    """The network `stub`, and the root logger as the tests found it."""
    network = FeatureNetwork("stub", "00", 3, lambda frames: frames.float().mean(dim=(1, 2, 3)) + 1)
    monkeypatch.setitem(networks.NETWORKS, "stub", lambda argument, config: network)
    monkeypatch.setattr(logging.root, "handlers", [])


def arguments(videos: Path, out: Path, *options: object) -> list[str]:
    return [
        *("--videos", str(videos), "--out", str(out), "--network", "stub", "--frame-size", "32", "--threads", "1"),
        *map(str, options),
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--fps", "0"], "--fps: 0: a whole number from 1 to 240"),
        (["--fps", "100000"], "--fps: 100000: a whole number from 1 to 240"),
        (["--frame-size", "-1"], "--frame-size: -1"),
        (["--batch-seconds", "-1"], "--batch-seconds: -1: a whole number from 1 to 1024"),
        (["--batch-seconds", "99999999999"], "--batch-seconds: 99999999999"),
        (["--workers", "-1"], "--workers: -1"),
        (["--workers", "two"], "--workers: two: a whole number"),
        (["--ray-workers", "0"], "--ray-workers: 0"),
        (["--threads", "0"], "--threads: 0"),
    ],
)
def test_numbers_out_of_bounds_are_refused(tmp_path, videos, capsys, options, message):
    with pytest.raises(SystemExit) as caught:
        main(arguments(videos, tmp_path / "out", *options))
    assert caught.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def refused(capsys, *options: object) -> str:
    """What is said, in one line, by a command that must not begin."""
    assert main([str(option) for option in options]) == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return said


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--device", "cuda"], "--device cuda: torch sees 0 GPUs"),
        (["--device", "cuda:3"], "--device cuda:3: torch sees 0 GPUs"),
        (["--device", "gpu"], "--device gpu: unknown; allowed: cpu, cuda"),
        (["--device", "cuda:x"], "--device cuda:x: unknown"),
        (["--ray", "local", "--device", "cuda"], "--device cuda: torch sees 0 GPUs"),
        (["--ray", "nonsense"], "--ray nonsense: unknown; allowed: local, auto, HOST:PORT"),
        (["--ray", "localhost:1"], "--ray localhost:1: no connection"),
        (["--batch-seconds", "1024", "--fps", "240", "--frame-size", "2048"], "GiB of frames; at most 8 GiB"),
        (["--network", "resnet"], "--network resnet: unknown"),
    ],
)
def test_settings_that_cannot_work_are_refused(tmp_path, videos, capsys, monkeypatch, options, message):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert message in refused(capsys, *arguments(videos, tmp_path / "out", *options))


def test_files_in_place_of_folders(tmp_path, videos, capsys):
    (tmp_path / "file").touch()
    assert f"--out {tmp_path / 'file'} is a file" in refused(capsys, *arguments(videos, tmp_path / "file"))
    assert "is a file; a folder of videos" in refused(capsys, *arguments(videos / "a.mp4", tmp_path / "out"))
    assert "no such folder" in refused(capsys, *arguments(tmp_path / "none", tmp_path / "out"))


def test_frames_that_s3d_cannot_take(tmp_path, videos, capsys):
    torch.save(S3D().state_dict(), tmp_path / "s3d.pth")
    options = ["--network", "s3d", "--checkpoint", tmp_path / "s3d.pth", "--fps", "25"]
    said = refused(capsys, *arguments(videos, tmp_path / "out", *options))
    assert "--network s3d does not take 25 frames (--fps) of 32 x 32 pixels (--frame-size)" in said


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_file_system_without_locks(tmp_path, videos, capsys, monkeypatch, code):
    def refuse(file: int, operation: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refuse)
    said = refused(capsys, *arguments(videos, tmp_path / "out"))
    assert f"--out {tmp_path / 'out'}: {os.strerror(code)}" in said


def test_network_file_system_wants_locked_files_open_for_writing(tmp_path, videos, monkeypatch):
    flock = fcntl.flock

    def as_nfs(file: int, operation: int) -> None:
        if fcntl.fcntl(file, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        flock(file, operation)

    monkeypatch.setattr(fcntl, "flock", as_nfs)
    (tmp_path / "out" / ".work").mkdir(parents=True)
    (tmp_path / "out" / ".work" / "a.claim").touch()
    assert main(arguments(videos, tmp_path / "out")) == 0


@pytest.mark.parametrize("writes_before", [0, 1, 2])
def test_full_disk(tmp_path, videos, capsys, monkeypatch, writes_before):
    """The manifest, the first video's features, the second's: whichever the disk has no room for ends the run."""
    fsync, left = os.fsync, [writes_before]

    def fill_up(file: int) -> None:
        if left[0] == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        left[0] -= 1
        fsync(file)

    monkeypatch.setattr(os, "fsync", fill_up)
    said = refused(capsys, *arguments(videos, tmp_path / "out"))
    assert f"--out {tmp_path / 'out'}: No space left on device" in said
    outputs = {path.name for path in (tmp_path / "out").glob("*.npy")}
    assert outputs == {"a.npy"} if writes_before == 2 else outputs == set()
    assert not list((tmp_path / "out").glob(".*.partial"))
    monkeypatch.setattr(os, "fsync", fsync)
    assert main(arguments(videos, tmp_path / "out")) == 0


def test_what_is_unusable_counts_as_failed(tmp_path, videos, capsys):
    folder = tmp_path / "videos"
    folder.mkdir()
    (folder / "good.mp4").symlink_to(videos / "a.mp4")
    (folder / "gone.mp4").symlink_to(tmp_path / "none")
    Path(os.fsdecode(bytes(folder) + b"/\xff.mp4")).touch()
    for _ in range(2):
        assert main(arguments(folder, tmp_path / "out")) == 1
        assert "3 videos" in (said := capsys.readouterr().out)
        assert "2 failed" in said
        assert set(read_failures(tmp_path / "out")) == {"gone", "\udcff"}
    (folder / "gone.mp4").unlink()
    Path(os.fsdecode(bytes(folder) + b"/\xff.mp4")).unlink()
    assert main(arguments(folder, tmp_path / "out")) == 0
    assert not (tmp_path / "out" / "failures.tsv").exists()


def test_devices(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [checked_device(name) for name in ("auto", "cuda", "cuda:1", "cpu")] == ["cuda", "cuda", "cuda:1", "cpu"]
    with pytest.raises(ValueError, match="cuda:2: torch sees 2 GPUs"):
        checked_device("cuda:2")
    with pytest.raises(ValueError, match="Ray picks the GPU"):
        checked_device("cuda:1", "local")
    assert shared_out("cuda", 5) == ["cuda:0", "cuda:1", "cuda:0", "cuda:1", "cuda:0"]
    assert shared_out("cuda:1", 2) == ["cuda:1"] * 2
    assert shared_out("cpu", 2) == ["cpu"] * 2
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert checked_device("auto") == "cpu"
    assert checked_device("cuda", "10.0.0.1:6379") == "cuda"


@pytest.mark.parametrize(("device", "resources"), [("cuda", {"CPU": 8.0}), ("cuda", {"GPU": 1.0}), ("cpu", {})])
def test_cluster_that_lacks_what_a_task_needs_is_refused(tmp_path, monkeypatch, device, resources):
    @contextmanager
    def cluster(address: str, count: int):
        yield SimpleNamespace(cluster_resources=lambda: resources)

    monkeypatch.setattr(runners, "ray_cluster", cluster)
    job = Job(tmp_path, NetworkConfig("stub", device=device))
    with pytest.raises(ValueError, match=r"--ray 10\.0\.0\.1:6379: each task needs 1 [CG]PU, and the cluster has 0"):
        list(OnRay("10.0.0.1:6379")(job, {"a": Path("a.mp4")}))


def test_cluster_address_that_nobody_answers_is_refused_at_once():
    start = time.monotonic()
    for address in ("nonsense:1", "localhost:1", "ray://localhost:1", "localhost:99999", "ray://"):
        with pytest.raises(ValueError, match=f"--ray {address}: "):
            check_reachable(address)
    assert time.monotonic() - start < 20


def test_cores_are_those_of_this_process(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {3, 5, 7})
    assert available_cores() == 3


def test_help_waits_for_no_import():
    """Before it has read its arguments, the file imports the standard library and what imports nothing else."""
    for module in (command, extras):
        tree = ast.parse(Path(module.__file__).read_text())
        names = [alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names]
        names += [str(node.module) for node in tree.body if isinstance(node, ast.ImportFrom)]
        assert {name.split(".")[0] for name in names} - {"mmpt_plugin"} <= set(sys.stdlib_module_names)
        assert {name for name in names if name.startswith("mmpt_plugin")} <= {"mmpt_plugin.extras"}
