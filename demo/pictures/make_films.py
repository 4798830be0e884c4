"""Write a world of real pictures: narrated films of named photographs, and what is shown in them when.

    python -m demo.pictures.make_films runs/pictures

Writes FOLDER/films/train/ID.mp4 and FOLDER/films/test/ID.mp4, FOLDER/truth.json (splits, shots, sentences), and two tables
with the columns video, start, end, text: FOLDER/seen.csv (new films of pictures seen in training) and FOLDER/unseen.csv (of
pictures and names never seen). Each test shows each of its pictures once. Can be broken off and run again. Packages of
Debian that are not installed are downloaded (210 MB) and unpacked into FOLDER/packages.
"""

from __future__ import annotations

import argparse
import csv
import json
import logging
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from demo.pictures.films import plan_film, write_film
from demo.pictures.gather import BACKGROUNDS, LICENCES, STAMPS, Picture, background_photographs, named_photographs
from demo.pictures.packages import package_folder
from demo.pictures.speech import Speaker, speakers
from mmpt_plugin.data.workers import available_cores
from mmpt_plugin.files import read_json, write_whole

UNSEEN = 0.25  #: share of names that are in no film of training
PICTURES_A_FILM = 13  #: at most; which makes films of one to one and a half minutes
TESTS = ("seen", "unseen")
Truth = dict[
    str, Any
]  #: of a film, as truth.json has it: split, seconds, shots (name, start, end), sentences (text, start)


def split_names(pictures: Sequence[Picture], seed: int) -> dict[str, list[Picture]]:
    """The pictures of each split, by name: those of "train" are "seen" again in new films, the others are "unseen".

    The same share of each theme is unseen.
    """
    rng = np.random.default_rng(seed)
    split: dict[str, list[Picture]] = {"train": [], "seen": [], "unseen": []}
    for theme in sorted({picture.theme for picture in pictures}):
        own = [picture for picture in pictures if picture.theme == theme]
        order = [own[index] for index in rng.permutation(len(own))]
        unseen = round(UNSEEN * len(own))
        split["unseen"] += order[:unseen]
        split["seen"] += order[unseen:]
    split["train"] = split["seen"]
    return split


def deal(pictures: Sequence[Picture], rng: np.random.Generator) -> list[list[Picture]]:
    """Films, each of one theme and of at most `PICTURES_A_FILM` pictures, in which every picture comes once.

    Args:
        pictures: of any themes.
        rng: draws the order of pictures and of films.
    """
    films: list[list[Picture]] = []
    for theme in sorted({picture.theme for picture in pictures}):
        own = [picture for picture in pictures if picture.theme == theme]
        order = [own[index] for index in rng.permutation(len(own))]
        count = -(-len(own) // PICTURES_A_FILM)
        films += [order[number::count] for number in range(count)]
    return [films[index] for index in rng.permutation(len(films))]


def casts(pictures: Sequence[Picture], rounds: int, seed: int) -> dict[str, list[Picture]]:
    """Film id -> the pictures of the film. In training each picture comes `rounds` times, in its test once."""
    names = split_names(pictures, seed)
    films: dict[str, list[Picture]] = {}
    for place, (split, times) in enumerate((("train", rounds), ("seen", 1), ("unseen", 1))):
        rng = np.random.default_rng([seed, place])
        dealt = [film for _ in range(times) for film in deal(names[split], rng)]
        films |= {f"{split}{number:03}": film for number, film in enumerate(dealt)}
    return films


def split_of(film_id: str) -> str:
    """ "train", "seen" or "unseen"."""
    return film_id.rstrip("0123456789")


def film_path(folder: Path, film_id: str) -> Path:
    """Films to train on lie apart from those of the tests."""
    return folder / "films" / ("test" if split_of(film_id) in TESTS else "train") / f"{film_id}.mp4"


def write_world(
    folder: Path,
    pictures: Sequence[Picture],
    backgrounds: Sequence[Path],
    voices: Sequence[Speaker],
    rounds: int,
    seed: int,
    workers: int,
) -> dict[str, Truth]:
    """Writes the films that are not there yet, and the truth about all of them.

    Args:
        folder: made where needed.
        pictures: photographs of different names.
        backgrounds: photographs to lay behind them.
        voices: of the narrators.
        rounds: how often each picture comes in training.
        seed: of names and films; each film depends on it and on its number alone.
        workers: processes that make films.

    Returns:
        Film id -> what is shown and said in it.

    Raises:
        ValueError: if the folder holds another world.
    """
    settings = {"rounds": rounds, "seed": seed, "pictures": len(pictures)}
    check_world(folder, settings)
    films = {}
    with ProcessPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        for number, (film_id, cast) in enumerate(casts(pictures, rounds, seed).items()):
            rng = np.random.default_rng([seed, len(TESTS) + 1, number])
            voice = voices[int(rng.integers(len(voices)))]
            films[film_id] = pool.submit(make_film, folder, film_id, cast, voice, backgrounds, rng)
        truth = {film_id: film.result() for film_id, film in tqdm(films.items(), desc="films", unit="film")}
    write_truth(folder, settings, truth)
    return truth


def check_world(folder: Path, settings: dict[str, int]) -> None:
    """Makes the folder, and keeps the settings of its world in world.json.

    Raises:
        ValueError: if it holds a world of other settings.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "world.json"
    if path.exists():
        found = read_json(path)
        if found != settings:
            raise ValueError(f"{folder} holds another world ({found}, not {settings}): choose another folder")
        return
    with write_whole(path, text=True) as file:
        json.dump(settings, file)


def make_film(
    folder: Path,
    film_id: str,
    cast: Sequence[Picture],
    voice: Speaker,
    backgrounds: Sequence[Path],
    rng: np.random.Generator,
) -> Truth:
    """Writes a film unless it is there; returns what is shown and said in it."""
    film = plan_film(cast, voice, rng)
    path = film_path(folder, film_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        write_film(film, path, backgrounds, rng)
    return {
        "split": split_of(film_id),
        "seconds": round(film.seconds, 2),
        "shots": [
            {"name": shot.picture.name, "start": round(shot.start, 2), "end": round(shot.end, 2)} for shot in film.shots
        ],
        "sentences": [{"text": line.text, "start": round(line.start, 2)} for line in film.sentences],
    }


def write_truth(folder: Path, settings: dict[str, int], films: dict[str, Truth]) -> None:
    """Writes truth.json and a table for each test."""
    with write_whole(folder / "truth.json", text=True) as file:
        json.dump({"settings": settings, "licences": LICENCES, "films": films}, file, indent=1)
    for split in TESTS:
        with write_whole(folder / f"{split}.csv", text=True) as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(("video", "start", "end", "text"))
            for film_id, film in films.items():
                if film["split"] == split:
                    writer.writerows((film_id, shot["start"], shot["end"], shot["name"]) for shot in film["shots"])


def make_world(folder: Path, rounds: int, seed: int, workers: int) -> dict[str, Truth]:
    """Gets what is needed from Debian's packages, and writes the world.

    Raises:
        ValueError: if a package is neither installed nor to be had.
    """
    cache = folder / "packages"
    stamps, nature = (package_folder(*package, cache) for package in (STAMPS, BACKGROUNDS))
    voices = speakers(cache)
    return write_world(folder, named_photographs(stamps), background_photographs(nature), voices, rounds, seed, workers)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=4, metavar="N", help="films that show a picture (default 4)")
    parser.add_argument("--seed", type=int, default=0, help="of names and films (default 0)")
    parser.add_argument("--workers", type=int, default=available_cores(), metavar="N", help="default: %(default)s")
    args = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    try:
        films = make_world(args.folder, args.rounds, args.seed, args.workers)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    seconds = sum(film["seconds"] for film in films.values())
    print(f"{len(films)} films, {seconds / 60:.0f} minutes, in {args.folder / 'films'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
