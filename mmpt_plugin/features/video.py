"""Decoding: a video file becomes one block of square RGB frames per second, streamed, whatever its length.

The frames are those of ffmpeg's filters `fps`, `scale` and `crop`, set as the features of the paper were made: constant
frame rate, short side to `size`, centre crop. What ffmpeg's command line does beside its filters is done here too:
videos that carry a rotation are turned upright, a late start is filled with the first picture, and files joined end to
end play on where their clock starts anew. Pixels are taken as square: a sample aspect ratio in the file is ignored.

A file from a stranger opens nothing but itself: only containers of `CONTAINERS` are read, and only through the
protocol `file`. Playlists and scripts (HLS, ffconcat) are refused, whatever their suffix.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import repeat
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
from av.container import InputContainer
from av.format import Flags
from av.sidedata.sidedata import Type as SideDataType
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from mmpt_plugin.files import UnusableFile, require_file

logger = logging.getLogger(__name__)

#: libavformat's names of the containers that are read. None of them opens other files.
CONTAINERS = (
    *("mov", "mp4", "3gp", "3g2", "matroska", "webm", "avi", "flv", "mpegts", "mpeg", "mpegvideo", "ogg", "asf", "gif"),
    *("h264", "hevc", "m4v", "rm", "dv", "mxf", "nut", "ivf"),
)
#: A step back in time beyond this is a clock that starts anew, as for ffmpeg's command line.
BACKWARD_JUMP_SECONDS = 0.1
#: In containers whose clock may jump (transport streams), so is a step forward beyond this.
FORWARD_JUMP_SECONDS = 10
#: Pictures may stand for this many seconds each on average, and the whole video for an hour more. Beyond that a time
#: stamp is damaged, and rows without end would follow.
STILL_SECONDS = 60
LONGEST_STILL_SECONDS = 3600
#: Pictures larger than 16,384 x 8,192 come from damaged headers.
MOST_PIXELS = 1 << 27
#: Long side to short side. The frames' square is cut out of a scaled picture, which has to fit into memory.
LARGEST_ASPECT_RATIO = 100


class VideoError(UnusableFile):
    """A file from which no frame can be had; the message names the file and the reason."""


class VideoBlocks:
    """The frames of a video in blocks of one second.

    Iterating yields uint8 arrays (fps, size, size, 3), RGB, [time, row, column, channel]; the last block is filled up
    with black frames. A few frames are held at a time. Damaged packets are skipped and counted; so a file that breaks
    off yields what it has.

    Args:
        path: a regular file in one of `CONTAINERS`.
        fps: frames per second, also the frames per block.
        size: width and height of the frames; the video's short side is scaled to it.
        threads: decoding threads; 0 lets ffmpeg choose.

    Raises (on iteration):
        FileNotFoundError: if there is no such file.
        VideoError: if the file is no video, has no video stream (sound only), not one frame can be decoded, or its
            pictures' times or sizes cannot be true.
    """

    def __init__(self, path: str | Path, fps: int = 30, size: int = 224, threads: int = 0) -> None:
        self.path = Path(path)
        self.fps = fps
        self.size = size
        self.threads = threads
        self.declared_seconds: float | None = None  #: length as the file states it, once iteration has begun
        self.frames = 0  #: frames yielded so far, without the black ones
        self.decoded = 0  #: pictures decoded so far, before they are brought to the constant rate
        self.damaged = 0  #: packets and frames so far that ffmpeg found damaged

    def __iter__(self) -> Iterator[np.ndarray]:
        block = np.zeros((self.fps, self.size, self.size, 3), np.uint8)
        filled = 0
        try:
            for picture in self._frames_at_constant_rate():
                block[filled] = picture
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

    def _frames_at_constant_rate(self) -> Iterator[np.ndarray]:
        """Pictures (size, size, 3) at the constant rate, by the rule of ffmpeg's filter `fps`.

        Time t becomes output frame round(t * fps), half up. An output frame shows the last picture at or before it; the
        last picture stands for its own duration. Where the pictures start late, the first output frame is repeated.
        """
        with open_container(self.path) as container:
            stream = _video_stream(container)
            if stream is None:
                kinds = ", ".join(sorted({s.type for s in container.streams})) or "none at all"
                raise VideoError(f"{self.path}: no video stream (its streams: {kinds})")
            if stream.codec_context is None:
                raise VideoError(f"{self.path}: ffmpeg has no decoder for its pictures")
            stream.thread_type = "AUTO"
            stream.thread_count = self.threads
            stream.codec_context.options = {"max_pixels": str(MOST_PIXELS)}
            self.declared_seconds = _declared_seconds(container, stream)
            square = SquareFilter(self.path, self.size)
            shown: VideoFrame | None = None
            next_output = late = 0
            for frame in self._decoded_frames(container, stream):
                self.decoded += 1
                output = self._output_frame(frame, frame.pts)
                if shown is None:
                    next_output, late = output, max(output, 0)
                elif output > next_output:
                    yield from repeat(square(shown), self._checked_repeats(late + output - next_output))
                    next_output, late = output, 0
                shown = frame
            if shown is not None:
                assert shown.pts is not None
                end = self._output_frame(shown, shown.pts + shown.duration)
                end = max(end, next_output + (self.frames == 0))  # a single short picture is a video of one frame
                yield from repeat(square(shown), self._checked_repeats(late + end - next_output))

    def _output_frame(self, frame: VideoFrame, pts: int | None) -> int:
        assert pts is not None and frame.time_base is not None
        numerator = 2 * pts * self.fps * frame.time_base.numerator + frame.time_base.denominator
        return numerator // (2 * frame.time_base.denominator)

    def _checked_repeats(self, count: int) -> int:
        seconds = (self.frames + count) / self.fps
        if seconds > LONGEST_STILL_SECONDS + STILL_SECONDS * self.decoded:
            raise VideoError(
                f"{self.path}: {self.decoded} pictures would stand for {seconds:.0f} s, so a time stamp in the file is "
                "damaged; write it anew, for example with ffmpeg"
            )
        return count

    def _decoded_frames(self, container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame]:
        """Frames as they are stored, time stamps counted from the container's start."""
        time_base = stream.time_base
        assert time_base is not None
        start = round((container.start_time or 0) / av.time_base / time_base)
        usual_duration = round(1 / (stream.average_rate or self.fps) / time_base)
        backward = round(BACKWARD_JUMP_SECONDS / time_base)
        # A jump back of more than a minute reaches us as one forward by 2^33 ticks: libavformat takes it for a full turn.
        clock_may_jump = container.format.flags & cast(int, Flags.ts_discont.value)
        forward = round(FORWARD_JUMP_SECONDS / time_base) if clock_may_jump else math.inf
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
                elif frame.pts - start < last_pts - backward or (
                    self.decoded and frame.pts - start - next_pts > forward
                ):  # files joined end to end: the clock starts anew
                    start = frame.pts - next_pts
                    self.declared_seconds = None  # such a file's length was computed from its first and last time stamp
                frame.pts -= start
                frame.time_base = time_base
                last_pts = frame.pts
                next_pts = last_pts + (frame.duration or usual_duration)
                yield frame


class SquareFilter:
    """Decoded frames to upright pictures (size, size, 3), RGB: short side to `size`, then the centre.

    ffmpeg's filter graph is built for one kind of frame, and anew where size, format, colour or rotation change.
    """

    def __init__(self, path: Path, size: int) -> None:
        self.path = path
        self.size = size
        self._kind: tuple[object, ...] = ()
        self._graph = av.filter.Graph()

    def __call__(self, frame: VideoFrame) -> np.ndarray:
        """Gives the picture of a frame, uint8 (size, size, 3)."""
        matrix: Any = frame.side_data.get(SideDataType.DISPLAYMATRIX)  # type: ignore[call-overload]
        rotation = autorotate_filters(np.frombuffer(bytes(matrix), np.int32)) if matrix else []
        kind = (frame.width, frame.height, frame.format.name, frame.colorspace, frame.color_range, rotation)
        if kind != self._kind:
            self._graph = self._build(frame, rotation)
            self._kind = kind
        self._graph.vpush(frame)
        return self._graph.vpull().to_ndarray()

    def _build(self, frame: VideoFrame, rotation: list[tuple[str, str]]) -> av.filter.Graph:
        if max(frame.width, frame.height) > LARGEST_ASPECT_RATIO * min(frame.width, frame.height):
            raise VideoError(
                f"{self.path}: pictures of {frame.width} x {frame.height}; one side may be {LARGEST_ASPECT_RATIO} times "
                "the other at most"
            )
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
        turned = any(name == "transpose" for name, _ in rotation)
        width, height = (frame.height, frame.width) if turned else (frame.width, frame.height)
        width, height = output_size(width, height, self.size)
        filters = [
            *rotation,
            ("scale", f"{width}:{height}"),
            ("crop", f"{self.size}:{self.size}:{int((width - self.size) / 2)}:{int((height - self.size) / 2)}"),
            ("format", "rgb24"),
        ]
        nodes = [source, *(graph.add(name, argument or None) for name, argument in filters), graph.add("buffersink")]
        graph.link_nodes(*nodes).configure()
        return graph


def has_video_stream(path: Path) -> bool:
    """Whether a file is a video by its content, whatever its name."""
    try:
        with open_container(path) as container:
            return _video_stream(container) is not None
    except (UnusableFile, OSError, av.error.FFmpegError):
        return False


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


@contextmanager
def open_container(path: Path, containers: Sequence[str] = CONTAINERS) -> Iterator[InputContainer]:
    """A video opened by libavformat, which may open this one file alone, of one of the containers that are named."""
    require_file(path)
    options = {"format_whitelist": ",".join(containers), "protocol_whitelist": "file"}
    try:
        # With "file:" no name is taken for a protocol; the options are for the demuxer, so both lists hold inside too.
        container = av.open(f"file:{path}", container_options=options, metadata_errors="replace")
    except av.error.ArgumentError as error:  # what libavformat makes of a format that is not on the list
        raise VideoError(f"{path}: not a container of video that is read here ({', '.join(containers)})") from error
    with container:
        yield container


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
