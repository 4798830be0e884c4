"""Where a package is missing that comes with an extra, the message at the point of use names the extra."""

import json
import os
import subprocess
import sys
from importlib.metadata import packages_distributions, requires
from pathlib import Path

import pytest

from mmpt_plugin.extras import EXTRAS, MissingExtra, naming_extras

REPOSITORY = Path(__file__).resolve().parents[1]

COMMANDS = {
    "mmpt-extract": ["features.command", "--videos", "films", "--out", "out", "--checkpoint", "weights.pth"],
    "mmpt-captions": ["preparation.prepare_captions", "words.srt", "--out", "out", "--bert", "bert"],
    "mmpt-transcribe": ["preparation.transcribe", "films", "--out", "out"],
    "mmpt-transcribe --ray": ["preparation.transcribe", "films", "--out", "out", "--ray", "local"],
    "mmpt-search index": ["search.command", "index", "films", "--library", "lib", "--checkpoint", "a.pt"],
    "mmpt-search serve": ["search.command", "serve", "lib"],
    "mmpt-report": ["report.command", "results.json"],
    "mmpt-results": ["report.collect", "results.json", "--html", "page.html"],
    "tasks": ["tasks"],
    "VideoLibrary": ["search", "VideoLibrary"],
}
CASES = [
    ("mmpt-extract", "av", "prepare"),
    ("mmpt-captions", "pysubs2", "prepare"),
    ("mmpt-captions", "ijson", "prepare"),
    ("mmpt-transcribe", "av", "speech"),
    ("mmpt-transcribe", "faster_whisper", "speech"),
    ("mmpt-transcribe --ray", "ray", "ray"),
    ("mmpt-search index", "av", "search"),
    ("mmpt-search index", "pysubs2", "search"),
    ("mmpt-search serve", "starlette", "search"),
    ("mmpt-search serve", "uvicorn", "search"),
    ("mmpt-search serve", "jinja2", "search"),
    ("mmpt-report", "jinja2", "report"),
    ("mmpt-report", "altair", "report"),
    ("mmpt-report", "vl_convert", "report"),
    ("mmpt-report", "PIL", "report"),
    ("mmpt-results", "altair", "report"),
    ("tasks", "fairseq", "train,fairseq"),
    ("tasks", "omegaconf", "train"),
    ("tasks", "hydra", "train"),
    ("VideoLibrary", "av", "search"),
]
# One interpreter imports what is slow, then forks for each case: a package that is None in sys.modules cannot be imported.
IN_FORKS = """
import importlib, json, os, sys
import torch
from transformers import BertModel, BertTokenizer
for blocked, module, arguments in json.load(sys.stdin):
    print("=" * 9, flush=True)
    if os.fork() == 0:
        os.dup2(1, 2)
        sys.modules[blocked], code = None, 1
        try:
            found = importlib.import_module(f"mmpt_plugin.{module}")
            if hasattr(found, "main"):
                code = found.main(arguments)
            else:
                [getattr(found, name) for name in arguments]
                code = 0
        except SystemExit as end:
            code = end.code
        except ImportError as error:
            print(error)
        finally:
            sys.stdout.flush()
            print("exit code", code, flush=True)
            os._exit(0)
    os.wait()
"""


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], str]:
    """What each case says and its exit code."""
    folder = tmp_path_factory.mktemp("extras")
    (folder / "films").mkdir()
    (folder / "films" / "one.mp4").touch()
    (folder / "results.json").write_text("{}")
    (folder / "words.srt").write_text("1\n00:00:01,000 --> 00:00:02,000\nadd the onions\n")
    (folder / "lib").mkdir()
    cases = [(blocked, COMMANDS[command][0], COMMANDS[command][1:]) for command, blocked, _ in CASES]
    done = subprocess.run(
        [sys.executable, "-c", IN_FORKS],
        input=json.dumps(cases),
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return {case[:2]: text for case, text in zip(CASES, done.stdout.split("=" * 9 + "\n")[1:], strict=True)}


@pytest.mark.slow
@pytest.mark.parametrize(("command", "package", "extra"), CASES)
def test_the_extra_is_named_where_it_is_used(
    said: dict[tuple[str, str], str], command: str, package: str, extra: str
) -> None:
    text = said[command, package]
    assert f"needs the package {package}, which is not installed: pip install 'mmpt_plugin[{extra}]'" in text
    assert "Traceback" not in text and "exit code 0" not in text


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="fairseq is not installed there")
def test_the_table_knows_all_that_the_extras_bring() -> None:
    modules: dict[str, list[str]] = {}
    for module, distributions in packages_distributions().items():
        for distribution in distributions:
            modules.setdefault(distribution.lower().replace("_", "-"), []).append(module)
    unused = {"gpu", "dev", "docs", "pictures"}  # another distribution of faiss; what only a checkout uses
    for requirement in requires("mmpt_plugin") or ():
        if " extra ==" not in requirement.replace(";", " "):
            continue
        name, extra = requirement.split(";")[0], requirement.split("==")[-1].strip(" \"'")
        distribution = name.split(">")[0].split("<")[0].split("[")[0].strip().lower().replace("_", "-")
        if extra in unused or distribution not in modules:
            continue
        named = [brought for module in modules[distribution] for brought in EXTRAS.get(module, ())]
        assert extra in ",".join(named).split(","), f"{distribution} of the extra {extra} is not in EXTRAS"


def test_other_missing_modules_stay_as_they_are() -> None:
    with pytest.raises(ModuleNotFoundError, match="no_such_module"), naming_extras("search"):
        import no_such_module  # noqa: F401
    message = r"^a page needs the package altair, .*mmpt_plugin\[report\]'$"  # search does not bring it
    with pytest.raises(MissingExtra, match=message), naming_extras("search", "a page"):
        raise ModuleNotFoundError(name="altair.vegalite")
