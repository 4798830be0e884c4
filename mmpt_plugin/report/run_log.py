"""The log that a training run keeps: one JSON object a line, in `<save_dir>/log.jsonl`.

Every line has `kind`, `update`, `epoch` and `time` (seconds since 1970). Kinds: `start` (a run begins or is resumed at
`update`), `step` (means since the last such line), `valid`, `clusters` (once an epoch).
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LOG_FILE = "log.jsonl"
Record = dict[str, Any]


def append_record(path: Path, kind: str, update: int, epoch: int, values: Mapping[str, Any]) -> None:
    """Writes one line, whole: numbers that are none (NaN, infinity) become null."""
    record = {"kind": kind, "update": update, "epoch": epoch, "time": round(time.time(), 3), **values}
    line = json.dumps(_plain(record), ensure_ascii=False, allow_nan=False) + "\n"
    with path.open("ab") as file:
        file.write(line.encode())


@dataclass(frozen=True)
class RunHistory:
    """What a log says happened, in the order of updates; parts that a resumed run did again stand once.

    Attributes:
        steps: training, every `common.log_interval` updates.
        valid: validations.
        clusters: the retrieval hook, once an epoch.
        starts: how often the run was begun or resumed.
        unreadable: lines that could not be read (of a run that was killed while it wrote, say).
    """

    steps: list[Record] = field(default_factory=list)
    valid: list[Record] = field(default_factory=list)
    clusters: list[Record] = field(default_factory=list)
    starts: int = 0
    unreadable: int = 0


def read_run(path: Path) -> RunHistory:
    """Reads a log.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if not one line of it can be read.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} not found: a training run keeps it in its checkpoint.save_dir")
    kept: dict[str, list[Record]] = {"step": [], "valid": [], "clusters": []}
    starts = unreadable = 0
    for line in path.read_bytes().splitlines():
        record = _parse(line)
        if record is None:
            unreadable += 1
        elif record["kind"] == "start":
            starts += 1
            for kind, records in kept.items():  # what comes after is done again
                kept[kind] = [earlier for earlier in records if earlier["update"] <= record["update"]]
        elif record["kind"] in kept:
            kept[record["kind"]].append(record)
    if not starts and not any(kept.values()):
        raise ValueError(f"{path} is no log of a training run: none of its {unreadable} lines can be read")
    by_epoch = {record["epoch"]: record for record in kept["clusters"]}
    return RunHistory(kept["step"], kept["valid"], list(by_epoch.values()), starts, unreadable)


def _parse(line: bytes) -> Record | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    known = isinstance(record, dict) and isinstance(record.get("kind"), str)
    return record if known and all(isinstance(record.get(key), int) for key in ("update", "epoch")) else None


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
