"""Small video files of every odd kind, rendered and encoded on the spot."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np


def moving_square(frames: int, width: int = 320, height: int = 240) -> list[np.ndarray]:
    """Frames (height, width, 3) uint8: a bright square wanders over a colour gradient."""
    rows, columns = np.mgrid[:height, :width]
    background = np.stack([rows * 200 // height, columns * 200 // width, np.full_like(rows, 60)], axis=2)
    side = min(width, height) // 4
    pictures = []
    for i in range(frames):
        picture = background.astype(np.uint8)
        top, left = (i * 3) % (height - side), (i * 5) % (width - side)
        picture[top : top + side, left : left + side] = (250, 240, 20)
        pictures.append(picture)
    return pictures


def gray_levels(levels: list[int], width: int = 64, height: int = 48) -> list[np.ndarray]:
    """One flat frame for each level."""
    return [np.full((height, width, 3), level, np.uint8) for level in levels]


def write_video(
    path: Path,
    pictures: list[np.ndarray],
    *,
    fps: int = 30,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    times: list[int] | None = None,
    rotation: float = 0,
    sample_aspect_ratio: Fraction | None = None,
    sound_seconds: float = 0,
    options: dict[str, str] | None = None,
) -> Path:
    """Encodes pictures.

    Args:
        path: its suffix picks the container.
        pictures: (height, width, 3) uint8 each.
        fps: frames per second.
        codec: name of the encoder.
        pix_fmt: pixel format of the stream.
        times: time of each frame in units of 1/fps, strictly growing; default 0, 1, 2...
        rotation: counter-clockwise turn, in degrees, that a player shall apply.
        sample_aspect_ratio: width to height of a pixel, if not square.
        sound_seconds: length of a sound stream, silent, from time 0.
        options: for the encoder.
    """
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps, options=options or {})
        stream.height, stream.width = pictures[0].shape[:2] if pictures else (48, 64)
        stream.pix_fmt = pix_fmt
        if sample_aspect_ratio:
            stream.codec_context.sample_aspect_ratio = sample_aspect_ratio
        if rotation:
            stream.set_display_rotation(rotation)
        sound = container.add_stream("aac", rate=16000, layout="mono") if sound_seconds else None
        container.start_encoding()
        for i, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=pix_fmt)
            frame.pts = times[i] if times else i
            frame.time_base = Fraction(1, fps)
            container.mux(stream.encode(frame))
        if pictures:
            container.mux(stream.encode(None))
        if sound is not None:
            _write_silence(container, sound, sound_seconds)
    return path


def repeat_video(source: Path, path: Path, times: int) -> Path:
    """The same video over and over, without encoding again."""
    with av.open(str(source)) as one, av.open(str(path), "w") as container:
        stream = one.streams.video[0]
        copy = container.add_stream_from_template(stream)
        packets = [packet for packet in one.demux(stream) if packet.dts is not None]
        stored = [(bytes(packet), packet.pts, packet.dts, packet.duration, packet.is_keyframe) for packet in packets]
        length = stream.duration
        for i in range(times):
            for content, pts, dts, duration, keyframe in stored:
                packet = av.Packet(content)
                packet.pts, packet.dts, packet.duration = pts + i * length, dts + i * length, duration
                packet.time_base = stream.time_base
                packet.is_keyframe = keyframe
                packet.stream = copy
                container.mux(packet)
    return path


def write_sound(path: Path, seconds: float = 1.0, cover: np.ndarray | None = None) -> Path:
    """A sound file, with a cover picture on request (which is a video stream of one frame to ffmpeg)."""
    with av.open(str(path), "w") as container:
        sound = container.add_stream("aac", rate=16000, layout="mono")
        picture = None
        if cover is not None:
            picture = container.add_stream("mjpeg", rate=1)
            picture.height, picture.width = cover.shape[:2]
            picture.pix_fmt = "yuvj420p"
            picture.disposition = av.stream.Disposition.attached_pic
            frame = av.VideoFrame.from_ndarray(cover, format="rgb24").reformat(format="yuvj420p")
        container.start_encoding()
        if picture is not None:
            container.mux(picture.encode(frame))
            container.mux(picture.encode(None))
        _write_silence(container, sound, seconds)
    return path


def _write_silence(container, stream, seconds: float) -> None:
    for i in range(round(seconds * 16000 / 1024)):
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        frame.pts = i * 1024
        frame.time_base = Fraction(1, 16000)
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))
