"""What a folder of features says about itself: the settings they were made with, and one record for each video.

    <folder>/<video id>.npy     (seconds, feature_size) features
    <folder>/manifest.json      the settings, the same for every file in the folder
    <folder>/videos.jsonl       one JSON object a line for each output: source, lengths, frames...; the last one counts
    <folder>/failures.tsv       videos that have no features: id, source, reason, time; the last line of a video counts

Several processes may write to one folder: appended lines and replaced files are guarded by a lock on `.lock`.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmpt_plugin.features.locks import locked
from mmpt_plugin.files import is_hidden, parse_json, read_json, write_whole

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"
RECORDS = "videos.jsonl"
FAILURES = "failures.tsv"
RATE = "features_per_second"
UNSTATED = {RATE: 1}  # what settings that do not say it mean, as all did before it could be chosen
FAILURE_COLUMNS = ("video_id", "source", "reason", "time")
ESCAPES = str.maketrans({"\t": r"\t", "\n": r"\n", "\r": r"\r", "\\": r"\\"})
UNESCAPED = {"t": "\t", "n": "\n", "r": "\r", "\\": "\\"}


@dataclass(frozen=True)
class FeatureSettings:
    """All that changes the numbers of a feature. Defaults are those of the paper's features."""

    network: str  #: "s3d" or "hf:<name of the model's folder>"
    weights_sha256: str  #: of the network's tensors
    feature_size: int
    precision: str = "fp32"  #: arithmetic of the network: bf16 keeps 8 bits of each activation
    fps: int = 30  #: frames a second after resampling, all of which go into the second's features
    frame_size: int = 224  #: short side after scaling, and side of the centre crop
    value_range: str = "[0, 1]"  #: of the pixels that the network is given
    normalisation: str = "l2"  #: of each row
    dtype: str = "float16"
    features_per_second: int = 1  #: rows, of as many frames each


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
        stranger = next((path for path in folder.glob("*.npy") if not is_hidden(path)), None)
        if stranger is not None:
            raise ValueError(
                f"{folder} holds features ({stranger.name}) but no {MANIFEST}, so their settings are unknown: "
                "write to an empty folder"
            )
        with write_whole(folder / MANIFEST, text=True) as file:
            file.write(json.dumps(dataclasses.asdict(settings), indent=1) + "\n")


def read_settings(folder: str | Path) -> dict[str, Any] | None:
    """The settings that a folder's features were made with; None if it does not say.

    Raises:
        ValueError: if the manifest cannot be read.
    """
    path = Path(folder) / MANIFEST
    if not path.exists():
        return None
    settings = read_json(path)
    if not isinstance(settings, dict):
        raise ValueError(f"{path} holds a {type(settings).__name__}; an object of settings is needed")
    for name, kind in (("network", str), ("weights_sha256", str), ("feature_size", int)):
        if type(settings.get(name)) is not kind:
            raise ValueError(
                f"{path}: {name} is {settings.get(name)!r}, and {'a text' if kind is str else 'a number'} is needed: "
                "restore the file or extract the features again"
            )
    return settings


def stated(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings without those that mean the same unsaid, so that what was made before and since says the same."""
    return {name: value for name, value in settings.items() if UNSTATED.get(name) != value}


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
    found = UNSTATED | dict(found)
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


def check_rate(features: str, found: Mapping[str, Any] | None, features_per_second: int) -> None:
    """Refuses features of another number of rows a second than the model takes.

    Args:
        features: what was made with the settings found, for the message.
        found: settings, as `read_settings` gives them; None where they are unknown.
        features_per_second: the model's.

    Raises:
        ValueError: naming both numbers.
    """
    rate = features_per_second if found is None else found.get(RATE, UNSTATED[RATE])
    if rate != features_per_second:
        raise ValueError(
            f"{features} have {rate} rows a second, and the model takes {features_per_second} "
            f"(model.features_per_second): a new training can set it to {rate}; else extract the features again with "
            f"--features-per-second {features_per_second}"
        )


def append_record(folder: Path, record: VideoRecord) -> None:
    """Adds a line to the list of outputs."""
    _append_line(folder, RECORDS, json.dumps(dataclasses.asdict(record)).encode())


def read_records(folder: str | Path) -> dict[str, dict[str, Any]]:
    """Records by video id; of several for one video the last. A line that was cut off by a crash is passed over."""
    path = Path(folder) / RECORDS
    records: dict[str, dict[str, Any]] = {}
    if path.exists():
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                try:
                    record = parse_json(line.decode(), path)
                    records[str(record["video_id"])] = record
                except (ValueError, TypeError, KeyError):
                    logger.warning("%s: line %d cannot be read and is passed over: %.80r", path, number, line)
    return records


class Failures:
    """The list of videos that gave no features, as this process follows it while others add to it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / FAILURES
        self._file_number = self._read_bytes = 0
        self._rows: dict[str, tuple[str, str, float]] = {}

    def add(self, video_id: str, source: str, reason: str) -> None:
        """Adds a line."""
        row = (video_id, source, " ".join(reason.split()), f"{time.time():.6f}")
        _append_line(self.folder, FAILURES, _line(row), first=_line(FAILURE_COLUMNS))

    def rows(self) -> dict[str, tuple[str, str, float]]:
        """Source, reason and time (seconds since 1970) by video id. Reads what was added since the last call."""
        try:
            file = self.path.open("rb")
        except FileNotFoundError:
            self._file_number, self._rows = 0, {}
            return self._rows
        with file:
            if os.fstat(file.fileno()).st_ino != self._file_number:  # the list was written anew
                self._file_number, self._read_bytes, self._rows = os.fstat(file.fileno()).st_ino, 0, {}
            file.seek(self._read_bytes)
            for line in file:
                if not line.endswith(b"\n"):
                    break  # being written, or cut off by a crash
                self._read_bytes += len(line)
                self._take(line)
        return self._rows

    def _take(self, line: bytes) -> None:
        fields = [_unescape(field) for field in line.decode("utf-8", "replace").rstrip("\n").split("\t")]
        if tuple(fields[:3]) == FAILURE_COLUMNS[:3]:
            return
        try:
            video_id, source, reason, *rest = fields
            self._rows[video_id] = (source, reason, float(rest[0]) if rest else 0.0)
        except ValueError:
            logger.warning("%s: a line that cannot be read is passed over: %.80r", self.path, line)

    def settle(self, succeeded: set[str]) -> None:
        """Takes off the list what has features by now, or is no longer there; the file goes when the list is empty."""
        with locked(self.folder):
            rows = {
                video_id: row
                for video_id, row in self.rows().items()
                if video_id not in succeeded and os.path.lexists(row[0])
            }
            if rows:
                lines = [_line((video_id, *row[:2], f"{row[2]:.6f}")) for video_id, row in sorted(rows.items())]
                with write_whole(self.path) as file:
                    file.write(b"\n".join([_line(FAILURE_COLUMNS), *lines, b""]))
            else:
                self.path.unlink(missing_ok=True)


def read_failures(folder: str | Path) -> dict[str, tuple[str, str]]:
    """Source and reason by video id."""
    return {video_id: row[:2] for video_id, row in Failures(Path(folder)).rows().items()}


def _line(fields: Iterable[str]) -> bytes:
    r"""One line of a table, without its end.

    Tabs, line breaks and backslashes are written as \t, \n, \r and \\, bytes of a name that are not UTF-8 as \udc80...
    """
    return "\t".join(field.translate(ESCAPES) for field in fields).encode("utf-8", "backslashreplace")


def _unescape(field: str) -> str:
    def character(match: re.Match[str]) -> str:
        return UNESCAPED.get(match[1]) or chr(int(match[1][1:], 16))

    return re.sub(r"\\([tnr\\]|udc[89a-f][0-9a-f])", character, field)


def _append_line(folder: Path, name: str, line: bytes, first: bytes = b"") -> None:
    """Adds a line to a list under the folder's lock; a new list begins with the line `first`."""
    with locked(folder), (folder / name).open("a+b") as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(max(end - 1, 0))
        if end and file.read(1) != b"\n":  # cut off by a crash
            file.write(b"\n")
        if not end and first:
            file.write(first + b"\n")
        file.write(line + b"\n")
