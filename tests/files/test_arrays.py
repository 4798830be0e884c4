"""Headers of .npy files are compared with the files; archives are read without trusting what they claim."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from mmpt_plugin.files import UnusableFile, open_array, read_array_header, read_arrays


def saved(path: Path, array: np.ndarray) -> bytes:
    np.save(path, array)
    return path.read_bytes()


@pytest.mark.parametrize("shape", [(3, 2), (0, 2), (), (4,)])
def test_open_array(tmp_path: Path, shape: tuple[int, ...]):
    array = np.random.default_rng(0).standard_normal(shape).astype(np.float16)
    np.save(tmp_path / "a.npy", array)
    opened = open_array(tmp_path / "a.npy", dtypes=["float16", "float32"], dimensions=len(shape))
    np.testing.assert_array_equal(opened, array)
    assert opened.dtype == np.float16
    assert not opened.nbytes or not opened.flags.writeable


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (b"(22, 5)", b"(5, 5) ", "truncated or altered: .* asks for"),
        (b"(22, 5)", b"(-2, 5)", "truncated or altered"),
        (b"'<f2'", b"'|O' ", "Python objects"),
        (b"'<f2'", b"'<f4'", "truncated or altered"),
        (b"False", b"True ", "Fortran order"),
        (b"{'descr'", b"('descr'", "not a whole .npy array"),
        (b"\x93NUMPY\x01", b"\x93NUMPY\x03", "not a whole .npy array"),
        (b"\x93NUMPY", b"\x93NUMPX", "not a whole .npy array"),
    ],
)
def test_altered_headers(tmp_path: Path, old: bytes, new: bytes, problem: str):
    content = saved(tmp_path / "a.npy", np.zeros((22, 5), np.float16))
    assert old in content
    (tmp_path / "a.npy").write_bytes(content.replace(old, new))
    with pytest.raises(UnusableFile, match=problem):
        open_array(tmp_path / "a.npy")


def test_cut_and_followed_by_bytes(tmp_path: Path):
    content = saved(tmp_path / "a.npy", np.zeros((22, 5), np.float16))
    for altered in (content[:-1], content + b"\0", content[:40], b""):
        (tmp_path / "a.npy").write_bytes(altered)
        with pytest.raises(UnusableFile, match=r"a\.npy"):
            read_array_header(tmp_path / "a.npy")


def test_another_dtype_or_shape(tmp_path: Path):
    np.save(tmp_path / "a.npy", np.zeros((2, 2)))
    with pytest.raises(UnusableFile, match=r"holds float64 .* expected float16 or float32"):
        open_array(tmp_path / "a.npy", dtypes=["float16", "float32"])
    with pytest.raises(UnusableFile, match="with 1 dimensions"):
        open_array(tmp_path / "a.npy", dimensions=1)


def test_read_arrays(tmp_path: Path):
    arrays = {"a": np.arange(6.0).reshape(2, 3), "b": np.array(["x", "yé"]), "c": np.zeros((0, 3), np.int64)}
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "a.npz", **arrays)
        read = read_arrays(tmp_path / "a.npz")
        assert read.keys() == arrays.keys()
        for name, array in arrays.items():
            np.testing.assert_array_equal(read[name], array)


def test_damaged_archives(tmp_path: Path):
    np.savez(tmp_path / "a.npz", a=np.arange(1000))
    content = bytearray((tmp_path / "a.npz").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(UnusableFile, match="damaged"):
        read_arrays(tmp_path / "a.npz")
    (tmp_path / "a.npz").write_bytes(content[:500])
    with pytest.raises(UnusableFile, match=r"a\.npz"):
        read_arrays(tmp_path / "a.npz")


def test_an_archive_that_claims_too_much(tmp_path: Path):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (2**40,)})
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("a.npy", header.getvalue())
    with pytest.raises(UnusableFile, match="truncated or altered"):
        read_arrays(tmp_path / "a.npz")
    np.savez_compressed(tmp_path / "b.npz", a=np.zeros(10_000))
    with pytest.raises(UnusableFile, match="unpacks to 80,128 bytes"):
        read_arrays(tmp_path / "b.npz", limit=80_000)


def test_archives_may_hold_arrays_in_fortran_order(tmp_path: Path):
    """numpy writes what `scores[texts][:, videos]` gives in that order."""
    array = np.arange(12.0).reshape(3, 4).T
    np.savez(tmp_path / "a.npz", scores=array, plain=array.copy("C"))
    arrays = read_arrays(tmp_path / "a.npz")
    np.testing.assert_array_equal(arrays["scores"], array)
    np.testing.assert_array_equal(arrays["plain"], array)
