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


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a checkpoint file of fairseq.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not a fairseq checkpoint, or cannot be loaded without running code that it carries.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"checkpoint.restore_file: no checkpoint at {path}; give the path of an existing .pt file"
        )
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(
            f"checkpoint.restore_file: {path} cannot be loaded safely; a checkpoint written by fairseq-hydra-train or "
            f"by MMPT is needed ({str(error).splitlines()[0]})"
        ) from error
    if not isinstance(checkpoint, dict) or "model" not in checkpoint:
        raise ValueError(f"checkpoint.restore_file: {path} holds no 'model': it is not a checkpoint of fairseq")
    return checkpoint


def model_settings(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """The `model` settings that one of our checkpoints was trained with; empty for MMPT's."""
    settings = (checkpoint.get("cfg") or {}).get("model")
    return dict(settings) if isinstance(settings, dict) and settings.get("_name") == "videoclip" else {}


def sha256(path: Path) -> str:
    """Hash of the file's bytes, to name a checkpoint in results."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
