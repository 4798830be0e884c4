"""DiDeMo: reader, rules by hand, chance by enumeration, parity with the reference data made by running the original."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest

from mmpt_plugin.data.windows import Window
from mmpt_plugin.evaluation.benchmark import Encodings
from mmpt_plugin.evaluation.benchmarks.didemo import (
    SEGMENTS,
    DidemoMoment,
    DidemoQuery,
    DidemoRetrieval,
    chance_moment_metrics,
    chance_of_mean_rank,
    moment_frequencies,
    rank_segments,
    read_didemo,
    valid_segments,
)
from mmpt_plugin.evaluation.metrics import moment_metrics

WIDTH = 4
Moments = Sequence[Sequence[int]]


def record(video: object, description: object, times: object) -> dict:
    return {"annotation_id": 0, "video": video, "description": description, "times": times}


def write_didemo(
    folder: Path, queries: Sequence[dict], seconds: dict[str, int], training: Sequence[dict] | None = None
) -> Path:
    features = folder / "didemo" / "features"
    features.mkdir(parents=True)
    (folder / "didemo" / "test_data.json").write_text(json.dumps(queries))
    if training is not None:
        (folder / "didemo" / "train_data.json").write_text(json.dumps(training))
    for video, length in seconds.items():
        np.save(features / f"{video}.npy", np.zeros((length, WIDTH), np.float16))
    return folder


def moment_benchmark(folder: Path, **options: object) -> DidemoMoment:
    return DidemoMoment(folder, feature_size=WIDTH, **options)  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------------------- reader


def test_reads_queries(tmp_path: Path) -> None:
    write_didemo(tmp_path, [record("-a_b@N00.x.avi", "NA", [[0, 0], [1, 5]]), record("null", "null", [[5, 5]])], {})
    assert read_didemo(tmp_path / "didemo" / "test_data.json") == [
        DidemoQuery("-a_b@N00.x.avi", "NA", ((0, 0), (1, 5))),
        DidemoQuery("null", "null", ((5, 5),)),
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('[{"video": "a', "truncated"),
        ("video,description", "not valid JSON"),
        ('{"database": {}}', "holds dict"),  # COIN's file
        ("[]", "not a filled list"),
    ],
)
def test_another_file_is_named(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "test_data.json").write_text(content)
    with pytest.raises(ValueError, match=message) as error:
        read_didemo(tmp_path / "test_data.json")
    assert "official test_data.json" in str(error.value)


@pytest.mark.parametrize(
    "malformed",
    [
        record("v", "text", [[3, 2]]),
        record("v", "text", [[0, 6]]),
        record("v", "text", [[-1, 0]]),
        record("v", "text", [[0.0, 1.5]]),
        record("v", "text", [[0]]),
        record("v", "text", []),
        record("v", "text", None),
        record("v", 1.5, [[0, 0]]),
        record("v", "text", [[True, 1]]),
        record("v", "  ", [[0, 0]]),
        record("", "text", [[0, 0]]),
        record(7, "text", [[0, 0]]),
        {"description": "text", "times": [[0, 0]]},
        "v",
    ],
)
def test_a_malformed_record_is_named(tmp_path: Path, malformed: object) -> None:
    (tmp_path / "test_data.json").write_text(json.dumps([record("v", "text", [[0, 0]]), malformed]))
    with pytest.raises(ValueError, match="record 1"):
        read_didemo(tmp_path / "test_data.json")


def test_a_missing_file_says_which_belongs_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"test_data\.json"):
        moment_benchmark(tmp_path)


# -------------------------------------------------------------------------------------------------------------- rules


def test_segments() -> None:
    assert len(SEGMENTS) == len(set(SEGMENTS)) == 21
    assert SEGMENTS[:7] == ((0, 0), (1, 1), (2, 2), (3, 3), (4, 4), (5, 5), (0, 1)) and SEGMENTS[-1] == (4, 5)


@pytest.mark.parametrize(("seconds", "valid"), [(0, 0), (1, 6), (5, 6), (6, 11), (25, 20), (26, 21), (32, 21)])
def test_a_segment_needs_one_second(seconds: int, valid: int) -> None:
    # starting in chunk 0: 6 segments, in chunk 1: 5, ...
    assert valid_segments(seconds).sum() == valid


def test_ties_go_against_the_query() -> None:
    everywhere = np.ones(21, bool)
    ranking = rank_segments(np.zeros(21), everywhere, [(0, 0), (0, 0), (3, 5)])
    assert ranking[-2:] == [(3, 5), (0, 0)] and len(ranking) == 21
    assert rank_segments(np.arange(21.0), everywhere, [])[0] == (4, 5)
    assert rank_segments(np.arange(21.0), valid_segments(3), [])[0] == (0, 5)


def test_frequencies_count_every_annotator() -> None:
    counts = moment_frequencies([DidemoQuery("v", "x", ((0, 0), (0, 0), (4, 5))), DidemoQuery("w", "y", ((0, 0),))])
    assert (counts[0], counts[-1], counts.sum()) == (3, 1, 4)


@pytest.mark.parametrize("segments", [4, 6])
@pytest.mark.parametrize("votes", [(4,), (1, 3), (2, 2), (1, 1, 2), (1, 1, 1, 1), (1,), (1, 1)])
def test_chance_against_all_orders(segments: int, votes: tuple[int, ...]) -> None:
    means = [
        np.mean(sorted(rank for rank, times in zip(ranks, votes) for _ in range(times))[:3])
        for ranks in permutations(range(1, segments + 1), len(votes))
    ]
    expected = [np.mean(np.array(means) <= limit) for limit in (1, 5)]
    assert chance_of_mean_rank(segments, votes) == pytest.approx(expected)


@pytest.mark.parametrize("votes", [(1,) * 21, (1,) * 12, (2, 1, 5) * 4 + (3, 1)])
def test_chance_of_many_moments_is_that_of_random_orders(votes: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    orders = rng.permuted(np.tile(np.arange(1, 22), (4000, 1)), axis=1)[:, : len(votes)]
    means = np.array([np.sort(np.repeat(ranks, votes))[:3].mean() for ranks in orders])
    expected = [(means <= limit).mean() for limit in (1, 5)]
    assert chance_of_mean_rank(21, votes) == pytest.approx(expected, abs=0.03)


def test_chance_is_what_random_rankings_get() -> None:
    rng = np.random.default_rng(0)
    moments: list[list[tuple[int, int]]] = [
        [(0, 0), (0, 0), (0, 1)],
        [(5, 5)],
        [(1, 1), (2, 2), (3, 3), (4, 5), (0, 5)],
    ]
    valid = np.stack([valid_segments(seconds) for seconds in (30, 8, 21)])
    drawn = [
        moment_metrics([rank_segments(rng.random(21), *row) for row in zip(valid, moments)], moments)
        for _ in range(1500)
    ]
    exact = chance_moment_metrics(moments, valid)
    assert set(exact) == set(drawn[0])
    for key, value in exact.items():
        assert np.mean([numbers[key] for numbers in drawn]) == pytest.approx(value, abs=0.03)


def test_chance_of_an_empty_video_is_a_miss() -> None:
    assert chance_moment_metrics([[(0, 0)]], valid_segments(0)[None]) == {"R@1": 0.0, "R@5": 0.0, "mIoU": 0.0}


# ------------------------------------------------------------------------------------------------------------ moments

QUERIES = [
    record("a.avi", "a dog", [[0, 0]] * 4),
    record("b.mov", "a cat", [[2, 3], [2, 3], [2, 2]]),
    record("a.avi", "a cat", [[5, 5], [0, 1]]),
    record("empty.avi", "a dog", [[0, 0]]),
]


def test_moments_end_to_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    seconds = {"a.avi": 12, "b.mov": 40, "empty.avi": 0}
    training = [record("t", "x", [[0, 0], [0, 0], [2, 3]])]
    moment = moment_benchmark(write_didemo(tmp_path, QUERIES, seconds, training))
    assert (moment.found, moment.missing) == (4, [])
    assert "4 items found, the official test set has 4021" in caplog.text
    plan = moment.plan()
    assert plan.texts == ["a dog", "a cat"]
    assert plan.windows == [Window("a.avi", 0, 12), Window("b.mov", 0, 32), Window("empty.avi", 0, 0)]
    assert plan.per_frame and plan.attend_to_cls and plan.pad_to == 32

    rng = np.random.default_rng(0)
    text, video = rng.standard_normal((2, 3), np.float32), rng.standard_normal((3, 32, 3), np.float32)
    scores = moment.score(Encodings(text, video))
    assert scores["scores"].dtype == np.float32
    np.testing.assert_array_equal(scores["seconds"], [12, 32, 12, 0])
    slow = video[0, 5:30].mean(axis=0) @ text[1]  # query 2, segment (1, 5): 18 of the 25 positions are padding
    assert scores["scores"][2, SEGMENTS.index((1, 5))] == pytest.approx(slow, abs=1e-5)
    np.savez(tmp_path / "scores.npz", allow_pickle=False, **scores)
    with np.load(tmp_path / "scores.npz", allow_pickle=False) as stored:
        assert moment.evaluate(stored).metrics == moment.evaluate(scores).metrics


def test_moment_numbers_by_hand(tmp_path: Path) -> None:
    seconds = {"a.avi": 12, "b.mov": 40, "empty.avi": 0}
    training = [record("t", "x", [[0, 0], [0, 0], [2, 3]])]
    moment = moment_benchmark(write_didemo(tmp_path, QUERIES, seconds, training))
    scores = np.zeros((4, 21))
    scores[0, SEGMENTS.index((0, 0))] = 1  # right, three annotators agree
    scores[1, SEGMENTS.index((2, 3))] = 2
    scores[1, SEGMENTS.index((2, 2))] = 1  # ranks 1, 1, 2: mean 4/3 is not R@1, but R@5
    scores[2, SEGMENTS.index((5, 5))] = 9  # beyond the video's 12 seconds: not ranked
    scores[2, SEGMENTS.index((0, 1))] = 1  # the only annotation left: rank 1
    evaluation = moment.evaluate({"scores": scores, "seconds": np.array([12, 32, 12, 0])})
    # IoUs: 1; (1 + 1 + 1/2) / 3; ((0,1) with itself 1, with (5,5) 0) / 2; no top segment
    expected = {"R@1": 2 / 4, "R@5": 3 / 4, "mIoU": (1 + 2.5 / 3 + 0.5 + 0) / 4}
    assert evaluation.metrics == pytest.approx(expected)
    assert evaluation.queries == 4 and evaluation.original == {}
    # the prior ranks (0,0) first, (2,3) second, whatever the length; the rest ties against the query:
    # query 0: 1; query 1: (2 + 2 + 21) / 3; query 2: 20 and 21; query 3: 1
    prior = evaluation.baselines["moment_prior"]
    assert (prior["R@1"], prior["R@5"]) == (0.5, 0.5)
    assert prior["mIoU"] == pytest.approx((1 + 0 + (0.5 + 0) / 2 + 1) / 4)
    assert set(evaluation.baselines["chance"]) == set(evaluation.metrics) == set(evaluation.intervals)
    # a.avi has the queries 0 and 2, b.mov 1, empty.avi 3
    assert evaluation.sums.videos.tolist() == ["a.avi", "b.mov", "empty.avi"]
    assert evaluation.sums.metrics() == pytest.approx(expected)
    assert evaluation.sums.metrics(np.array([2, 0, 1])) == pytest.approx({"R@1": 0.8, "R@5": 0.8, "mIoU": 0.6})
    assert evaluation.intervals["R@1"] == evaluation.intervals["R@5"] == (0, 1)
    assert evaluation.intervals["mIoU"] == pytest.approx((0, 2.5 / 3))  # empty.avi or b.mov, thrice


def test_a_constant_model_earns_nothing(tmp_path: Path) -> None:
    moment = moment_benchmark(write_didemo(tmp_path, QUERIES[:2], {"a.avi": 30, "b.mov": 30}))
    evaluation = moment.evaluate({"scores": np.zeros((2, 21)), "seconds": np.array([30, 30])})
    assert (evaluation.metrics["R@1"], evaluation.metrics["R@5"]) == (0, 0)
    assert "moment_prior" not in evaluation.baselines  # no train_data.json


def test_missing_features_stop_the_run_or_are_counted(tmp_path: Path) -> None:
    folder = write_didemo(tmp_path, QUERIES, {"a.avi": 30, "b.mov": 30})
    with pytest.raises(FileNotFoundError, match=r"empty\.avi"):
        moment_benchmark(folder)
    moment = moment_benchmark(folder, on_missing="skip")
    assert (moment.found, moment.missing) == (3, ["empty.avi"])
    retrieval = DidemoRetrieval(folder, feature_size=WIDTH, on_missing="skip")
    assert (retrieval.found, retrieval.missing) == (2, ["empty.avi"])


def test_features_named_as_videos_meet_their_ids_on_demand(tmp_path: Path) -> None:
    """The ids themselves end in a video's suffix: only the last one is dropped."""
    folder = write_didemo(tmp_path, QUERIES, {f"{video}.mp4": 30 for video in ("a.avi", "b.mov", "empty.avi")})
    assert moment_benchmark(folder, drop_suffix=True).found == len(QUERIES)
    assert DidemoRetrieval(folder, feature_size=WIDTH, drop_suffix=True).found == 3


def test_scores_that_do_not_fit_or_are_not_finite_are_refused(tmp_path: Path) -> None:
    moment = moment_benchmark(write_didemo(tmp_path, QUERIES[:1], {"a.avi": 30}))
    with pytest.raises(ValueError, match="do not fit"):
        moment.evaluate({"scores": np.zeros((2, 21)), "seconds": np.array([30])})
    with pytest.raises(ValueError, match="NaN"):
        moment.evaluate({"scores": np.full((1, 21), np.inf), "seconds": np.array([30])})
    with pytest.raises(ValueError, match="split"):
        moment_benchmark(tmp_path, split="original")


# ---------------------------------------------------------------------------------------------------------- retrieval


def test_retrieval_joins_a_videos_sentences_in_file_order(tmp_path: Path) -> None:
    folder = write_didemo(tmp_path, QUERIES, {"a.avi": 12, "b.mov": 40, "empty.avi": 0})
    retrieval = DidemoRetrieval(folder, feature_size=WIDTH)
    assert (retrieval.name, retrieval.official_items, retrieval.found) == ("didemo_retrieval", 1037, 3)
    plan = retrieval.plan()
    assert plan.texts == ["a dog a cat", "a cat", "a dog"]
    assert plan.windows == [Window("a.avi", 0, 12), Window("b.mov", 0, 32), Window("empty.avi", 0, 0)]
    assert not plan.per_frame and plan.attend_to_cls
    scores = retrieval.score(Encodings(np.eye(3, dtype=np.float32), np.eye(3, dtype=np.float32)))
    evaluation = retrieval.evaluate(scores)
    perfect = {"R@1": 1.0, "R@5": 1.0, "R@10": 1.0, "median_rank": 1.0, "mean_rank": 1.0}
    assert evaluation.metrics == {**perfect, "video_to_text": perfect}
    assert evaluation.original == {} and evaluation.queries == 3


# ------------------------------------------------------------------------------------------------------ the original


def test_parity_with_the_original(golden_part: Path) -> None:
    folder = golden_part / "eval_didemo"
    recorded, details = np.load(folder / "golden.npz"), json.loads((folder / "details.json").read_text())
    assert [list(segment) for segment in SEGMENTS] == details["possible_segments"]
    moment = DidemoMoment(folder / "data", features=folder / "data" / "feat" / "feat_didemo_s3d")
    descriptions = [query.description for query in moment.queries]
    videos = [query.video_id for query in moment.queries]
    plan = moment.plan()
    text = recorded["pooled_text"][[descriptions.index(text) for text in plan.texts]]
    hidden = recorded["hidden_video"][[videos.index(window.video_id) for window in plan.windows]]
    scores = moment.score(Encodings(text, hidden[:, 1:-1]))
    np.testing.assert_allclose(scores["scores"], recorded["scores"], atol=1e-4)
    np.testing.assert_array_equal(scores["seconds"], recorded["vmasks"].sum(axis=1))

    rankings = [
        rank_segments(row, valid_segments(seconds), query.moments)
        for row, seconds, query in zip(recorded["scores"], scores["seconds"], moment.queries)
    ]
    assert [[list(segment) for segment in ranking] for ranking in rankings] == details["ranked_segments"]
    metrics = moment.evaluate(scores).metrics
    original = json.loads((folder / "metrics.json").read_text())
    assert metrics == pytest.approx(
        {"R@1": original["rank1"], "R@5": original["rank5"], "mIoU": original["miou"]}, abs=1e-15
    )
