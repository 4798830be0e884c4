"""Libraries whose vectors lie in an engine elsewhere: Qdrant's client, which also runs the engine in memory."""

from __future__ import annotations

import shutil
import sys

import pytest

from mmpt_plugin.search import VideoLibrary, command, engines
from mmpt_plugin.search.engines import IN_MEMORY

from .conftest import FPS, SIZE, film


@pytest.fixture(scope="module")
def elsewhere(make_library, films, tmp_path_factory) -> VideoLibrary:
    """The three videos, their vectors in the engine. Only read it."""
    library = make_library(tmp_path_factory.mktemp("elsewhere") / "library", engine=IN_MEMORY)
    library.add(films)
    return library


def stretches(hits):
    return [(hit.video_id, hit.start, hit.end, pytest.approx(hit.score, rel=1e-2)) for hit in hits]


def drop(library: VideoLibrary) -> None:
    """As if somebody had deleted the library's collection."""
    library._engine.client.delete_collection(library._engine.collection)


def test_it_finds_what_a_library_in_memory_finds(elsewhere, library):
    for text, within, said in (("add the onions", None, 0), ("stir", "two", 0), ("stir the pan", None, 0.3)):
        found, expected = elsewhere.search(text, 9, within, said), library.search(text, 9, within, said)
        assert stretches(found) == stretches(expected) and found.confident == expected.confident
        assert found.threshold == pytest.approx(expected.threshold, rel=1e-2)
    assert stretches(elsewhere.similar("two", 12, 18, 5)) == stretches(library.similar("two", 12, 18, 5))
    for within in (None, "one"):
        assert stretches(elsewhere.highlights(3, within)) == stretches(library.highlights(3, within))
    assert elsewhere.info()["windows"] == library.info()["windows"] == len(elsewhere._engine)
    vectors = elsewhere.store.connection.execute("SELECT sum(length(vectors)) FROM window").fetchone()
    assert vectors == (0,)  # they are not here


def test_it_is_opened_by_the_address_that_it_keeps(elsewhere):
    again = VideoLibrary.open(elsewhere.folder)
    assert stretches(again.search("add", 5, said=0)) == stretches(elsewhere.search("add", 5, said=0))
    assert again.info()["engine"].startswith(f"{IN_MEMORY} (mmpt-")


def test_changed_and_removed_videos_leave_the_engine(make_library, films, tmp_path):
    shutil.copytree(films, tmp_path / "films")
    library = make_library(tmp_path / "library", engine=IN_MEMORY)
    library.add(tmp_path / "films")
    film(tmp_path / "films" / "one.mp4", ["white", "red"])
    assert library.add(tmp_path / "films").changed == ["one"]
    assert len(library._engine) == library.info()["windows"] == 2 + 5 + 2
    (tmp_path / "films" / "one.mp4").write_bytes(b"no video any more")
    assert list(library.add(tmp_path / "films").failed) == ["one"] and len(library._engine) == 5 + 2
    library.remove("two")
    assert len(library._engine) == library.info()["windows"] == 2
    assert {hit.video_id for hit in library.search("add", 50, said=0)} == {"deep/three"}


def test_what_is_broken_off_between_engine_and_file_is_no_hit_and_goes(make_library, films, tmp_path, monkeypatch):
    library = make_library(tmp_path / "library", engine=IN_MEMORY)
    library.add([films / "one.mp4"])
    with monkeypatch.context() as broken:
        broken.setattr(library.store, "put", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            library.add([films / "two.mp4"])
    assert len(library._engine) > library.info()["windows"]  # two's windows, which nobody asked for
    assert {hit.video_id for hit in library.search("add", 50, said=0)} == {"one"}
    library.add([films / "one.mp4"])
    assert len(library._engine) == library.info()["windows"]
    library.add(films)
    assert {hit.video_id for hit in library.search("add", 50, said=0)} == {"one", "two", "deep/three"}


def test_an_engine_that_lost_windows_is_refused(make_library, films, tmp_path):
    library = make_library(tmp_path / "library", engine=IN_MEMORY)
    library.add([films / "one.mp4"])
    drop(library)
    with pytest.raises(ValueError, match=r"has 0 of the 4 windows of the library .*restore it there, or index anew"):
        VideoLibrary.open(tmp_path / "library")


def test_recall_is_measured_and_kept(elsewhere, library, make_library, tmp_path, films, capsys):
    for one in (elsewhere, library):
        report = one.measure(8)
        assert report["recall@10"] == 1.0 and report["queries"] == 8 and report["windows"] == 11
        assert one.info()["search"] == report
    assert command.main(["info", str(library.folder), "--measure"]) == 0
    assert "search: SQLite and FAISS, exact\n  recall@10 1.000, median" in capsys.readouterr().out
    with pytest.raises(ValueError, match="no windows to search"):
        make_library(tmp_path / "library").measure()


def test_recall_tells_of_what_is_not_found(make_library, films, tmp_path, monkeypatch):
    library = make_library(tmp_path / "library")
    library.add(films)
    search = library._index.search
    monkeypatch.setattr(library._index, "search", lambda *given: tuple(found[1:] for found in search(*given)))
    assert library.measure(4)["recall@10"] == 0.9  # the best is missing in each


@pytest.mark.parametrize(
    "address", ["qdrant", "qdrant:/some/folder", "milvus:http://localhost", "http://localhost", ""]
)
def test_what_is_no_address(make_library, tmp_path, address):
    with pytest.raises(ValueError, match="no address of an engine; qdrant:http://HOST:6333"):
        make_library(tmp_path / "library", engine=address)
    assert not (tmp_path / "library").exists()


def index(folder, films, checkpoint, network, *more):
    return command.main(
        [
            *("index", str(films), "--library", str(folder), "--checkpoint", str(checkpoint), "--network", network),
            *("--fps", str(FPS), "--frame-size", str(SIZE), *more),
        ]
    )


def test_a_missing_package_names_the_extra(films, checkpoint, network, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "qdrant_client", None)
    assert index(tmp_path / "lib", films, checkpoint, network, "--engine", "qdrant:http://localhost:6333") == 2
    assert "pip install 'mmpt_plugin[qdrant]'" in capsys.readouterr().err and not (tmp_path / "lib").exists()


def test_an_engine_that_does_not_answer(films, checkpoint, network, tmp_path, capsys):
    assert index(tmp_path / "lib", films, checkpoint, network, "--engine", "qdrant:http://127.0.0.1:9") == 2
    error = capsys.readouterr().err
    assert "the engine qdrant:http://127.0.0.1:9 cannot be used" in error and "is it running" in error
    assert not (tmp_path / "lib").exists()


def test_the_command_line_takes_an_address(films, checkpoint, network, tmp_path, capsys):
    assert index(tmp_path / "lib", films, checkpoint, network, "--engine", IN_MEMORY) == 0
    assert command.main(["query", str(tmp_path / "lib"), "add", "--said", "0", "--engine", IN_MEMORY]) == 0
    assert command.main(["info", str(tmp_path / "lib")]) == 0
    assert f"search: {IN_MEMORY}" in capsys.readouterr().out


def test_a_library_of_its_own_file_takes_no_engine(library):
    with pytest.raises(ValueError, match="keeps its vectors itself"):
        VideoLibrary.open(library.folder, engine=IN_MEMORY)


def test_a_key_goes_only_where_the_user_says(elsewhere, monkeypatch):
    given = []
    connect = engines.connect
    monkeypatch.setattr(engines, "connect", lambda address, key: given.append(key) or connect(address, None))
    monkeypatch.setenv(engines.KEY, "secret")
    VideoLibrary.open(elsewhere.folder)
    VideoLibrary.open(elsewhere.folder, engine=IN_MEMORY)
    assert given == [None, "secret"]
