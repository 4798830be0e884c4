"""Imports point downwards only, and readers and metrics stand without torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "mmpt_plugin"
ALLOWED = {  # part -> parts that it may import besides itself and the bottom layer, `files` and `extras`
    "files": set(),
    "captions": set(),
    "data": {"captions"},
    "models": {"bounds", "data"},
    "criterions": {"bounds", "data", "models"},
    "runs": {"bounds", "data", "models"},
    "retrieval": {"bounds", "data", "models", "criterions", "runs"},
    "evaluation": {"bounds", "captions", "data", "models", "criterions", "features", "inference"},
    "finetuning": {"bounds", "data", "evaluation"},
    "features": {"data"},
    "preparation": {"captions", "data", "models", "evaluation", "features", "finetuning"},
    "search": {"captions", "data", "models", "evaluation", "features", "inference"},
    "report": {"data", "features", "evaluation", "search"},
    "inference": {"data", "models", "features"},
    "commands": {"data", "models", "features", "inference", "evaluation", "report"},
    "own_videos": {"captions", "data", "features", "preparation"},
    "tasks": {
        "inference",
        "own_videos",
        "preparation",
        "optimizers",
        "bounds",
        "data",
        "models",
        "criterions",
        "retrieval",
        "runs",
        "evaluation",
        "features",
        "finetuning",
        "report",
    },
}
WITHOUT_TORCH = [
    *(PACKAGE / "evaluation" / "benchmarks").glob("*.py"),
    *(PACKAGE / "evaluation" / name for name in ("metrics.py", "windows.py", "bootstrap.py", "results.py")),
    *(
        PACKAGE / "data" / name
        for name in (
            "clips.py",
            "shards.py",
            "ragged_arrays.py",
            "shard_writer.py",
            "mmpt_shards.py",
            "corpus.py",
            "feature_folder.py",
            "windows.py",
        )
    ),
    *(PACKAGE / "report").glob("*.py"),
    PACKAGE / "features" / "manifest.py",
    PACKAGE / "evaluation" / "annotation_files.py",
    PACKAGE / "finetuning" / "training_sets.py",
    *(PACKAGE / "retrieval" / name for name in ("clusters.py", "index.py")),
]


def imported(path: Path) -> set[str]:
    """Full names of all modules that a file imports, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("path", [*sorted(PACKAGE.glob("*/**/*.py")), PACKAGE / "inference.py"], ids=str)
def test_imports_point_downwards(path):
    part = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    parts = {name.split(".")[1] for name in imported(path) if name.startswith("mmpt_plugin.")}
    assert parts - {part} <= ALLOWED[part] | {"files", "extras"}


def test_pure_modules_work_where_there_is_no_torch():
    """All but the pages in one interpreter in which importing torch or transformers fails, also by way of another module."""
    names = [
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
        for path in WITHOUT_TORCH
        if "report" not in path.parts
    ]
    code = (
        "import importlib, sys; sys.modules['torch'] = sys.modules['transformers'] = None\n"
        f"for name in {names}: importlib.import_module(name)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", WITHOUT_TORCH, ids=lambda path: path.name)
def test_pure_modules_do_not_import_torch(path):
    roots = {name.split(".")[0] for name in imported(path)}
    assert not roots & {"torch", "fairseq", "transformers"}
