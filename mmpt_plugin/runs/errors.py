"""Errors that say all there is to say stand alone under fairseq-hydra-train."""

from __future__ import annotations

import functools
import inspect
import os
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig

from mmpt_plugin.files import LockHeld
from mmpt_plugin.runs.processes import NotJoined

PACKAGE = Path(__file__).resolve().parents[1]
CLEAR = (ValueError, OSError, ImportError, LockHeld, NotJoined)
FLAG = "HYDRA_FULL_ERROR"  # hydra's own


def alone(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function; an error that this package raises in it ends a command with its message and without a traceback.

    Only where hydra runs the command: in Python, errors are raised as they are. The environment variable HYDRA_FULL_ERROR=1
    brings the traceback back.
    """

    @functools.wraps(function)
    def shortly(*given: Any, **named: Any) -> Any:
        try:
            return function(*given, **named)
        except CLEAR as error:
            if not HydraConfig.initialized() or os.environ.get(FLAG, "0") != "0" or not _is_ours(error):
                raise
            raise SystemExit(f"{type(error).__name__}: {error}\n({FLAG}=1 shows where it came from)") from error

    shortly.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]  # fairseq asks for argument names
    return shortly


def _is_ours(error: Exception) -> bool:
    """Whether code of this package raised it, and not some library that it called."""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and Path(frames[-1].filename).is_relative_to(PACKAGE)
