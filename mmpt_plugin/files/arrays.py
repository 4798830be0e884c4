"""Arrays of numpy: single .npy files, which are mapped, and .npz archives."""

from __future__ import annotations

import io
import math
import threading
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy

from mmpt_plugin.files.checks import UnusableFile, kind_of, require_file

MOST_HEADER_BYTES = 1 << 16
_parsing = threading.Lock()
"""numpy evaluates headers as Python, and Python 3.11 counts the depth of such a text for all threads together."""

HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


@dataclass(frozen=True)
class ArrayHeader:
    """What a .npy file says of itself: the data begin `offset` bytes after its start."""

    shape: tuple[int, ...]
    dtype: np.dtype
    offset: int
    fortran_order: bool = False

    @property
    def nbytes(self) -> int:
        """Bytes of the data, without the header."""
        return math.prod(self.shape) * self.dtype.itemsize


def read_array_header(
    path: str | Path, *, dtypes: Sequence[str] | None = None, dimensions: int | None = None
) -> ArrayHeader:
    """Reads a .npy file's header and compares it with the file's size; the data are not read.

    Args:
        path: the file.
        dtypes: names of the dtypes that are allowed; default: all plain ones.
        dimensions: the number of dimensions that it must have.

    Raises:
        FileNotFoundError: there is no such file.
        UnusableFile: it is no .npy file, is of another dtype or shape, in Fortran order, cut, or followed by other bytes.
    """
    path = require_file(path)
    with path.open("rb") as file:
        header = _parse_header(file, str(path), path.stat().st_size)
    if header.fortran_order:
        raise UnusableFile(f"{path}: the array is in Fortran order; save it again after np.ascontiguousarray")
    allowed = [np.dtype(name) for name in dtypes] if dtypes else [header.dtype]
    if header.dtype not in allowed or dimensions not in (None, len(header.shape)):
        wanted = " or ".join(dtypes or ["any dtype"]) + (f" with {dimensions} dimensions" if dimensions else "")
        raise UnusableFile(f"{path}: holds {header.dtype} of shape {header.shape}, expected {wanted}")
    return header


def open_array(path: str | Path, *, dtypes: Sequence[str] | None = None, dimensions: int | None = None) -> np.ndarray:
    """The array of a .npy file, mapped read-only; arguments and errors as those of `read_array_header`."""
    header = read_array_header(path, dtypes=dtypes, dimensions=dimensions)
    if not header.nbytes:  # an empty map is not allowed
        return np.empty(header.shape, header.dtype)
    return np.memmap(path, header.dtype, mode="r", offset=header.offset, shape=header.shape)


def read_arrays(path: str | Path, *, limit: int = 2**34) -> dict[str, np.ndarray]:
    """The arrays of a .npz archive by name.

    Args:
        path: the archive.
        limit: most bytes that its arrays may take when unpacked.

    Raises:
        FileNotFoundError: there is no such file.
        UnusableFile: it is no archive of plain arrays, is damaged (each member's checksum is compared), or too large.
    """
    path = require_file(path)
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if (total := sum(member.file_size for member in members)) > limit:
                raise UnusableFile(f"{path}: unpacks to {total:,} bytes, at most {limit:,} are read")
            arrays = {}
            for member in members:
                with archive.open(member) as file:
                    header = _parse_header(file, f"{path} ({member.filename})", member.file_size)
                    data = file.read()
                array = np.frombuffer(data, header.dtype).reshape(
                    header.shape, order="F" if header.fortran_order else "C"
                )
                arrays[member.filename.removesuffix(".npy")] = array
            return arrays
    except UnusableFile:
        raise
    except Exception as error:  # a damaged archive may raise nearly anything
        kind = kind_of(path.open("rb").read(200)) if not zipfile.is_zipfile(path) else None
        why = f"this is {kind}" if kind else f"damaged or another kind of file ({error})"
        raise UnusableFile(f"{path}: {why}; a .npz archive of numpy is needed") from error


def _parse_header(file: IO[bytes], name: str, size: int) -> ArrayHeader:
    beginning = io.BytesIO(file.read(MOST_HEADER_BYTES))
    try:
        with _parsing:
            shape, fortran_order, dtype = HEADERS[npy.read_magic(beginning)](beginning)
        offset = file.seek(beginning.tell())
    except Exception as error:  # numpy evaluates the header as Python: tokenize, memory and recursion errors come too
        raise UnusableFile(f"{name}: not a whole .npy array ({type(error).__name__}: {error})") from error
    if dtype.hasobject:
        raise UnusableFile(f"{name}: holds Python objects, which are not read, as reading them could run code")
    header = ArrayHeader(shape, dtype, offset, fortran_order and len(shape) > 1)
    if any(isinstance(length, bool) or length < 0 for length in shape) or size != offset + header.nbytes:
        raise UnusableFile(
            f"{name}: truncated or altered: {size:,} bytes, but its header (shape {shape}, {dtype}) asks for "
            f"{offset + header.nbytes:,}"
        )
    return header
