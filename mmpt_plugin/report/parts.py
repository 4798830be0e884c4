"""What a page is made of. Every part knows the name of its macro in templates/parts.html.j2."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

Pictures = Callable[[str, float], str | None]  # video id and second -> data URI of a small picture, None without one


def no_pictures(video_id: str, second: float) -> str | None:
    """For places where no video is at hand."""
    return None


@dataclass(frozen=True)
class Figure:
    """One chart.

    Attributes:
        title: what it shows.
        reading: one or two sentences on how to read it.
        spec: Vega-Lite, from charts.py.
    """

    macro: ClassVar[str] = "figure"
    title: str
    reading: str
    spec: dict[str, Any]


@dataclass(frozen=True)
class Figures:
    """Several small charts of a kind, side by side where the window is wide enough."""

    macro: ClassVar[str] = "figures"
    title: str
    reading: str
    members: Sequence[Figure]


@dataclass(frozen=True)
class Table:
    """Cells as they are to be read; the first column is the rows' names."""

    macro: ClassVar[str] = "table"
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Hit:
    """One answer of the model: a stretch of video, or a sentence.

    Attributes:
        name: a video's id, or the sentence.
        place: its rank, as text.
        score: as text.
        right: whether it is the right one.
        when: "0:12 - 0:31", or "".
        about: what is said of it, or "".
        picture: data URI, or None.
    """

    name: str
    place: str
    score: str
    right: bool
    when: str = ""
    about: str = ""
    picture: str | None = None


@dataclass(frozen=True)
class Query:
    """One query with the model's first answers."""

    text: str
    verdict: str
    hits: Sequence[Hit]


@dataclass(frozen=True)
class Queries:
    """Some queries of a kind, folded away until they are asked for if `folded`."""

    macro: ClassVar[str] = "queries"
    title: str
    reading: str
    queries: Sequence[Query]
    folded: bool = False


Part = Figure | Figures | Table | Queries


@dataclass(frozen=True)
class Section:
    """One chapter of a page: a heading, remarks that must not be overlooked, and its parts."""

    title: str
    parts: Sequence[Part]
    remarks: Sequence[str] = ()
    subtitle: str = ""


@dataclass(frozen=True)
class Page:
    """A whole page."""

    title: str
    sections: Sequence[Section]
    remarks: Sequence[str] = ()
    facts: dict[str, str] = field(default_factory=dict)  # shown in small print at the end


@dataclass(frozen=True)
class Detail:
    """How much of everything a page shows; made smaller until the page fits its limit."""

    examples: int = 12
    timelines: int = 20
    matrices: int = 12
    pictures: bool = True

    def smaller(self) -> Detail:
        """Without pictures first; then half of everything."""
        if self.pictures:
            return Detail(self.examples, self.timelines, self.matrices, pictures=False)
        return Detail(self.examples // 2, self.timelines // 2, self.matrices // 2, pictures=False)

    @property
    def least(self) -> bool:
        """Whether nothing is left to leave out."""
        return not (self.pictures or self.examples or self.timelines or self.matrices)


def clock(second: float) -> str:
    """Seconds as minutes and seconds: 75 -> "1:15"."""
    return f"{int(second) // 60}:{int(second) % 60:02d}"


def stretch(start: float, end: float) -> str:
    """A stretch of video in minutes and seconds."""
    return f"{clock(start)} - {clock(end)}"


def spread(count: int, wanted: int) -> list[int]:
    """`wanted` places spread evenly over 0 .. count - 1, both ends included; all of them if there are no more."""
    if count <= wanted:
        return list(range(count))
    if wanted < 2:
        return [count // 2][:wanted]
    return [round(i * (count - 1) / (wanted - 1)) for i in range(wanted)]
