"""What an ideal observer would score: one that knows the latent directions, but sees the same noisy features.

It looks at each second by itself and takes plain means, as the protocols do. Where they score single seconds (COIN), a
model that also looks at the seconds around can beat it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from demo.world import World
from mmpt_plugin.data.feature_folder import FeatureFolder
from mmpt_plugin.evaluation.benchmark import Benchmark, Encodings
from mmpt_plugin.evaluation.benchmarks import BENCHMARKS


def write_best_possible(data: Path, world: World) -> None:
    """Write `best_possible_<NAME>.npz` beside each benchmark's files, in the very arrays of its `score`."""
    for name, benchmark_class in BENCHMARKS.items():
        folder = data / name.split("_")[0]  # msrvtt and msrvtt_qa share one, as do the two on DiDeMo
        with _without_size_warnings():
            benchmark = benchmark_class(data)
        scores = benchmark.score(ideal_encodings(benchmark, FeatureFolder(folder / "features"), world))
        np.savez(folder / f"best_possible_{name}.npz", allow_pickle=False, **scores)


def ideal_encodings(benchmark: Benchmark, features: FeatureFolder, world: World) -> Encodings:
    """Encodings by the truth: what each text means, and the observed features themselves.

    The features are scaled so that a second's own step stands out by 1, as before they were normalised; only COIN's
    background threshold depends on that.
    """
    plan, config = benchmark.plan(), world.config
    scale = float(np.sqrt(1 + config.family_cue**2 + config.style**2 + config.noise**2))
    windows = [
        scale * features.load(window.video_id, window.start, window.end).astype(np.float32) for window in plan.windows
    ]
    text = world.text_latents(plan.texts)
    if not plan.per_frame:
        return Encodings(text, np.stack([rows.mean(axis=0) for rows in windows]))
    if plan.pad_to is not None:
        windows = [np.pad(rows, ((0, plan.pad_to - len(rows)), (0, 0))) for rows in windows]
    return Encodings(text, windows)


@contextmanager
def _without_size_warnings() -> Iterator[None]:
    """The benchmarks warn that a test set is not of the official size; here that is meant to be so."""
    logger = logging.getLogger("mmpt_plugin.evaluation")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
