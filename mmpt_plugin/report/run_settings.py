"""What a run was set to, from what hydra keeps in its folder, and how that differs from the paper's `pretrain`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

PAPER = "pretrain.yaml"
REFERENCE = re.compile(r"\$\{([\w.]+)\}")
NOT_SETTINGS = (
    "hydra",
    "defaults",
    "_name",
    "user_dir",
    "save_dir",
    "data",
    "tensorboard_logdir",
    "seed",
    "log_interval",
)


def run_settings(folder: Path) -> dict[str, Any] | None:
    """The composed configuration, one level deep ("task.retrieval.every"); None where hydra left none."""
    return _read(folder / ".hydra" / "config.yaml")


def paper_settings(folder: Path) -> dict[str, Any] | None:
    """The paper's settings, from `pretrain.yaml` in the folder that the run's --config-dir named; None if it is gone."""
    kept = folder / ".hydra" / "hydra.yaml"
    try:
        sources = yaml.safe_load(kept.read_text(encoding="utf-8"))["hydra"]["runtime"]["config_sources"]
        places = [Path(source["path"]) for source in sources if source["schema"] == "file"]
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
        return None
    return next((settings for place in places if (settings := _read(place / PAPER))), None)


def differing_settings(ours: Mapping[str, Any], paper: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Settings of the paper that this run has otherwise: (setting, ours, the paper's), in the paper's order.

    Values that must be given ("???") and interpolations ("${...}") are no settings of the paper.
    """
    return [
        (setting, ours[setting], value)
        for setting, value in paper.items()
        if setting in ours and _is_setting(setting, value) and not _same(ours[setting], value)
    ]


def _is_setting(setting: str, value: Any) -> bool:
    ignored = setting.split(".")[0] in NOT_SETTINGS or setting.rpartition(".")[2] in NOT_SETTINGS
    return not ignored and not (isinstance(value, str) and value.startswith(("???", "${")))


def _same(first: Any, second: Any) -> bool:
    return first == second or str(first).replace(" ", "") == str(second).replace(" ", "")


def _read(path: Path) -> dict[str, Any] | None:
    try:
        return _parse(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return None


@cache
def _parse(text: str) -> dict[str, Any] | None:
    """Settings by their full names; references to other settings ("${task.data}") are filled in, hydra's own are left."""
    content = yaml.safe_load(text)
    if not isinstance(content, dict):
        return None
    flat = _flat(content)
    return {setting: _filled(value, flat) for setting, value in flat.items()}


def _filled(value: Any, settings: Mapping[str, Any]) -> Any:
    if not isinstance(value, str):
        return value
    if whole := REFERENCE.fullmatch(value):
        return settings.get(whole[1], value)
    return REFERENCE.sub(lambda found: str(settings.get(found[1], found[0])), value)


def _flat(content: Mapping[str, Any], group: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in content.items():
        flat |= _flat(value, f"{group}{key}.") if isinstance(value, Mapping) else {f"{group}{key}": value}
    return flat
