"""Stretches of videos as files."""

from __future__ import annotations

import pytest

from mmpt_plugin.search.clips import cut, playable

from .conftest import film


@pytest.mark.parametrize("playlist", ["ffconcat version 1.0\nfile secret.mp4\n", "#EXTM3U\n#EXTINF:5,\nsecret.mp4\n"])
def test_a_playlist_that_calls_itself_a_video_opens_no_other_file(tmp_path, playlist):
    secret = film(tmp_path / "secret.mp4", ["red"], seconds=3)
    assert playable(secret) and cut(secret, 0, 1)
    (tmp_path / "a.mp4").write_text(playlist)
    assert not playable(tmp_path / "a.mp4")
    with pytest.raises(ValueError, match=r"a\.mp4: (not a container of video|ffmpeg cannot)"):
        cut(tmp_path / "a.mp4", 0, 1)
