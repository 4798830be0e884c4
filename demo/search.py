"""The demo of the search page: films and a training corpus of the same world, and example queries with their hits.

    python -m demo.search write DIR      DIR/films (videos with subtitles), DIR/data (to pre-train on)
    python -m demo.search ask LIBRARY    three sentences, and how often the search is right

`make demo-search` runs both, with pre-training and indexing between them.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from demo import words
from demo.bert import write_bert
from demo.films import Film, Step, draw_film, picture, write_film, write_subtitles
from mmpt_plugin.data.shard_writer import ShardWriter
from mmpt_plugin.features.networks import NetworkConfig, load_network
from mmpt_plugin.features.one_video import embed_blocks
from mmpt_plugin.search import VideoLibrary
from mmpt_plugin.search.marks import table
from mmpt_plugin.search.moments import Span, overlap

FEATURE_FPS, FRAME_SIZE = 6, 48
TRAINING_FILMS, VALIDATION_FILMS, LIBRARY_FILMS = 240, 16, 12
QUERIES = 3
PAGE = "http://127.0.0.1:8765/"


def write(folder: Path, seed: int) -> None:
    """Writes the library's films with subtitles, and the corpus to pre-train on."""
    films = folder / "films"
    films.mkdir(parents=True, exist_ok=True)
    truth = {}
    for number in tqdm(range(LIBRARY_FILMS), desc="films", unit="film"):
        film = draw_film(np.random.default_rng([seed, 1, number]), training=False)
        name = f"kitchen {number + 1:02}"
        write_film(films / f"{name}{'.mkv' if number == LIBRARY_FILMS - 1 else '.mp4'}", film)  # one that is converted
        if number != LIBRARY_FILMS - 2:  # and one without subtitles
            write_subtitles(films / f"{name}.vtt", film)
        truth[name] = [list(step) for step in film.steps]
    (folder / "truth.json").write_text(json.dumps(truth, indent=1))
    write_corpus(folder / "data", seed)


def write_corpus(data: Path, seed: int) -> None:
    """Writes shards, lists and a BERT of the world's words."""
    write_bert(data / "bert", seed)
    token_ids = {word: number for number, word in enumerate(words.vocabulary())}
    network = load_network(NetworkConfig("grid"))
    source = {
        "features": {
            "network": network.name, "weights_sha256": network.weights_sha256, "feature_size": network.feature_size,
            "precision": "fp32", "fps": FEATURE_FPS, "frame_size": FRAME_SIZE, "value_range": "[0, 1]",
            "normalisation": "l2", "dtype": "float16",
        }
    }  # fmt: skip
    for split, stream, count in (("train", 2, TRAINING_FILMS), ("val", 3, VALIDATION_FILMS)):
        names = [f"{split}{number:03}" for number in range(count)]
        with ShardWriter(data / "howto100m" / "shards", f"{split}_00000", source=source) as writer:
            for number, name in enumerate(tqdm(names, desc=f"{split} films", unit="film")):
                film = draw_film(np.random.default_rng([seed, stream, number]), training=True)
                times = [[line.start, line.end] for line in film.lines]
                tokens = [[token_ids[word] for word in line.text.split()] for line in film.lines]
                writer.add(name, embed_blocks(blocks(film), network, 8), times, tokens)
        (data / "howto100m" / f"{split}.txt").write_text("\n".join(names) + "\n")


def blocks(film: Film) -> list[np.ndarray]:
    """The film's seconds as the decoder would give them, without the way through a file."""
    size = (FRAME_SIZE, FRAME_SIZE)
    return [
        np.stack([picture(film, second + frame / FEATURE_FPS, size) for frame in range(FEATURE_FPS)])
        for second in range(film.seconds)
    ]


def ask(folder: Path) -> None:
    """Prints three queries with their hits, and how often the first hits are right."""
    library = VideoLibrary.open(folder)
    truth = json.loads((folder.parent / "truth.json").read_text())
    numbers = {video.id: video.number for video in library.store.videos()}
    steps = [(name, Step(*step)) for name, own in truth.items() for step in own]
    examples = [step for _, step in steps if step.unseen][:1] + [step for _, step in steps if not step.unseen]
    for text in [step.sentence() for step in examples[:QUERIES]]:
        print(f"\n$ mmpt-search query {folder} {text!r} -k 3 --said 0\n{table(library.search(text, 3, said=0))}")
    print("\nAll steps of the library's films, looked for by their sentence (pictures only, IoU 0.5 or more):")
    for kind, wanted in (("combinations seen in training", False), ("combinations never seen", True)):
        found = {1: [], 5: []}  # type: dict[int, list[bool]]
        for text in sorted({step.sentence() for _, step in steps if step.unseen == wanted}):
            truths = [Span(numbers[n], step.start, step.end, 0) for n, step in steps if step.sentence() == text]
            hits = [Span(numbers[hit.video_id], hit.start, hit.end, 0) for hit in library.search(text, 5, said=0)]
            right = [any(overlap(hit, own) >= 0.5 for own in truths) for hit in hits]
            for k in found:
                found[k].append(any(right[:k]))
        print(f"  {kind}: {len(found[1])} sentences, R@1 {np.mean(found[1]):.2f}, R@5 {np.mean(found[5]):.2f}")
    print(
        "\nThe model knows twelve coloured shapes, eight movements and the words for them, from "
        f"{TRAINING_FILMS} drawn films; nothing of real kitchens.\n"
        f"The page: .venv/bin/mmpt-search serve {folder}   then open {PAGE}"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["write", "ask"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING)
    if args.what == "write":
        write(args.folder, args.seed)
    else:
        ask(args.folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
