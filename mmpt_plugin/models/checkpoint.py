"""Opening checkpoints, ours and MMPT's, with torch's safe loading only."""

from __future__ import annotations

import argparse
import hashlib
import pickle
from pathlib import Path
from typing import Any

import torch

# MMPT's files hold the options of its run in this plain container; loading one runs no code of the file.
torch.serialization.add_safe_globals([argparse.Namespace])


def read_checkpoint(path: Path, setting: str = "checkpoint.restore_file") -> dict[str, Any]:
    """The content of a checkpoint file of fairseq.

    Args:
        path: the file.
        setting: what it was given by, for the messages.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not a fairseq checkpoint, or cannot be loaded without running code that it carries.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{setting}: no checkpoint at {path}; give the path of an existing .pt file")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(
            f"{setting}: {path} cannot be loaded safely; a checkpoint written by fairseq-hydra-train or "
            f"by MMPT is needed ({str(error).splitlines()[0]})"
        ) from error
    if not isinstance(checkpoint, dict) or "model" not in checkpoint:
        raise ValueError(f"{setting}: {path} holds no 'model': it is not a checkpoint of fairseq")
    return checkpoint


def model_settings(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """The `model` settings that one of our checkpoints was trained with; empty for MMPT's."""
    settings = (checkpoint.get("cfg") or {}).get("model")
    return dict(settings) if isinstance(settings, dict) and settings.get("_name") == "videoclip" else {}


def feature_settings(checkpoint: dict[str, Any]) -> dict[str, Any] | None:
    """How the features were made that one of our checkpoints was trained on; None where its shards did not say."""
    settings = (checkpoint.get("task_state") or {}).get("features")
    return dict(settings) if isinstance(settings, dict) else None


def fine_tuned_on(checkpoint: dict[str, Any]) -> str | None:
    """The benchmark that one of our checkpoints was fine-tuned on; None for any other."""
    match (checkpoint.get("cfg") or {}).get("task"):
        case {"_name": "videoclip_finetuning", "benchmark": benchmark}:
            return str(benchmark)
    return None


def sha256(path: Path) -> str:
    """Hash of the file's bytes, to name a checkpoint in results."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
