"""From a recipe to a video: when each step is shown, what a second looks like, what the narrator says and when.

Shapes: S = seconds of the video; features are (S, 512), one row per second.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from demo import words
from demo.world import FEATURE_DIM, DemoWorld, Recipe, Step, World, normalise, pick, unit_vectors


@dataclass(frozen=True)
class StepSpan:
    """A step shown from second `start` to `end` (exclusive)."""

    step: Step
    start: int
    end: int


@dataclass(frozen=True)
class Timeline:
    """Which second of a video shows which step; the seconds of no span are background."""

    family: int
    spans: tuple[StepSpan, ...]
    seconds: int


@dataclass(frozen=True)
class Caption:
    """Narration heard from `start` to `end`, seconds."""

    start: float
    end: float
    text: str


def lay_out(
    recipe: Recipe, step_seconds: tuple[int, int], gap_seconds: tuple[int, int], rng: np.random.Generator
) -> Timeline:
    """The recipe's steps in order, with background before, between and after them.

    Args:
        recipe: what is shown.
        step_seconds: shortest and longest step.
        gap_seconds: shortest and longest stretch of background.
        rng: the only source of randomness.
    """
    spans, second = [], int(rng.integers(*gap_seconds, endpoint=True))
    for step in recipe.steps:
        end = second + int(rng.integers(*step_seconds, endpoint=True))
        spans.append(StepSpan(step, second, end))
        second = end + int(rng.integers(*gap_seconds, endpoint=True))
    return Timeline(recipe.family, tuple(spans), second)


def film(timeline: Timeline, world: World, rng: np.random.Generator) -> np.ndarray:
    """The features of each second, (S, 512) float16 of norm 1.

    A second is the sum of its step (none in the background), the family, the video's own style, independent noise and,
    weakly, the steps before and after it: their ingredients still, or already, lie on the table.
    """
    config, spans = world.config, timeline.spans
    latents = world.step_latents([span.step for span in spans])
    padded = np.pad(latents, ((1, 1), (0, 0)))  # no step before the first and none after the last
    features = rng.standard_normal((timeline.seconds, FEATURE_DIM), dtype=np.float32)
    features *= config.noise / np.sqrt(FEATURE_DIM)
    features += config.family_cue * world.families[timeline.family] + config.style * unit_vectors(1, rng)
    background_start = 0
    for i, span in enumerate(spans):
        features[span.start : span.end] += latents[i] + config.neighbour * (padded[i] + padded[i + 2])
        features[background_start : span.start] += config.neighbour * (padded[i] + padded[i + 1])
        background_start = span.end
    features[background_start:] += config.neighbour * padded[-2]
    return normalise(features).astype(np.float16)


def narrate(timeline: Timeline, config: DemoWorld, rng: np.random.Generator) -> list[Caption]:
    """What is said, ordered by start. Captions may overlap in time and reach past the video's end, as rolling ASR does.

    A caption about a step comes some seconds before or after it is shown: its video's own offset plus one of its own.
    """
    offset = rng.normal(config.narration_offset, config.narration_spread)
    heard = []
    for span in timeline.spans:
        length = span.end - span.start
        for _ in range(max(1, round(length / config.caption_every))):
            start = span.start + rng.uniform(0, length) + offset + rng.normal(0, config.caption_spread)
            heard.append((start, _step_caption(span.step, timeline.family, config, rng)))
    for _ in range(rng.poisson(config.chit_chat * timeline.seconds)):
        heard.append((rng.uniform(0, timeline.seconds), pick(words.CHIT_CHAT, rng)))
    captions = []
    for start, text in sorted(heard):
        start = round(min(max(start, 0.0), timeline.seconds - 1.0), 2)
        captions.append(Caption(start, round(start + rng.uniform(*config.caption_seconds), 2), text))
    return captions


def _step_caption(step: Step, family: int, config: DemoWorld, rng: np.random.Generator) -> str:
    """Speech about a step, which may leave out any part of it: 'so now peel the spud for the soup'."""
    said = [pick(words.OPENINGS, rng)]
    if rng.random() < config.says_verb:
        said.append(pick(words.VERBS[step.verb], rng))
    if rng.random() < config.says_object:
        said.append(f"the {pick(words.OBJECTS[step.object], rng)}")
    if step.tool is not None and rng.random() < config.says_tool:
        said.append(f"with the {pick(words.TOOLS[step.tool], rng)}")
    if rng.random() < config.says_family:
        said.append(f"for the {pick(words.FAMILIES[family], rng)}")
    return " ".join(filter(None, said)) or pick(words.CHIT_CHAT, rng)
