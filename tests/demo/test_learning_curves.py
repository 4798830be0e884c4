"""The learning curves: what is run, what is gone on with, and what the law says of scores that follow it."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from demo import learning_curves
from demo.learning_curves import AXES, POINTS, RECORDS, Law, Point, first_videos, fit, plot, show, train

PLANTED = Law(0.97, {"updates": 300.0, "videos": 80.0, "width": 20.0}, {"updates": 1.4, "videos": 0.7, "width": 1.0})


def record(point: Point, seed: int = 1, score: float | None = None) -> dict:
    metrics = {"R@1": PLANTED(point) if score is None else score}
    best = {"best_possible": {"R@1": PLANTED.ceiling}}
    return {
        "arm": "random",
        "point": asdict(point),
        "seed": seed,
        "cpu_seconds": 9,
        "metrics": metrics,
        "baselines": best,
    }


def test_the_law_by_hand() -> None:
    """Three terms of 1 each leave a quarter of the ceiling; halving an axis with exponent 1 makes its term 2."""
    law = Law(0.8, {"updates": 4.0, "videos": 5.0, "width": 6.0}, dict.fromkeys(AXES, 1.0))
    assert law(Point(4, 5, 6)) == pytest.approx(0.2)
    assert law.terms(Point(2, 5, 6)) == {"updates": 2, "videos": 1, "width": 1}


def test_the_fit_finds_the_law_that_scores_follow() -> None:
    found = fit(POINTS, np.array([PLANTED(point) for point in POINTS]), PLANTED.ceiling)
    assert found.exponents == pytest.approx(PLANTED.exponents, rel=0.02)
    assert found.scales == pytest.approx(PLANTED.scales, rel=0.02)
    assert found(Point(3200, 400, 128)) == pytest.approx(PLANTED(Point(3200, 400, 128)), rel=0.01)


def test_training_goes_on_where_it_was_broken_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[tuple] = []

    def running(folder: Path, arm: str, point: Point, seed: int) -> dict:
        if len(ran) == 3:
            raise KeyboardInterrupt
        ran.append((folder.name, arm, point))
        return record(point, seed) | {"arm": arm}

    monkeypatch.setattr(learning_curves, "run", running)
    points = POINTS[:2]
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, [1, 2], ["random", "ema"], points)
    kept = ran.copy()
    ran.clear()
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, [1, 2], ["random", "ema"], points)
    assert len(kept) == len(ran) == 3 and not set(kept) & set(ran)


def test_what_is_shown(tmp_path: Path) -> None:
    path = tmp_path / RECORDS
    path.write_text("\n".join(json.dumps(record(point)) for point in POINTS[:5]))
    with pytest.raises(ValueError, match=r"has too few points for a law with 6 numbers"):
        show(tmp_path)
    lines = [record(point, seed) for point in POINTS for seed in (1, 2)]
    lines.append(record(Point(400, 400, 64), 3, score=0.9) | {"arm": "ema"})  # no part of the curves
    path.write_text("\n".join(map(json.dumps, lines)))
    shown = show(tmp_path)
    expected = f"{100 * PLANTED(Point(800, 400, 128)):.1f}"
    assert f"foretold for 800 updates from shorter runs: {expected}, measured {expected}" in shown
    assert "R@1 = 0.970 / (1 + (300 / updates) ^ 1.40 + (80 / videos) ^ 0.70 + (20 / width) ^ 1.00)" in shown
    plot(tmp_path, tmp_path / "curves.svg")
    assert (tmp_path / "curves.svg").read_text().startswith("<svg")


def test_a_shorter_list_of_the_same_videos(tmp_path: Path) -> None:
    data = tmp_path / "data"
    (data / "howto100m" / "shards").mkdir(parents=True)
    (data / "howto100m" / "train.txt").write_text("a\nb\nc\n")
    (data / "howto100m" / "val.txt").write_text("v\n")
    (data / "world.json").write_text("{}")
    for _ in range(2):
        few = first_videos(data, tmp_path / "few", 2)
    assert (few / "howto100m" / "train.txt").read_text() == "a\nb\n"
    assert (few / "howto100m" / "shards").resolve() == (data / "howto100m" / "shards").resolve()
