"""What a query scores at each second near its hits: each block of seconds is read and compared once a query."""

from __future__ import annotations

import math

import numpy as np

from mmpt_plugin.models.similarity import similarity
from mmpt_plugin.search.moments import Span, find_bounds
from mmpt_plugin.search.store import STATE_BLOCK, Store
from mmpt_plugin.search.vectors import Floats, as_floats

MARGIN = 32
"""Seconds around a window: its moment may reach so far, and what is usual is measured there."""


class SecondScores:
    """States of seconds and their scores, for one query.

    Args:
        store: of the library.
        vector: (D,) of the query.
    """

    def __init__(self, store: Store, vector: Floats) -> None:
        self.store = store
        self.vector = vector
        self._blocks: dict[tuple[int, int], tuple[Floats, Floats]] = {}  # states and scores by video and first second
        self._moments: dict[tuple[int, int, int], Span | None] = {}

    def moment(self, number: int, start: int, end: int) -> Span | None:
        """The moment around a window's best second; None if its video was removed a moment ago."""
        key = (number, start, end)
        if key not in self._moments:
            origin = max(0, start - MARGIN)
            scores = np.concatenate([own for _, own in self._read(number, origin, end + MARGIN)])
            whole = len(scores) >= end - origin
            if whole:
                begins, ends, best = find_bounds(scores, start - origin, end - origin)
            self._moments[key] = Span(number, origin + begins, origin + ends, best) if whole else None
        return self._moments[key]

    def mean_state(self, span: Span) -> Floats | None:
        """(D,) mean of a stretch's states; None if there is none."""
        states = np.concatenate([own for own, _ in self._read(span.video, int(span.start), math.ceil(span.end))])
        return states.mean(axis=0) if len(states) else None

    def _read(self, number: int, start: int, end: int) -> list[tuple[Floats, Floats]]:
        """States (S, D) and scores (S,) of the seconds from start to end, in parts; fewer where the video ends."""
        blocks = range(start // STATE_BLOCK * STATE_BLOCK, end, STATE_BLOCK)
        if missing := [first for first in blocks if (number, first) not in self._blocks]:
            begin, halves = self.store.states(number, missing[0], missing[-1] + 1, len(self.vector))
            states = as_floats(halves)
            scores = similarity(states, self.vector)
            for first in range(missing[0], missing[-1] + 1, STATE_BLOCK):
                part = slice(first - begin, first - begin + STATE_BLOCK)
                self._blocks[number, first] = states[part], scores[part]
        parts = []
        for first in blocks:
            states, scores = self._blocks[number, first]
            part = slice(max(0, start - first), end - first)
            parts.append((states[part], scores[part]))
        return parts
