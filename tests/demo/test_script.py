"""python -m demo.make_corpus: every number of the world is an option."""

import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

from demo import corpus
from demo.world import DemoWorld


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> tuple[Path, DemoWorld, bool]:
    """What the script asks the writer for."""
    asked: list[tuple[Path, DemoWorld, bool]] = []

    def record(folder: Path, world: DemoWorld, *, overwrite: Any) -> None:
        asked.append((folder, world, overwrite))

    monkeypatch.setattr(corpus, "write_demo_corpus", record)
    monkeypatch.setattr(sys, "argv", ["make_corpus", *arguments])
    runpy.run_module("demo.make_corpus", run_name="__main__")
    (one,) = asked
    return one


def test_defaults_are_the_worlds(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, "data") == (Path("data"), DemoWorld(), False)


def test_options_reach_the_world(monkeypatch: pytest.MonkeyPatch) -> None:
    options = ["--seed", "3", "--train-videos", "50", "--family-cue", "0.5", "--gap-seconds", "2", "9", "--overwrite"]
    world = DemoWorld(seed=3, train_videos=50, family_cue=0.5, gap_seconds=(2, 9))
    assert run(monkeypatch, "data", *options) == (Path("data"), world, True)


def test_help_lists_every_number(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        run(monkeypatch, "--help")
    text = capsys.readouterr().out
    assert "--narration-spread" in text and "--overwrite" in text
