"""A page on which a person judges: sentences, and the pictures of the films that the model found for them."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from mmpt_plugin.files import read_arrays, write_whole

SENTENCES, FRAMES = 10, 5  #: of a test, and for each sentence
TITLES = {
    "unseen": "Names and pictures that no film of the training had",
    "seen": "Names and pictures of the training, in new films",
}
STYLE = """
:root { color-scheme: light dark; font: 16px/1.4 system-ui, sans-serif; }
body { max-width: 60rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
section { margin: 1rem 0; } h3 { font-size: 1rem; margin: 0 0 .3rem; } h3 span { font-weight: normal; opacity: .7; }
ol { display: grid; grid-template-columns: repeat(5, 1fr); gap: .3rem; list-style: none; margin: 0; padding: 0; }
li { border: 3px solid transparent; border-radius: 4px; } img { display: block; width: 100%; border-radius: 2px; }
li.right { border-color: #1a9850; }
"""


def chosen_queries(queries: int) -> list[int]:
    """Which sentences are shown: evenly spread over all, whatever the model made of them."""
    return [int(place) for place in np.linspace(0, queries - 1, min(SENTENCES, queries)).round()]


def write_page(path: Path, results: Mapping[str, Path], frame: Callable[[str, float], str | None]) -> None:
    """Writes one page, which needs no other file.

    Args:
        path: of the page.
        results: test -> folder with csv_scores.npz.
        frame: a film's picture at a second, as a data URI.
    """
    parts = [section for test, folder in results.items() for section in test_sections(test, folder, frame)]
    title = "Real pictures: what the model found"
    with write_whole(path, text=True) as file:
        file.write(
            f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
            f"<title>{title}</title><style>{STYLE}</style><h1>{title}</h1>"
            f"<p>For each sentence, the {FRAMES} stretches of all films of the test that the model puts first. The one that "
            f"is named so has a green frame. The sentences are spread evenly over the test, not picked.</p>{''.join(parts)}"
        )


def test_sections(test: str, folder: Path, frame: Callable[[str, float], str | None]) -> list[str]:
    """The heading of a test, and one section a sentence."""
    arrays = read_arrays(folder / "csv_scores.npz")
    similarities, targets = arrays["similarities"], arrays["targets"]
    gallery = [(str(film), float(np.mean(span))) for film, span in zip(arrays["gallery_ids"], arrays["gallery_spans"])]
    sections = [f"<h2>{TITLES[test]} ({len(gallery)} stretches)</h2>"]
    for query in chosen_queries(len(targets)):
        order = np.argsort(-similarities[query], kind="stable")
        place = int(np.flatnonzero(order == targets[query])[0]) + 1
        items = [picture(frame(*gallery[found]), bool(found == targets[query])) for found in order[:FRAMES]]
        text = html.escape(str(arrays["texts"][query]))
        sections.append(
            f"<section><h3>{text} <span>found at place {place}</span></h3><ol>{''.join(items)}</ol></section>"
        )
    return sections


def picture(uri: str | None, right: bool) -> str:
    """One frame of the grid."""
    words = "the right one" if right else "another one"
    image = f'<img src="{uri}" alt="{words}">' if uri else words
    return f'<li class="right">{image}</li>' if right else f"<li>{image}</li>"
