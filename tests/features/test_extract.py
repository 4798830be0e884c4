"""The run over a folder of videos: what it writes, and that it survives being broken off, repeated and doubled."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torch

from mmpt_plugin.features import extract, networks
from mmpt_plugin.features.command import main
from mmpt_plugin.features.extract import Job, Outcome, is_done, run
from mmpt_plugin.features.folder import find_videos
from mmpt_plugin.features.locks import WORK_FOLDER, claim, claim_state
from mmpt_plugin.features.manifest import read_failures, read_records, read_settings
from mmpt_plugin.features.networks import FeatureNetwork, NetworkConfig
from mmpt_plugin.features.one_video import FeatureExtractor, ahead, embed_blocks
from mmpt_plugin.features.runners import InProcesses, OnRay, in_this_process
from mmpt_plugin.features.s3d import S3D
from mmpt_plugin.features.video import VideoBlocks
from mmpt_plugin.files import open_array

from .video_files import gray_levels, moving_square, repeat_video, write_sound, write_video

SCRIPT = Path(__file__).parents[2] / "scripts" / "extract_features.py"
SIZE = 32


def mean_colour(frames: torch.Tensor) -> torch.Tensor:
    """The stub network: (B, T, H, W, 3) to (B, 3)."""
    return frames.float().mean(dim=(1, 2, 3)) + 1


@pytest.fixture
def stub(monkeypatch) -> None:
    """Registers the network `stub`."""

    def load(argument: str, config: NetworkConfig) -> FeatureNetwork:
        return FeatureNetwork(f"stub:{argument}", "00", 3, mean_colour)

    monkeypatch.setitem(networks.NETWORKS, "stub", load)


@pytest.fixture
def videos(tmp_path) -> Path:
    """Two videos, one in a subfolder, and a file that is no video by its suffix."""
    folder = tmp_path / "videos"
    (folder / "more").mkdir(parents=True)
    write_video(folder / "a.mp4", moving_square(100))
    write_video(folder / "more" / "-b_c.mkv", moving_square(40))
    (folder / "notes.txt").write_text("hello")
    return folder


def stub_job(out: Path, argument: str = "", **settings) -> Job:
    settings = {"frame_size": SIZE, "batch_seconds": 2, **settings}
    return Job(out, NetworkConfig(f"stub:{argument}"), **settings)


def test_features_are_one_normalised_row_a_second(tmp_path, videos, stub):
    out = tmp_path / "out"
    summary = run(stub_job(out), find_videos(videos).videos, in_this_process)
    assert (summary.extracted, summary.seconds, summary.failures) == (2, 4 + 2, {})
    for video_id, path in find_videos(videos).videos.items():
        blocks = np.stack(list(VideoBlocks(path, size=SIZE)))
        expected = mean_colour(torch.from_numpy(blocks)).numpy()
        expected = expected / np.linalg.norm(expected, axis=1, keepdims=True)
        features = np.load(out / f"{video_id}.npy")
        assert features.dtype == np.float16
        np.testing.assert_allclose(features, expected, atol=1e-3)


def test_what_follows_in_the_process_has_its_own_number_of_threads(tmp_path, videos, stub):
    """A training's last bits depend on it, and torchrun gives each process one."""
    before = torch.get_num_threads()
    run(stub_job(tmp_path / "out", torch_threads=before + 1), find_videos(videos).videos, in_this_process)
    assert torch.get_num_threads() == before


def test_manifest_and_records(tmp_path, videos, stub):
    out = tmp_path / "out"
    run(stub_job(out), find_videos(videos).videos, in_this_process)
    assert read_settings(out) == {
        "network": "stub:",
        "weights_sha256": "00",
        "feature_size": 3,
        "precision": "fp32",
        "fps": 30,
        "features_per_second": 1,
        "frame_size": SIZE,
        "value_range": "[0, 1]",
        "normalisation": "l2",
        "dtype": "float16",
    }
    records = read_records(out)
    assert set(records) == {"a", "-b_c"}
    assert records["a"] == {
        "video_id": "a",
        "source": str(videos / "a.mp4"),
        "seconds": 4,
        "frames": 100,
        "declared_seconds": pytest.approx(100 / 30, abs=0.01),
        "damaged": 0,
    }
    assert sorted(os.listdir(out)) == sorted(
        [".lock", WORK_FOLDER, "-b_c.npy", "a.npy", "manifest.json", "videos.jsonl"]
    )
    assert not any((out / WORK_FOLDER).iterdir())


def test_second_run_does_nothing(tmp_path, videos, stub):
    out = tmp_path / "out"
    run(stub_job(out), find_videos(videos).videos, in_this_process)
    before = {path.name: path.stat().st_mtime_ns for path in out.glob("*.npy")}
    summary = run(stub_job(out), find_videos(videos).videos, in_this_process)
    assert (summary.done_before, summary.extracted) == (2, 0)
    assert {path.name: path.stat().st_mtime_ns for path in out.glob("*.npy")} == before


def test_cut_off_output_is_made_again(tmp_path, videos, stub):
    out = tmp_path / "out"
    run(stub_job(out), find_videos(videos).videos, in_this_process)
    whole = (out / "a.npy").read_bytes()
    for damaged in (whole[:-5], whole + b"x", b"", b"\x93NUMPY\x01\x00\x76\x00" + b"[" * 118):
        (out / "a.npy").write_bytes(damaged)
        assert not is_done(out, "a", 3)
    summary = run(stub_job(out), find_videos(videos).videos, in_this_process)
    assert (summary.done_before, summary.extracted) == (1, 1)
    assert (out / "a.npy").read_bytes() == whole


def test_other_settings_in_the_same_folder_are_refused(tmp_path, videos, stub):
    out = tmp_path / "out"
    run(stub_job(out), find_videos(videos).videos, in_this_process)
    with pytest.raises(ValueError, match=r"network: 'stub:' here, 'stub:other' expected"):
        run(stub_job(out, "other"), find_videos(videos).videos, in_this_process)
    with pytest.raises(ValueError, match=r"fps: 30 here, 10 expected"):
        run(stub_job(out, fps=10), find_videos(videos).videos, in_this_process)


def test_failures_are_listed_and_the_run_goes_on(tmp_path, videos, stub):
    out = tmp_path / "out"
    (videos / "0broken.mp4").write_bytes(b"nothing")
    write_sound(videos / "sound.mp4")
    summary = run(stub_job(out), find_videos(videos).videos, in_this_process)
    assert summary.extracted == 2
    assert set(summary.failures) == {"0broken", "sound"}
    failures = read_failures(out)
    assert failures["0broken"] == (str(videos / "0broken.mp4"), summary.failures["0broken"][1])
    assert "no video stream" in failures["sound"][1]
    # Repaired, it leaves the list.
    write_video(videos / "0broken.mp4", moving_square(10))
    summary = run(stub_job(out), find_videos(videos).videos, in_this_process)
    assert (summary.done_before, summary.extracted) == (2, 1)
    assert set(read_failures(out)) == {"sound"}


def test_doubtful_outputs_are_named(tmp_path, stub):
    folder = tmp_path / "videos"
    folder.mkdir()
    whole = write_video(tmp_path / "whole.mkv", moving_square(200))
    (folder / "a.mkv").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    summary = run(stub_job(tmp_path / "out"), find_videos(folder).videos, in_this_process)
    assert summary.extracted == 1
    assert "s decoded of 6.7 s declared" in summary.warnings[0]


def test_network_that_gives_nan_is_a_failure(tmp_path, videos, monkeypatch):
    monkeypatch.setitem(
        networks.NETWORKS,
        "nan",
        lambda argument, config: FeatureNetwork("nan", "", 3, lambda frames: mean_colour(frames) * torch.nan),
    )
    summary = run(Job(tmp_path / "out", NetworkConfig("nan")), find_videos(videos).videos, in_this_process)
    assert len(summary.failures) == 2
    assert "NaN" in summary.failures["a"][1]
    assert not list((tmp_path / "out").glob("*.npy"))


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("CUDA out of memory"), KeyError("x"), OSError("gone")])
def test_whatever_goes_wrong_with_one_video_is_its_failure(tmp_path, videos, monkeypatch, error):
    def embed(frames: torch.Tensor) -> torch.Tensor:
        if len(frames) == 2 and seen.append(1) is None and len(seen) == 1:  # the first whole batch of the first video
            raise error
        return mean_colour(frames)

    seen: list[int] = []
    monkeypatch.setitem(networks.NETWORKS, "stub", lambda argument, config: FeatureNetwork("stub", "", 3, embed))
    summary = run(stub_job(tmp_path / "out", type(error).__name__), find_videos(videos).videos, in_this_process)
    assert set(summary.failures) == {"a"}
    assert summary.extracted == 1
    reason = summary.failures["a"][1]
    assert reason == (str(error) if isinstance(error, OSError) else f"{type(error).__name__}: {error}".rstrip(": "))
    assert read_failures(tmp_path / "out")["a"][1] == reason


def test_failed_video_is_tried_once_in_all(tmp_path, videos, stub, monkeypatch, caplog):
    """Whoever else comes by in the same run, or in one that began before it failed, takes the failure as it stands."""
    (videos / "0broken.mp4").write_bytes(b"nothing")
    tried: list[Path] = []
    original = FeatureExtractor.extract
    monkeypatch.setattr(FeatureExtractor, "extract", lambda self, video: tried.append(video) or original(self, video))

    def two_workers(job: Job, todo: dict[str, Path]) -> Iterator[Outcome]:
        yield from in_this_process(job, todo)
        yield from in_this_process(job, todo)

    out, found = tmp_path / "out", find_videos(videos).videos
    summary = run(stub_job(out), found, two_workers)
    assert set(summary.failures) == {"0broken"}
    assert summary.extracted == 2
    assert len(tried) == 3
    assert caplog.text.count("0broken failed") == 1
    run(stub_job(out), found, in_this_process)  # a later run tries again
    assert len(tried) == 4

    def run_beside(job: Job, todo: dict[str, Path]) -> Iterator[Outcome]:
        assert set(run(stub_job(out), found, in_this_process).failures) == {"0broken"}
        yield from in_this_process(job, todo)

    assert set(run(stub_job(out), found, run_beside).failures) == {"0broken"}
    assert len(tried) == 5


def test_each_output_is_opened_once(tmp_path, videos, stub, monkeypatch):
    opened: list[str] = []
    monkeypatch.setattr(
        extract, "open_array", lambda path, **rest: opened.append(path.name) or open_array(path, **rest)
    )
    run(stub_job(tmp_path / "out"), find_videos(videos).videos, in_this_process)
    opened.clear()
    run(stub_job(tmp_path / "out"), find_videos(videos).videos, in_this_process)
    assert sorted(opened) == ["-b_c.npy", "a.npy"]


def test_claim_that_vanishes_is_no_error(tmp_path, monkeypatch):
    """Between two looks at a claim its holder may have ended."""
    with claim(tmp_path, "a"):
        exists = Path.exists

        def vanish(path: Path) -> bool:
            there = exists(path)
            if path.suffix == ".claim":
                path.unlink(missing_ok=True)
            return there

        monkeypatch.setattr(Path, "exists", vanish)
        assert claim_state(tmp_path, "a") in ("free", "abandoned", "held")


def test_frames_that_the_network_cannot_take_stop_the_run_before_it_begins(tmp_path, videos, monkeypatch):
    def embed(frames: torch.Tensor) -> torch.Tensor:
        raise ValueError("even T, please")

    monkeypatch.setitem(networks.NETWORKS, "odd", lambda argument, config: FeatureNetwork("odd", "", 3, embed))
    with pytest.raises(ValueError, match="even T"):
        run(Job(tmp_path / "out", NetworkConfig("odd"), fps=15), find_videos(videos).videos, in_this_process)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("fixed_batch", "batches"), [(False, [3, 2]), (True, [3, 3])])
def test_batches(fixed_batch, batches):
    seen: list[int] = []

    def embed(frames: torch.Tensor) -> torch.Tensor:
        seen.append(len(frames))
        return mean_colour(frames)

    blocks = [np.full((30, 2, 2, 3), 10 * i, np.uint8) * np.array([1, 0, 0], np.uint8) for i in range(5)]
    features = embed_blocks(blocks, FeatureNetwork("", "", 3, embed, fixed_batch=fixed_batch), 3)
    assert seen == batches
    # Row i: (10 i + 1, 1, 1), normalised.
    expected = np.array([[10 * i + 1, 1, 1] for i in range(5)])
    np.testing.assert_allclose(features, expected / np.linalg.norm(expected, axis=1, keepdims=True), atol=1e-3)


def test_decoding_overlaps_with_the_network():
    def slow_blocks() -> Iterator[np.ndarray]:
        for _ in range(8):
            time.sleep(0.05)
            yield np.zeros((1, 2, 2, 3), np.uint8)

    def slow_embed(frames: torch.Tensor) -> torch.Tensor:
        time.sleep(0.05)
        return mean_colour(frames)

    start = time.perf_counter()
    embed_blocks(slow_blocks(), FeatureNetwork("", "", 3, slow_embed), 1)
    # One after the other 0.8 s; side by side 8 * 0.05 + 0.05.
    assert time.perf_counter() - start < 0.65


def test_ahead_fetches_a_bounded_number():
    fetched = 0

    def count() -> Iterator[int]:
        nonlocal fetched
        for i in range(100):
            fetched += 1
            yield i

    items = ahead(count(), 3)
    assert next(items) == 0
    time.sleep(0.05)
    assert fetched <= 4
    items.close()
    assert list(ahead(range(7), 3)) == list(range(7))


def test_ahead_passes_errors_on():
    def fail() -> Iterator[int]:
        yield 1
        raise ValueError("broken")

    items = ahead(fail(), 3)
    assert next(items) == 1
    with pytest.raises(ValueError, match="broken"):
        next(items)


def _claim_and_die(folder: Path) -> None:
    with claim(folder, "a"):
        os.kill(os.getpid(), signal.SIGKILL)


def test_claims(tmp_path):
    assert claim_state(tmp_path, "a") == "free"
    with claim(tmp_path, "a") as first, claim(tmp_path, "a") as second, claim(tmp_path, "b") as other:
        assert (first, second, other) == (True, False, True)
        assert claim_state(tmp_path, "a") == "held"
    assert claim_state(tmp_path, "a") == "free"
    with claim(tmp_path, "a") as again:
        assert again
    process = get_context("fork").Process(target=_claim_and_die, args=(tmp_path,))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert claim_state(tmp_path, "a") == "abandoned"
    with claim(tmp_path, "a") as taken_over:
        assert taken_over


def test_video_that_another_run_works_on_is_left_to_it(tmp_path, videos, stub):
    out = tmp_path / "out"
    out.mkdir()
    with claim(out, "a"):
        summary = run(stub_job(out), find_videos(videos).videos, in_this_process)
    assert (summary.extracted, summary.held_by_others, summary.failures) == (1, ["a"], {})


def test_workers_that_die_are_noticed(tmp_path, videos, stub):
    out = tmp_path / "out"

    def dying_workers(job: Job, todo: dict[str, Path]) -> Iterator[Outcome]:
        (out / WORK_FOLDER).mkdir()
        (out / WORK_FOLDER / "a.claim").touch()  # what a killed process leaves behind
        yield from ()

    summary = run(stub_job(out), find_videos(videos).videos, dying_workers)
    assert "died" in summary.failures["a"][1]
    assert summary.not_reached == ["-b_c"]
    assert "died" in read_failures(out)["a"][1]


# From here on: real processes, with a network that they can load by its name.


@pytest.fixture(scope="module")
def tiny_vit(tmp_path_factory) -> str:
    from transformers import ViTConfig, ViTModel

    folder = tmp_path_factory.mktemp("models") / "tiny-vit"
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=32, patch_size=16
    )
    ViTModel(config).save_pretrained(folder)
    settings = {"size": {"height": 32, "width": 32}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return f"hf:{folder}"


@pytest.fixture
def long_videos(tmp_path) -> Path:
    """Six videos of 60 s each, a second or two of work each, so that there is a middle to be killed in."""
    folder = tmp_path / "long"
    folder.mkdir()
    levels = [(i * 7) % 256 for i in range(1800)]
    write_video(folder / "v0.mp4", gray_levels(levels), options={"preset": "ultrafast"})
    for i in range(1, 6):
        os.link(folder / "v0.mp4", folder / f"v{i}.mp4")
    return folder


def holder_of(path: Path) -> int | None:
    """The process that has the file locked."""
    try:
        inode = path.stat().st_ino
    except FileNotFoundError:
        return None
    for line in Path("/proc/locks").read_text().splitlines():
        fields = line.split()
        if fields[1] == "FLOCK" and fields[5].endswith(f":{inode}"):
            return int(fields[4])
    return None


def kill_one_worker(out: Path, killed: list[tuple[str, int]], deadline_s: float = 900) -> None:
    """Waits until one video is done and kills a process that is at another one."""
    deadline = time.monotonic() + deadline_s
    while time.monotonic() < deadline:
        if list(out.glob("*.npy")):
            for path in (out / WORK_FOLDER).glob("*.claim"):
                pid = holder_of(path)
                if pid is not None and pid != os.getpid():
                    os.kill(pid, signal.SIGKILL)
                    killed.append((path.stem, pid))
                    return
        time.sleep(0.02)


def run_and_kill(job: Job, videos: dict[str, Path], runner) -> tuple:
    killed: list[tuple[str, int]] = []
    killer = threading.Thread(target=kill_one_worker, args=(job.out, killed))
    killer.start()
    summary = run(job, videos, runner)
    killer.join()
    assert killed, "nobody was killed: the videos are too short for this machine"
    return summary, killed[0]


def lines_per_video(out: Path) -> dict[str, int]:
    ids = [json.loads(line)["video_id"] for line in (out / "videos.jsonl").read_text().splitlines()]
    return {video_id: ids.count(video_id) for video_id in ids}


@pytest.mark.slow
def test_ray_repeats_the_videos_of_a_killed_worker_and_no_other(tmp_path, tiny_vit, long_videos):
    job = Job(tmp_path / "out", NetworkConfig(tiny_vit), frame_size=SIZE, torch_threads=1, decode_threads=1)
    videos = find_videos(long_videos).videos
    summary, (video_id, _) = run_and_kill(job, videos, OnRay("local", 2))
    assert summary.failures == {}
    assert summary.extracted == 6
    assert lines_per_video(job.out) == dict.fromkeys(videos, 1)  # none was finished twice
    first = np.load(job.out / "v0.npy")
    assert first.shape == (60, 24)
    for other in videos:
        np.testing.assert_array_equal(np.load(job.out / f"{other}.npy"), first)
    assert video_id in videos


@pytest.mark.slow
def test_a_killed_worker_process_costs_one_video_at_most(tmp_path, tiny_vit, long_videos):
    job = Job(tmp_path / "out", NetworkConfig(tiny_vit), frame_size=SIZE, torch_threads=1, decode_threads=1)
    videos = find_videos(long_videos).videos
    summary, (video_id, _) = run_and_kill(job, videos, InProcesses(2))
    assert set(summary.failures) <= {video_id}  # the other worker takes it over if it comes by later
    assert summary.extracted + len(summary.failures) == 6
    summary = run(job, videos, in_this_process)
    assert summary.done_before + summary.extracted == 6
    assert lines_per_video(job.out) == dict.fromkeys(videos, 1)
    assert not (job.out / "failures.tsv").exists()


def start_script(videos: Path, out: Path, network: str, *options: str) -> subprocess.Popen:
    command = [sys.executable, str(SCRIPT), *script_arguments(videos, out, network, *options)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def script_arguments(videos: Path, out: Path, network: str, *options: str) -> list[str]:
    arguments = ["--videos", str(videos), "--out", str(out), "--network", network]
    return [*arguments, "--frame-size", str(SIZE), "--threads", "1", *options]


LONG_VIDEO = """
import sys
from pathlib import Path
from mmpt_plugin.features import extract, networks
from mmpt_plugin.features.extract import Job, run
from mmpt_plugin.features.runners import in_this_process

def mean_colour(frames):
    return frames.float().mean(dim=(1, 2, 3)) + 1

networks.NETWORKS["stub"] = lambda argument, config: networks.FeatureNetwork("stub", "", 3, mean_colour)
video, out, network, checkpoint, precision, batch = sys.argv[1:]
config = networks.NetworkConfig(network, Path(checkpoint) if checkpoint else None, precision)
job = Job(Path(out), config, batch_seconds=int(batch), torch_threads=1, decode_threads=1)
summary = run(job, {"long": Path(video)}, in_this_process)
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(summary.seconds, int(peak.split()[1]) // 1024)
"""


def seconds_and_peak_mib(
    video: Path, out: Path, network: str, checkpoint: str = "", precision: str = "fp32", batch: int = 1
) -> list[int]:
    """Extracts in a process of its own and asks it for its peak: what `wait4` says of a child counts its parent's too."""
    command = [sys.executable, "-c", LONG_VIDEO, str(video), str(out), network, checkpoint, precision, str(batch)]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return [int(number) for number in output.split()]


@pytest.mark.slow
def test_memory_does_not_grow_with_the_video(tmp_path):
    """Six minutes' frames take 1.6 GB, their tensors 6.5; four seconds of these may lie about before they are returned."""
    minute = write_video(tmp_path / "minute.mp4", moving_square(1800, 640, 360), options={"preset": "ultrafast"})
    six = repeat_video(minute, tmp_path / "six.mp4", 6)
    seconds, peak = seconds_and_peak_mib(minute, tmp_path / "one", "stub")
    six_times_the_seconds, later_peak = seconds_and_peak_mib(six, tmp_path / "six", "stub")
    assert (seconds, six_times_the_seconds) == (60, 360)
    assert later_peak < peak + 100, f"{peak} MiB for a minute, {later_peak} for six"


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "batch"), [("fp32", 2), ("bf16", 4)])  # as the script's
def test_memory_of_decoder_and_network_together(tmp_path, precision, batch):
    video = write_video(tmp_path / "video.mp4", moving_square(180, 640, 360), options={"preset": "ultrafast"})
    torch.save(S3D().state_dict(), tmp_path / "random.pth")
    seconds, peak = seconds_and_peak_mib(video, tmp_path / "out", "s3d", str(tmp_path / "random.pth"), precision, batch)
    assert seconds == 6
    assert peak < 1200  # with the 100 that the test above allows: far below 1.5 GB


@pytest.mark.slow
def test_workers_end_with_the_command(tmp_path, tiny_vit, long_videos):
    command = start_script(long_videos, tmp_path / "out", tiny_vit, "--workers", "1")
    claim_file = tmp_path / "out" / WORK_FOLDER / "v0.claim"
    deadline = time.monotonic() + 300
    while (worker := holder_of(claim_file)) is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    command.kill()
    command.communicate()
    while holder_of(claim_file) == worker:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert not list((tmp_path / "out").glob("*.npy"))  # it did not finish the video first


@pytest.mark.slow
def test_two_runs_at_once_share_the_work(tmp_path, tiny_vit, long_videos):
    runs = [start_script(long_videos, tmp_path / "out", tiny_vit, *options) for options in ((), ("--workers", "2"))]
    outputs = [process.communicate()[0] for process in runs]
    assert {process.returncode for process in runs} <= {0, 3}, outputs
    assert lines_per_video(tmp_path / "out") == dict.fromkeys(find_videos(long_videos).videos, 1)


def test_script_on_odd_files(tmp_path, tiny_vit, capsys, monkeypatch):
    """One of each kind: those that show pictures give features, the others a reason and the exit code 1."""
    monkeypatch.setattr(logging.root, "handlers", [])
    folder, out = tmp_path / "odd", tmp_path / "out"
    folder.mkdir()
    write_video(folder / "rotated.mp4", moving_square(35), rotation=90)
    write_video(folder / "odd_size.mp4", moving_square(35, 227, 129), pix_fmt="yuv444p")
    write_video(folder / "variable_rate.mp4", moving_square(4), times=[0, 3, 40, 45])
    write_video(folder / "oblong_pixels.mp4", moving_square(35), sample_aspect_ratio=Fraction(4, 3))
    whole = write_video(tmp_path / "whole.mkv", moving_square(200)).read_bytes()
    (folder / "truncated.mkv").write_bytes(whole[: len(whole) // 2])
    write_sound(folder / "sound_only.mp4")
    write_video(folder / "no_frames.mkv", [])
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "corrupt.mp4").write_bytes(np.random.default_rng(0).bytes(5000))
    assert main(script_arguments(folder, out, tiny_vit)) == 1
    assert set(read_failures(out)) == {"sound_only", "no_frames", "empty", "corrupt"}
    assert "4 failed, 1 with warnings" in capsys.readouterr().out
    seconds = {path.stem: len(np.load(path)) for path in out.glob("*.npy")}
    assert 1 <= seconds.pop("truncated") < 7
    assert seconds == {"rotated": 2, "odd_size": 2, "variable_rate": 2, "oblong_pixels": 2}


def test_script(tmp_path, tiny_vit, videos, capsys, monkeypatch):
    monkeypatch.setattr(logging.root, "handlers", [])  # the script sets its own
    out = tmp_path / "out"
    assert main(script_arguments(videos, out, tiny_vit)) == 0
    assert np.load(out / "a.npy").shape == (4, 24)
    assert "2 extracted now (6 s of video), 0 failed" in capsys.readouterr().out
    (videos / "broken.mp4").write_bytes(b"nothing")
    assert main(script_arguments(videos, out, tiny_vit)) == 1
    assert "2 done before, 0 extracted now (0 s of video), 1 failed" in capsys.readouterr().out
    assert main(script_arguments(videos, out, tiny_vit, "--fps", "6")) == 2
    assert "fps: 30 here, 6 expected" in capsys.readouterr().err
    assert main(script_arguments(videos, tmp_path / "other", "s3d")) == 2
    assert "--checkpoint" in capsys.readouterr().err
