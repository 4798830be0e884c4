"""The demo world: cooking videos whose latent causes are known, so that chance and the ideal are known too.

A family (soup, pie, ...) is an ordered list of step templates. A task fills the templates with its own main and second
object; a video is one performance of a task. The step, the family and the video's own style leave their traces in each
second's feature; the narrator names them, by synonyms and some seconds too early or too late. Neighbouring seconds and
videos of the same family are therefore the hard negatives, and the misaligned narration is the noise, of the problem
that VideoCLIP sets out to solve (https://arxiv.org/abs/2109.14084, sections 3.3 and 3.4).

This module draws what exists and what it means; `performance.py` turns a recipe into a video with narration.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal

import numpy as np

from demo import words

FEATURE_DIM = 512


@dataclass(frozen=True)
class DemoWorld:
    """Every number of the world. The defaults make one in which overlapped clips beat aligned ones in minutes.

    Whether batches of similar videos help depends on the world: they do here, because the strong cue shared by a family
    lets random batches be solved without learning the objects. With a weaker `family_cue` they help less.

    Attributes:
        seed: everything drawn follows from it.
        families: dishes, each with its own step templates.
        tasks_per_family: fillings of the templates that occur in training.
        verbs, objects, tools: how many meanings of each kind exist; all families share them.
        min_steps, max_steps: steps of a family.
        main_slot, second_slot: share of the templates that take the task's main or second object; the rest have an
            object fixed by the family.
        tool_share: share of the templates with a tool.
        step_seconds, gap_seconds: shortest and longest step, and stretch of background between steps.
        sparse_gap_seconds: the same stretch in COIN and CrossTask, where about 60% of the seconds are background.
        family_cue, style, noise, neighbour: norms of the parts of a second's feature beside the step's own, which has
            norm 1: the family's, the video's own, independent noise, and that of the steps before and after.
        says_verb, says_object, says_tool, says_family: how often a caption about a step names each.
        caption_every: seconds of a step per caption about it (at least one caption a step).
        caption_seconds: shortest and longest caption.
        chit_chat: captions about nothing, per second of video.
        narration_offset, narration_spread: mean and standard deviation, over videos, of the seconds by which the
            narration lags behind the picture (negative: it runs ahead).
        caption_spread: standard deviation of a caption's own offset around its video's, seconds.
        train_videos, val_videos: videos of the training tasks, about equally many a task.
        youcook2_clips, msrvtt_clips: size of the galleries; also the number of multiple choice questions.
        didemo_videos: videos of 30 s, with 1 to 6 moments each.
        bounds_spread: standard deviation of the seconds by which YouCook2's annotators miss a step's start and end.
        annotator_agreement: probability that one of a moment's four annotators gives its true bounds.
        coin_tasks, coin_videos_per_task: unseen tasks to segment.
        crosstask_tasks, crosstask_videos_per_task: unseen primary tasks; 30 videos of each are the data set's training
            videos, so more than 30 are needed.
        bert_dropout: of the small BERT that the demo starts from; some hundred updates are too few to overfit.
    """

    seed: int = 0

    families: int = 24
    tasks_per_family: int = 8
    verbs: int = 30
    objects: int = 48
    tools: int = 12
    min_steps: int = 6
    max_steps: int = 8
    main_slot: float = 0.5
    second_slot: float = 0.3
    tool_share: float = 0.4

    step_seconds: tuple[int, int] = (6, 14)
    gap_seconds: tuple[int, int] = (1, 6)
    sparse_gap_seconds: tuple[int, int] = (1, 26)
    family_cue: float = 1.5
    style: float = 0.4
    noise: float = 3.0
    neighbour: float = 0.25

    says_verb: float = 0.8
    says_object: float = 0.75
    says_tool: float = 0.4
    says_family: float = 0.9
    caption_every: float = 5.0
    caption_seconds: tuple[float, float] = (2.0, 6.0)
    chit_chat: float = 0.06
    narration_offset: float = -4.0
    narration_spread: float = 3.6
    caption_spread: float = 4.8

    train_videos: int = 400
    val_videos: int = 48
    youcook2_clips: int = 240
    msrvtt_clips: int = 200
    bounds_spread: float = 2.0
    didemo_videos: int = 60
    annotator_agreement: float = 0.85
    coin_tasks: int = 12
    coin_videos_per_task: int = 5
    crosstask_tasks: int = 6
    crosstask_videos_per_task: int = 36

    bert_dropout: float = 0.0

    def __post_init__(self) -> None:
        limits = {
            "families": (2, len(words.FAMILIES)),
            "verbs": (self.max_steps, len(words.VERBS)),
            "objects": (2, len(words.OBJECTS)),
            "tools": (1, len(words.TOOLS)),
            "min_steps": (2, self.max_steps),
            "tasks_per_family": (1, self.objects),
            "msrvtt_clips": (5, 2990),  # a question has five options
            "crosstask_videos_per_task": (31, 700),
        }
        for name, (low, high) in limits.items():
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"DemoWorld.{name} is {getattr(self, name)}; it must lie in {low}..{high}")


class Stream(IntEnum):
    """One independent stream of random numbers per purpose, so that changing one part of the world leaves the rest."""

    STRUCTURE = 0
    TRAIN = 1
    VAL = 2
    YOUCOOK2 = 3
    MSRVTT = 4
    MSRVTT_QA = 5
    DIDEMO = 6
    COIN = 7
    CROSSTASK = 8
    YOUCOOK2_TRAINING = 9
    MSRVTT_TRAINING = 10
    COIN_TRAINING = 11


@dataclass(frozen=True)
class Step:
    """What is done: indexes into the world's verbs, objects and tools."""

    verb: int
    object: int
    tool: int | None


@dataclass(frozen=True)
class Recipe:
    """The steps of one task, in order."""

    family: int
    steps: tuple[Step, ...]


@dataclass(frozen=True)
class StepTemplate:
    """A step of a family before a task fills in its objects; `slot` is an index where the family fixes the object."""

    verb: int
    slot: Literal["main", "second"] | int
    tool: int | None

    def fill(self, main: int, second: int) -> Step:
        return Step(self.verb, {"main": main, "second": second}.get(str(self.slot), self.slot), self.tool)  # type: ignore


class World:
    """One draw of the latent world: which directions mean what, which families and tasks exist.

    Attributes:
        config: the numbers it was drawn by.
        templates: step templates of each family.
        tasks: training tasks, families alternating, so that any stretch of the list is balanced.
        training_pairs: every (verb, object) that some training task contains.
        families: (families, 512) unit directions.
    """

    def __init__(self, config: DemoWorld) -> None:
        self.config = config
        rng = self.rng(Stream.STRUCTURE)
        self._verbs = unit_vectors(config.verbs, rng)
        self._objects = unit_vectors(config.objects, rng)
        self._tools = unit_vectors(config.tools, rng)
        self.families = unit_vectors(config.families, rng)
        self.templates = [self._draw_templates(rng) for _ in range(config.families)]
        mains = [rng.permutation(config.objects)[: config.tasks_per_family] for _ in range(config.families)]
        self.tasks = [
            self._fill(family, int(main), self._another_object(int(main), rng))
            for one_a_family in zip(*mains)
            for family, main in enumerate(one_a_family)
        ]
        self.training_pairs = frozenset((step.verb, step.object) for task in self.tasks for step in task.steps)

    def rng(self, stream: Stream, index: int = 0) -> np.random.Generator:
        """Random numbers that depend on the seed, the purpose and the item only."""
        return np.random.default_rng([self.config.seed, stream, index])

    def _draw_templates(self, rng: np.random.Generator) -> list[StepTemplate]:
        config = self.config
        count = int(rng.integers(config.min_steps, config.max_steps + 1))
        verbs = rng.permutation(config.verbs)[:count]  # no verb twice, so that a family's steps differ in it
        templates = []
        for verb in verbs:
            kind, fixed, tool = rng.random(), int(rng.integers(config.objects)), int(rng.integers(config.tools))
            slot: Literal["main", "second"] | int = fixed
            if kind < config.main_slot + config.second_slot:
                slot = "main" if kind < config.main_slot else "second"
            templates.append(StepTemplate(int(verb), slot, tool if rng.random() < config.tool_share else None))
        return templates

    def _another_object(self, main: int, rng: np.random.Generator) -> int:
        return (main + int(rng.integers(1, self.config.objects))) % self.config.objects

    def _fill(self, family: int, main: int, second: int) -> Recipe:
        return Recipe(family, tuple(template.fill(main, second) for template in self.templates[family]))

    def new_variant(self, family: int, rng: np.random.Generator) -> Recipe:
        """A family's templates with another main and second object drawn at random."""
        main = int(rng.integers(self.config.objects))
        return self._fill(family, main, self._another_object(main, rng))

    def unseen_variant(self, family: int, rng: np.random.Generator) -> Recipe:
        """A variant with at least one step whose verb and object no training task combines.

        Raises:
            ValueError: if there seems to be none.
        """
        for _ in range(1000):
            recipe = self.new_variant(family, rng)
            if any(self.is_unseen(step) for step in recipe.steps):
                return recipe
        raise ValueError(
            f"DemoWorld: no variant of family {family} has a verb-object pair that training lacks: raise objects or "
            "verbs, or lower tasks_per_family"
        )

    def is_unseen(self, step: Step) -> bool:
        """Whether no training task applies this verb to this object."""
        return (step.verb, step.object) not in self.training_pairs

    def step_latents(self, steps: Sequence[Step]) -> np.ndarray:
        """(steps, 512) unit vectors, float32: the sum of the meanings of verb, object and tool, normalised."""
        latents = self._verbs[[step.verb for step in steps]] + self._objects[[step.object for step in steps]]
        for latent, step in zip(latents, steps):
            if step.tool is not None:
                latent += self._tools[step.tool]
        return normalise(latents)

    def sentence(self, step: Step, rng: np.random.Generator) -> str:
        """A step in annotation style, each meaning by any of its words: 'dice the shallot with the blade'."""
        text = f"{pick(words.VERBS[step.verb], rng)} the {pick(words.OBJECTS[step.object], rng)}"
        return text if step.tool is None else f"{text} with the {pick(words.TOOLS[step.tool], rng)}"

    def text_latents(self, texts: Sequence[str]) -> np.ndarray:
        """What an ideal reader makes of sentences: the normalised sum of what their words mean, (texts, 512) float32.

        For one step's sentence that is the step's own latent; words without a meaning in the picture add nothing.
        """
        meanings = {
            word: direction
            for directions, rows in (
                (self._verbs, words.VERBS),
                (self._objects, words.OBJECTS),
                (self._tools, words.TOOLS),
                (self.families, words.FAMILIES),
            )
            for direction, row in zip(directions, rows)
            for word in row
        }
        nothing = np.zeros(FEATURE_DIM, dtype=np.float32)
        return normalise(np.stack([sum((meanings.get(word, nothing) for word in t.split()), nothing) for t in texts]))


def normalise(vectors: np.ndarray) -> np.ndarray:
    """(n, D) rows scaled to norm 1; a zero row stays zero."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def unit_vectors(count: int, rng: np.random.Generator) -> np.ndarray:
    """(count, 512) random directions, float32: nearly orthogonal, as 512 is large."""
    return normalise(rng.standard_normal((count, FEATURE_DIM), dtype=np.float32))


def pick(options: Sequence[str], rng: np.random.Generator) -> str:
    """One of the options, each as likely."""
    return options[int(rng.integers(len(options)))]
