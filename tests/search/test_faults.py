"""Indexing that is killed, and what is read while it runs."""

from __future__ import annotations

import random
import shutil
import signal
import threading
import time
from pathlib import Path

import pytest

from mmpt_plugin.search import VideoLibrary

from ..together import server
from .conftest import film
from .test_library import content

KILLS = 30


def index(folder: Path, films: Path, begun) -> None:
    library = VideoLibrary.open(folder)
    assert library.clip  # loaded before the clock starts
    begun.set()
    library.add(films)


@pytest.mark.slow
def test_killed_at_random_moments_and_run_again(make_library, tmp_path):
    """Whatever was cut off, the next run ends with the library that an undisturbed run makes."""
    (tmp_path / "films").mkdir()
    films = tmp_path / "films"
    for number, colours in enumerate((["red", "blue"], ["green", "violet"], ["black", "red"])):
        film(films / f"{number}.mp4", colours, seconds=5)
        (films / f"{number}.srt").write_text(f"1\n00:00:01,000 --> 00:00:04,000\nline {number}\n")
    undisturbed = make_library(tmp_path / "undisturbed")
    begun = time.perf_counter()
    undisturbed.add(films)
    whole = time.perf_counter() - begun
    expected = content(undisturbed)
    make_library(tmp_path / "empty").close()
    rng, context, cut_off = random.Random(0), server(), 0
    for trial in range(KILLS):
        folder = tmp_path / f"library {trial}"
        shutil.copytree(tmp_path / "empty", folder)
        ready = context.Event()
        child = context.Process(target=index, args=(folder, films, ready))
        child.start()
        assert ready.wait(60)
        time.sleep(rng.uniform(0, 1.2 * whole))
        child.kill()  # says nothing of one that was done before
        child.join()
        assert child.exitcode in (-signal.SIGKILL, 0)  # killed, or done before: no crash of its own
        library = VideoLibrary(folder, clip=undisturbed.clip)
        assert library.store.connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        half_way = content(library)
        assert all(expected[video_id] == rows for video_id, rows in half_way.items())  # nothing half
        cut_off += len(half_way) < len(expected)
        library.add(films)
        assert content(library) == expected  # nothing twice, nothing left out
        library.close()
        shutil.rmtree(folder)
    assert cut_off > KILLS / 3  # else the kills came too late to mean anything


def test_reading_from_many_threads_while_a_writer_adds(make_library, films, tmp_path):
    library = make_library(tmp_path / "library")
    library.add([films / "one.mp4"])
    stop, errors, counts = threading.Event(), [], []

    def read() -> None:
        try:
            while not stop.is_set():
                counts.append(len({hit.video_id for hit in library.search("add the onions", 20)}))
        except Exception as error:
            errors.append(error)
        finally:
            library.close()

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    writer = VideoLibrary.open(tmp_path / "library")
    writer.add(films)
    writer.remove("one")
    writer.add(films)
    stop.set()
    for thread in threads:
        thread.join(30)
    assert errors == [] and set(counts) <= {1, 2, 3}
    assert {hit.video_id for hit in library.search("add", 50)} == {"one", "two", "deep/three"}
