"""The videos of a folder and what is said in them: transcripts found beside the videos, or made from their speech."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from mmpt_plugin.captions import Left, TimedText, Transcript, collect, read_transcript, tidy
from mmpt_plugin.features.folder import find_videos
from mmpt_plugin.files import read_json, write_whole
from mmpt_plugin.preparation.speech import SpeechSettings, transcribe

logger = logging.getLogger(__name__)

Lines = Sequence[TimedText]


@dataclass
class Sources:
    """What a folder gave.

    Attributes:
        videos: files by id.
        lines: what is said in each of the videos that have a transcript with at least one line.
        found: videos whose transcript was found; those of the others were made.
        left_out: video or file -> why it is not used, in words.
        made_now: how many transcripts were made by this call, and not by an earlier one.
    """

    videos: dict[str, Path]
    lines: dict[str, Lines] = field(default_factory=dict)
    found: set[str] = field(default_factory=set)
    left_out: dict[str, str] = field(default_factory=dict)
    made_now: int = 0


def gather_sources(
    folder: Path,
    cache: Path,
    *,
    captions: Path | None = None,
    languages: Sequence[str] = (),
    speech: SpeechSettings | None = None,
    workers: int = 1,
    device: str = "auto",
) -> Sources:
    """Finds the videos of a folder and their transcripts, and makes those that are not there.

    Args:
        folder: of videos.
        cache: where transcripts are made, in `transcripts/`; what is there is kept.
        captions: file or folder of captions; by default they are looked for beside the videos.
        languages: of the captions, the most wanted first.
        speech: how speech is transcribed; None: videos without captions are left out.
        workers: processes that transcribe.
        device: where the model of speech computes.

    Raises:
        FileNotFoundError: there is no such folder, or no video in it.
        ValueError: two videos have the same id, but for the case of letters perhaps.
    """
    everything = find_videos(folder)
    _refuse_same_but_for_case(everything.videos)
    forget_changed(everything.videos, cache)
    sources = Sources(everything.videos)
    for video_id, (_, reason) in everything.unusable.items():
        sources.left_out[video_id] = f"cannot be read: {reason}"
    _find_transcripts(sources, captions or folder, folder, languages)
    without = {video_id: path for video_id, path in sources.videos.items() if video_id not in sources.lines}
    if without and speech is not None and find_spec("faster_whisper") is None:
        logger.warning(
            f"{len(without)} videos have no subtitles, and their speech cannot be transcribed, as the package faster-whisper "
            "is not installed: they are left out. pip install 'mmpt_plugin[speech]' to use them too"
        )
    elif without and speech is not None:
        _transcribe(sources, without, cache / "transcripts", speech, workers, device)
    for video_id in without:
        if video_id not in sources.lines and video_id not in sources.left_out:
            missing = "" if speech is None else ", and faster-whisper is not installed"
            sources.left_out[video_id] = f"has no subtitles{missing}"
    return sources


def _find_transcripts(sources: Sources, captions: Path, videos: Path, languages: Sequence[str]) -> None:
    try:
        collection = collect([captions], videos=[videos], languages=languages)
    except FileNotFoundError:
        if not captions.exists():
            raise
        return  # no caption file to take
    for entry in collection.read():
        if isinstance(entry, Left):
            if entry.reason != "second_files":
                sources.left_out[entry.video_id] = f"{entry.reason.replace('_', ' ')}: {entry.message}"
        elif entry.video_id in sources.videos:
            lines, reason = _tidy_lines(entry)
            if lines:
                sources.lines[entry.video_id] = lines
                sources.found.add(entry.video_id)
                sources.left_out.pop(entry.video_id, None)
            else:
                sources.left_out[entry.video_id] = reason


def _tidy_lines(transcript: Transcript) -> tuple[Lines, str]:
    """The usable lines; and why there are none."""
    try:
        lines, counts = tidy(transcript)
    except ValueError as error:
        return [], f"doubtful times: {error}"
    return lines, "its subtitles have no usable line: " + _counted(counts)


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {number}" for name, number in counts.items())


def _transcribe(
    sources: Sources, videos: Mapping[str, Path], out: Path, speech: SpeechSettings, workers: int, device: str
) -> None:
    summary = transcribe(videos, out, speech, workers=workers, device=device)
    sources.made_now = summary.transcribed
    for video_id in videos:
        if video_id in summary.failures:
            sources.left_out[video_id] = f"its speech could not be transcribed: {summary.failures[video_id]}"
        elif video_id in summary.held_by_others:
            sources.left_out[video_id] = "another run is transcribing it"
        elif lines := read_transcript(out / f"{video_id}.json"):
            sources.lines[video_id] = lines
            sources.left_out.pop(video_id, None)
        else:
            sources.left_out[video_id] = "nothing is said in it"


def _refuse_same_but_for_case(video_ids: Iterable[str]) -> None:
    by_lower: dict[str, list[str]] = {}
    for video_id in video_ids:
        by_lower.setdefault(video_id.casefold(), []).append(video_id)
    clashes = [" and ".join(own) for own in by_lower.values() if len(own) > 1]
    if clashes:
        raise ValueError(
            f"task.videos: {len(clashes)} video ids differ by capital letters alone: {'; '.join(clashes)}. Rename one of each"
        )


# ------------------------------------------------------------------------------------------------- files that changed


def forget_changed(videos: Mapping[str, Path], cache: Path) -> None:
    """Removes what was made of files that have another size or date now."""
    record = cache / "videos.json"
    known = read_json(record) if record.exists() else {}
    states = {}
    for video_id, path in videos.items():
        status = path.stat()
        states[video_id] = [status.st_size, status.st_mtime_ns]
        if known.get(video_id, states[video_id]) != states[video_id]:
            logger.info(f"{path} has changed since it was prepared: it is prepared anew")
            (cache / "features" / f"{video_id}.npy").unlink(missing_ok=True)
            (cache / "transcripts" / f"{video_id}.json").unlink(missing_ok=True)
    cache.mkdir(parents=True, exist_ok=True)
    with write_whole(record, text=True) as file:
        json.dump(known | states, file)
