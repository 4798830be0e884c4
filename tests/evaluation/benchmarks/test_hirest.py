"""HiREST: its reader, the choice of a moment against all runs, the numbers by hand."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmpt_plugin.evaluation.benchmark import Encodings
from mmpt_plugin.evaluation.benchmarks.hirest import (
    Hirest,
    HirestQuery,
    Step,
    best_moment,
    chance_overlaps,
    overlap,
    read_hirest,
)


def video(clip=True, bounds=(2, 8), steps=(), relevant=True):
    listed = [{"index": i, "heading": text, "absolute_bounds": list(own)} for i, (text, own) in enumerate(steps)]
    return {"relevant": relevant, "clip": clip, "v_duration": 10.5, "bounds": list(bounds), "steps": listed}


CONTENT = {
    "tie a bow": {
        "one.mp4": video(steps=[("fold", (2, 4)), ("pull", (5, 8))]),
        "two.mp4": video(clip=False, bounds=(0, 0)),
        "other.mp4": video(relevant=False),
    },
    "boil an egg": {"two.mp4": video(bounds=(0, 5))},
}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "hirest" / "features").mkdir(parents=True)
    (tmp_path / "hirest" / "all_data_test.json").write_text(json.dumps(CONTENT))
    for name in ("one", "two"):
        np.save(tmp_path / "hirest" / "features" / f"{name}.npy", np.zeros((10, 4), np.float16))
    return tmp_path


def test_pairs_are_read_in_file_order(data: Path) -> None:
    assert read_hirest(data / "hirest" / "all_data_test.json") == [
        HirestQuery("tie a bow", "one", (2, 8), (Step("fold", (2, 4)), Step("pull", (5, 8)))),
        HirestQuery("tie a bow", "two", None, ()),
        HirestQuery("boil an egg", "two", (0, 5), ()),
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "not a filled table"),
        ({}, "not a filled table"),
        ({"q": 3}, "query 'q' has no table of videos"),
        ({"q": {"v.mp4": {**video(), "clip": "yes"}}}, "query 'q', video v.mp4: Expected `bool`"),
        ({"q": {"v.mp4": video(bounds=(8, 2))}}, "ends before it starts"),
        ({"q": {"v.mp4": video(steps=[("", (1, 2))])}}, "heading"),
        ({"q": {"v.mp4": video(clip=False)}}, "no relevant video with a moment"),
    ],
)
def test_malformed_files_are_refused(data: Path, content: object, message: str) -> None:
    path = data / "hirest" / "all_data_test.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message) as error:
        Hirest(data, feature_size=4)
    assert "all_data_test.json" in str(error.value) and "HiREST" in str(error.value)


@given(st.lists(st.integers(-5, 5), min_size=1, max_size=15))
def test_the_best_moment_against_all_runs(numbers: list[int]) -> None:
    scores = np.array(numbers, np.float64)
    above = scores - scores.mean()
    start, end = best_moment(scores)
    best = max(above[i:j].sum() for i in range(len(scores)) for j in range(i + 1, len(scores) + 1))
    assert 0 <= start < end <= len(scores) and above[start:end].sum() == pytest.approx(best)


def test_overlaps_by_hand() -> None:
    assert overlap((0, 4), (2, 6)) == 2 / 6 and overlap((0, 1), (3, 4)) == 0 and overlap((2, 2), (2, 2)) == 0
    # of 3 seconds: runs 01 02 03 12 13 23 overlap 0-2 by 1/2 1 2/3 1/2 1/3 0
    assert chance_overlaps(3, (0, 2)) == pytest.approx([4 / 6, 1 / 6, 3 / 6])
    assert best_moment(np.zeros(0)) == (0, 0) and not chance_overlaps(0, (0, 2)).any()


def test_numbers_by_hand(data: Path) -> None:
    hirest = Hirest(data, feature_size=4)
    assert (hirest.found, hirest.official_items, hirest.missing) == (2, 2, [])
    plan = hirest.plan()
    assert plan.texts == ["tie a bow", "boil an egg", "fold", "pull"] and plan.per_frame and not plan.attend_to_cls
    states = np.zeros((2, 10, 4), np.float32)
    states[0, 2:6, 0] = 1  # "tie a bow" in 2-6 of 2-8: 4 / 6
    states[0, 3, 2], states[0, 9, 3] = 5, 5  # "fold" in its 2-4, "pull" beyond its 5-8
    states[1, 6:9, 1] = 1  # "boil an egg" in 6-9, not 0-5
    scores = hirest.score(Encodings(np.eye(4, dtype=np.float32), list(states)))
    evaluation = hirest.evaluate(scores)
    assert evaluation.metrics == pytest.approx({"R@0.5": 0.5, "R@0.7": 0, "mIoU": 1 / 3, "step_recall": 0.5})
    assert evaluation.baselines["whole_video"] == pytest.approx({"R@0.5": 1, "R@0.7": 0, "mIoU": 0.55})
    assert evaluation.baselines["uniform_spread"] == {"step_recall": 1.0}  # seconds 2 and 7, in 2-4 and 5-8
    assert evaluation.baselines["chance"].keys() == evaluation.metrics.keys()
    assert evaluation.sums.metrics() == pytest.approx(evaluation.metrics)
    assert evaluation.intervals["mIoU"] == pytest.approx((0, 2 / 3)) and evaluation.queries == 2
    with pytest.raises(ValueError, match="do not fit"):
        hirest.evaluate(scores | {"logits": scores["logits"][:-1]})
    with pytest.raises(ValueError, match="NaN"):
        hirest.evaluate(scores | {"logits": scores["logits"] + np.inf})


def test_features_named_as_videos(data: Path) -> None:
    expected = Hirest(data, feature_size=4).plan()
    for path in list((data / "hirest" / "features").glob("*.npy")):
        path.rename(path.with_suffix(".mp4.npy"))
    assert Hirest(data, feature_size=4, drop_suffix=True).plan() == expected


def test_missing_features(data: Path) -> None:
    (data / "hirest" / "features" / "two.npy").unlink()
    with pytest.raises(FileNotFoundError, match="two"):
        Hirest(data, feature_size=4)
    hirest = Hirest(data, feature_size=4, on_missing="skip")
    assert (hirest.found, hirest.missing) == (1, ["two"])
