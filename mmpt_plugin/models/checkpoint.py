"""Opening checkpoints, ours and MMPT's, with torch's safe loading only."""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy._core.multiarray import scalar

from mmpt_plugin.files import UnusableFile
from mmpt_plugin.files.torch_files import load_torch

# MMPT's files hold the options of its run in the first, a plain container. The others are numbers as numpy keeps them,
# which some versions of fairseq saved as the best loss. Loading any of these runs no code of the file.
NUMBER_TYPES = {type(np.dtype(name)) for name in ("float16", "float32", "float64", "int32", "int64", "bool")}
SAFE: list[Any] = [argparse.Namespace, np.dtype, *NUMBER_TYPES, scalar, (scalar, "numpy.core.multiarray.scalar")]
torch.serialization.add_safe_globals(SAFE)


def read_checkpoint(path: Path, setting: str = "checkpoint.restore_file") -> dict[str, Any]:
    """The content of a checkpoint file of fairseq.

    Args:
        path: the file.
        setting: what it was given by, for the messages.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged or not a fairseq checkpoint, or cannot be loaded without running code that it carries.
    """
    if not path.exists() or path.is_dir():
        raise FileNotFoundError(f"{setting}: no checkpoint at {path}; give the path of an existing .pt file")
    try:
        checkpoint = load_torch(path)
    except UnusableFile as error:
        reason = str(error).removeprefix(f"{path}: ")
        raise ValueError(
            f"{setting}: {path} cannot be loaded safely; a checkpoint written by fairseq-hydra-train or by MMPT is needed "
            f"({reason})"
        ) from error
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("model"), dict):
        raise ValueError(f"{setting}: {path} holds no 'model': it is not a checkpoint of fairseq")
    return checkpoint


def weights_to_evaluate(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """The running average of the weights where training kept one (`ema.store_ema`), else the last ones."""
    average = _part(checkpoint, "extra_state").get("ema")
    return average if isinstance(average, dict) else checkpoint["model"]


def model_settings(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """The `model` settings that one of our checkpoints was trained with; empty for MMPT's."""
    settings = _part(checkpoint, "cfg").get("model")
    return dict(settings) if isinstance(settings, dict) and settings.get("_name") == "videoclip" else {}


def check_same_similarity(checkpoint: dict[str, Any], settings: Any, source: str, *, may_begin: bool = False) -> None:
    """Refuse to go on from one of our checkpoints with another way of comparing embeddings than it was trained with.

    Args:
        checkpoint: its content.
        settings: have `normalize`, `logit_scale` and `logit_bias`.
        source: names the checkpoint.
        may_begin: whether a checkpoint that was trained with none of these, as the paper's, may go on with any.

    Raises:
        ValueError: naming the setting.
    """
    recorded = model_settings(checkpoint)
    trained = [
        bool(recorded.get("normalize")),
        bool(recorded.get("logit_scale")),
        recorded.get("logit_bias") is not None,
    ]
    given = [settings.normalize, settings.logit_scale, settings.logit_bias is not None]
    if may_begin and not any(trained):
        return
    for name, was, now in zip(("normalize", "logit_scale", "logit_bias"), trained, given):
        if was != now:
            raise ValueError(
                f"{source} was trained {'with' if was else 'without'} model.{name}, and this run has it "
                f"{'set' if now else 'not set'}: embeddings that were trained for one similarity say little by another; give "
                f"model.{name} as in the checkpoint's training"
            )


def trained_features(checkpoint: dict[str, Any]) -> int:
    """Features of the longest clip that a checkpoint was trained with; MMPT's took 32 seconds, of one each."""
    settings = model_settings(checkpoint)
    return int(settings.get("max_video_seconds", 32)) * int(settings.get("features_per_second", 1))


def feature_settings(checkpoint: dict[str, Any]) -> dict[str, Any] | None:
    """How the features were made that one of our checkpoints was trained on; None where its shards did not say."""
    settings = _part(checkpoint, "task_state").get("features")
    return dict(settings) if isinstance(settings, dict) else None


def backbone_record(checkpoint: dict[str, Any]) -> dict[str, Any] | None:
    """What one of our checkpoints tells of its text backbone (`TextBackbone.record`); None for others and early ones."""
    record = _part(checkpoint, "task_state").get("text_backbone")
    return record if isinstance(record, dict) else None


def fine_tuned_on(checkpoint: dict[str, Any]) -> str | None:
    """The benchmark that one of our checkpoints was fine-tuned on; None for any other."""
    match _part(checkpoint, "cfg").get("task"):
        case {"_name": "videoclip_finetuning", "benchmark": benchmark}:
            return str(benchmark)
    return None


def _part(checkpoint: dict[str, Any], name: str) -> dict[str, Any]:
    part = checkpoint.get(name)
    return part if isinstance(part, dict) else {}


def sha256(path: Path) -> str:
    """Hash of the file's bytes, to name a checkpoint in results."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
