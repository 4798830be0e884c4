"""Reading pickles made by others without letting them run anything or fill the memory.

A pickle is a program: it can name any Python function (a "global") and call it while it is read. Plain data never needs
one, so a file that names a global is refused before anything is looked up. The program's instructions are walked through
first, without doing them: a few of them could claim gigabytes or nest tuples until the interpreter crashes.
"""

from __future__ import annotations

import pickle
import pickletools
from pathlib import Path
from typing import Any, NamedTuple

from mmpt_plugin.files.checks import UnusableFile, require_file

# What numpy's arrays and scalars name when they are pickled, by whatever version of numpy and Python.
ARRAY_GLOBALS = frozenset(
    {("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode")}
    | {(f"numpy.{core}.multiarray", name) for core in ("core", "_core") for name in ("_reconstruct", "scalar")}
    | {(f"numpy.{core}.numeric", "_frombuffer") for core in ("core", "_core")}
)
MOST_BYTES = 2**31
MOST_NESTED = 100
MOST_MEMBERS = 10**8  # of a value, counted again wherever it stands again


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


def load_pickle(path: str | Path, *, skip_arrays: bool = False) -> Any:
    """Loads a pickle of dicts, lists, tuples, sets, strings, bytes, numbers, booleans and None.

    Args:
        path: the pickle, of any protocol. Strings that Python 2 wrote are read as UTF-8.
        skip_arrays: numpy arrays and scalars are allowed too, but not built: a `SkippedArray` stands in their place.

    Raises:
        FileNotFoundError: there is no such file.
        UnusableFile: the pickle names a global (any class or function), is damaged, or would take far more memory than
            its own size.
    """
    data = require_file(path, limit=MOST_BYTES).read_bytes()
    try:
        check_pickle(data)
        # Python 2 wrote an array's bytes as a string, which need not be UTF-8
        unpickler = _PlainUnpickler(
            _Reader(data), encoding="utf-8", errors="surrogateescape" if skip_arrays else "strict"
        )
        unpickler.skip_arrays = skip_arrays
        return unpickler.load()
    except Exception as error:  # a damaged pickle may raise nearly anything, as the module's documentation says
        raise UnusableFile(
            f"{path}: refused, {error}. Only pickles of plain lists, dicts, strings and numbers are read; "
            "get the file again from its source, or save its content as plain data."
        ) from error


class _Reader:
    """A file of bytes in memory; `io.BytesIO` would copy them."""

    def __init__(self, data: bytes) -> None:
        self._data, self._place = memoryview(data), 0

    def read(self, count: int = -1) -> bytes:
        end = len(self._data) if count < 0 else self._place + count
        part = bytes(self._data[self._place : end])
        self._place += len(part)
        return part

    def readline(self) -> bytes:
        data = self._data.obj
        assert isinstance(data, bytes)
        end = data.find(b"\n", self._place) + 1 or len(data)
        return self.read(end - self._place)


class _Extent(NamedTuple):
    """How deep a value is nested, and how many members it has in all."""

    nested: int
    members: int


_ATOM, _MARK = _Extent(0, 1), _Extent(-1, 0)


def check_pickle(data: bytes) -> None:
    """Walks through a pickle's instructions without doing them.

    Python hashes a tuple by its members, to any depth, so that a deep one ends the interpreter, and one whose members are
    the same tuple again and again takes for ever. A memo place of 2**32 claims gigabytes.

    Raises:
        ValueError: if the pickle is damaged, nests deeper than `MOST_NESTED`, holds more than `MOST_MEMBERS`, or numbers
            its memo beyond its own size.
    """
    stack: list[_Extent] = []
    memo: dict[int, _Extent] = {}
    for opcode, argument, _ in pickletools.genops(data):
        name = opcode.name
        if "PUT" in name or name == "MEMOIZE":
            place = len(memo) if name == "MEMOIZE" else int(argument or 0)
            if place > len(data):
                raise ValueError(f"it asks for memo place {place:,}, and is {len(data):,} bytes long")
            memo[place] = stack[-1] if stack else _ATOM
        elif "GET" in name:
            stack.append(memo.get(int(argument or 0), _ATOM))
        elif name == "MARK":
            stack.append(_MARK)
        elif name == "DUP":
            stack.append(stack[-1])
        else:
            _apply(opcode, stack)


def _apply(opcode: pickletools.OpcodeInfo, stack: list[_Extent]) -> None:
    """Replaces what an instruction takes from the stack by what it leaves there."""
    taken = []
    for wanted in reversed(opcode.stack_before):
        if wanted is pickletools.stackslice:
            while stack and stack[-1] is not _MARK:
                taken.append(stack.pop())
        elif stack:
            taken.append(stack.pop())
    values = [extent for extent in taken if extent is not _MARK]
    extent = _ATOM
    if values and opcode.stack_after:
        extent = _Extent(1 + max(value.nested for value in values), 1 + sum(value.members for value in values))
        if opcode.name in (
            "APPEND",
            "APPENDS",
            "SETITEM",
            "SETITEMS",
            "ADDITEMS",
            "BUILD",
        ):  # the container is no deeper for itself
            container, *members = values[::-1]
            extent = _Extent(max([container.nested, *(1 + member.nested for member in members)]), extent.members - 1)
        if extent.nested > MOST_NESTED:
            raise ValueError(f"its values are nested deeper than {MOST_NESTED} levels")
        if extent.members > MOST_MEMBERS:
            raise ValueError(f"a value of it has more than {MOST_MEMBERS:,} members")
    stack.extend(extent for _ in opcode.stack_after)
