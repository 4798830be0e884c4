"""The pages tell the truth: every command in them is run by a test or marked as needing data, and what it names exists."""

import contextlib
import importlib
import io
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[1]
PAGES = [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
BLOCK = re.compile(
    r"(?:<!-- (?P<mark>\w+): (?P<why>.*?) -->\n)?```(?P<language>bash|python)\n(?P<code>.*?)```", re.DOTALL
)
BLOCKS = [
    pytest.param(page, match, id=f"{page.name}:{page.read_text()[: match.start()].count(chr(10)) + 1}")
    for page in PAGES
    for match in BLOCK.finditer(page.read_text())
]
OTHERS = ("pip", "python", "pre-commit", "git", "fairseq-train", "[", "export")  # programs that are not ours
ENTRIES = dict(re.findall(r'"(mmpt-[\w-]+)=([\w.:]+)"', (REPOSITORY / "setup.py").read_text()))


def commands(code: str) -> list[list[str]]:
    """The words of each command of a block, continued lines joined, comments left out."""
    lines = [shlex.split(line, comments=True) for line in code.replace("\\\n", " ").splitlines()]
    return [line for line in lines if line]


def help_of(main) -> str:
    """What a command prints when it is asked for help."""
    with contextlib.redirect_stdout(io.StringIO()) as said, pytest.raises(SystemExit):
        main()
    return said.getvalue()


def entry_point(name: str):
    module, _, function = ENTRIES[name].partition(":")
    return getattr(importlib.import_module(module), function)


def keys_of(name: str) -> set[str]:
    """Dotted keys that a configuration lists, in its own file and in those behind it."""
    folder = REPOSITORY / "projects" / "videoclip"
    content = yaml.safe_load((folder / f"{name}.yaml").read_text())
    behind = [entry for entry in content.pop("defaults", []) if isinstance(entry, str) and entry != "_self_"]

    def leaves(tree: dict, prefix: str = "") -> set[str]:
        nested = (leaves(v, f"{prefix}{k}.") if isinstance(v, dict) else {f"{prefix}{k}"} for k, v in tree.items())
        return set().union(*nested)

    return leaves(content).union(*(keys_of(part) for part in behind))


@pytest.mark.parametrize(("page", "block"), BLOCKS)
def test_a_block_is_tested_or_says_what_it_needs(page, block):
    assert block["mark"] in ("tested", "needs"), "say <!-- tested: TEST --> or <!-- needs: DATA --> above the block"
    if block["mark"] == "tested":
        for test in block["why"].split(", "):
            path, _, name = test.split(" ")[0].partition("::")
            assert (REPOSITORY / path).is_file(), test
            assert not name or f"def {name}(" in (REPOSITORY / path).read_text(), test


@pytest.mark.parametrize(("page", "block"), [case for case in BLOCKS if case.values[1]["language"] == "bash"])
def test_what_a_command_names_exists(page, block):
    for words in commands(block["code"]):
        program, arguments = words[0], words[1:]
        if "fairseq-hydra-train" in " ".join(words):
            name = words[words.index("--config-name") + 1]
            given = {word.partition("=")[0] for word in words[words.index("--config-name") + 2 :] if "=" in word}
            fairseqs = {key for key in given if key.startswith(("+", "distributed_training."))}
            assert given - fairseqs <= keys_of(name)
        elif program == "make":
            assert f"\n{arguments[0]}:" in (REPOSITORY / "Makefile").read_text(), arguments[0]
        elif program in ENTRIES:
            subcommand = arguments[:1] if program == "mmpt-search" and not arguments[0].startswith("-") else []
            said = help_of(lambda: entry_point(program)([*subcommand, "--help"]))  # noqa: B023 (called at once)
            for option in arguments:
                assert not option.startswith("-") or option.split("=")[0] in said or option == "--help", option
        elif program.startswith("scripts/") or (program == "python" and arguments[0].startswith("scripts/")):
            assert (REPOSITORY / (program if program.startswith("scripts/") else arguments[0])).is_file()
        elif program == "python" and arguments[0] == "-m" and arguments[1].startswith(("demo", "mmpt_plugin")):
            assert (REPOSITORY / f"{arguments[1].replace('.', '/')}.py").is_file()
        else:
            assert program.removeprefix(".venv/bin/") in OTHERS, words


def test_every_page_of_the_site_can_be_found():
    listed = (REPOSITORY / "mkdocs.yml").read_text()
    missing = [
        page for page in (REPOSITORY / "docs").rglob("*.md") if str(page.relative_to(REPOSITORY / "docs")) not in listed
    ]
    assert not missing


def test_make_help_lists_every_target(capfd):
    text = (REPOSITORY / "Makefile").read_text()
    targets = set(re.search(r"^\.PHONY: (.*)$", text, re.MULTILINE)[1].split())
    explained = {line.partition(":")[0] for line in text.splitlines() if re.match(r"[a-z-]+:.*  ## ", line)}
    assert targets == explained | {"help"} and "help" in explained


def test_the_readmes_python(tiny_checkpoint, capsys):
    code = next(block["code"] for page, block in (case.values for case in BLOCKS)
                if page.name == "README.md" and block["language"] == "python")  # fmt: skip
    arrays = dict(zip("abc", np.random.default_rng(0).standard_normal((3, 40, 512)).astype(np.float32)))
    exec(code.replace("runs/demo/checkpoint_best.pt", str(tiny_checkpoint)), arrays)
    assert arrays["texts"].shape[0] == 2 and arrays["videos"].shape[0] == 3
    assert capsys.readouterr().out.startswith("tensor([[")
