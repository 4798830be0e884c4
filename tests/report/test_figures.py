"""From arrays to the rows of figures, by hand."""

import csv
import io

import numpy as np
import pytest

from mmpt_plugin.report import charts, moments, multiple_choice, retrieval, segmentation, steps
from mmpt_plugin.report.parts import Detail, Figure, Figures, Queries, clock, spread, stretch
from mmpt_plugin.report.shares import share_intervals
from tests.report.conftest import (
    choice_scores,
    coin_scores,
    crosstask_scores,
    moment_scores,
    retrieval_scores,
)


def rows_of(spec: dict, layer: int = 0) -> list[dict]:
    """The data of one of a chart's layers."""
    return list(csv.DictReader(io.StringIO(spec["datasets"][spec["layer"][layer]["data"]["name"]])))


def all_figures(parts):
    for part in parts:
        if isinstance(part, Figure):
            yield part
        elif isinstance(part, Figures):
            yield from part.members


# ---------------------------------------------------------------------------------------------------------- retrieval


def test_ranks_leads_and_margins_by_hand():
    similarities = np.array([[3.0, 1, 2], [0, 5, 5], [9, 0, 4]], np.float32)
    ranked = retrieval.rank_queries(similarities, np.arange(3))
    assert ranked.rank.tolist() == [1, 2, 2]  # a tie counts against the model
    assert ranked.lead.tolist() == [1, 0, -5]
    assert ranked.margin.tolist() == [1, 0, 5]


def test_ranks_do_not_depend_on_the_size_of_blocks(monkeypatch):
    scores = retrieval_scores(50)["similarities"]
    whole = retrieval.rank_queries(scores, np.arange(50))
    monkeypatch.setattr(retrieval, "CELLS_AT_ONCE", 7 * 50)
    parts = retrieval.rank_queries(scores, np.arange(50))
    for name in ("rank", "lead", "margin"):
        assert np.array_equal(getattr(whole, name), getattr(parts, name))


@pytest.mark.parametrize("gallery", [1, 2, 4, 5, 7, 240, 1000, 1001, 5000])
def test_every_rank_falls_into_one_bin(gallery):
    rows = retrieval.rank_histogram(np.arange(1, gallery + 1), gallery)
    assert sum(row["queries"] for row in rows) == gallery
    assert rows[-1]["rank"].endswith(str(gallery))


def test_recall_over_k_by_hand():
    rows = retrieval.recall_curve(np.array([1, 1, 3, 10]), 10, None, np.random.default_rng(0))
    model = {row["first k"]: row for row in rows if row["what"] == "model"}
    assert [model[k]["recall"] for k in (1, 3, 10)] == [0.5, 0.75, 1.0]
    assert model[1]["low"] < 0.5 < model[1]["high"] and model[10]["low"] == 1
    assert next(row["recall"] for row in rows if row["what"] == "chance") == 0.1


def test_confidence_rises_where_the_model_knows():
    margin = np.arange(100.0)
    rows = retrieval.confidence_curve(margin, margin >= 50, None, np.random.default_rng(0))
    assert [row["right"] for row in rows] == [0.0] * 5 + [1.0] * 5
    assert sum(row["queries"] for row in rows) == 100


def test_intervals_resample_videos():
    hits, rng = np.repeat([1, 0], 50)[:, None], np.random.default_rng(0)
    low, high = share_intervals(hits, None, rng)
    assert 0.38 < low[0] < 0.43 and 0.57 < high[0] < 0.62  # 1.96 standard errors of 0.05
    low, high = share_intervals(hits, np.repeat(["a", "b", "c", "d"], 25), rng)
    assert low[0] == 0 and high[0] == 1  # four videos, each all right or all wrong, may all be of one kind
    assert [end.tolist() for end in share_intervals(np.ones((3, 2)), None, rng)] == [[1, 1], [1, 1]]


def test_best_median_and_worst_queries_are_apart():
    rank = np.array([5, 1, 2, 9, 1, 3, 7, 8])
    kinds = retrieval.typical_queries(rank, np.array([0, 1.0, 0, 0, 2.0, 0, 0, 0]), 2)
    assert kinds["best"].tolist() == [4, 1]  # equal ranks by lead
    assert kinds["worst"].tolist() == [3, 7]
    assert kinds["median"].tolist() == [5, 0]
    assert retrieval.typical_queries(rank, np.zeros(8), 12)["All"].tolist() == [1, 4, 2, 5, 0, 6, 7, 3]


def test_queries_show_five_hits_and_the_right_one():
    scores = retrieval_scores(60)
    parts, said = retrieval.section_parts(scores, Detail())
    assert not said
    lists = [part for part in parts if isinstance(part, Queries)]
    assert [len(part.queries) for part in lists] == [12, 12, 12]
    for part in lists:
        for query in part.queries:
            assert sum(hit.right for hit in query.hits) == 1 and len(query.hits) in (5, 6)
            number = int(query.text.split()[1])
            right = next(hit for hit in query.hits if hit.right)
            assert right.name == f"video{number}" and right.when == f"0:{number:02d} - {clock(number + 9)}"
            assert query.verdict == f"rank {right.place[:-1]}"


def test_queries_and_items_may_differ_in_number():
    rng = np.random.default_rng(0)
    scores = {"similarities": rng.normal(size=(7, 3)), "targets": np.array([0, 0, 1, 2, 2, 1, 0])}
    parts, said = retrieval.section_parts(scores, Detail())
    assert "older format" in said[0]
    assert parts[-1].queries[0].hits[0].name.startswith("item ")


# ---------------------------------------------------------------------------------------------------- multiple choice


def test_accuracy_by_place_by_hand():
    right, answers = np.array([True, False, True, True]), np.array([0, 0, 1, 1])
    rows = multiple_choice.accuracy_by_place(right, answers, 3, None, np.random.default_rng(0))
    assert [(row["place"], row["accuracy"], row["questions"]) for row in rows] == [("1", 0.5, 2), ("2", 1.0, 2)]
    shares = multiple_choice.shares_by_place(np.array([0, 0, 0, 1]), answers, 2)
    assert [row["share"] for row in shares] == [0.75, 0.5, 0.25, 0.5]


def test_closest_misses_come_first():
    scores = choice_scores(3)
    scores["scores"] = np.array([[1, 2, 0, 0, 0], [5, 0, 0, 0, 0], [0, 0, 9, 0, 0.0]])
    scores["answers"] = np.array([0, 0, 0])
    parts, _ = multiple_choice.section_parts(scores, Detail())
    closest = next(part for part in parts if isinstance(part, Queries))
    assert [query.text for query in closest.queries] == ["video0", "video2"]
    assert closest.queries[0].verdict == "missed by 1.00"
    assert [hit.right for hit in closest.queries[0].hits] == [False, True, False, False, False]


# -------------------------------------------------------------------------------------------------------------- moments


def test_moments_by_hand():
    places = moments.segment_places(np.array([[[0, 0], [0, 1], [-1, -1]]]))
    assert places.tolist() == [[0, 6, -1]]
    # a guess of chunk 0: overlap 1 with the first annotation, 1/2 with the second
    assert moments.mean_overlaps(np.array([0]), places).tolist() == [0.75]
    assert moments.mean_overlaps(np.array([-1]), places).tolist() == [0.0]


def test_a_guess_lies_within_the_video():
    values = np.zeros((3, 21), np.float32)
    values[:, 5] = 1  # the last chunk
    assert moments.guesses(values, np.array([30, 12, 0])).tolist()[0] == 5
    assert moments.guesses(values, np.array([30, 12, 0])).tolist()[1:] == [0, -1]


def test_the_picture_of_moments_has_a_blank_corner():
    rows = moments.moment_rows(np.ones(21))
    assert len(rows) == 36 and sum(row["share"] is None for row in rows) == 15
    assert sum(row["share"] or 0 for row in rows) == pytest.approx(1)


# --------------------------------------------------------------------------------------------------------- COIN, CrossTask


def test_timelines_by_hand():
    labels = np.array(["cut", "fry"])
    rows = segmentation.timeline_rows(
        "v", {"truth": np.array([0, 1, 1, 0, 2]), "guess": np.array([3, 0, 0, 0, 0])}, labels
    )
    assert [(row["row"], row["label"], row["start"], row["end"]) for row in rows] == [
        ("truth", "cut", 1, 3),
        ("truth", "fry", 4, 5),
        ("guess", "a label of training only", 0, 1),
    ]


def test_long_videos_are_drawn_by_majority():
    classes = np.repeat([1, 2], 480)
    rows = segmentation.timeline_rows("v", {"truth": classes}, np.array(["cut", "fry"]))
    assert [(row["label"], row["start"], row["end"]) for row in rows] == [("cut", 0, 480), ("fry", 480, 960)]


def test_confusion_by_hand():
    rows = segmentation.confusion_rows(
        np.array([1, 1, 0, 2]), np.array([1, 2, 0, 0]), np.array(["cut", "cut"]), wanted=1
    )
    assert {(row["true label"], row["taken for"]): row["share"] for row in rows} == {
        ("background", "background"): 1.0,
        ("background", "cut"): 0.0,
        ("background", "another label"): 0.0,
        ("cut", "background"): 0.0,
        ("cut", "cut"): 0.5,
        ("cut", "another label"): 0.5,
    }


def test_coin_figures_hold_the_numbers_of_the_rules():
    scores = coin_scores()
    parts, said = segmentation.section_parts(scores, Detail())
    assert not said
    bars = rows_of(parts[0].spec)
    predicted = segmentation.predictions(scores)["prediction"]
    assert float(bars[0]["frame accuracy"]) == pytest.approx((predicted == scores["targets"]).mean(), abs=1e-4)
    assert rows_of(parts[0].spec, 1) == [{"level": "0.6", "line": "all background"}]


def test_classified_frames_have_one_rule():
    scores = coin_scores()
    del scores["label_similarity"], scores["background_threshold"]
    scores |= {"logits": np.random.default_rng(0).normal(size=(200, 4)), "label_ids": np.array([7, 14, 99])}
    parts, _ = segmentation.section_parts(scores, Detail())
    assert "calibrated" not in "".join(part.title for part in parts)


def test_crosstask_by_hand():
    assert steps.runs(np.array([1, 1, 0, 1])) == [(0, 2), (3, 4)]
    results = {
        "metrics": {"recall": 0.4, "recall_per_task": {"1": 0.2, "2": 0.6, "3": None}},
        "baselines": {"chance": {"recall_per_task": {"1": 0.1, "2": 0.1}}},
    }
    rows = steps.recall_rows(results, {"1": "Make tea"})
    assert rows == [{"task": "2", "recall": 0.6, "chance": 0.1}, {"task": "Make tea", "recall": 0.2, "chance": 0.1}]
    parts, said = steps.section_parts(results, crosstask_scores(), Detail(matrices=2))
    assert not said and len(parts[1].members) == 2
    assert len(rows_of(parts[1].members[0].spec, 2)) == 4  # a point a step


# ------------------------------------------------------------------------------------------------------------------ all


def test_numbers_and_text_of_a_chart_keep_their_type():
    data = charts.inline([{"id": "007", "n": 1.5, "low": None}, {"id": 'a,"b', "n": 2, "low": 0.25}]).to_dict()
    assert data["values"] == 'id,n,low\n007,1.5,\n"a,""b",2,0.25\n'
    assert data["format"] == {"type": "csv", "parse": {"id": "string", "n": "number", "low": "number"}}


@pytest.mark.parametrize(
    ("parts_of", "scores"),
    [
        (retrieval.section_parts, retrieval_scores(1)),
        (multiple_choice.section_parts, choice_scores(1)),
        (moments.section_parts, moment_scores(1)),
        (segmentation.section_parts, coin_scores(1, 40, 1)),
    ],
    ids=["retrieval", "choice", "moments", "coin"],
)
def test_one_query_is_shown(parts_of, scores):
    parts, _ = parts_of(scores, Detail())
    assert len(list(all_figures(parts))) >= 3


@pytest.mark.parametrize(
    ("parts_of", "scores", "key"),
    [
        (retrieval.section_parts, retrieval_scores(9), "similarities"),
        (multiple_choice.section_parts, choice_scores(9), "scores"),
        (moments.section_parts, moment_scores(9), "scores"),
    ],
    ids=["retrieval", "choice", "moments"],
)
def test_queries_without_numbers_are_left_out_and_counted(parts_of, scores, key):
    scores[key][3, 2] = np.nan
    parts, said = parts_of(scores, Detail())
    assert "1 of 9" in said[0] and "no numbers" in said[0]
    assert parts
    scores[key][:] = np.inf
    assert parts_of(scores, Detail())[0] == []


def test_seconds_and_places():
    assert clock(75) == "1:15" and stretch(5, 65.2) == "0:05 - 1:05"
    assert spread(3, 12) == [0, 1, 2] and spread(101, 3) == [0, 50, 100] and spread(9, 1) == [4] and spread(9, 0) == []
