"""Reading pickles made by others without letting them run anything.

A pickle is a program: it can name any Python function (a "global") and call it while it is read. Plain data never needs
one, so a file that names a global is refused before anything is looked up.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any


class _PlainUnpickler(pickle.Unpickler):
    """Builds containers, strings, bytes and numbers; https://docs.python.org/3/library/pickle.html#restricting-globals."""

    def find_class(self, module_name: str, global_name: str) -> Any:
        raise pickle.UnpicklingError(f"it asks for the global {module_name}.{global_name}, which could run code")


def load_plain_pickle(path: str | Path) -> Any:
    """Loads a pickle of dicts, lists, tuples, sets, strings, bytes, numbers, booleans and None.

    Args:
        path: the pickle, of any protocol. Strings that Python 2 wrote are read as UTF-8.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the pickle names a global (any class or function), or is damaged.
    """
    with open(path, "rb") as file:
        try:
            return _PlainUnpickler(file, encoding="utf-8").load()
        except Exception as error:  # a damaged pickle may raise nearly anything, as the module's documentation says
            raise ValueError(
                f"{path}: refused, {error}. Only pickles of plain lists, dicts, strings and numbers are read; "
                "get the file again from its source, or save its content as plain data."
            ) from error
