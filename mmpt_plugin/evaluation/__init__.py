"""Evaluation: benchmarks (annotations -> what to encode -> metrics), pure metrics, the results file.

Only `encoding.py` and `run.py` know the model. `evaluate` is imported when it is first used, with torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmpt_plugin.evaluation.run import evaluate

__all__ = ["evaluate"]


def __getattr__(name: str) -> Any:
    if name == "evaluate":
        return importlib.import_module("mmpt_plugin.evaluation.run").evaluate
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
