"""Best possible: what knowing the true latents is worth in each benchmark."""

from pathlib import Path

import numpy as np
import pytest

from demo.corpus import write_demo_corpus
from demo.world import DemoWorld, World
from mmpt_plugin.evaluation.benchmarks import BENCHMARKS
from mmpt_plugin.evaluation.benchmarks.youcook2 import YouCook2

HEADLINE = {
    "youcook2": "R@1",
    "msrvtt": "R@1",
    "msrvtt_qa": "accuracy",
    "didemo_moment": "R@1",
    "didemo_retrieval": "R@1",
    "coin": "foreground_accuracy",
    "crosstask": "recall",
}


def evaluate(data: Path, name: str) -> tuple[float, float]:
    """The headline metric of the true latents, and of chance."""
    with np.load(data / name.split("_")[0] / f"best_possible_{name}.npz", allow_pickle=False) as scores:
        evaluation = BENCHMARKS[name](data).evaluate(dict(scores))
    return evaluation.metrics[HEADLINE[name]], evaluation.baselines["chance"][HEADLINE[name]]


def test_youcook2_similarities_are_the_latent_against_the_mean_feature(
    tiny_corpus: Path, tiny_world: DemoWorld
) -> None:
    clips = YouCook2(tiny_corpus).clips
    latents = World(tiny_world).text_latents([clip.sentence for clip in clips])
    means = []
    for clip in clips:
        features = np.load(tiny_corpus / "youcook2" / "features" / f"{clip.video_id}.npy").astype(np.float64)
        means.append(features[clip.start : clip.end].mean(axis=0))
    expected = latents @ np.array(means).T
    with np.load(tiny_corpus / "youcook2" / "best_possible_youcook2.npz") as scores:
        found = scores["similarities"]
    np.testing.assert_allclose(found / found[0, 0], expected / expected[0, 0], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_the_true_latents_are_far_above_chance(name: str, tiny_corpus: Path) -> None:
    best, chance = evaluate(tiny_corpus, name)
    assert best > 0.5 > 2 * chance


@pytest.mark.slow
def test_best_possible_and_chance_of_the_default_world(tmp_path: Path) -> None:
    """Bands around what seeds 0 to 3 give; imprecise bounds, disagreeing annotators and noise keep it from 1."""
    write_demo_corpus(tmp_path / "data", DemoWorld())
    bands = {
        "youcook2": (0.93, 0.995, 1 / 240),
        "msrvtt": (0.90, 0.995, 1 / 200),
        "msrvtt_qa": (0.95, 1.0, 1 / 5),
        "didemo_moment": (0.6, 0.9, 0.05),
        "didemo_retrieval": (0.65, 0.95, 1 / 60),
        "coin": (0.85, 0.99, 1 / 60),
        "crosstask": (0.95, 1.0, 0.2),
    }
    for name, (low, high, most_by_chance) in bands.items():
        best, chance = evaluate(tmp_path / "data", name)
        assert low <= best <= high, name
        assert chance <= most_by_chance + 1e-9, name
