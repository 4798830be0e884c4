"""scripts/evaluate_*.sh: the paths that a user types are the paths that hydra reads."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from mmpt_plugin.evaluation.benchmarks import BENCHMARKS

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
STUB = "#!/usr/bin/env bash\nprintf '%s\\n' \"$@\"\n"


@pytest.fixture
def evaluate(tmp_path):
    """Runs a script of a copied checkout, whose fairseq-hydra-train only shows its arguments."""
    shutil.copytree(SCRIPTS, tmp_path / "scripts", ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    stub = tmp_path / ".venv" / "bin" / "fairseq-hydra-train"
    stub.write_text(STUB)
    stub.chmod(0o755)

    def run(name: str, *arguments: str) -> subprocess.CompletedProcess:
        command = [tmp_path / "scripts" / f"evaluate_{name}.sh", *arguments]
        return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "LC_ALL": "C.UTF-8"})

    return run


@pytest.mark.parametrize(
    "odd",
    [
        "a=b",
        "videos (2021)",
        "a,b",
        "café",
        "\u6599\u7406",
        "a#b",
        "a&b",
        "~x",
        "it's",
        "a\\'b",
        "end\\",
        "[x]{y}",
        'q"q',
        "a:b c",
    ],
)
def test_paths_reach_hydra_as_they_are(evaluate, odd):
    done = evaluate("coin", f"/c/{odd}", f"/d/{odd}", f"/r/{odd}", "task.on_missing=skip")
    assert done.returncode == 0, done.stderr
    _, folder, _, name, *overrides = done.stdout.splitlines()
    assert folder.endswith("projects/videoclip") and name == "zeroshot_coin"
    values = {o.key_or_group: o.value() for o in OverridesParser.create().parse_overrides(overrides)}
    assert values == {
        "task.data": f"/d/{odd}",
        "checkpoint.restore_file": f"/c/{odd}",
        "task.results_path": f"/r/{odd}",
        "task.on_missing": "skip",
    }


@pytest.mark.parametrize("name", BENCHMARKS)
def test_each_benchmark_has_its_script(evaluate, name):
    assert f"zeroshot_{name}\n" in evaluate(name, "c.pt", "data", "out").stdout
    refused = evaluate(name, "c.pt")
    assert refused.returncode == 2 and f"scripts/evaluate_{name}.sh CKPT DIR OUT" in refused.stderr
