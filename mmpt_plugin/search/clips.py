"""A stretch of a video as a file of its own, in a form that every player and browser takes."""

from __future__ import annotations

import io
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import IO, Any, cast

import av
from av.audio.resampler import AudioResampler
from av.container import InputContainer, OutputContainer

from mmpt_plugin.features.video import open_container
from mmpt_plugin.files import UnusableFile, write_whole
from mmpt_plugin.search.marks import safe_name
from mmpt_plugin.search.moments import Moment

LONGEST = 600.0
"""Seconds that are cut at most."""

PLAYABLE = {".m4v": {"h264"}, ".mov": {"h264"}, ".mp4": {"h264", "av1", "vp9"}, ".webm": {"vp8", "vp9", "av1"}}
"""Container and video codecs that Chromium, Firefox and Safari play as they are."""

SOUND = {"aac", "mp3", "opus", "vorbis"}


def write_clips(folder: Path, moments: list[Moment]) -> list[Path]:
    """Cuts the moments out: <rank>_<video>_<seconds>.mp4.

    Raises:
        ValueError, OSError: if a video cannot be read, or is no longer there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for rank, moment in enumerate(moments, start=1):
        path = folder / f"{rank:02}_{safe_name(moment.video_id)}_{moment.start:.0f}-{moment.end:.0f}.mp4"
        content = cut(moment.path, moment.start, moment.end)
        with write_whole(path) as file:
            file.write(content)
        written.append(path)
    return written


def playable(path: Path) -> bool:
    """Whether browsers play the file as it is."""
    codecs = PLAYABLE.get(path.suffix.lower())
    if codecs is None:
        return False
    try:
        with open_container(path) as container:
            video = [stream.codec_context for stream in container.streams.video]
            sound = [stream.codec_context.name in SOUND for stream in container.streams.audio]
            return (
                bool(video) and video[0].name in codecs and video[0].pix_fmt in ("yuv420p", "yuvj420p") and all(sound)
            )
    except (UnusableFile, OSError, av.error.FFmpegError):
        return False


def cut(path: Path, start: float, end: float, height: int = 720) -> bytes:
    """A stretch as an MP4 file of H.264 and AAC, which begins and ends to the frame.

    Args:
        path: of the video.
        start, end: seconds.
        height: of the picture at most.

    Raises:
        ValueError: if the stretch is none, is too long, or the file cannot be decoded.
        FileNotFoundError: if the video is gone.
    """
    if not 0 <= start < end or end - start > LONGEST:
        raise ValueError(f"{start} to {end} seconds: a stretch of at most {LONGEST:.0f} seconds is needed")
    out = io.BytesIO()
    try:
        with (
            open_container(path) as source,
            av.open(cast(IO[Any], out), "w", format="mp4") as target,
        ):
            _transcode(source, target, start, end, height)
    except av.error.FFmpegError as error:
        raise ValueError(f"{path}: ffmpeg cannot cut {start:.0f} to {end:.0f} seconds ({error.strerror})") from error
    return out.getvalue()


def _transcode(source: InputContainer, target: OutputContainer, start: float, end: float, height: int) -> None:
    if not source.streams.video:
        raise ValueError(f"{source.name}: no video stream")
    video = source.streams.video[0]
    video.thread_type = "AUTO"
    sound = source.streams.audio[0] if source.streams.audio else None
    origin = (source.start_time or 0) / av.time_base
    rate = video.average_rate or video.guessed_rate or Fraction(25)
    scale = min(1.0, height / video.height) if video.height else 1.0
    picture = target.add_stream(
        "libx264", rate=Fraction(rate).limit_denominator(1001), options={"preset": "veryfast", "crf": "21"}
    )
    picture.width, picture.height = (max(2, round(side * scale / 2) * 2) for side in (video.width, video.height))
    picture.pix_fmt = "yuv420p"
    picture.time_base = picture.codec_context.time_base = Fraction(1, 90_000)
    speech = target.add_stream("aac", rate=44_100, layout="stereo") if sound is not None else None
    resampler = AudioResampler("s16", "stereo", 44_100)
    source.seek(max(0, int((start + origin - 1) * av.time_base)), backward=True)
    samples = 0
    for frame in _frames(source, video, sound, end + origin):
        second = float(frame.time) - origin
        if not start <= second < end:
            continue
        if isinstance(frame, av.VideoFrame):
            frame = frame.reformat(width=picture.width, height=picture.height, format="yuv420p")
            frame.pts, frame.time_base = round((second - start) * 90_000), picture.time_base
            frame.pict_type = av.video.frame.PictureType.NONE
            target.mux(picture.encode(frame))
        elif speech is not None:
            for part in resampler.resample(frame):
                part.pts, part.time_base = samples, Fraction(1, 44_100)
                samples += part.samples
                target.mux(speech.encode(part))
    target.mux(picture.encode(None))
    if speech is not None:
        target.mux(speech.encode(None))


def _frames(source: InputContainer, video: Any, sound: Any, end: float) -> Iterator[Any]:
    """Decoded frames with a time, until all streams have passed the end; damaged packets are passed over."""
    streams = [stream for stream in (video, sound) if stream is not None]
    past = set()
    for packet in source.demux(streams):
        try:
            frames: list[Any] = list(packet.decode())
        except av.error.FFmpegError:
            continue
        for frame in frames:
            if frame.time is None:
                continue
            if frame.time >= end:
                past.add(packet.stream.index)
            yield frame
        if len(past) == len(streams):
            return
