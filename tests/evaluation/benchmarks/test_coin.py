"""COIN: reader, rules by hand, parity with the reference data made by running the original."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmpt_plugin.data.windows import Window
from mmpt_plugin.evaluation.benchmark import Encodings
from mmpt_plugin.evaluation.benchmarks.coin import (
    Coin,
    CoinSegment,
    CoinVideo,
    background_threshold,
    calibrated_predictions,
    classifier_predictions,
    label_texts,
    otsu_threshold,
    paint_targets,
    read_coin,
    segmentation_counts,
    summarize_counts,
    threshold_predictions,
)
from mmpt_plugin.evaluation.metrics import edit_score, frame_accuracy, segmental_f1

WIDTH = 4


def segment(label_id: object, start: float, end: float, label: object) -> dict:
    return {"id": label_id, "segment": [start, end], "label": label}


def write_coin(folder: Path, videos: dict[str, tuple[int | None, list[dict]]], subset: str = "testing") -> Path:
    """Writes coin/COIN.json and features: id -> (seconds, or None for no feature file; annotations)."""
    features = folder / "coin" / "features"
    features.mkdir(parents=True)
    database = {video: {"subset": subset, "annotation": segments} for video, (_, segments) in videos.items()}
    (folder / "coin" / "COIN.json").write_text(json.dumps({"database": database}))
    for video, (seconds, _) in videos.items():
        if seconds is not None:
            np.save(features / f"{video}.npy", np.zeros((seconds, WIDTH), np.float16))
    return folder


def benchmark(folder: Path, **options: object) -> Coin:
    return Coin(folder, feature_size=WIDTH, **options)  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------------------- reader


def test_reads_records(tmp_path: Path) -> None:
    write_coin(tmp_path, {"-a_b_c": (3, [segment("7", 0.5, 2, "NA"), segment(9, 2, 2, "null")])})
    assert read_coin(tmp_path / "coin" / "COIN.json") == [
        CoinVideo("-a_b_c", "testing", (CoinSegment(0.5, 2.0, 7, "NA"), CoinSegment(2.0, 2.0, 9, "null")))
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"database": {"v": {"subs', "truncated"),
        ("task,video,url", "not valid JSON"),
        ("[]", "no table 'database'"),
        (
            '{"database": {"v": {"subset": "testing", "annotations": []}}}',
            "video v: Object missing required field `annotation`",
        ),  # YouCook2's file
        ('{"database": {"v": {"subset": "testing", "annotation": [{"segment": [0, 1], "label": "x"}]}}}', "video v"),
    ],
)
def test_another_file_is_named(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "COIN.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=message) as error:
        read_coin(path)
    assert "COIN.json" in str(error.value) and "Expected" in str(error.value)


@pytest.mark.parametrize(
    "malformed",
    [
        segment("1", 5, 4, "x"),
        segment("1", -1, 4, "x"),
        segment("1", 0, 1e30, "x"),
        segment("1", True, 1, "x"),
        segment("one", 0, 1, "x"),
        segment("-1", 0, 1, "x"),
        segment(None, 0, 1, "x"),
        segment("1", 0, 1, 7),
        segment(1.5, 0, 1, "x"),
        segment(True, 0, 1, "x"),
        segment("1", 0, 1, " "),
        {"id": "1", "segment": [0], "label": "x"},
        {"id": "1", "segment": ["0", "1"], "label": "x"},
        "x",
    ],
)
def test_a_malformed_segment_names_its_video(tmp_path: Path, malformed: dict) -> None:
    write_coin(tmp_path, {"good": (3, [segment("1", 0, 1, "x")]), "-bad_1": (3, [malformed])})
    with pytest.raises(ValueError, match="video -bad_1"):
        read_coin(tmp_path / "coin" / "COIN.json")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (('"testing"', '"tesing"'), "video v: Invalid enum value 'tesing'"),
        (('"label": "x"', '"label": "x", "label": "y"'), "the key 'label' is given twice"),
        (('"segment": [0, 1]', '"segment": [0, NaN]'), "NaN is no number"),
        (('"segment": [0, 1]', '"segment": [0, 1e999]'), "too large"),
        (('"label": "x"', '"label": "\\ud800"'), "half of a surrogate pair"),
    ],
)
def test_what_json_allows_and_we_do_not(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    path = write_coin(tmp_path, {"v": (3, [segment("1", 0, 1, "x")])}) / "coin" / "COIN.json"
    assert path.read_text().count(change[0]) == 1
    path.write_text(path.read_text().replace(*change))
    with pytest.raises(ValueError, match=message) as error:
        read_coin(path)
    assert "COIN.json" in str(error.value)


def test_a_missing_file_says_which_belongs_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"official COIN\.json"):
        benchmark(tmp_path)


def test_the_last_text_of_an_id_counts_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    videos = [
        CoinVideo("v", "testing", (CoinSegment(0, 1, 2, "b"), CoinSegment(0, 1, 1, "a"), CoinSegment(0, 1, 2, "c")))
    ]
    assert label_texts(videos) == {1: "a", 2: "c"}
    assert "'b' and 'c'" in caplog.text


# -------------------------------------------------------------------------------------------------------------- rules


def test_targets_by_hand() -> None:
    segments = [CoinSegment(0.5, 2.1, 30, "a"), CoinSegment(2.0, 4.0, 10, "b"), CoinSegment(9.0, 11.0, 10, "b")]
    # seconds floor(0.5)=0 .. ceil(2.1)-1=2, then 2..3 by the later one; the third lies beyond the end
    np.testing.assert_array_equal(paint_targets(segments, 5, {10: 1, 30: 2}), [2, 2, 1, 1, 0])
    assert paint_targets(segments, 0, {10: 1, 30: 2}).shape == (0,)


def test_threshold_is_the_largest_product_of_two_labels_and_strict() -> None:
    similarity = np.array([[9.0, 1.0, -2.0], [1.0, 9.0, 3.0], [-2.0, 3.0, 9.0]])
    assert background_threshold(similarity) == 3.0
    assert background_threshold(np.array([[9.0]])) == math.inf
    np.testing.assert_array_equal(threshold_predictions(np.array([[3.0, 0.0], [0.0, 3.1], [2.0, 2.0]]), 3.0), [0, 2, 0])


@given(st.lists(st.integers(-5, 5), min_size=1, max_size=30))
def test_otsu_against_all_splits(numbers: list[int]) -> None:
    values = np.array(numbers, np.float64)

    def separation(threshold: float) -> float:
        low, high = values[values <= threshold], values[values > threshold]
        return len(low) * len(high) * (low.mean() - high.mean()) ** 2 if len(high) else 0.0

    best = max(separation(threshold) for threshold in values)
    assert separation(otsu_threshold(values)) == pytest.approx(best)


def test_otsu_by_hand() -> None:
    assert otsu_threshold(np.array([0.0, 10.0, 1.0, 11.0])) == 1.0
    assert otsu_threshold(np.array([2.0, 2.0])) == 2.0  # nothing lies above: all background


def test_calibration_finds_what_offsets_hide() -> None:
    """Labels of different offset and scale: the raw rule fails, the standardised one does not."""
    rng = np.random.default_rng(0)
    target = np.repeat(np.array([0, 1, 0, 2, 0, 3] * 4), 10)
    logits = rng.standard_normal((len(target), 3))
    logits[target > 0, target[target > 0] - 1] += 8
    logits = logits * [1, 5, 0.2] + [100, 0, -50]  # raw: always label 1
    raw, calibrated = threshold_predictions(logits, 40.0), calibrated_predictions(logits)
    assert frame_accuracy(raw, target) < 0.3
    assert frame_accuracy(calibrated, target) > 0.95
    assert frame_accuracy(calibrated, target, ignore=0) > 0.95


def test_calibration_of_a_constant_model_is_all_background() -> None:
    np.testing.assert_array_equal(calibrated_predictions(np.full((4, 3), 7, np.float32)), [0, 0, 0, 0])
    np.testing.assert_array_equal(calibrated_predictions(np.array([[1.0, 2.0]])), [0])


def test_calibration_ignores_the_labels_offset_and_scale() -> None:
    rng = np.random.default_rng(1)
    logits = rng.standard_normal((200, 5))
    moved = logits * rng.uniform(0.1, 10, 5) + rng.uniform(-100, 100, 5)
    np.testing.assert_array_equal(calibrated_predictions(logits), calibrated_predictions(moved))


def test_summaries_equal_the_metric_functions() -> None:
    rng = np.random.default_rng(2)
    targets = [np.repeat(rng.integers(0, 4, 6), 3) for _ in range(5)]
    guesses = [np.where(rng.random(18) < 0.8, target, rng.integers(0, 4, 18)) for target in targets]
    summary = summarize_counts(segmentation_counts(guesses, targets).sum(axis=0))
    assert summary == pytest.approx(
        {
            "frame_accuracy": frame_accuracy(guesses, targets),
            "foreground_accuracy": frame_accuracy(guesses, targets, ignore=0),
            "edit": edit_score(guesses, targets),
            **segmental_f1(guesses, targets),
        }
    )


# ---------------------------------------------------------------------------------------------------------- benchmark


def small(tmp_path: Path) -> Path:
    return write_coin(
        tmp_path,
        {
            "-a_1": (40, [segment("30", 2, 10, "pour"), segment("10", 20, 60, "stir")]),
            "zero": (0, [segment("10", 0, 3, "stir")]),
            "one": (1, [segment("20", 0, 1, "pour")]),  # the text of id 30 again
            "gone": (None, [segment("99", 0, 1, "fry")]),
        },
    )


def test_plan_and_scores(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    coin = benchmark(small(tmp_path), on_missing="skip")
    assert (coin.found, coin.missing, coin.official_items) == (3, ["gone"], 2797)
    assert "3 items found, the official test set has 2797" in caplog.text
    assert coin.labels == ["stir", "pour", "pour", "fry"]  # ids 10, 20, 30, 99: also from the video without features
    plan = coin.plan()
    assert plan.texts == ["stir", "pour", "fry"]
    assert plan.windows == [Window("-a_1", 0, 32), Window("-a_1", 16, 40), Window("one", 0, 1)]
    assert plan.per_frame and not plan.attend_to_cls

    text = np.eye(3, dtype=np.float32)
    states = [
        np.full((32, 3), [0, 2, 0], np.float32),
        np.full((24, 3), [4, 0, 0], np.float32),
        np.ones((1, 3), np.float32),
    ]
    scores = coin.score(Encodings(text, states))
    assert scores["logits"].dtype == np.float32 and scores["logits"].shape == (41, 4)
    np.testing.assert_array_equal(
        scores["logits"][[0, 20, 39, 40]], [[0, 2, 2, 0], [2, 1, 1, 0], [4, 0, 0, 0], [1] * 4]
    )
    np.testing.assert_array_equal(scores["video_lengths"], [40, 0, 1])
    assert scores["background_threshold"] == 1.0  # two labels with one text
    np.savez(tmp_path / "scores.npz", allow_pickle=False, **scores)
    with np.load(tmp_path / "scores.npz", allow_pickle=False) as stored:
        assert coin.evaluate(stored).metrics == coin.evaluate(scores).metrics


def test_numbers_by_hand(tmp_path: Path) -> None:
    """Truth: "-a_1" 8 s pour, 20 s stir of 40; "one" 1 s pour; "zero" has no second."""
    coin = benchmark(small(tmp_path), on_missing="skip")
    logits = np.zeros((41, 4), np.float32)
    logits[2:10, 2] = 5  # "pour" exactly
    logits[20:30, 0] = 5  # the first half of "stir"
    scores = {"video_lengths": np.array([40, 0, 1]), "logits": logits, "background_threshold": np.array(1.0)}
    evaluation = coin.evaluate(scores)
    metrics = evaluation.metrics
    assert metrics["frame_accuracy"] == pytest.approx(30 / 41)  # 8 + 10 actions and 12 background
    assert metrics["foreground_accuracy"] == pytest.approx(18 / 29)
    assert metrics["edit"] == pytest.approx((1 + 0) / 2)  # pour, stir = pour, stir; nothing instead of pour
    assert metrics["F1@50"] == pytest.approx(2 * 2 / (2 + 3))  # overlap of stir: 10 / 20
    assert evaluation.queries == 2
    assert evaluation.original == {"frame_accuracy": pytest.approx(30 / 41)}
    background = evaluation.baselines["all_background"]
    assert background["frame_accuracy"] == pytest.approx(12 / 41)
    assert (background["foreground_accuracy"], background["F1@10"]) == (0, 0)
    assert evaluation.baselines["chance"]["frame_accuracy"] == 1 / 5
    assert set(evaluation.baselines["chance"]) == set(metrics) == set(background)
    assert set(evaluation.intervals) == {k for k in metrics if k != "calibrated"} | {
        f"calibrated/{k}" for k in metrics["calibrated"]
    }
    # the intervals resample the two videos that have seconds, and nothing but what the metrics add up from
    assert evaluation.sums.videos.tolist() == ["-a_1", "one"]
    flat = {k: v for k, v in metrics.items() if k != "calibrated"}
    flat |= {f"calibrated/{k}": v for k, v in metrics["calibrated"].items()}
    assert evaluation.sums.metrics() == pytest.approx(flat)
    assert evaluation.sums.metrics(np.array([2, 0]))["frame_accuracy"] == 30 / 40
    assert evaluation.intervals["frame_accuracy"] == (0, 30 / 40)  # "one" twice, or "-a_1" twice
    assert evaluation.intervals["foreground_accuracy"] == (0, 18 / 28)
    assert evaluation.intervals["edit"] == (0, 1)


def test_chance_is_what_random_scores_get(tmp_path: Path) -> None:
    segments = [segment(str(i % 3 + 1), 40 * i, 40 * i + 20, f"step {i % 3}") for i in range(50)]
    coin = benchmark(write_coin(tmp_path, {"v": (2000, segments)}))
    rng = np.random.default_rng(5)
    states = rng.integers(4, size=2000)
    scores = {
        "video_lengths": np.array([2000]),
        "logits": np.eye(4)[states][:, 1:],
        "background_threshold": np.array(0.5),
    }
    evaluation = coin.evaluate(scores)
    for key in ("frame_accuracy", "foreground_accuracy", "edit", "F1@10"):
        assert evaluation.metrics[key] == pytest.approx(evaluation.baselines["chance"][key], abs=0.05)


def test_classes_of_a_classifier_become_those_of_the_test() -> None:
    # classes: background, labels 3, 7, 12; in the test 7 is class 1 and 3 class 2, label 12 is in no test video
    logits = np.eye(4, dtype=np.float32)
    assert classifier_predictions(logits, np.array([3, 7, 12]), {7: 1, 3: 2}).tolist() == [0, 2, 1, 5]


def test_a_classifier_instead_of_texts(tmp_path: Path) -> None:
    coin = benchmark(write_coin(tmp_path, {"a": (4, [segment(7, 1, 3, "cut")]), "b": (2, [segment(3, 0, 2, "stir")])}))
    coin.use_frame_classifier([3, 5, 7])
    plan = coin.plan()
    assert plan.classify_frames and not plan.texts and len(plan.windows) == 2
    first = np.array([[1, 0, 0, 0], [0, 0, 0, 1], [0, 1, 0, 0], [0, 0, 9, 0]], np.float32)  # seconds as 0, 7, 3, 5
    second = np.array([[0, 1, 0, 0], [1, 0, 0, 0]], np.float32)  # as 3, 0
    scores = coin.score(Encodings(np.zeros((0, 0), np.float32), [first, second]))
    assert scores["logits"].shape == (6, 4) and scores["label_ids"].tolist() == [3, 5, 7]
    metrics = coin.evaluate(scores).metrics
    # truth 0 7 7 0 and 3 3: right are the seconds 0 and 1 of a and 0 of b; 3 of 6, of the foreground 2 of 4
    assert metrics["frame_accuracy"] == 0.5 and metrics["foreground_accuracy"] == 0.5
    assert "calibrated" not in metrics
    with pytest.raises(ValueError, match="do not fit the annotations"):
        coin.evaluate(scores | {"label_ids": np.array([3, 7])})


def test_cosines_are_judged_by_the_calibrated_rule(tmp_path: Path) -> None:
    coin = benchmark(write_coin(tmp_path, {"a": (4, [segment(7, 1, 3, "cut"), segment(3, 3, 4, "stir")])}))
    texts = np.array([[0.8, 0.6], [0.6, 0.8]], np.float32)  # labels 3 and 7; their cosine is 0.96
    states = np.array([[0.3, 0.3], [0.1, 0.5], [0.1, 0.5], [0.5, 0.1]], np.float32)  # no label comes up to 0.96
    encodings = Encodings(texts[[coin.labels.index("stir"), coin.labels.index("cut")]], [states])
    plain = coin.score(encodings)
    assert "cosines" not in plain
    coin.use_cosines()
    scores = coin.score(encodings)
    before, after = coin.evaluate(plain), coin.evaluate(scores)
    assert before.metrics["foreground_accuracy"] == 0 and before.metrics["frame_accuracy"] == 0.25
    assert after.metrics["foreground_accuracy"] == after.metrics["calibrated"]["foreground_accuracy"] > 0
    assert {name: value for name, value in after.metrics.items() if name != "calibrated"} == after.metrics["calibrated"]
    assert before.metrics["calibrated"] == after.metrics["calibrated"]
    assert before.original == after.original == {"frame_accuracy": 0.25}  # by the original's rule


def test_labels_that_training_never_saw_are_refused(tmp_path: Path) -> None:
    coin = benchmark(write_coin(tmp_path, {"a": (4, [segment(7, 1, 3, "cut"), segment(9, 3, 4, "stir")])}))
    with pytest.raises(ValueError, match=r"1 labels of the test videos were in no training video.* first 9 \('stir'\)"):
        coin.use_frame_classifier([3, 7])


def test_missing_features_stop_the_run(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="gone"):
        benchmark(small(tmp_path))


def test_no_testing_video_and_another_split_are_refused(tmp_path: Path) -> None:
    write_coin(tmp_path, {"v": (3, [segment("1", 0, 1, "x")])}, subset="training")
    with pytest.raises(ValueError, match="subset 'testing'"):
        benchmark(tmp_path)
    with pytest.raises(ValueError, match="split"):
        benchmark(tmp_path, split="original")


def test_scores_that_do_not_fit_or_are_not_finite_are_refused(tmp_path: Path) -> None:
    coin = benchmark(small(tmp_path), on_missing="skip")
    good = {"video_lengths": np.array([40, 0, 1]), "logits": np.zeros((41, 4)), "background_threshold": np.array(1.0)}
    with pytest.raises(ValueError, match="do not fit"):
        coin.evaluate({**good, "logits": np.zeros((40, 4))})
    with pytest.raises(ValueError, match="do not fit"):
        coin.evaluate({**good, "video_lengths": np.array([41])})
    with pytest.raises(ValueError, match="NaN"):
        coin.evaluate({**good, "logits": np.full((41, 4), np.nan)})


# ------------------------------------------------------------------------------------------------------ the original


def test_parity_with_the_original(golden_part: Path) -> None:
    folder = golden_part / "eval_coin"
    recorded, details = np.load(folder / "golden.npz"), json.loads((folder / "details.json").read_text())
    coin = Coin(folder / "data", features=folder / "data" / "feat" / "feat_coin_s3d", on_missing="skip")
    assert [video.video_id for video in coin.videos] == details["video_ids"]
    assert coin.labels == details["labels"]
    assert background_threshold(recorded["label_similarity"]) == pytest.approx(float(recorded["lbd"]), abs=1e-4)

    scores = {
        "video_lengths": np.array(list(coin.seconds.values())),
        "logits": recorded["logits"],
        "background_threshold": recorded["lbd"],
    }
    np.testing.assert_array_equal(scores["video_lengths"], recorded["video_lengths"])
    targets = [paint_targets(v.segments, t, coin.class_of) for v, t in zip(coin.videos, scores["video_lengths"])]
    np.testing.assert_array_equal(np.concatenate(targets), recorded["target"])
    predicted = threshold_predictions(recorded["logits"], float(recorded["lbd"]))
    np.testing.assert_array_equal(predicted, recorded["pred"])

    evaluation = coin.evaluate(scores)
    original = json.loads((folder / "metrics.json").read_text())["frame_acc"]
    assert evaluation.original["frame_accuracy"] == original
    assert evaluation.metrics["frame_accuracy"] == pytest.approx(original, abs=1e-15)
    extra = details["extra"]
    assert evaluation.metrics["foreground_accuracy"] == pytest.approx(extra["acc_on_foreground"])
    assert evaluation.baselines["all_background"]["frame_accuracy"] == pytest.approx(extra["acc_always_O"])
    without = np.split(recorded["logits"].argmax(axis=1) + 1, np.cumsum(recorded["video_lengths"])[:-1])
    assert frame_accuracy(without, targets) == pytest.approx(extra["acc_without_threshold"])


def test_windows_merge_to_the_originals_logits(golden_part: Path) -> None:
    """Its window logits of the first videos, as if the states were logits already (the labels an identity)."""
    folder = golden_part / "eval_coin"
    recorded = np.load(folder / "golden.npz")
    coin = Coin(folder / "data", features=folder / "data" / "feat" / "feat_coin_s3d", on_missing="skip")
    windows = coin.plan().windows
    padded = recorded["window_logits_first_videos"].reshape(-1, 32, len(coin.labels))
    shown = {video.video_id for video in coin.videos[:4]}
    states = [np.zeros((w.end - w.start, len(coin.labels)), np.float32) for w in windows]
    own = [i for i, window in enumerate(windows) if window.video_id in shown]
    assert len(own) == len(padded)
    for i, rows in zip(own, padded):
        states[i] = rows[: len(states[i])]
    scores = coin.score(Encodings(np.eye(len(coin.labels), dtype=np.float32), states))
    frames = int(recorded["video_lengths"][:4].sum())
    np.testing.assert_allclose(scores["logits"][:frames], recorded["logits"][:frames], atol=1e-4)
    similarity = recorded["label_hidden"] @ recorded["label_hidden"].T
    np.testing.assert_allclose(similarity, recorded["label_similarity"], atol=1e-4)
