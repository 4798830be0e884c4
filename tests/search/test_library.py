"""A library from files to hits: what it finds, what it notices, what it refuses."""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from threading import Timer

import numpy as np
import pytest

from mmpt_plugin.files import LockHeld, lock
from mmpt_plugin.search import VideoLibrary
from mmpt_plugin.search import library as library_module
from mmpt_plugin.search.moments import smooth

from .conftest import film


def content(library: VideoLibrary) -> dict[str, tuple]:
    """All that a library holds, by video id; without the numbers of rows."""
    rows = {}
    for video in library.store.videos():
        windows = [
            (spans.tolist(), vectors.tobytes()) for _, spans, vectors in library.store.windows([video.number], 32)
        ]
        states = library.store.states(video.number, 0, video.seconds, 32)[1].tobytes()
        pictures = [library.store.picture(video.number, second) for second in range(video.seconds)]
        lines = library.store.lines(video.number, 0, 1e9)
        rows[video.id] = (str(video.path), video.sha256, video.seconds, video.failure, windows, states, pictures, lines)
    return rows


def test_adding_runs_the_whole_chain(library, films):
    assert {video.id: (video.path, video.seconds) for video in library.store.videos()} == {
        "one": (films / "one.mp4", 18),
        "two": (films / "two.mp4", 24),
        "deep/three": (films / "deep" / "three.mkv", 12),
    }
    info = library.info()
    assert info["videos"] == 3 and info["lines"] == 2 and info["with_transcript"] == 1
    assert info["windows"] == 4 + 5 + 2 and not info["failed"] and not info["vanished"]


def test_window_vectors_are_those_of_video_clip(library, films, network):
    """A library's vectors are what the model gives to the features of extraction."""
    from mmpt_plugin.features.networks import NetworkConfig, load_network
    from mmpt_plugin.features.one_video import embed_blocks
    from mmpt_plugin.features.video import VideoBlocks

    blocks = VideoBlocks(films / "one.mp4", 4, 32)
    features = embed_blocks(blocks, load_network(NetworkConfig(network)), 1)
    video = library.video("one")
    ((_, spans, vectors),) = library.store.windows([video.number], 32)
    expected = library.clip.encode_video(features=[features[start:end] for start, end in spans])
    np.testing.assert_allclose(vectors.astype(np.float32), expected.numpy(), atol=2e-3)


def test_hits_are_exact_and_falling(library):
    vector = library.embed("add the onion")
    hits = library.search("add the onion", 3, said=0)
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    for hit in hits:
        video = library.video(hit.video_id)
        _, states = library.store.states(video.number, 0, video.seconds, 32)
        own = smooth(states.astype(np.float32) @ vector)[int(hit.start) : int(hit.end)]
        assert hit.score == hit.shown == pytest.approx(own.max(), abs=1e-4)
        assert 0 <= hit.start < hit.end <= video.seconds
        assert hit.thumbnail.startswith(b"\xff\xd8") and hit.path.is_file()
        by_second = library.scores_by_second("add the onion", hit.video_id)
        assert by_second.shape == (video.seconds,)
        np.testing.assert_allclose(smooth(by_second)[int(hit.start) : int(hit.end)], own, rtol=1e-4, atol=1e-4)


def test_hits_of_one_video_do_not_overlap(library):
    hits = library.search("stir", 100, said=0)
    for a in hits:
        for b in hits:
            assert a is b or a.video_id != b.video_id or a.end <= b.start or b.end <= a.start


def test_what_is_said_is_found_and_shown(library):
    for said in (0.5, 1.0):
        hit = library.search("adding an ONION", 5, said=said)[0]
        assert hit.video_id == "one" and "add the onions" in hit.spoken
    assert library.search("stir the pan", 1, said=1)[0].spoken == "stir the pan"
    assert [hit.start for hit in library.search("stir the pan", 9, said=1)] == [13.0]  # "the" alone is no answer
    assert library.search('"the" - "onions"', 9, said=1)[0].start == 13.0
    assert len(library.search("zebra", 9, said=1)) == 0
    assert [hit.video_id for hit in library.search("zebra", 3, said=0.3)] == [
        hit.video_id for hit in library.search("zebra", 3, said=0)
    ]


def test_within_some_videos(library):
    assert {hit.video_id for hit in library.search("add", 50, within="two")} == {"two"}
    assert {hit.video_id for hit in library.search("add", 50, within=["two", "deep/three"])} == {"two", "deep/three"}
    assert {hit.video_id for hit in library.search("onions", 50, within=["two"], said=1)} == set()
    with pytest.raises(KeyError, match="no video 'four'"):
        library.search("add", within="four")


def test_more_like_this(library):
    hits = library.similar("two", 12, 18, k=1)  # red, as the beginning of one
    assert (hits[0].video_id, hits[0].start) == ("one", 0.0) or hits[0].video_id == "one"
    assert all(
        hit.video_id != "two" or hit.end <= 12 or hit.start >= 18 for hit in library.similar("two", 12, 18, k=50)
    )
    with pytest.raises(ValueError, match="24 seconds; 20 to 30"):
        library.similar("two", 20, 30)


def test_query_arithmetic(library):
    vector = library.embed('"add the onions" + "stir" - "salt"')
    parts = [library.embed(text) for text in ("add the onions", "stir", "salt")]
    np.testing.assert_allclose(vector, parts[0] + parts[1] - parts[2], rtol=1e-5)


def test_highlights(library):
    hits = library.highlights(3)
    assert len(hits) == 3 and hits[0].score >= hits[1].score and hits[0].thumbnail


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("add", 0), "k is 0"),
        (("add", -1), "k is -1"),
        (("add", 5, None, 1.5), "said is 1.5"),
        (("",), "query is empty"),
    ],
)
def test_bad_arguments(library, arguments, message):
    with pytest.raises(ValueError, match=message):
        library.search(*arguments)


@pytest.mark.parametrize(
    "text", ['"', "NEAR(", "🍅🍅", "タマネギを切る", "'; DROP TABLE video; --", "x" * 9000, "a* OR b"]
)
def test_strange_queries_find_something(library, text):
    assert len(library.search(text, 2)) == 2 and len(library.search(text, 2, said=1)) <= 2


def test_a_second_time_nothing_is_done(make_library, films, tmp_path, monkeypatch):
    library = make_library(tmp_path / "library")
    assert sorted(library.add(films).added) == ["deep/three", "one", "two"]
    before = content(library)
    monkeypatch.setattr(library_module.indexing, "extract", None)  # would fail if it were called
    again = library.add(films)
    assert sorted(again.unchanged) == ["deep/three", "one", "two"] and not again.added and content(library) == before
    os.utime(films / "one.mp4")  # another time, the same content
    assert sorted(library.add(films).unchanged) == ["deep/three", "one", "two"]


def test_changed_moved_and_vanished_videos(make_library, films, tmp_path):
    folder = tmp_path / "films"
    shutil.copytree(films, folder)
    library = make_library(tmp_path / "library")
    library.add(folder)
    numbers = {video.id: video.number for video in library.store.videos()}
    film(folder / "one.mp4", ["white", "red"])
    (folder / "two.mp4").rename(folder / "four.mp4")
    (folder / "deep" / "three.mkv").unlink()
    (folder / "one.srt").write_text("1\n00:00:00,000 --> 00:00:02,000\nnow with potatoes\n")
    added = library.add(folder)
    assert (added.changed, added.moved, added.vanished) == (["one"], ["four"], ["deep/three"])
    after = {video.id: video.number for video in library.store.videos()}
    assert after["four"] == numbers["two"] and after["one"] != numbers["one"]
    assert library.video("one").seconds == 12 and library.info()["vanished"] == ["deep/three"]
    assert library.search("potatoes", 1, said=1)[0].video_id == "one"
    assert len(library.search("onions", 5, said=1)) == 0
    (folder / "one.srt").write_text("1\n00:00:00,000 --> 00:00:02,000\nonly radishes\n")
    assert "one" in library.add(folder).unchanged and library.search("radishes", 1, said=1)[0].video_id == "one"


def test_a_removed_video_is_gone(make_library, films, tmp_path):
    library = make_library(tmp_path / "library")
    library.add(films)
    library.search("add", 1)
    library.remove("one")
    assert {hit.video_id for hit in library.search("add", 50)} <= {"two", "deep/three"}
    assert len(library.search("onions", 5, said=1)) == 0 and library.info()["lines"] == 0
    counts = [
        library.store.connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in ("line", "spoken")
    ]
    assert counts == [0, 0]
    with pytest.raises(KeyError, match="no video 'one'"):
        library.remove("one")


def test_transcripts_from_a_folder_and_by_name(make_library, films, tmp_path):
    (tmp_path / "texts").mkdir()
    vtt = "WEBVTT\n\n00:02.000 --> 00:04.000\nslice the potatoes\n"
    (tmp_path / "texts" / "two.en.vtt").write_text(vtt)
    library = make_library(tmp_path / "library")
    assert library.add([films / "two.mp4"], transcripts=tmp_path / "texts").transcripts == 1
    assert library.search("potato", 1, said=1)[0].start == 2.0
    other = make_library(tmp_path / "other")
    assert other.add([films / "one.mp4"], transcripts={"one": tmp_path / "texts" / "two.en.vtt"}).transcripts == 1


def test_files_that_are_no_videos(make_library, films, tmp_path):
    folder = tmp_path / "films"
    shutil.copytree(films, folder)
    (folder / "broken.mp4").write_bytes(b"not a video" * 100)
    (folder / "empty.mp4").touch()
    (folder / "._one.mp4").write_bytes(b"what macOS puts beside a file")
    library = make_library(tmp_path / "library")
    added = library.add(folder)
    assert sorted(added.failed) == ["broken", "empty"] and len(added.added) == 3
    assert "cannot read it as video" in library.info()["failed"]["broken"]
    film(folder / "empty.mp4", ["red"])
    assert library.add(folder).changed == ["empty"] and sorted(library.info()["failed"]) == ["broken"]


def test_no_videos(make_library, tmp_path):
    library = make_library(tmp_path / "library")
    (tmp_path / "nothing").mkdir()
    with pytest.raises(FileNotFoundError, match="no video in it"):
        library.add(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError, match="no such video or folder"):
        library.add(tmp_path / "nowhere")
    assert list(library.search("add", 5)) == [] and list(library.highlights(5)) == []


def test_odd_names_become_ids(make_library, films, tmp_path):
    names = ['it\'s "quoted"', "<script>alert(1)</script>", "a..b", "a b", "naïve-日本"]
    names = [name.replace("/", "∕") for name in names]
    for name in names:
        (tmp_path / "films").mkdir(exist_ok=True)
        shutil.copy(films / "two.mp4", tmp_path / "films" / f"{name}.mp4")
    library = make_library(tmp_path / "library")
    assert sorted(library.add(tmp_path / "films").added) == sorted(names)
    assert library.search("add", 1, within=names[1])[0].video_id == names[1]


class DeadWorkers:
    """A pool of which every process is killed."""

    def __init__(self, *_: object, **__: object) -> None: ...
    def __enter__(self) -> DeadWorkers:
        return self

    def __exit__(self, *_: object) -> None: ...
    def submit(self, *_: object) -> Future:
        future: Future = Future()
        future.set_exception(BrokenProcessPool("a process ended abruptly"))
        return future

    def shutdown(self, **_: object) -> None: ...


def test_videos_of_workers_that_died_are_told_and_done_by_the_next_run(make_library, films, tmp_path, monkeypatch):
    library = make_library(tmp_path / "library")
    with monkeypatch.context() as broken:
        broken.setattr(library_module, "ProcessPoolExecutor", DeadWorkers)
        failed = library.add(films, workers=2).failed
    assert sorted(failed) == ["deep/three", "one", "two"] and "a worker process died" in failed["one"]
    assert sorted(library.add(films).changed) == ["deep/three", "one", "two"] and not library.info()["failed"]


@pytest.mark.slow
def test_workers_make_the_same_library(make_library, library, films, tmp_path):
    shutil.copytree(films, tmp_path / "films")
    (tmp_path / "films" / "broken.mp4").write_bytes(b"not a video" * 100)
    other = make_library(tmp_path / "library")
    added = other.add(tmp_path / "films", workers=2)
    assert len(added.added) == 3 and list(added.failed) == ["broken"]
    expected, found = content(library), content(other)
    assert all(found[video_id][1:] == expected[video_id][1:] for video_id in expected)  # all but the path


def test_copies_are_suppressed(make_library, films, tmp_path):
    (tmp_path / "films").mkdir()
    for name in ("one", "copy"):
        shutil.copy(films / "one.mp4", tmp_path / "films" / f"{name}.mp4")
    library = make_library(tmp_path / "library")
    library.add(tmp_path / "films")
    alone = library.search("add", 50, within="one", said=0)
    assert len(library.search("add", 50, said=0)) == len(alone)


def test_same_names_in_two_folders(make_library, films, tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    shutil.copy(films / "one.mp4", tmp_path / "a" / "x.mp4")
    shutil.copy(films / "two.mp4", tmp_path / "b" / "x.mp4")
    library = make_library(tmp_path / "library")
    assert library.add([tmp_path / "a" / "x.mp4", tmp_path / "b" / "x.mp4"]).added == ["x", "x (2)"]


def test_another_checkpoint_is_refused(make_library, films, tmp_path, checkpoint, tiny_checkpoint):
    library = make_library(tmp_path / "library")
    library.close()
    with pytest.raises(ValueError, match="made with another checkpoint"):
        VideoLibrary.open(tmp_path / "library", tiny_checkpoint)
    moved = tmp_path / "moved.pt"
    shutil.copy(checkpoint, moved)
    assert VideoLibrary.open(tmp_path / "library", moved).embed("add").shape == (32,)


def test_a_checkpoint_of_other_features_is_refused(make_library, network, tiny_checkpoint, tmp_path):
    with pytest.raises(ValueError, match=r"takes features of 512 numbers, the network hf:.* gives 16"):
        VideoLibrary.create(tmp_path / "library", tiny_checkpoint, network=network, fps=4, frame_size=32)
    assert not (tmp_path / "library").exists()


def test_a_checkpoint_of_other_settings_is_refused(network, checkpoint, tmp_path):
    import torch

    content = torch.load(checkpoint, weights_only=True)
    content["task_state"] = {"features": {"fps": 30, "network": f"hf:{Path(network[3:]).name}"}}
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(ValueError, match="fps: 4 here, 30 expected"):
        VideoLibrary.create(tmp_path / "library", tmp_path / "other.pt", network=network, fps=4, frame_size=32)


def test_what_is_no_library(make_library, tmp_path):
    with pytest.raises(FileNotFoundError, match="is no library"):
        VideoLibrary.open(tmp_path)
    (tmp_path / "library.sqlite").write_bytes(b"junk" * 1000)
    with pytest.raises(ValueError, match="no library's database"):
        VideoLibrary.open(tmp_path)
    library = make_library(tmp_path / "library")
    with pytest.raises(FileExistsError, match="holds a library already"):
        make_library(tmp_path / "library")
    library.close()
    with sqlite3.connect(tmp_path / "library" / "library.sqlite") as database:
        database.execute("UPDATE setting SET value = '3' WHERE name = 'version'")
    with pytest.raises(ValueError, match="has version 3, this release reads 1 to 2"):
        VideoLibrary.open(tmp_path / "library")


def hold(path: str, ready) -> None:
    with lock(path):
        ready.set()
        time.sleep(60)


def test_a_second_writer_is_told_who_writes(make_library, films, tmp_path):
    library = make_library(tmp_path / "library")
    context = get_context("fork")
    ready = context.Event()
    holder = context.Process(target=hold, args=(str(library.folder / ".writer"), ready))
    holder.start()
    assert ready.wait(20)
    with pytest.raises(LockHeld, match=f"{library.folder} is in use by process {holder.pid} on"):
        library.add(films)
    assert list(library.search("add", 5)) == []  # readers are not kept out
    Timer(0.3, holder.kill).start()
    assert library.add(films, wait=20).added  # the lock ends with its holder
    holder.join()


def test_a_full_disk_loses_nothing(make_library, films, tmp_path):
    library = make_library(tmp_path / "library")
    library.add([films / "one.mp4"])
    before = content(library)
    connection = library.store.connection
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count = {pages}")  # SQLite then says what it says of a full disk
    long = film(tmp_path / "long.mp4", ["red", "blue", "white"], seconds=120)
    with pytest.raises(OSError, match=r"cannot be written \(database or disk is full\).*kept; make room"):
        library.add([long])
    assert content(library) == before and library.search("add", 1)
    connection.execute("PRAGMA max_page_count = 1000000")
    assert sorted(library.add(films).added) == ["deep/three", "two"]


def test_other_processes_see_what_is_added(make_library, films, tmp_path):
    library = make_library(tmp_path / "library")
    library.add([films / "one.mp4"])
    reader = VideoLibrary.open(tmp_path / "library")
    assert {hit.video_id for hit in reader.search("add", 50)} == {"one"}
    library.add(films)
    assert {hit.video_id for hit in reader.search("add", 50)} == {"one", "two", "deep/three"}
    library.remove("one")
    assert {hit.video_id for hit in reader.search("add", 50)} == {"two", "deep/three"}


def test_still_stretches_are_one_window():
    rng = np.random.default_rng(0)
    features = rng.standard_normal((40, 8)).astype(np.float32)
    features[10:31] = features[10]
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    spans = [(start, start + 8) for start in range(0, 33, 4)]
    kept, joined = library_module.indexing.leave_out_still(features, spans)
    # windows from 12, 16 and 20 lie in the still stretch: the last two are left out
    assert kept == [0, 1, 2, 3, 6, 7, 8] and joined[3] == (12, 28)


def test_labels(library, make_library, films, tmp_path):
    library = make_library(tmp_path / "library")
    library.add(films)
    library.label("add the onions", "one", 0, 6)
    library.label("add the onions", "two", 3, 9, right=False)
    library.label("add the onions", "two", 3, 9, right=True)
    assert [(label["video_id"], label["right"]) for label in library.store.labels()] == [("one", True), ("two", True)]
    with pytest.raises(ValueError, match="no stretch"):
        library.label("add", "one", 9, 3)
    with pytest.raises(KeyError):
        library.label("add", "four", 0, 3)
