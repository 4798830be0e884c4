"""Videos: what a second's feature is made of, and when the narrator speaks."""

import dataclasses

import numpy as np
import pytest

from demo import words
from demo.performance import StepSpan, Timeline, film, lay_out, narrate
from demo.world import DemoWorld, Stream, World, normalise

CONFIG = DemoWorld()


def timelines(world: World, number: int) -> list[Timeline]:
    config = world.config
    return [
        lay_out(world.tasks[i], config.step_seconds, config.gap_seconds, world.rng(Stream.TRAIN, i))
        for i in range(number)
    ]


def test_steps_follow_each_other_with_background_around_them() -> None:
    for timeline in timelines(World(CONFIG), 50):
        bounds = [0, *(second for span in timeline.spans for second in (span.start, span.end)), timeline.seconds]
        lengths = np.diff(bounds)
        assert ((lengths[::2] >= 1) & (lengths[::2] <= 6)).all()  # gaps
        assert ((lengths[1::2] >= 6) & (lengths[1::2] <= 14)).all()  # steps
        assert 40 <= timeline.seconds <= 180


def test_without_noise_a_second_is_the_sum_that_is_documented() -> None:
    world = World(dataclasses.replace(CONFIG, noise=0.0, style=0.0))
    task = world.tasks[0]
    timeline = Timeline(task.family, (StepSpan(task.steps[0], 1, 3), StepSpan(task.steps[1], 4, 6)), 7)
    first, second = world.step_latents(task.steps[:2])
    family = 1.5 * world.families[task.family]
    expected = [
        family + 0.25 * first,  # background before the first step
        family + first + 0.25 * second,
        family + first + 0.25 * second,
        family + 0.25 * (first + second),  # background between
        family + second + 0.25 * first,
        family + second + 0.25 * first,
        family + 0.25 * second,  # background after the last
    ]
    features = film(timeline, world, np.random.default_rng(0))
    assert features.dtype == np.float16
    np.testing.assert_allclose(features, normalise(np.array(expected)), atol=1e-3)


def test_features_have_norm_one_and_a_style_of_their_own() -> None:
    world = World(dataclasses.replace(CONFIG, noise=0.0))
    timeline = timelines(world, 1)[0]
    one, other = (film(timeline, world, np.random.default_rng(seed)).astype(np.float32) for seed in (0, 1))
    np.testing.assert_allclose(np.linalg.norm(one, axis=1), 1, atol=1e-2)
    # norms: family 1.5, style 0.4, step 1, neighbours' 0.35: 1 - cos of two videos ~ 0.4^2 / (1.5^2 + 0.4^2 + 1 + 0.1)
    assert 1 - (one * other).sum(axis=1).mean() == pytest.approx(0.16 / 3.5, rel=0.4)


def test_captions_are_ordered_lie_in_the_video_and_overlap_in_time() -> None:
    world = World(CONFIG)
    overlapping = total = 0
    for i, timeline in enumerate(timelines(world, 50)):
        captions = narrate(timeline, CONFIG, world.rng(Stream.TRAIN, i))
        starts, ends = np.array([[caption.start, caption.end] for caption in captions]).T
        assert (np.diff(starts) >= 0).all()
        assert starts.min() >= 0 and starts.max() < timeline.seconds
        assert ((ends - starts > 1.98) & (ends - starts < 6.02)).all()
        assert len(captions) >= len(timeline.spans)
        overlapping += (ends[:-1] > starts[1:]).sum()
        total += len(captions) - 1
    assert 0.3 < overlapping / total < 0.7


def test_narration_runs_ahead_by_the_offset() -> None:
    """Without spreads and small talk, captions start uniformly over their step, moved by the offset."""
    quiet = dataclasses.replace(CONFIG, narration_offset=-4.0, narration_spread=0.0, caption_spread=0.0, chit_chat=0.0)
    world = World(quiet)
    task = world.tasks[0]
    timeline = Timeline(task.family, (StepSpan(task.steps[0], 20, 30),), 40)
    starts = [c.start for seed in range(500) for c in narrate(timeline, quiet, np.random.default_rng(seed))]
    assert len(starts) == 500 * 2  # one caption per 5 of 10 s
    assert min(starts) >= 16 and max(starts) <= 26
    assert np.mean(starts) == pytest.approx(21, abs=0.4)


def test_captions_name_what_they_should_as_often_as_they_should() -> None:
    silent = dataclasses.replace(CONFIG, chit_chat=0.0)
    world = World(silent)
    texts = [
        (caption.text, timeline.family)
        for i, timeline in enumerate(timelines(world, 150))
        for caption in narrate(timeline, silent, world.rng(Stream.TRAIN, i))
    ]

    def share(rows: tuple[tuple[str, ...], ...]) -> float:
        vocabulary = {word for row in rows for word in row}
        return float(np.mean([bool(vocabulary & set(text.split())) for text, _ in texts]))

    assert share(words.VERBS) == pytest.approx(0.8, abs=0.03)
    assert share(words.OBJECTS) == pytest.approx(0.75, abs=0.03)
    assert share(words.FAMILIES) == pytest.approx(0.9, abs=0.03)
    assert share(words.TOOLS) == pytest.approx(0.4 * 0.4, abs=0.06)  # where there is a tool, in 2 of 5 captions


def test_the_true_latents_tell_steps_apart_but_not_trivially() -> None:
    """A single second is ambiguous now and then; the mean of a step's seconds hardly ever."""
    world = World(CONFIG)
    steps = list({step for task in world.tasks for step in task.steps})
    latents = world.step_latents(steps)
    single, pooled = [], []
    for i, timeline in enumerate(timelines(world, 40)):
        features = film(timeline, world, world.rng(Stream.TRAIN, i)).astype(np.float32)
        for span in timeline.spans:
            scores = features[span.start : span.end] @ latents.T
            truth = steps.index(span.step)
            single += list(scores.argmax(axis=1) == truth)
            pooled.append(scores.mean(axis=0).argmax() == truth)
    assert 0.6 < np.mean(single) < 0.99
    assert np.mean(pooled) > 0.97
