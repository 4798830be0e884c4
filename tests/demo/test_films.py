"""The drawn films of the search demo."""

from __future__ import annotations

import itertools

import numpy as np
import torch

from demo import words
from demo.films import MOVEMENTS, OBJECTS, Film, Step, colour_of, draw_film, is_unseen, picture
from mmpt_plugin.features.networks import NetworkConfig, load_network


def test_a_film_follows_from_its_seed():
    one, again = (draw_film(np.random.default_rng(3), training=True) for _ in range(2))
    assert one == again and one != draw_film(np.random.default_rng(4), training=True)
    assert all(a.end < b.start for a, b in itertools.pairwise(one.steps)) and one.steps[-1].end < one.seconds
    vocabulary = set(words.vocabulary())
    assert all(word in vocabulary for line in one.lines for word in line.text.split())


def test_training_leaves_combinations_out():
    films = [draw_film(np.random.default_rng(seed), training=True) for seed in range(40)]
    assert not any(step.unseen for film in films for step in film.steps)
    kept_out = [(verb, thing) for verb in MOVEMENTS for thing in range(OBJECTS) if is_unseen(verb, thing)]
    assert len(kept_out) == 2 * OBJECTS and {thing for _, thing in kept_out} == set(range(OBJECTS))


def test_every_step_looks_like_no_other():
    """The network of the demo tells all 96 combinations apart, by colour, shape and movement."""
    network = load_network(NetworkConfig("grid"))
    seconds = []
    for verb, thing in itertools.product(MOVEMENTS, range(OBJECTS)):
        film = Film((Step(0, 2, verb, thing),), (), 2, (200, 190, 180), (0.0, 0.0))
        seconds.append(np.stack([picture(film, 1 + frame / 6, (48, 48)) for frame in range(6)]))
    features = torch.nn.functional.normalize(network(torch.from_numpy(np.stack(seconds))), dim=1)
    likeness = features @ features.T - 2 * torch.eye(len(features))
    assert features.shape == (96, 512) and likeness.max() < 0.995


def test_pictures_show_the_object_and_the_table():
    film = Film((Step(1, 3, 0, 5),), (), 4, (200, 190, 180), (0.0, 0.0))
    assert (picture(film, 0.5) == (200, 190, 180)).all()
    shown = picture(film, 2.0)
    assert (shown == colour_of(5)).all(axis=2).sum() > 500
