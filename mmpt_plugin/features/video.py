"""Decoding: a video file becomes one block of square RGB frames per second, streamed, whatever its length.

The frames are those of ffmpeg's filters `fps`, `scale` and `crop`, which PyAV's wheel brings along, set as the features
of the paper were made: constant frame rate, short side to `size`, centre crop. ffmpeg's command line turns videos that
carry a rotation before its filters run and repeats the first frame where the pictures start later than the sound; so
does this module. Pixels are taken as square, as there: a sample aspect ratio in the file is ignored.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.container import InputContainer
from av.sidedata.sidedata import Type as SideDataType
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

logger = logging.getLogger(__name__)

#: A step back in time beyond this is a break in the clock, as for ffmpeg's command line.
BACKWARD_JUMP_SECONDS = 0.1


class VideoError(ValueError):
    """A file from which no frame can be had; the message names the file and the reason."""


class VideoBlocks:
    """The frames of a video in blocks of one second.

    Iterating yields uint8 arrays (fps, size, size, 3), RGB, [time, row, column, channel]; the last block is filled up
    with black frames. A few frames are held at a time. Damaged packets are skipped and counted; so a file that breaks
    off yields what it has.

    Args:
        path: a file of any format that ffmpeg reads.
        fps: frames per second, also the frames per block.
        size: width and height of the frames; the video's short side is scaled to it.
        threads: decoding threads; 0 lets ffmpeg choose.

    Raises (on iteration):
        FileNotFoundError: if there is no such file.
        VideoError: if the file is no video, has no video stream (sound only), or not one frame can be decoded.
    """

    def __init__(self, path: str | Path, fps: int = 30, size: int = 224, threads: int = 0) -> None:
        self.path = Path(path)
        self.fps = fps
        self.size = size
        self.threads = threads
        self.declared_seconds: float | None = None  #: length as the file states it, once iteration has begun
        self.frames = 0  #: frames yielded so far, without the black ones
        self.damaged = 0  #: packets and frames so far that ffmpeg found damaged

    def __iter__(self) -> Iterator[np.ndarray]:
        block = np.zeros((self.fps, self.size, self.size, 3), np.uint8)
        filled = 0
        try:
            for frame in self._filtered_frames():
                block[filled] = frame.to_ndarray()
                self.frames += 1
                filled += 1
                if filled == self.fps:
                    yield block
                    block = np.zeros_like(block)
                    filled = 0
        except av.error.FFmpegError as error:
            raise VideoError(f"{self.path}: ffmpeg cannot read it as video ({error.strerror})") from error
        if filled:
            yield block
        if not self.frames:
            raise VideoError(f"{self.path}: the video stream holds no frame that can be decoded")

    def _filtered_frames(self) -> Iterator[VideoFrame]:
        """Frames (size, size) in rgb24 at the constant rate."""
        if not self.path.is_file():
            raise FileNotFoundError(f"no video file {self.path}")
        with av.open(str(self.path), metadata_errors="replace") as container:
            stream = _video_stream(container)
            if stream is None:
                kinds = ", ".join(sorted({s.type for s in container.streams})) or "none at all"
                raise VideoError(f"{self.path}: no video stream (its streams: {kinds})")
            stream.thread_type = "AUTO"
            stream.thread_count = self.threads
            self.declared_seconds = _declared_seconds(container, stream)
            decoded = self._decoded_frames(container, stream)
            first = next(decoded, None)
            if first is None:
                return
            graph = _filter_graph(first, self.fps, self.size)
            begun = False
            for frame in chain([first], decoded, [None]):  # None flushes the graph
                graph.vpush(frame)
                for filtered in _pull(graph):
                    # ffmpeg's command line fills a late start with the first picture.
                    repeats = 1 if begun else max(filtered.pts or 0, 0) + 1
                    begun = True
                    yield from repeat(filtered, repeats)

    def _decoded_frames(self, container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame]:
        """Frames as they are stored, time stamps counted from the container's start."""
        time_base = stream.time_base
        assert time_base is not None
        start = round((container.start_time or 0) / av.time_base / time_base)
        usual_duration = round(1 / (stream.average_rate or self.fps) / time_base)
        tolerance = round(BACKWARD_JUMP_SECONDS / time_base)
        last_pts = next_pts = 0
        packets = container.demux(stream)
        while True:
            try:
                packet = next(packets, None)
                frames = [] if packet is None else packet.decode()
            except av.error.EOFError:
                return
            except av.error.FFmpegError as error:
                self.damaged += 1
                logger.debug("%s: damaged packet skipped (%s)", self.path, error)
                continue
            if packet is None:
                return
            for frame in frames:
                assert isinstance(frame, VideoFrame)
                self.damaged += frame.is_corrupt
                if frame.pts is None:  # raw streams carry no time stamps
                    frame.pts = start + next_pts
                elif frame.pts - start < last_pts - tolerance:  # files joined end to end: the clock starts anew
                    start = frame.pts - next_pts
                frame.pts -= start
                frame.time_base = time_base
                last_pts = frame.pts
                next_pts = last_pts + (frame.duration or usual_duration)
                yield frame


def output_size(width: int, height: int, short_side: int) -> tuple[int, int]:
    """Width and height after scaling: the short side becomes `short_side`, the other int(long * short_side / short)."""
    if width >= height:
        return int(width * short_side / height), short_side
    return short_side, int(height * short_side / width)


def autorotate_filters(display_matrix: np.ndarray) -> list[tuple[str, str]]:
    """Filters (name, argument) that bring a frame upright, chosen as ffmpeg's command line does.

    Args:
        display_matrix: (9,) int32, 16.16 fixed point (2.30 in the last column): the 3x3 transformation of the ISO base
            media format (ISO/IEC 14496-12, 6.2.2), row by row.
    """
    a, b, _, c, d = (float(x) for x in display_matrix[:5])
    if not (math.hypot(a, c) and math.hypot(b, d)):
        return []
    clockwise = round(math.degrees(math.atan2(b / math.hypot(b, d), a / math.hypot(a, c)))) % 360
    if clockwise == 90:
        return [("transpose", "cclock_flip" if c > 0 else "clock")]
    if clockwise == 180:
        return [("hflip", "")] * (a < 0) + [("vflip", "")] * (d < 0)
    if clockwise == 270:
        return [("transpose", "clock_flip" if c < 0 else "cclock")]
    if clockwise:
        return [("rotate", f"{clockwise}*PI/180")]
    return [("vflip", "")] * (d < 0)


def _video_stream(container: InputContainer) -> VideoStream | None:
    """The first video stream that is not a cover picture of a sound file."""
    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic:
            return stream
    return None


def _declared_seconds(container: InputContainer, stream: VideoStream) -> float | None:
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    return container.duration / av.time_base if container.duration is not None else None


def _filter_graph(frame: VideoFrame, fps: int, size: int) -> av.filter.Graph:
    """The graph for frames like this one; its output is rgb24, (size, size), at a constant rate."""
    graph = av.filter.Graph()
    graph.threads = 1
    source = graph.add(
        "buffer",
        width=str(frame.width),
        height=str(frame.height),
        pix_fmt=frame.format.name,
        time_base=str(frame.time_base),
        colorspace=str(int(frame.colorspace)),
        range=str(int(frame.color_range)),
    )
    matrix: Any = frame.side_data.get(SideDataType.DISPLAYMATRIX)  # type: ignore[call-overload]
    rotation = autorotate_filters(np.frombuffer(bytes(matrix), np.int32)) if matrix else []
    turned = any(name == "transpose" for name, _ in rotation)
    width, height = (frame.height, frame.width) if turned else (frame.width, frame.height)
    width, height = output_size(width, height, size)
    filters = [
        *rotation,
        ("fps", str(fps)),
        ("scale", f"{width}:{height}"),
        ("crop", f"{size}:{size}:{int((width - size) / 2)}:{int((height - size) / 2)}"),
        ("format", "rgb24"),
    ]
    nodes = [source, *(graph.add(name, argument or None) for name, argument in filters), graph.add("buffersink")]
    graph.link_nodes(*nodes).configure()
    return graph


def _pull(graph: av.filter.Graph) -> Iterator[VideoFrame]:
    """All frames that the graph has ready."""
    while True:
        try:
            yield graph.vpull()
        except (av.error.BlockingIOError, av.error.EOFError):
            return
