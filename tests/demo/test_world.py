"""The latent world: what is seen in training, what is not, and what words mean."""

import dataclasses

import numpy as np
import pytest

from demo import words
from demo.world import DemoWorld, Step, Stream, World


@pytest.mark.parametrize("seed", range(3))
def test_default_world_has_several_hundred_distinct_steps(seed: int) -> None:
    world = World(DemoWorld(seed=seed))
    assert len(world.tasks) == 24 * 8
    assert len({step for task in world.tasks for step in task.steps}) > 500
    assert all(6 <= len(task.steps) <= 8 for task in world.tasks)


def test_training_pairs_are_those_of_the_training_tasks() -> None:
    world = World(DemoWorld())
    seen = {(step.verb, step.object) for task in world.tasks for step in task.steps}
    for verb in range(30):
        for obj in range(48):
            assert world.is_unseen(Step(verb, obj, None)) == ((verb, obj) not in seen)


def test_tasks_of_a_family_share_verbs_and_tools_and_differ_in_their_main_object() -> None:
    world = World(DemoWorld())
    for family in range(24):
        tasks = [task for task in world.tasks if task.family == family]
        assert len({tuple((step.verb, step.tool) for step in task.steps) for task in tasks}) == 1
        main = next(i for i, template in enumerate(world.templates[family]) if template.slot == "main")
        assert len({task.steps[main].object for task in tasks}) == 8


def test_any_stretch_of_the_task_list_is_balanced_over_families() -> None:
    assert sorted(task.family for task in World(DemoWorld()).tasks[24:48]) == list(range(24))


def test_a_sentence_means_its_step_whatever_words_it_uses() -> None:
    world = World(DemoWorld())
    rng = world.rng(Stream.YOUCOOK2)
    steps = [step for task in world.tasks[:10] for step in task.steps]
    sentences = [world.sentence(step, rng) for step in steps]
    np.testing.assert_allclose(world.text_latents(sentences), world.step_latents(steps), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(world.step_latents(steps), axis=1), 1, atol=1e-6)


def test_synonyms_mean_the_same_and_empty_talk_means_nothing() -> None:
    latents = World(DemoWorld()).text_latents(["peel the spud", "skin the potato", "hello guys", "peel the onion"])
    np.testing.assert_array_equal(latents[0], latents[1])
    assert not latents[2].any()
    # two of two meanings agree, then one of two: cos = 1/2, but for the chance overlap of directions in 512 dimensions
    assert latents[0] @ latents[3] == pytest.approx(0.5, abs=0.1)


def test_every_word_has_one_meaning() -> None:
    meanings = [
        word for rows in (words.VERBS, words.OBJECTS, words.TOOLS, words.FAMILIES) for row in rows for word in row
    ]
    assert len(meanings) == len(set(meanings))
    talk = {word for text in (*words.OPENINGS, *words.CHIT_CHAT, "the with for") for word in text.split()}
    assert not talk & set(meanings)


def test_changing_one_purpose_leaves_the_others() -> None:
    one, other = World(DemoWorld()), World(dataclasses.replace(DemoWorld(), youcook2_clips=10, train_videos=5))
    assert one.tasks == other.tasks
    assert one.rng(Stream.TRAIN, 3).random() == other.rng(Stream.TRAIN, 3).random()
    assert one.rng(Stream.TRAIN, 3).random() != one.rng(Stream.VAL, 3).random()
    assert World(DemoWorld(seed=1)).tasks != one.tasks


@pytest.mark.parametrize(
    "setting",
    [{"objects": 1000}, {"verbs": 5}, {"min_steps": 9}, {"crosstask_videos_per_task": 30}, {"msrvtt_clips": 4}],
)
def test_impossible_numbers_are_refused_with_name_value_and_limits(setting: dict[str, int]) -> None:
    ((name, value),) = setting.items()
    with pytest.raises(ValueError, match=rf"DemoWorld.{name} is {value}; it must lie in \d+..\d+"):
        DemoWorld(**setting)


def test_a_world_without_unseen_pairs_is_refused() -> None:
    world = World(
        DemoWorld(families=2, tasks_per_family=2, objects=2, verbs=8, tools=1, main_slot=1.0, second_slot=0.0)
    )
    with pytest.raises(ValueError, match="raise objects or verbs"):
        world.unseen_variant(0, np.random.default_rng(0))
