"""Small pictures of videos."""

import base64
import io
import logging

import numpy as np
import pytest
from PIL import Image

from mmpt_plugin.report import wanted
from mmpt_plugin.report.evaluation_pages import write_evaluation_page
from mmpt_plugin.report.frames import WIDTH, VideoFolder, data_uri, pictures_from
from mmpt_plugin.search.store import Rows, Store, Video
from tests.features.video_files import gray_levels, write_video
from tests.report.conftest import retrieval_scores


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Three seconds that grow brighter: video0.mp4, and the same under a name with an ending, and a broken file."""
    folder = tmp_path_factory.mktemp("videos")
    write_video(folder / "video0.mp4", gray_levels([40] * 10 + [120] * 10 + [200] * 10, 256, 144), fps=10)
    (folder / "x@y.avi.mp4").write_bytes((folder / "video0.mp4").read_bytes())
    (folder / "broken.mp4").write_bytes(b"no video")
    return folder


def brightness(uri: str) -> float:
    picture = Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))
    assert picture.size == (WIDTH, WIDTH * 144 // 256)
    return float(np.asarray(picture).mean())


def test_the_frame_is_that_of_the_second(videos):
    frames = VideoFolder(videos)
    assert [round(brightness(frames("video0", t)) / 40) for t in (0.5, 1.5, 2.5, 99)] == [1, 3, 5, 5]
    assert frames("x@y.avi", 0.5) == frames("video0", 0.5)


def test_a_video_without_a_frame_has_no_picture_and_is_named(videos, caplog):
    frames = VideoFolder(videos)
    with caplog.at_level(logging.WARNING):
        assert frames("absent", 1) is None and frames("broken", 1) is None
    assert "absent" in caplog.text and "broken" in caplog.text


def test_a_playlist_in_a_videos_place_opens_no_other_file(tmp_path, caplog):
    write_video(tmp_path / "secret.mp4", gray_levels([40] * 10, 256, 144), fps=10)
    (tmp_path / "a.mp4").write_text("ffconcat version 1.0\nfile secret.mp4\n")
    assert VideoFolder(tmp_path)("a", 0) is None
    assert "not a container of video" in caplog.text


def test_pictures_of_a_library_are_those_that_it_keeps(tmp_path):
    rows = Rows(
        np.array([[0, 2]]), np.zeros((1, 4), np.float16), np.zeros((2, 4), np.float16), {0: b"first", 9: b"last"}
    )
    store = Store.create(tmp_path, {})
    store.put(Video("talks/cut.mp4", tmp_path / "cut.mp4", 1, 1, "0", seconds=10), rows)
    store.close()
    pictures = pictures_from(tmp_path)
    assert pictures("cut", 1.0) == data_uri(b"first") and pictures("talks/cut.mp4", 8.0) == data_uri(b"last")
    assert pictures("absent", 1.0) is None


def test_a_folder_that_is_none_is_refused(tmp_path):
    with pytest.raises(NotADirectoryError, match=r"task\.videos=.*no such folder"):
        VideoFolder(tmp_path / "absent")


def test_pictures_stand_on_the_page(write_results, videos):
    page = write_evaluation_page([write_results("youcook2", retrieval_scores(5))], pictures=VideoFolder(videos))
    assert page.read_text().count('<img src="data:image/jpeg;base64,') == 5  # among the five items of five queries


def test_no_page_is_wanted_or_possible(tmp_path, monkeypatch, caplog):
    assert wanted.page_pictures(False, None) is None
    assert wanted.page_pictures(True, None)("video", 0) is None
    with pytest.raises(NotADirectoryError, match=r"task\.videos"):
        wanted.page_pictures(True, str(tmp_path / "absent"))
    monkeypatch.setattr(wanted, "find_spec", lambda name: None)
    assert wanted.page_pictures(True, None) is None
    assert "altair, vl_convert, jinja2 is not installed" in caplog.text and "scripts/report.py" in caplog.text
