"""Video-text contrastive pre-training (VideoCLIP) as a plug-in for fairseq.

`VideoClip` needs torch, transformers and numpy alone, and importing the package imports none of them. What registers with
fairseq (`mmpt_plugin.tasks`) is imported once fairseq is: at once where fairseq was imported before, else when it is.
"""

from __future__ import annotations

import importlib
import sys
from importlib.machinery import ModuleSpec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmpt_plugin.inference import VideoClip

__all__ = ["VideoClip"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import `VideoClip` on first use."""
    if name == "VideoClip":
        return importlib.import_module("mmpt_plugin.inference").VideoClip
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class _AfterFairseq:
    """A finder of modules that, when fairseq has been imported, imports what registers with it.

    fairseq looks for tasks, models and criterions in registries that its plug-ins fill. Without this, whether
    `fairseq.checkpoint_utils.load_model_ensemble_and_task` works would depend on which of the two is imported first.
    """

    @classmethod
    def find_spec(cls, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """fairseq's own specification, whose loader registers our classes afterwards."""
        if name != "fairseq":
            return None
        others = (finder.find_spec(name, path, target) for finder in sys.meta_path if finder is not cls)
        spec = next((found for found in others if found), None)
        if spec and spec.loader:
            execute = spec.loader.exec_module

            def execute_and_register(module: Any) -> None:
                execute(module)
                _register()

            spec.loader.exec_module = execute_and_register  # type: ignore[method-assign]
        return spec


def _register() -> None:
    """Import the tasks, unless one of our modules is what imported fairseq and is not complete yet."""
    ours = [module for name, module in sys.modules.items() if name.startswith(f"{__name__}.")]
    if not any(getattr(module.__spec__, "_initializing", False) for module in ours):
        importlib.import_module("mmpt_plugin.tasks")


if "fairseq" in sys.modules:
    importlib.import_module("mmpt_plugin.tasks")
else:
    sys.meta_path.insert(0, _AfterFairseq)
