"""The settings and lists of a folder of features."""

from __future__ import annotations

import dataclasses
import json
import logging
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest

from mmpt_plugin.features.manifest import (
    Failures,
    FeatureSettings,
    VideoRecord,
    append_record,
    check_feature_settings,
    check_rate,
    read_failures,
    read_records,
    read_settings,
    stated,
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


def test_the_rate_is_one_where_it_is_not_said(tmp_path):
    """As in all folders from before it could be chosen."""
    write_settings(tmp_path, SETTINGS)
    old = json.loads((tmp_path / "manifest.json").read_text())
    assert old.pop("features_per_second") == 1 and stated(dataclasses.asdict(SETTINGS)) == old
    (tmp_path / "manifest.json").write_text(json.dumps(old))
    check_feature_settings(tmp_path, SETTINGS)
    twice = dataclasses.replace(SETTINGS, features_per_second=2)
    with pytest.raises(ValueError, match=r"features_per_second: 1 here, 2 expected"):
        check_feature_settings(tmp_path, twice)
    check_rate("these", old, 1)
    check_rate("these", None, 7)  # nothing is known of them
    with pytest.raises(
        ValueError, match=r"these have 2 rows a second, and the model takes 1 .*--features-per-second 1"
    ):
        check_rate("these", dataclasses.asdict(twice), 1)


def test_folder_that_does_not_say_is_accepted_with_a_warning(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        check_feature_settings(tmp_path, SETTINGS)
    assert "is not checked" in caplog.text
    assert read_settings(tmp_path) is None


def test_hidden_files_are_no_features_of_unknown_settings(tmp_path):
    (tmp_path / "._a.npy").write_bytes(b"macOS's")
    write_settings(tmp_path, SETTINGS)
    assert read_settings(tmp_path) == dataclasses.asdict(SETTINGS)


def test_features_of_unknown_settings_are_not_added_to(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((1, 512), np.float16))
    with pytest.raises(ValueError, match=r"a\.npy.*unknown"):
        write_settings(tmp_path, SETTINGS)


@pytest.mark.parametrize(
    "text", ["{", "[1]", "{}", '{"network": 1, "weights_sha256": "", "feature_size": 3}', "[" * 100_000]
)
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


@pytest.fixture
def sources(tmp_path) -> Path:
    """A folder with the files of three videos that gave no features."""
    folder = tmp_path / "x"
    folder.mkdir()
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        (folder / name).touch()
    return folder


def test_failures_come_and_go(tmp_path, sources):
    a, b, c = (str(sources / f"{name}.mp4") for name in "abc")
    failures = Failures(tmp_path)
    failures.add("a", a, "no\tvideo\nstream")
    failures.add("b", b, "damaged")
    assert read_failures(tmp_path) == {"a": (a, "no video stream"), "b": (b, "damaged")}
    failures.add("c", c, "short")
    failures.settle({"a"})
    assert set(read_failures(tmp_path)) == {"b", "c"}
    failures.settle({"b", "c"})
    assert not (tmp_path / "failures.tsv").exists()
    assert read_failures(tmp_path) == {}


def test_failures_of_videos_that_are_gone_leave_the_list(tmp_path, sources):
    failures = Failures(tmp_path)
    failures.add("a", str(sources / "a.mp4"), "damaged")
    failures.add("b", str(sources / "b.mp4"), "damaged")
    (sources / "a.mp4").unlink()
    failures.settle(set())
    assert set(read_failures(tmp_path)) == {"b"}


@pytest.mark.parametrize(
    "name", ["two  blanks", "tab\there", "line\nbreak", "back\\tslash", "caf\u00e9", "not utf-8 \udcff"]
)
def test_names_survive_in_the_list(tmp_path, name):
    source = tmp_path / f"{name}.mp4"
    source.touch()
    failures = Failures(tmp_path)
    failures.add(name, str(source), "damaged")
    failures.settle(set())
    assert read_failures(tmp_path) == {name: (str(source), "damaged")}
    (tmp_path / "failures.tsv").read_text(encoding="utf-8")
    failures.settle({name})
    assert read_failures(tmp_path) == {}


def test_the_last_failure_of_a_video_counts(tmp_path):
    failures = Failures(tmp_path)
    failures.add("a", "a.mp4", "cut off")
    failures.add("a", "a.mp4", "damaged")
    assert read_failures(tmp_path) == {"a": ("a.mp4", "damaged")}


def test_failures_are_added_and_not_written_anew(tmp_path):
    failures = Failures(tmp_path)
    failures.add("a", "a.mp4", "damaged")
    first = (tmp_path / "failures.tsv").stat()
    failures.add("b", "b.mp4", "damaged")
    second = (tmp_path / "failures.tsv").stat()
    assert second.st_ino == first.st_ino
    assert 0 < second.st_size - first.st_size < 50


def test_what_others_add_is_read_from_where_reading_ended(tmp_path, monkeypatch):
    mine, theirs = Failures(tmp_path), Failures(tmp_path)
    taken: list[bytes] = []
    monkeypatch.setattr(mine, "_take", lambda line, take=mine._take: (taken.append(line), take(line)))
    theirs.add("a", "a.mp4", "damaged")
    assert set(mine.rows()) == {"a"}
    theirs.add("b", "b.mp4", "damaged")
    assert set(mine.rows()) == {"a", "b"}
    assert len(taken) == 3  # the head and two rows, each once
    replaced = Failures(tmp_path)
    replaced.settle({"b"})  # neither file is there: an empty list goes
    assert mine.rows() == {}


@pytest.mark.parametrize("line", [b"a\tb\n", b"\n", b"a\tb\tc\tnoon\n", b"\xff\xfe\n", b"a\tb\tc\td\te\n"])
def test_malformed_line_is_passed_over_and_named(tmp_path, caplog, line):
    Failures(tmp_path).add("a", "a.mp4", "damaged")
    with (tmp_path / "failures.tsv").open("ab") as file:
        file.write(line)
    Failures(tmp_path).add("b", "b.mp4", "damaged")
    assert set(read_failures(tmp_path)) == {"a", "b"}
    assert "failures.tsv: a line that cannot be read is passed over" in caplog.text


def test_row_that_is_being_written_is_read_when_it_is_whole(tmp_path):
    failures = Failures(tmp_path)
    failures.add("a", "a.mp4", "damaged")
    with (tmp_path / "failures.tsv").open("ab", buffering=0) as file:
        file.write(b"b\tb.mp4\tdam")
        assert set(failures.rows()) == {"a"}
        file.write(b"aged\t1.0\n")
        assert failures.rows()["b"] == ("b.mp4", "damaged", 1.0)


def test_row_after_a_cut_line_is_not_lost(tmp_path):
    Failures(tmp_path).add("a", "a.mp4", "damaged")
    with (tmp_path / "failures.tsv").open("ab") as file:
        file.write(b"d\td.mp")
    Failures(tmp_path).add("b", "b.mp4", "damaged")
    assert set(read_failures(tmp_path)) == {"a", "b"}


def _append_many(folder: Path, first: int) -> None:
    failures = Failures(folder)
    for i in range(50):
        append_record(folder, record(f"{first + i}"))
        failures.add(f"{first + i}", "a", "b")


def test_processes_do_not_lose_each_others_lines(tmp_path):
    context = get_context("fork")
    processes = [context.Process(target=_append_many, args=(tmp_path, first)) for first in (0, 100, 200)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert len(read_records(tmp_path)) == len(read_failures(tmp_path)) == 150
