"""What a folder of features says about itself: the settings they were made with, and one record for each video.

    <folder>/<video id>.npy     (seconds, feature_size) features
    <folder>/manifest.json      the settings, the same for every file in the folder
    <folder>/videos.jsonl       one JSON object a line for each output: source, lengths, frames...; the last one counts
    <folder>/failures.tsv       videos that have no features: id, source, reason

Several processes may write to one folder: appended lines and replaced files are guarded by a lock on `.lock`.
"""

from __future__ import annotations

import dataclasses
import fcntl
import json
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"
RECORDS = "videos.jsonl"
FAILURES = "failures.tsv"


@dataclass(frozen=True)
class FeatureSettings:
    """All that changes the numbers of a feature. Defaults are those of the paper's features."""

    network: str  #: "s3d" or "hf:<name of the model's folder>"
    weights_sha256: str  #: of the network's tensors
    feature_size: int
    precision: str = "fp32"  #: arithmetic of the network: bf16 keeps 8 bits of each activation
    fps: int = 30  #: frames a second after resampling, all of which go into the second's feature
    frame_size: int = 224  #: short side after scaling, and side of the centre crop
    value_range: str = "[0, 1]"  #: of the pixels that the network is given
    normalisation: str = "l2"  #: of each row
    dtype: str = "float16"


@dataclass(frozen=True)
class VideoRecord:
    """What is known of one output."""

    video_id: str
    source: str  #: path of the video
    seconds: int  #: rows
    frames: int  #: after resampling
    declared_seconds: float | None  #: length as the video file states it
    damaged: int  #: packets and frames that the decoder found damaged


def write_settings(folder: Path, settings: FeatureSettings) -> None:
    """States the folder's settings, or compares with those stated before.

    Raises:
        ValueError: if the folder holds features made with other settings, or with unknown ones.
    """
    with locked(folder):
        if (folder / MANIFEST).exists():
            check_feature_settings(folder, settings)
            return
        stranger = next(folder.glob("*.npy"), None)
        if stranger is not None:
            raise ValueError(
                f"{folder} holds features ({stranger.name}) but no {MANIFEST}, so their settings are unknown: "
                "write to an empty folder"
            )
        replace_file(folder / MANIFEST, json.dumps(dataclasses.asdict(settings), indent=1) + "\n")


def read_settings(folder: str | Path) -> dict[str, Any] | None:
    """The settings that a folder's features were made with; None if it does not say.

    Raises:
        ValueError: if the manifest cannot be read.
    """
    path = Path(folder) / MANIFEST
    if not path.is_file():
        return None
    try:
        settings = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON ({error}): restore it or extract the features again") from error
    if not isinstance(settings, dict):
        raise ValueError(f"{path} holds a {type(settings).__name__}; an object of settings is needed")
    return settings


def check_feature_settings(folder: str | Path, expected: FeatureSettings | Mapping[str, Any]) -> None:
    """Refuses features that were made with other settings than expected, for example than the model was trained on.

    A folder without a manifest (features from elsewhere) is accepted with a warning: nothing can be said of it.

    Args:
        folder: of features.
        expected: settings, or some of them, as `read_settings` gave them for the training data.

    Raises:
        ValueError: naming every setting that differs, with both values.
    """
    found = read_settings(folder)
    if found is None:
        logger.warning("%s has no %s: how its features were made is not checked", folder, MANIFEST)
        return
    check_same_settings(
        f"the features in {folder}",
        found,
        dataclasses.asdict(expected) if isinstance(expected, FeatureSettings) else expected,
    )


def check_same_settings(features: str, found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Refuses settings that differ from those expected; others than the expected ones do not count.

    Args:
        features: what was made with the settings found, for the message.
        found: settings, as `read_settings` gives them.
        expected: settings, or some of them.

    Raises:
        ValueError: naming every setting that differs, with both values.
    """
    different = [
        f"{name}: {found.get(name)!r} here, {value!r} expected"
        for name, value in expected.items()
        if found.get(name) != value
    ]
    if different:
        raise ValueError(
            f"{features} were made with other settings than expected ({'; '.join(different)}): "
            "use those that belong to the model, or extract them again with its settings"
        )


def append_record(folder: Path, record: VideoRecord) -> None:
    """Adds a line to the list of outputs."""
    with locked(folder), (folder / RECORDS).open("a+b") as file:
        file.seek(max(file.tell() - 1, 0))
        cut_off = file.read(1) not in (b"", b"\n")  # by a crash in the middle of a line
        file.write(b"\n" * cut_off + json.dumps(dataclasses.asdict(record)).encode() + b"\n")


def read_records(folder: str | Path) -> dict[str, dict[str, Any]]:
    """Records by video id; of several for one video the last. A line that was cut off by a crash is passed over."""
    path = Path(folder) / RECORDS
    records: dict[str, dict[str, Any]] = {}
    if path.exists():
        with path.open() as file:
            for line in file:
                try:
                    record = json.loads(line)
                except json.JSONDecodeError:
                    logger.warning("%s: unreadable line passed over: %.80s", path, line)
                    continue
                records[record["video_id"]] = record
    return records


def read_failures(folder: str | Path) -> dict[str, tuple[str, str]]:
    """Source and reason by video id."""
    path = Path(folder) / FAILURES
    if not path.exists():
        return {}
    rows = [line.split("\t") for line in path.read_text().splitlines()]
    return {video_id: (source, reason) for video_id, source, reason in rows[1:]}


def update_failures(folder: Path, failed: Mapping[str, tuple[str, str]], succeeded: set[str]) -> None:
    """Adds failures to the list and takes off what has features by now; the file goes when the list is empty."""
    with locked(folder):
        failures = {**read_failures(folder), **failed}
        failures = {video_id: row for video_id, row in failures.items() if video_id not in succeeded}
        if not failures:
            (folder / FAILURES).unlink(missing_ok=True)
            return
        rows = ["video_id\tsource\treason"]
        for video_id, (source, reason) in sorted(failures.items()):
            rows.append("\t".join(" ".join(field.split()) for field in (video_id, source, reason)))
        replace_file(folder / FAILURES, "\n".join(rows) + "\n")


def replace_file(path: Path, text: str) -> None:
    """Writes aside, then renames: a reader sees the old file or the new one."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.write_text(text)
    aside.replace(path)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keeps other processes that use this function on the folder out. The system lifts the lock of a dead process."""
    with (folder / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
