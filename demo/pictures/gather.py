"""Photographs with names, from Debian's package `tuxpaint-stamps-default` (GPL-2, by Bill Kendrick and contributors).

Each picture is a PNG with a transparent surrounding; the text file beside it begins with its name in English. What
counts as a photograph is a rule, not a choice by hand: see `is_photograph`.
"""

from __future__ import annotations

import logging
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from tqdm import tqdm

logger = logging.getLogger(__name__)

PACKAGE = "tuxpaint-stamps-default"
INSTALLED = Path("/usr/share/tuxpaint/stamps")
DRAWN = {"symbols", "cartoon", "flags", "roadsigns"}  #: folders of drawings
SMALLEST_SIDE = 100  #: pixels
MOST_WORDS = 5  #: of a name; longer ones are sentences about the picture
COLOURS = 3  #: least number of colours for the square root of the number of opaque pixels


@dataclass(frozen=True)
class Picture:
    """A photograph and what it shows, such as "a red kangaroo"."""

    name: str
    path: Path


def stamps_folder(cache: Path) -> Path:
    """The package's pictures: as installed, else downloaded by apt-get and unpacked into a folder, without root.

    Raises:
        ValueError: if the package is not there and cannot be downloaded.
    """
    unpacked = cache / "usr" / "share" / "tuxpaint" / "stamps"
    for folder in (INSTALLED, unpacked):
        if folder.is_dir():
            return folder
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise ValueError(f"the pictures come from Debian's package {PACKAGE}, and there is no apt-get here: install it")
    cache.mkdir(parents=True, exist_ok=True)
    logger.info("downloading %s (160 MB) into %s", PACKAGE, cache)
    try:
        subprocess.run(["apt-get", "download", PACKAGE], cwd=cache, check=True, capture_output=True, text=True)
        archive = next(cache.glob(f"{PACKAGE}_*.deb"))
        subprocess.run(["dpkg-deb", "-x", archive.name, "."], cwd=cache, check=True, capture_output=True, text=True)
    except subprocess.CalledProcessError as error:
        raise ValueError(f"{PACKAGE} could not be had ({error.stderr.strip()}): try `apt-get update` first") from error
    archive.unlink()
    return unpacked


def named_photographs(stamps: Path) -> list[Picture]:
    """One photograph for each name, sorted by name.

    Args:
        stamps: the package's folder of pictures.

    Raises:
        ValueError: if there is none.
    """
    found: dict[str, Picture] = {}
    for path in tqdm(sorted(stamps.rglob("*.png")), desc="pictures", unit="picture"):
        if DRAWN & set(path.relative_to(stamps).parts) or path.with_suffix(".svg").exists():
            continue
        name = english_name(path.with_suffix(".txt"))
        if name and name not in found and is_photograph(read_picture(path)):
            found[name] = Picture(name, path)
    if not found:
        raise ValueError(f"{stamps} holds no photograph with a name; the folder of Debian's {PACKAGE} is needed")
    return sorted(found.values(), key=lambda picture: picture.name)


def english_name(path: Path) -> str | None:
    """The name that a stamp's text file gives in its first line, without its full stop; None if it is no short name."""
    if not path.is_file():
        return None
    sentence = path.read_text(encoding="utf-8", errors="replace").partition("\n")[0].strip()
    if not re.fullmatch(r"(An?|The) [A-Za-z' -]+\.", sentence) or len(sentence.split()) > MOST_WORDS:
        return None
    return sentence[0].lower() + sentence[1:-1]


def read_picture(path: Path) -> np.ndarray:
    """A picture file's pixels, uint8 (H, W, 4): red, green, blue, opacity."""
    with av.open(str(path)) as container:
        return next(container.decode(video=0)).to_ndarray(format="rgba")


def is_photograph(picture: np.ndarray) -> bool:
    """Whether a picture is large enough, and has as many shades as a camera gives.

    Shades are counted at 5 bits a colour among the opaque pixels and compared with the square root of these pixels'
    number: drawings have less than twice that, photographs mostly more than four times.
    """
    opaque = picture[picture[..., 3] > 200][:, :3].astype(np.int32)
    shades = len(np.unique((opaque >> 3) @ [1 << 10, 1 << 5, 1]))
    return min(picture.shape[:2]) >= SMALLEST_SIDE and shades > COLOURS * np.sqrt(max(1, len(opaque)))
