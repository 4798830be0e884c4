"""What the retrieval benchmarks share, on a made-up benchmark."""

import logging

import numpy as np
import pytest

from mmpt_plugin.data.feature_folder import FeatureFolder
from mmpt_plugin.data.windows import Window
from mmpt_plugin.evaluation.benchmark import Encodings
from mmpt_plugin.evaluation.benchmarks.text_to_video import TextToVideoRetrieval, distinct, first_window


class MadeUp(TextToVideoRetrieval):
    name = "made_up"

    def __init__(self, sentences, windows):
        self._set_pairs(sentences, windows)


SENTENCES = ["cut", "fry", "cut", "stir"]
WINDOWS = [Window("a", 0, 9), Window("a", 0, 9), Window("b", 0, 9), Window("c", 0, 0)]


def test_distinct_keeps_the_order_of_first_appearance():
    items, index = distinct("banana")
    assert items == ["b", "a", "n"]
    assert index.tolist() == [0, 1, 2, 1, 2, 1]


def test_each_text_and_stretch_is_encoded_once():
    plan = MadeUp(SENTENCES, WINDOWS).plan()
    assert plan.texts == ["cut", "fry", "stir"]
    assert plan.windows == [Window("a", 0, 9), Window("b", 0, 9), Window("c", 0, 0)]
    assert not plan.per_frame and plan.attend_to_cls


def test_scores_are_products_in_the_order_of_the_pairs():
    rng = np.random.default_rng(0)
    text, video = rng.normal(size=(3, 8)).astype(np.float32), rng.normal(size=(3, 8)).astype(np.float32)
    similarities = MadeUp(SENTENCES, WINDOWS).score(Encodings(text, video))["similarities"]
    for query, row in enumerate([0, 1, 0, 2]):
        for item, column in enumerate([0, 0, 1, 2]):
            assert similarities[query, item] == pytest.approx(text[row] @ video[column], abs=1e-5)
    # the same stretch and the same sentence score exactly the same
    assert np.array_equal(similarities[:, 0], similarities[:, 1])
    assert np.array_equal(similarities[0], similarities[2])


def test_evaluation_by_hand():
    # ranks: 1 (item 2 has less), 1, 2 behind item 0, 4 behind all
    similarities = np.array([[3, 1, 2, 0], [0, 5, 1, 2], [9, 0, 8, 1], [2, 2, 2, 1]], np.float32)
    evaluation = MadeUp(SENTENCES, WINDOWS).evaluate({"similarities": similarities})
    forward = {"R@1": 0.5, "R@5": 1.0, "R@10": 1.0, "median_rank": 1.5, "mean_rank": 2.0}
    # stretch a 0-9 belongs to "cut" (3) and "fry" (0), "stir" has 2: rank 1; b to "cut" (2): 1 is less, 2 ties: rank 2;
    # c to "stir" (1): "cut" has 0, "fry" 2: rank 2
    backward = {"R@1": 1 / 3, "R@5": 1.0, "R@10": 1.0, "median_rank": 2.0, "mean_rank": 5 / 3}
    assert evaluation.metrics == {**forward, "video_to_text": backward}
    assert evaluation.original == {name: forward[name] for name in ("R@1", "R@5", "R@10", "median_rank")}
    assert evaluation.baselines["chance"] == {
        **{"R@1": 0.25, "R@5": 1.0, "R@10": 1.0, "median_rank": 2.5, "mean_rank": 2.5},
        "video_to_text": {"R@1": 1 / 3, "R@5": 1.0, "R@10": 1.0, "median_rank": 2.0, "mean_rank": 2.0},
    }
    assert evaluation.queries == 4
    assert evaluation.sums.videos.tolist() == ["a", "b", "c"]
    backward_sums = {f"video_to_text/{name}": value for name, value in backward.items() if name != "median_rank"}
    assert evaluation.sums.metrics() == pytest.approx({**forward, **backward_sums})
    # video a alone, thrice: both its queries find it; c alone: its only query is fourth
    assert evaluation.sums.metrics(np.array([3, 0, 0]))["R@1"] == 1
    assert evaluation.intervals["R@5"] == (1.0, 1.0)
    assert evaluation.intervals["R@1"] == (0.0, 1.0) and evaluation.intervals["mean_rank"] == (1.0, 4.0)


def test_the_intervals_are_the_same_each_time():
    benchmark, similarities = MadeUp(SENTENCES, WINDOWS), np.random.default_rng(0).normal(size=(4, 4))
    first, second = (benchmark.evaluate({"similarities": similarities}) for _ in range(2))
    assert first.intervals == second.intervals


@pytest.mark.parametrize(
    "similarities", [np.zeros((4, 3)), np.zeros((5, 5)), np.full((4, 4), np.nan), np.diag([np.inf] * 4)]
)
def test_scores_that_do_not_fit_are_refused(similarities):
    with pytest.raises(ValueError, match=r"do not fit|NaN or infinite"):
        MadeUp(SENTENCES, WINDOWS).evaluate({"similarities": similarities})


def test_repeated_and_empty_pairs_are_counted_aloud(caplog):
    with caplog.at_level(logging.WARNING):
        MadeUp([*SENTENCES, "fry"], [*WINDOWS, Window("a", 0, 9)])
    assert "1 queries repeat" in caplog.text
    assert "1 stretches hold no second" in caplog.text


@pytest.mark.parametrize(
    ("start", "end", "window"),
    [
        (0, None, (0, 32)),
        (10, 20, (10, 20)),
        (3, 50, (3, 35)),
        (38, 45, (38, 40)),
        (45, 50, (40, 40)),
        (20, 20, (20, 20)),
    ],
)
def test_a_window_is_the_first_32_seconds_that_exist(tmp_path, start, end, window):
    np.save(tmp_path / "v.npy", np.zeros((40, 4), np.float16))
    assert first_window(FeatureFolder(tmp_path, 4), "v", start, end) == Window("v", *window)
