"""What the model of the real pictures is compared with: each against a slow or hand-worked version."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from demo.pictures import baselines
from demo.pictures.baselines import (
    FEATURE_LENGTH,
    chosen_strength,
    class_probabilities,
    label_scores,
    mean_of_seconds,
    ridge,
    ridge_scores,
    unit,
)
from demo.pictures.compare import CHANCE, MODEL, Knowledge, compare, plain, recalls, share_of_names_heard, table
from demo.pictures.page import FRAMES, chosen_queries, write_page


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.parametrize("strength", [0.1, 10.0])
def test_ridge_is_sklearns(rng, strength):
    inputs, outputs, more = rng.normal(3, 1, (30, 8)), rng.normal(-2, 1, (30, 4)), rng.normal(size=(5, 8))
    expected = Ridge(alpha=strength).fit(inputs, outputs).predict(more)
    np.testing.assert_allclose(ridge(inputs, outputs, strength)(more), expected)


def test_strength_is_chosen_on_films_left_out(rng):
    inputs = rng.normal(size=(60, 20))
    films = [f"film{i % 10}" for i in range(60)]
    weights = rng.normal(size=(20, 3))
    assert chosen_strength(inputs, inputs @ weights, films) == min(baselines.STRENGTHS)
    assert chosen_strength(inputs, rng.normal(size=(60, 3)), films) == max(baselines.STRENGTHS)
    # Within a film all is alike: single clips left out would be foretold best by a weak penalty.
    film_inputs, film_outputs = rng.normal(size=(10, 20)), rng.normal(size=(10, 3))
    numbers = np.arange(60) % 10
    assert chosen_strength(film_inputs[numbers], film_outputs[numbers], films) > min(baselines.STRENGTHS)


def test_ridge_finds_what_it_was_taught(rng):
    words = unit(rng.normal(size=(40, 16)) + 5)  # all sentences have much in common
    pictures = words @ rng.normal(size=(16, 24)) + 0.001 * rng.normal(size=(40, 24))
    films = [f"film{i % 8}" for i in range(40)]
    scores = ridge_scores(pictures[:30], words[:30], films[:30], pictures[30:], words[30:])
    assert (scores.argmax(axis=1) == np.arange(10)).all()
    assert np.abs(scores).max() <= 1 + 1e-9


def test_labels_by_hand():
    labels = np.array([[1.0, 0.0], [0.0, 1.0]])
    classes = np.array([[1.0, 0.0], [0.5, 0.5]])
    scores = label_scores(classes, labels, np.array([[1.0, 0.0]]))
    np.testing.assert_allclose(scores, [[1.0, np.sqrt(0.5)]])


def test_the_classifier_sees_features_of_their_own_length():
    classifier = torch.nn.Linear(2, 2)
    with torch.no_grad():
        classifier.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 0.0]]))
        classifier.bias.zero_()
    (row,) = class_probabilities(np.array([[1.0, 0.0]], np.float16), classifier)
    assert row == pytest.approx([1 / (1 + np.exp(-FEATURE_LENGTH)), 1 / (1 + np.exp(FEATURE_LENGTH))])


@pytest.mark.parametrize(
    ("start", "end", "mean"),
    [(0, 1, 0), (0.9, 2.1, 1), (1, 3, 1.5), (3.2, 3.4, 3), (2, 99, 2.5), (9, 12, 3), (1, 1, 1)],
)
def test_seconds_that_are_touched(start, end, mean):
    features = np.arange(4, dtype=np.float16)[:, None]
    assert mean_of_seconds(features, start, end) == [mean]


def test_recalls_count_each_query_once():
    sums = recalls(np.array([[0.9, 0.1], [0.8, 0.2]]), np.array([0, 1]), ["a frog", "a toad"])
    assert sums.metrics() == {"R@1": 0.5, "R@5": 1.0, "R@10": 1.0, "median_rank": 1.5}


def test_names_heard():
    truth = {
        "train000": {
            "split": "train",
            "shots": [{"name": name} for name in ("a plumber's wrench", "a gnu", "a silent owl", "a rhea")],
            "sentences": [{"text": f"This is {name}."} for name in ("a plumber's wrench", "a gnu", "a rhea")],
        },
        "seen000": {"split": "seen", "shots": [{"name": "a fox"}], "sentences": [{"text": "This is a fox."}]},
    }
    heard = [("train000", 0.0, 1.0, "This is a plumber's"), ("train000", 1.0, 2.0, "Wrench, and a new. A Rhea!")]
    assert share_of_names_heard(truth, heard) == pytest.approx(2 / 3)
    assert plain("A Plumber's, wrench-2") == "a plumbers wrench 2"


class Known(Knowledge):
    """Baselines whose scores are given."""

    def scores(self, stretches, queries):
        assert stretches == [("film", 0.0, 2.0), ("film", 2.0, 4.0), ("film", 4.0, 6.0)]
        return {"backwards": -np.eye(3), "perfect": np.eye(3)}


@pytest.fixture
def results(tmp_path):
    """A test of three queries of which the model finds two at once."""
    similarities = np.array([[2, 1, 0], [1, 2, 0], [2, 1, 0]], np.float32)
    np.savez(
        tmp_path / "csv_scores.npz",
        similarities=similarities,
        targets=np.arange(3),
        texts=np.array(["a <frog>", "a toad", "a newt"]),
        gallery_ids=np.array(["film"] * 3),
        gallery_spans=np.array([(0, 2), (2, 4), (4, 6)]),
    )
    return tmp_path


def test_model_and_baselines_side_by_side(results, tmp_path):
    numbers = compare(results, Known(tmp_path, tmp_path))
    systems = numbers["systems"]
    assert list(systems) == [CHANCE, MODEL, "backwards", "perfect"]
    assert systems[CHANCE]["metrics"]["R@1"] == pytest.approx(1 / 3)
    assert systems[MODEL]["metrics"]["R@1"] == pytest.approx(2 / 3)
    assert systems["backwards"]["model_above"]["R@1"][0] == pytest.approx(2 / 3)
    difference, low, high = systems["perfect"]["model_above"]["R@1"]
    assert difference == pytest.approx(-1 / 3) and low < difference < high <= 0
    assert "66.7 (" in table({"seen": numbers})


def test_page_marks_the_right_one(results, tmp_path):
    asked = []

    def frame(film, second):
        asked.append((film, second))
        return "data:image/jpeg;base64,AAAA"

    write_page(tmp_path / "page.html", {"unseen": results}, frame)
    page = (tmp_path / "page.html").read_text()
    assert page.count("<section>") == 3 and page.count('class="right"') == 3
    assert "a &lt;frog&gt; <span>found at place 1" in page and "a newt <span>found at place 3" in page
    assert asked[:3] == [("film", 1.0), ("film", 3.0), ("film", 5.0)]
    assert FRAMES >= 3 and chosen_queries(100)[:2] == [0, 11] and chosen_queries(3) == [0, 1, 2]
