#!/usr/bin/env python3
"""Change the code one small step at a time, and list the changes that no test notices.

    scripts/mutate.py                        # the modules below, each by its own tests
    scripts/mutate.py clusters --most 50     # one of them, at most so many changes, drawn at random

A change swaps an operator or a comparison, moves a number by one, turns a condition around, or drops a `not`. The tests of a
changed module must fail. A change that they pass is printed: either a test is missing, or the change means the same. Works on
a copy; each trial is a forked process that has the libraries imported already.
"""

from __future__ import annotations

import argparse
import ast
import copy
import io
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WAIT = 10  # a trial may take so many times its processor seconds, where other work shares the machine
MODULES = {  # name -> the module, and the fast tests that must notice
    "clips": ("mmpt_plugin/data/clips.py", ["tests/data/test_clips.py"]),
    "clusters": ("mmpt_plugin/retrieval/clusters.py", ["tests/retrieval/test_clusters.py"]),
    "cluster_groups": ("mmpt_plugin/retrieval/cluster_groups.py", ["tests/retrieval/test_cluster_groups.py"]),
    "metrics": ("mmpt_plugin/evaluation/metrics.py", ["tests/evaluation/test_metrics.py"]),
    "contrastive": ("mmpt_plugin/criterions/contrastive.py", ["tests/criterions/test_contrastive.py"]),
    "frame_losses": ("mmpt_plugin/criterions/frame_losses.py", ["tests/criterions/test_frame_losses.py"]),
    "mil_nce": ("mmpt_plugin/criterions/mil_nce.py", ["tests/criterions/test_mil_nce.py"]),
    "epoch_iterator": ("mmpt_plugin/data/epoch_iterator.py", ["tests/data/test_epoch_iterator.py"]),
}
SWAPS: dict[type, type] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult,
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.And: ast.Or, ast.Or: ast.And, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip


def changes_of(node: ast.AST) -> Iterator[ast.AST]:
    """The changed forms of one node."""
    changed = copy.deepcopy(node)
    if isinstance(changed, ast.BinOp | ast.BoolOp) and type(changed.op) in SWAPS:
        changed.op = SWAPS[type(changed.op)]()
        yield changed
    elif isinstance(changed, ast.Compare) and type(changed.ops[0]) in SWAPS:
        changed.ops[0] = SWAPS[type(changed.ops[0])]()
        yield changed
    elif isinstance(changed, ast.UnaryOp) and isinstance(changed.op, ast.Not):
        yield changed.operand
    elif isinstance(changed, ast.Constant) and isinstance(changed.value, bool):
        changed.value = not changed.value
        yield changed
    elif isinstance(changed, ast.Constant) and isinstance(changed.value, int | float):
        changed.value += 1
        yield changed
    elif isinstance(changed, ast.If | ast.IfExp):
        changed.test = ast.UnaryOp(ast.Not(), changed.test)
        yield changed


def mutants(source: str) -> list[tuple[str, str]]:
    """Each change of a module: where and what it is, and the module's new source."""
    tree = ast.parse(source)
    left_alone = {  # annotations and messages change nothing that a test should see
        id(inner)
        for node in ast.walk(tree)
        for part in [getattr(node, "annotation", None), getattr(node, "returns", None)]
        + ([node] if isinstance(node, ast.Raise | ast.Assert | ast.JoinedStr) else [])
        if part
        for inner in ast.walk(part)
    }
    found = []
    for parent in ast.walk(tree):
        for field, value in ast.iter_fields(parent):
            for position, node in enumerate(value if isinstance(value, list) else [value]):
                if not isinstance(node, ast.AST) or id(node) in left_alone:
                    continue
                for changed in changes_of(node):
                    if isinstance(value, list):
                        value[position] = changed
                    else:
                        setattr(parent, field, changed)
                    place = f"{node.lineno}: {ast.unparse(node).splitlines()[0]}"  # type: ignore[attr-defined]
                    found.append((f"{place}  ->  {ast.unparse(changed).splitlines()[0]}", ast.unparse(tree)))
                    if isinstance(value, list):
                        value[position] = node
                    else:
                        setattr(parent, field, node)
    return found


def passes(copy_of_root: Path, tests: list[str], limit: int) -> bool:
    """Whether the tests pass in the copy; a trial that computes or waits for too long has noticed, too."""
    child = os.fork()
    if child == 0:
        os.setsid()
        resource.setrlimit(resource.RLIMIT_CPU, (limit, limit))
        signal.alarm(WAIT * limit)
        os.chdir(copy_of_root)
        sys.path.insert(0, str(copy_of_root))
        sys.dont_write_bytecode = True
        import pytest

        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            code = pytest.main(["-x", "-q", "-p", "no:cacheprovider", *tests])
        os._exit(int(code != 0))
    _, status = os.waitpid(child, 0)
    with suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # what it started
    return status == 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(MODULES))
    parser.add_argument("--most", type=int, default=10**6, help="changes to a module, drawn at random")
    parser.add_argument("--limit", type=int, default=60, help="processor seconds for a trial (60)")
    args = parser.parse_args()
    if unknown := set(args.names) - MODULES.keys():
        parser.error(f"unknown: {', '.join(sorted(unknown))}; known are {', '.join(MODULES)}")
    os.environ["OMP_NUM_THREADS"] = "1"
    import fairseq_cli.hydra_train  # noqa: F401 (imported once, here: the forked trials share it)
    import hypothesis  # noqa: F401
    import scipy.stats  # noqa: F401
    import torch
    import transformers  # noqa: F401

    torch.set_num_threads(1)
    survived = 0
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "copy"
        shutil.copytree(ROOT, place, ignore=shutil.ignore_patterns(".venv", ".git", "runs", "__pycache__", "site"))
        if (ROOT.parent / "shared").exists():
            (Path(folder) / "shared").symlink_to(ROOT.parent / "shared")
        for name in args.names or MODULES:
            path, tests = MODULES[name]
            source = (place / path).read_text()
            if not passes(place, tests, args.limit):
                sys.exit(f"{name}: its tests fail as it is")
            found = mutants(source)
            found = random.Random(0).sample(found, min(args.most, len(found)))
            alive = []
            for what, changed in found:
                (place / path).write_text(changed)
                if passes(place, tests, args.limit):
                    alive.append(what)
                    print(f"{path}:{what}", flush=True)
            (place / path).write_text(source)
            survived += len(alive)
            print(f"{name}: {len(alive)} of {len(found)} changes survived", flush=True)
    return int(survived > 0)


if __name__ == "__main__":
    sys.exit(main())
