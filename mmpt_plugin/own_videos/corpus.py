"""What a prepared corpus says of itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmpt_plugin.files import read_json

CORPUS_FILE = "corpus.json"
NAMED = 20  # of the videos that are left out; all are in the corpus's file


@dataclass(frozen=True)
class Corpus:
    """A prepared corpus, as its `corpus.json` says it.

    Attributes:
        name: hash of everything that it was made of.
        videos: ids of `train`, `val` and `test`.
        clips: to find in the videos of `val` and `test`.
        hours: of the videos of each split.
        transcripts: how many were `found`, and how many `made` from speech.
        left_out: video or file -> why.
        features: settings of the features.
    """

    name: str
    videos: dict[str, list[str]]
    clips: dict[str, int]
    hours: dict[str, float]
    transcripts: dict[str, int]
    left_out: dict[str, str]
    features: dict[str, Any]

    def words(self) -> str:
        """What is used and what is not, for people."""
        counts = ", ".join(f"{len(own)} for {split} ({self.hours[split]:.2f} h)" for split, own in self.videos.items())
        lines = [
            f"videos: {counts}; transcripts: {self.transcripts['found']} found, {self.transcripts['made']} made from speech; "
            f"clips to find: {self.clips['test']} of test, {self.clips['val']} of val"
        ]
        if self.left_out:
            lines.append(f"left out: {len(self.left_out)}")
            lines += [f"    {number} x {reason}" for reason, number in reasons(self.left_out).most_common()]
            lines += [f"    {name}: {reason}" for name, reason in list(self.left_out.items())[:NAMED]]
        return "\n".join(lines)


def open_corpus(cache: Path) -> tuple[Path, Corpus]:
    """The corpus that the last whole call of `prepare` has left: its folder and what it says of itself.

    Raises:
        FileNotFoundError: there is none.
    """
    found = sorted(cache.glob(f"corpus-*/{CORPUS_FILE}"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise FileNotFoundError(f"{cache}: no prepared corpus in it")
    return found[-1].parent, Corpus(**read_json(found[-1]))


def reasons(left_out: Mapping[str, str]) -> Counter[str]:
    """How many were left out for each reason, told by its first words."""
    return Counter(reason.partition(":")[0] for reason in left_out.values())
