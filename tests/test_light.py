"""What a practitioner needs stays light: fresh interpreters tell what is imported, and how long it takes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
HEAVY = ("torch", "transformers", "numpy", "fairseq", "hydra", "omegaconf", "faiss")


def python(code: str, *arguments: object) -> str:
    """What a fresh interpreter prints."""
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True, timeout=300).stdout


def test_importing_the_package_imports_nothing_heavy() -> None:
    assert python(f"import mmpt_plugin, sys; print([name for name in {HEAVY} if name in sys.modules])") == "[]\n"


WITHOUT_FAIRSEQ = """
import sys
class Absent:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.split(".")[0] in ("fairseq", "hydra", "omegaconf", "faiss"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent)
import numpy as np
from mmpt_plugin import VideoClip
clip = VideoClip.from_pretrained(sys.argv[1])
print((clip.encode_text(["add the onions"]) @ clip.encode_video(features=[np.ones((40, 512))]).T).shape)
"""


def test_embedding_needs_no_fairseq(tiny_checkpoint: Path) -> None:
    assert python(WITHOUT_FAIRSEQ, tiny_checkpoint) == "torch.Size([1, 1])\n"


@pytest.mark.slow
@pytest.mark.parametrize("first, second", [("fairseq", "mmpt_plugin"), ("mmpt_plugin", "fairseq")])
def test_either_order_registers(first: str, second: str) -> None:
    code = f"import {first}, {second}; from fairseq.tasks import TASK_REGISTRY as known; print(*known)"
    assert {"videoclip_pretraining", "videoclip_zeroshot"} <= set(python(code).split())


@pytest.mark.slow
def test_a_checkpoint_opens_with_fairseqs_own_function(tiny_checkpoint: Path) -> None:
    code = """
import sys, mmpt_plugin
from fairseq.checkpoint_utils import load_model_ensemble_and_task
(model,), cfg, task = load_model_ensemble_and_task([sys.argv[1]])
print(type(model).__name__, type(task).__name__)
"""
    assert python(code, tiny_checkpoint).split()[-2:] == ["FairseqVideoClipModel", "VideoClipPretrainingTask"]


def imported(code: str) -> set[str]:
    return set(python(f"{code}; import sys; print(*sys.modules)").split())


@pytest.mark.slow
def test_what_embedding_imports_beyond_torch_and_bert() -> None:
    """Nothing but modules of the package, of Python and of the tokenizers' machinery: docs/performance.md has seconds."""
    libraries = imported("import torch; from transformers import BertModel, BertTokenizer")
    more = imported("from mmpt_plugin import VideoClip") - libraries
    assert {name.split(".")[0] for name in more} - set(sys.stdlib_module_names) <= {
        "mmpt_plugin",
        "transformers",
        "sentencepiece",
    }


FOR_DEVELOPERS = ("bench", "demo_study", "finetune_study", "hardware")
USER_SCRIPTS = [
    path for path in sorted((REPOSITORY / "scripts").glob("*.py")) if not path.name.startswith(FOR_DEVELOPERS)
]


@pytest.mark.parametrize("script", USER_SCRIPTS, ids=lambda path: path.name)
def test_help_imports_no_torch(script: Path) -> None:
    """So that it appears within a second: what takes longer is imported when it is needed."""
    code = f"""
import runpy, sys
sys.argv = [{str(script)!r}, "--help"]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit as end:
    print(end.code, "torch" in sys.modules)
"""
    assert python(code).splitlines()[-1] == "0 False"
