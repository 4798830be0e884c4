"""Photographs with names, and photographs to lay behind them, from two packages of Debian.

`tuxpaint-stamps-default` (GPL-2, Bill Kendrick and contributors): each picture is a PNG with a transparent surrounding,
and the text file beside it begins with its name in English. `mate-backgrounds` (GPL-2 or later, several photographers):
photographs of nature. What counts as a photograph with a name is a rule, not a choice by hand: see `named_photographs`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from tqdm import tqdm

STAMPS = ("tuxpaint-stamps-default", "usr/share/tuxpaint/stamps")  #: package, and its folder of pictures
BACKGROUNDS = ("mate-backgrounds", "usr/share/backgrounds/mate/nature")
LICENCES = {STAMPS[0]: "GPL-2", BACKGROUNDS[0]: "GPL-2 or later"}
DRAWN = {  #: folders of drawings
    *("symbols", "cartoon", "flags", "roadsigns"),
    *("easter", "halloween", "hanukkah", "newyears"),
}
SMALLEST_SIDE = 64  #: pixels that the longer side must have
MOST_WORDS = 5  #: of a name; longer ones are sentences about the picture
FLAT = 0.5  #: share of neighbouring pixels of exactly the same colour from which on a picture is a drawing
THEMES = {"animals": "animals", "food": "garden", "plants": "garden"}  #: of folders; the others are "things"


@dataclass(frozen=True)
class Picture:
    """A photograph and what it shows, such as "a red kangaroo"."""

    name: str
    path: Path
    theme: str = "things"  #: what kind of film it belongs to


def named_photographs(stamps: Path) -> list[Picture]:
    """One photograph for each name, sorted by name.

    Taken is each PNG that lies in no folder of `DRAWN`, is not drawn by an SVG beside it, is at least `SMALLEST_SIDE`
    long, is no flat drawing (`is_photograph`) and has a name (`english_name`); of equal names, the first by path.

    Args:
        stamps: the package's folder of pictures.

    Raises:
        ValueError: if there is none.
    """
    found: dict[str, Picture] = {}
    for path in tqdm(sorted(stamps.rglob("*.png")), desc="pictures", unit="picture"):
        place = path.relative_to(stamps).parts
        if DRAWN & set(place) or path.with_suffix(".svg").exists():
            continue
        name = english_name(path.with_suffix(".txt"))
        if name and name not in found and is_photograph(read_picture(path)):
            found[name] = Picture(name, path, THEMES.get(place[0], "things"))
    if not found:
        raise ValueError(f"{stamps} holds no photograph with a name; the folder of Debian's {STAMPS[0]} is needed")
    return sorted(found.values(), key=lambda picture: picture.name)


def english_name(path: Path) -> str | None:
    """The name in a stamp's text file: the beginning of its first line, as far as it is one thing with its article.

    What follows a full stop, an exclamation mark, a comma, a dash or a bracket is left out, and so are quotation marks.
    None if there is no file, no article, or more than `MOST_WORDS` words.
    """
    if not path.is_file():
        return None
    line = path.read_text(encoding="utf-8", errors="replace").partition("\n")[0].replace("’", "'")
    name = re.split(r"[.!?,;(—]", re.sub(r"[“”\"]", "", line))[0].strip()
    if not re.fullmatch(r"(An?|The|Two|Some) [A-Za-z0-9' -]+", name) or len(name.split()) > MOST_WORDS:
        return None
    return name[0].lower() + name[1:]


def read_picture(path: Path) -> np.ndarray:
    """A picture file's pixels, uint8 (H, W, 4): red, green, blue, opacity."""
    with av.open(str(path)) as container:
        return next(container.decode(video=0)).to_ndarray(format="rgba")


def is_photograph(picture: np.ndarray) -> bool:
    """Whether a picture is large enough, and less than `FLAT` of its neighbouring pixels are exactly alike.

    Pairs are neighbours in a row, both opaque. Drawings fill areas with one colour; a camera hardly gives two alike.
    """
    opaque = picture[..., 3] > 200
    pairs = opaque[:, 1:] & opaque[:, :-1]
    alike = (picture[:, 1:, :3] == picture[:, :-1, :3]).all(axis=-1)
    return max(picture.shape[:2]) >= SMALLEST_SIDE and bool(pairs.any()) and (alike & pairs).sum() < FLAT * pairs.sum()


def background_photographs(folder: Path) -> list[Path]:
    """The photographs to lay behind pictures, sorted by path.

    Raises:
        ValueError: if there is none.
    """
    found = sorted(folder.glob("*.jpg"))
    if not found:
        raise ValueError(f"{folder} holds no photographs; the folder of Debian's {BACKGROUNDS[0]} is needed")
    return found
