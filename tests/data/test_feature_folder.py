"""Feature files: what is read, and what is refused."""

import logging

import numpy as np
import pytest

from mmpt_plugin.data.feature_folder import FeatureFolder


@pytest.fixture
def folder(tmp_path):
    for name, seconds in {"-a_b_c": 40, "1@N00.avi": 1, "empty": 0}.items():
        np.save(tmp_path / f"{name}.npy", np.arange(seconds * 4).reshape(seconds, 4).astype(np.float16))
    (tmp_path / "notes.txt").write_text("not a feature file")
    (tmp_path / "._1@N00.avi.npy").write_bytes(b"macOS's")
    return FeatureFolder(tmp_path, feature_size=4)


def test_ids_are_file_names_without_the_suffix(folder):
    assert folder.ids() == ["-a_b_c", "1@N00.avi", "empty"]


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_rows_are_read_as_stored(folder, dtype):
    np.save(folder.path / "-a_b_c.npy", np.load(folder.path / "-a_b_c.npy").astype(dtype))
    rows = folder.load("-a_b_c", 3, 5)
    assert rows.dtype == dtype
    assert rows.tolist() == [[12, 13, 14, 15], [16, 17, 18, 19]]
    assert len(folder.load("-a_b_c")) == folder.seconds("-a_b_c") == 40


def test_stretches_beyond_the_end_are_shorter_or_empty(folder):
    assert folder.load("-a_b_c", 38, 50).shape == (2, 4)
    assert folder.load("-a_b_c", 45, 50).shape == (0, 4)
    assert folder.load("empty").shape == (0, 4)
    assert folder.seconds("empty") == 0


@pytest.mark.parametrize(("start", "end"), [(-1, 3), (5, 4)])
def test_impossible_stretches_are_refused(folder, start, end):
    with pytest.raises(ValueError, match="0 <= start <= end"):
        folder.load("-a_b_c", start, end)


def write_truncated(path):
    np.save(path, np.ones((9, 4), np.float16))
    path.write_bytes(path.read_bytes()[:-1])


def write_archive(path):
    with path.open("wb") as file:
        np.savez(file, features=np.ones((2, 4)))


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (lambda path: np.save(path, np.ones((2, 5), np.float32)), r"\(2, 5\).*\(seconds, 4\)"),
        (lambda path: np.save(path, np.ones(4, np.float32)), r"shape \(4,\)"),
        (lambda path: np.save(path, np.ones((1, 2, 4), np.float32)), "shape"),
        (lambda path: np.save(path, np.ones((2, 4), np.int32)), "int32; features must be float16 or float32"),
        (lambda path: np.save(path, np.ones((2, 4))), "float64"),
        (lambda path: np.save(path, np.array([{}]), allow_pickle=True), "Python objects"),
        (write_truncated, "truncated or altered|not a whole .npy array"),
        (write_archive, "truncated or altered|not a whole .npy array"),
        (lambda path: path.write_bytes(b""), "truncated or altered|not a whole .npy array"),
        (lambda path: path.write_text("hello"), "truncated or altered|not a whole .npy array"),
    ],
)
def test_bad_files_are_refused_by_name(tmp_path, write, words):
    write(tmp_path / "bad.npy")
    for read in (FeatureFolder(tmp_path, 4).seconds, FeatureFolder(tmp_path, 4).load):
        with pytest.raises(ValueError, match=words) as error:
            read("bad")
        assert "bad.npy" in str(error.value)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_non_finite_rows_are_refused_when_read(tmp_path, value):
    features = np.ones((10, 4), np.float16)
    features[7, 2] = value
    np.save(tmp_path / "v.npy", features)
    folder = FeatureFolder(tmp_path, 4)
    assert folder.load("v", 0, 7).shape == (7, 4)
    with pytest.raises(ValueError, match=r"v\.npy.* first in row 7"):
        folder.load("v", 5, 10)


def test_a_missing_folder_or_file_is_named(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere.*task\.features"):
        FeatureFolder(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="unknown"):
        folder.load("unknown")


def test_missing_videos_stop_the_run_with_the_remedy(folder):
    with pytest.raises(FileNotFoundError, match=r"2 of 3 videos .*: x, y\. .*task\.on_missing=skip"):
        folder.require(["x", "empty", "y", "x"])


def test_missing_videos_may_be_skipped_aloud(folder, caplog):
    with caplog.at_level(logging.WARNING):
        assert folder.require(["x", "empty", "-a_b_c", "empty"], "skip") == (["empty", "-a_b_c"], ["x"])
    assert "1 of 3 videos" in caplog.text and "x" in caplog.text


def test_nothing_left_is_an_error_even_when_skipping(folder):
    with pytest.raises(FileNotFoundError, match="right folder"):
        folder.require(["x"], "skip")


def test_only_the_first_missing_videos_are_listed(folder):
    with pytest.raises(FileNotFoundError, match=r"100 of 100 .*: 0, 1, 2, 3, 4, \.\.\."):
        folder.require(map(str, range(100)), "error")


def test_other_rules_for_missing_files_are_refused(folder):
    with pytest.raises(ValueError, match="'ignore'; allowed: 'error', 'skip'"):
        folder.require(["empty"], "ignore")


def test_features_named_as_videos_meet_their_ids_on_demand(tmp_path):
    for name in ("a.mp4", "b.WEBM", "c", "d.e"):
        np.save(tmp_path / f"{name}.npy", np.ones((3, 4), np.float16))
    with pytest.raises(FileNotFoundError, match=r"2 of 3 videos .*: a, b\. .*set task\.drop_suffix=true"):
        FeatureFolder(tmp_path, 4).require(["a", "b", "c"])
    with pytest.raises(FileNotFoundError) as error:
        FeatureFolder(tmp_path, 4).require(["gone", "c"])
    assert "drop_suffix" not in str(error.value)
    folder = FeatureFolder(tmp_path, 4, drop_suffix=True)
    assert folder.ids() == ["a", "b", "c", "d.e"]
    assert folder.require(["b", "a"]) == (["b", "a"], [])
    assert folder.seconds("a") == 3 and folder.load("b", 1).shape == (2, 4)


def test_all_clashes_of_names_without_suffix_are_listed(tmp_path):
    for name in ("a.mp4", "a", "b.webm", "b.avi", "c.mkv"):
        np.save(tmp_path / f"{name}.npy", np.ones((3, 4), np.float16))
    with pytest.raises(
        ValueError, match=r"2 video ids have several feature files: a, a\.mp4; b\.avi, b\.webm\. Keep one"
    ):
        FeatureFolder(tmp_path, 4, drop_suffix=True)


def test_several_rows_a_second(tmp_path):
    rows = np.arange(28, dtype=np.float32).reshape(7, 4)
    np.save(tmp_path / "a.npy", rows)
    folder = FeatureFolder(tmp_path, 4, features_per_second=3)
    assert folder.seconds("a") == 3  # the last second has one row
    np.testing.assert_array_equal(folder.load("a", 1, 2), rows[3:6])
    np.testing.assert_array_equal(folder.load("a", 2, 3), rows[6:])
    np.testing.assert_array_equal(folder.load("a"), rows)
