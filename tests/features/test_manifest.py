"""The settings and lists of a folder of features."""

from __future__ import annotations

import dataclasses
import logging
import subprocess
import sys
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest

from mmpt_plugin.features.manifest import (
    FeatureSettings,
    VideoRecord,
    append_record,
    check_feature_settings,
    read_failures,
    read_records,
    read_settings,
    update_failures,
    write_settings,
)

SETTINGS = FeatureSettings("s3d", "ab" * 32, 512)


def record(video_id: str, seconds: int = 3) -> VideoRecord:
    return VideoRecord(video_id, f"videos/{video_id}.mp4", seconds, 30 * seconds, float(seconds), 0)


def test_settings_survive(tmp_path):
    write_settings(tmp_path, SETTINGS)
    assert read_settings(tmp_path) == dataclasses.asdict(SETTINGS)
    write_settings(tmp_path, SETTINGS)  # the same again is fine
    check_feature_settings(tmp_path, SETTINGS)
    check_feature_settings(tmp_path, {"network": "s3d", "feature_size": 512})


def test_other_settings_are_refused_naming_both(tmp_path):
    write_settings(tmp_path, SETTINGS)
    other = dataclasses.replace(SETTINGS, network="hf:vit", fps=4)
    with pytest.raises(ValueError, match=r"network: 's3d' here, 'hf:vit' expected; fps: 30 here, 4 expected"):
        check_feature_settings(tmp_path, other)
    with pytest.raises(ValueError, match=r"network: 's3d' here"):
        write_settings(tmp_path, other)
    assert read_settings(tmp_path) == dataclasses.asdict(SETTINGS)
    with pytest.raises(ValueError, match=r"normalisation: 'l2' here, 'none' expected"):
        check_feature_settings(tmp_path, {"normalisation": "none"})
    with pytest.raises(ValueError, match=r"depth: None here, 3 expected"):
        check_feature_settings(tmp_path, {"depth": 3})


def test_folder_that_does_not_say_is_accepted_with_a_warning(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        check_feature_settings(tmp_path, SETTINGS)
    assert "is not checked" in caplog.text
    assert read_settings(tmp_path) is None


def test_features_of_unknown_settings_are_not_added_to(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((1, 512), np.float16))
    with pytest.raises(ValueError, match=r"a\.npy.*unknown"):
        write_settings(tmp_path, SETTINGS)


@pytest.mark.parametrize("text", ["{", "[1]"])
def test_damaged_manifest(tmp_path, text):
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(ValueError, match=r"manifest\.json"):
        read_settings(tmp_path)


def test_last_record_counts_and_a_cut_line_is_passed_over(tmp_path):
    append_record(tmp_path, record("a", 3))
    append_record(tmp_path, record("-b_c", 4))
    append_record(tmp_path, record("a", 5))
    with (tmp_path / "videos.jsonl").open("a") as file:
        file.write('{"video_id": "d", "sou')
    records = read_records(tmp_path)
    assert {video_id: entry["seconds"] for video_id, entry in records.items()} == {"a": 5, "-b_c": 4}
    assert records["a"] == dataclasses.asdict(record("a", 5))


def test_record_after_a_cut_line_is_not_lost(tmp_path):
    (tmp_path / "videos.jsonl").write_text('{"video_id": "d", "sou')
    append_record(tmp_path, record("a"))
    assert set(read_records(tmp_path)) == {"a"}


def test_failures_come_and_go(tmp_path):
    update_failures(tmp_path, {"a": ("x/a.mp4", "no\tvideo\nstream"), "b": ("x/b.mp4", "damaged")}, set())
    assert read_failures(tmp_path) == {"a": ("x/a.mp4", "no video stream"), "b": ("x/b.mp4", "damaged")}
    update_failures(tmp_path, {"c": ("x/c.mp4", "short")}, {"a"})
    assert set(read_failures(tmp_path)) == {"b", "c"}
    update_failures(tmp_path, {}, {"b", "c"})
    assert not (tmp_path / "failures.tsv").exists()
    assert read_failures(tmp_path) == {}


def _append_many(folder: Path, first: int) -> None:
    for i in range(50):
        append_record(folder, record(f"{first + i}"))
        update_failures(folder, {f"{first + i}": ("a", "b")}, set())


def test_processes_do_not_lose_each_others_lines(tmp_path):
    context = get_context("fork")
    processes = [context.Process(target=_append_many, args=(tmp_path, first)) for first in (0, 100, 200)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert len(read_records(tmp_path)) == len(read_failures(tmp_path)) == 150


def test_readers_need_no_torch():
    path = Path(__file__).parents[2] / "mmpt_plugin" / "features" / "manifest.py"
    script = f"import runpy, sys; runpy.run_path({str(path)!r}, run_name='manifest'); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)
