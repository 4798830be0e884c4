"""Every command that setup.py installs names a function that takes its arguments from the caller."""

import ast
import importlib
import inspect
from pathlib import Path

import pytest

SETUP = Path(__file__).resolve().parents[1] / "setup.py"
ENTRIES = [
    node.value
    for node in ast.walk(ast.parse(SETUP.read_text()))
    if isinstance(node, ast.Constant) and str(node.value).startswith("mmpt-")
]


def test_the_commands_are_there():
    names = {entry.partition("=")[0] for entry in ENTRIES}
    assert {"mmpt-captions", "mmpt-check", "mmpt-configs", "mmpt-extract", "mmpt-results", "mmpt-shards"} <= names


@pytest.mark.parametrize("entry", ENTRIES)
def test_a_command_is_a_function_that_explains_itself(entry, capsys):
    module, _, function = entry.partition("=")[2].partition(":")
    main = getattr(importlib.import_module(module), function)
    assert len(inspect.signature(main).parameters) == 1
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    assert end.value.code == 0 and "usage:" in capsys.readouterr().out
