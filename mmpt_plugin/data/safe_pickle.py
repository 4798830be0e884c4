"""Reading pickles made by others without letting them run anything.

A pickle is a program: it can name any Python function (a "global") and call it while it is read. Plain data never needs
one, so a file that names a global is refused before anything is looked up.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

# What numpy's arrays and scalars name when they are pickled, by whatever version of numpy and Python.
ARRAY_GLOBALS = frozenset(
    {("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode")}
    | {(f"numpy.{core}.multiarray", name) for core in ("core", "_core") for name in ("_reconstruct", "scalar")}
    | {(f"numpy.{core}.numeric", "_frombuffer") for core in ("core", "_core")}
)


class SkippedArray:
    """Stands where a pickle holds a numpy array that is not wanted; takes its content and forgets it."""

    def __init__(self, *content: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


class _PlainUnpickler(pickle.Unpickler):
    """Builds containers, strings, bytes and numbers; https://docs.python.org/3/library/pickle.html#restricting-globals."""

    skip_arrays = False

    def find_class(self, module_name: str, global_name: str) -> Any:
        if self.skip_arrays and (module_name, global_name) in ARRAY_GLOBALS:
            return SkippedArray
        raise pickle.UnpicklingError(f"it asks for the global {module_name}.{global_name}, which could run code")


def load_plain_pickle(path: str | Path, *, skip_arrays: bool = False) -> Any:
    """Loads a pickle of dicts, lists, tuples, sets, strings, bytes, numbers, booleans and None.

    Args:
        path: the pickle, of any protocol. Strings that Python 2 wrote are read as UTF-8.
        skip_arrays: numpy arrays and scalars are allowed too, but not built: a `SkippedArray` stands in their place.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the pickle names a global (any class or function), or is damaged.
    """
    with open(path, "rb") as file:
        try:
            # Python 2 wrote an array's bytes as a string, which need not be UTF-8
            unpickler = _PlainUnpickler(file, encoding="utf-8", errors="surrogateescape" if skip_arrays else "strict")
            unpickler.skip_arrays = skip_arrays
            return unpickler.load()
        except Exception as error:  # a damaged pickle may raise nearly anything, as the module's documentation says
            raise ValueError(
                f"{path}: refused, {error}. Only pickles of plain lists, dicts, strings and numbers are read; "
                "get the file again from its source, or save its content as plain data."
            ) from error
