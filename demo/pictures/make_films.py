"""Write a world of real pictures: narrated films of named photographs, and what is shown in them when.

    python -m demo.pictures.make_films runs/pictures

Writes FOLDER/films/<id>.mp4, FOLDER/truth.json (splits, shots, sentences) and, for the films that are not trained on,
FOLDER/seen.csv (new films of pictures seen in training) and FOLDER/unseen.csv (of pictures and names never seen), with
the columns video, start, end, text. Can be broken off and run again. The pictures, 160 MB, are downloaded by apt-get
unless they are installed; the films need espeak-ng or flite.
"""

from __future__ import annotations

import argparse
import csv
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from demo.pictures.films import Film, plan_film, write_film
from demo.pictures.gather import PACKAGE, Picture, named_photographs, stamps_folder
from demo.pictures.speech import Speaker, speaker

UNSEEN = 0.2  #: share of names that are in no film of training
PICTURES_A_FILM = (10, 16)  #: which makes films of one to two minutes


def write_world(
    folder: Path, pictures: Sequence[Picture], films: dict[str, int], seed: int, voices: Sequence[Speaker]
) -> None:
    """Writes the films that are not there yet, and the truth about all of them.

    Args:
        folder: made where needed.
        pictures: photographs of different names.
        films: number of films for each of the splits "train", "seen" and "unseen".
        seed: of names and films; each film depends on it, its split and its number alone.
        voices: of the narrators.

    Raises:
        ValueError: if there are too few pictures for a film of unseen names.
    """
    names = split_names(pictures, seed)
    if min(map(len, names.values())) < PICTURES_A_FILM[1]:
        raise ValueError(f"{len(pictures)} pictures are too few: {UNSEEN:.0%} of them must fill a film of unseen names")
    (folder / "films").mkdir(parents=True, exist_ok=True)
    truth: dict[str, object] = {}
    rows: dict[str, list[tuple[str, float, float, str]]] = {"seen": [], "unseen": []}
    jobs = [(split, number) for split, count in films.items() for number in range(count)]
    for split, number in tqdm(jobs, desc="films", unit="film"):
        film_id = f"{split}{number:03}"
        rng = np.random.default_rng([seed, list(films).index(split), number])
        chosen = rng.permutation(len(names[split]))[: rng.integers(*PICTURES_A_FILM, endpoint=True)]
        film = plan_film([names[split][index] for index in chosen], voices[int(rng.integers(len(voices)))], rng)
        path = folder / "films" / f"{film_id}.mp4"
        if not path.exists():
            write_film(film, path, rng)
        truth[film_id] = description(film, split)
        if split in rows:
            rows[split] += [(film_id, shot.start, shot.end, shot.picture.name) for shot in film.shots]
    (folder / "truth.json").write_text(json.dumps({"pictures": f"{PACKAGE} (GPL-2)", "films": truth}, indent=1))
    for split, lines in rows.items():
        with (folder / f"{split}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("video", "start", "end", "text"))
            writer.writerows((film_id, f"{start:.2f}", f"{end:.2f}", text) for film_id, start, end, text in lines)


def split_names(pictures: Sequence[Picture], seed: int) -> dict[str, list[Picture]]:
    """The pictures of each split: those of "train" are "seen" again in new films, the others are "unseen"."""
    order = np.random.default_rng(seed).permutation(len(pictures))
    unseen = int(UNSEEN * len(pictures))
    seen = [pictures[index] for index in order[unseen:]]
    return {"train": seen, "seen": seen, "unseen": [pictures[index] for index in order[:unseen]]}


def description(film: Film, split: str) -> dict[str, object]:
    """What truth.json says of a film."""
    return {
        "split": split,
        "shots": [
            {"name": shot.picture.name, "start": round(shot.start, 2), "end": round(shot.end, 2)} for shot in film.shots
        ],
        "sentences": [{"text": line.text, "start": round(line.start, 2)} for line in film.sentences],
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--train", type=int, default=60, metavar="N", help="films to train on (default 60)")
    parser.add_argument("--test", type=int, default=10, metavar="N", help="films in each of the tests (default 10)")
    parser.add_argument("--seed", type=int, default=0, help="of names and films (default 0)")
    parser.add_argument("--stamps", type=Path, metavar="DIR", help=f"pictures of {PACKAGE}, if they lie elsewhere")
    args = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    try:
        voices = [speaker(number) for number in range(9)]
        pictures = named_photographs(args.stamps or stamps_folder(args.folder / "package"))
        films = {"train": args.train, "seen": args.test, "unseen": args.test}
        write_world(args.folder, pictures, films, args.seed, voices)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{sum(films.values())} films of {len(pictures)} named photographs in {args.folder / 'films'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
