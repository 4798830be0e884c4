"""Hand-made results of every kind of benchmark, small enough to check by eye."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

WriteResults = Callable[..., Path]


def results_of(name: str, **changes: Any) -> dict[str, Any]:
    """The content of a results file."""
    return {
        "benchmark": name,
        "metrics": {"R@1": 0.5, "median_rank": 2.0},
        "baselines": {"chance": {"R@1": 0.1, "median_rank": 5.5}},
        "original": {},
        "paper": {"R@1": 0.227},
        "counts": {"expected": 3305, "found": 4, "missing": [], "queries": 4},
        "intervals": {"R@1": [0.4, 0.6], "median_rank": [1.0, 3.0]},
        "checkpoint": {"path": "/runs/a/checkpoint_best.pt", "sha256": "0123456789abcdef"},
        "config": {"task": {"data": "/data"}},
    } | changes


def retrieval_scores(queries: int = 40, seed: int = 0) -> dict[str, np.ndarray]:
    """A square matrix whose diagonal is a little higher than the rest."""
    similarities = np.random.default_rng(seed).normal(size=(queries, queries)).astype(np.float32)
    similarities[np.arange(queries), np.arange(queries)] += 2
    return {
        "similarities": similarities,
        "texts": np.array([f"sentence {i}" for i in range(queries)]),
        "video_ids": np.array([f"video{i}" for i in range(queries)]),
        "spans": np.array([(i, i + 9) for i in range(queries)]),
    }


def choice_scores(questions: int = 30, seed: int = 0) -> dict[str, np.ndarray]:
    """Five sentences a question, the right one a little higher."""
    rng = np.random.default_rng(seed)
    scores, answers = rng.normal(size=(questions, 5)).astype(np.float32), rng.integers(5, size=questions)
    scores[np.arange(questions), answers] += 1
    return {
        "scores": scores,
        "texts": np.array([f"sentence {i}" for i in range(5 * questions)]),
        "options": np.arange(5 * questions).reshape(questions, 5),
        "answers": answers,
        "video_ids": np.array([f"video{i}" for i in range(questions)]),
    }


def moment_scores(queries: int = 30, seed: int = 0) -> dict[str, np.ndarray]:
    """Scores of 21 segments, and four annotators that agree."""
    rng = np.random.default_rng(seed)
    first = rng.integers(6, size=queries)
    return {
        "scores": rng.normal(size=(queries, 21)).astype(np.float32),
        "seconds": np.full(queries, 30),
        "texts": np.array([f"sentence {i}" for i in range(queries)]),
        "video_ids": np.array([f"video{i}.avi" for i in range(queries)]),
        "moments": np.repeat(np.stack([first, first], 1)[:, None], 4, axis=1),
        "prior": np.arange(21),
    }


def coin_scores(videos: int = 4, seconds: int = 50, labels: int = 3, seed: int = 0) -> dict[str, np.ndarray]:
    """Videos whose middle shows one label."""
    rng = np.random.default_rng(seed)
    target = np.zeros((videos, seconds), np.int64)
    for video in range(videos):
        target[video, 10:30] = video % labels + 1
    logits = rng.normal(size=(videos * seconds, labels)).astype(np.float32)
    return {
        "video_ids": np.array([f"video{i}" for i in range(videos)]),
        "video_lengths": np.full(videos, seconds),
        "logits": logits,
        "label_similarity": np.eye(labels, dtype=np.float32),
        "background_threshold": np.array(0.5),
        "labels": np.array([f"label {i}" for i in range(1, labels + 1)]),
        "class_label_ids": np.arange(1, labels + 1) * 7,
        "targets": target.ravel(),
    }


def crosstask_scores(videos: int = 3, seconds: int = 20, steps: int = 4, seed: int = 0) -> dict[str, np.ndarray]:
    """Videos that show all steps, one after the other."""
    truth = np.zeros((seconds, steps), np.uint8)
    for step in range(steps):
        truth[step * 5 : step * 5 + 3, step] = 1
    return {
        "tasks": np.array(["1", "2", "1"][:videos]),
        "task_titles": np.array(["Make tea", "Fry", "Make tea"][:videos]),
        "video_ids": np.array([f"video{i}" for i in range(videos)]),
        "video_lengths": np.full(videos, seconds),
        "video_steps": np.full(videos, steps),
        "logits": np.random.default_rng(seed).normal(size=videos * seconds * steps).astype(np.float32),
        "step_texts": np.array([f"step {i}" for i in range(steps)] * videos),
        "truths": np.tile(truth.ravel(), videos),
    }


MADE_UP = {
    "youcook2": retrieval_scores,
    "msrvtt_qa": choice_scores,
    "didemo_moment": moment_scores,
    "coin": coin_scores,
    "crosstask": crosstask_scores,
}


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The drawing script, which takes seconds to make, is kept for all runs of the tests, and not in the user's cache."""
    patch = pytest.MonkeyPatch()
    patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp().parent / "drawing"))
    yield
    patch.undo()


@pytest.fixture
def write_results(tmp_path: Path) -> WriteResults:
    """Writes results of a name and their scores, None for none; gives the JSON file's path."""

    def write(name: str, scores: dict[str, np.ndarray] | None, folder: str = "results", **changes: Any) -> Path:
        target = tmp_path / folder
        target.mkdir(exist_ok=True)
        (target / f"{name}.json").write_text(json.dumps(results_of(name, **changes)))
        if scores is not None:
            np.savez(target / f"{name}_scores.npz", **scores)
        return target / f"{name}.json"

    return write
