"""torch's files: damaged, recompressed and unsafe ones are refused; old formats are read."""

import fractions
import pickle
import zipfile
from pathlib import Path

import pytest
import torch

from mmpt_plugin.files import UnusableFile, load_torch


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    torch.save({"model": {"w": torch.arange(1000.0)}, "step": 3}, tmp_path / "c.pt")
    return tmp_path / "c.pt"


@pytest.mark.parametrize("zipped", [True, False])
def test_both_formats(tmp_path: Path, zipped: bool):
    torch.save({"w": torch.arange(5.0)}, tmp_path / "c.pt", _use_new_zipfile_serialization=zipped)
    torch.testing.assert_close(load_torch(tmp_path / "c.pt")["w"], torch.arange(5.0))


def test_one_flipped_bit(checkpoint: Path):
    content = bytearray(checkpoint.read_bytes())
    place = content.index(torch.arange(1000.0).numpy().tobytes()) + 2000
    content[place] ^= 16
    checkpoint.write_bytes(content)
    with pytest.raises(UnusableFile, match="does not agree with its checksum"):
        load_torch(checkpoint)


def test_recompressed(checkpoint: Path):
    squeezed = checkpoint.with_name("squeezed.pt")
    with zipfile.ZipFile(checkpoint) as old, zipfile.ZipFile(squeezed, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    with pytest.raises(UnusableFile, match="parts are compressed"):
        load_torch(squeezed)


@pytest.mark.parametrize("kept", [0, 10, 300, -100])
def test_cut(checkpoint: Path, kept: int):
    checkpoint.write_bytes(checkpoint.read_bytes()[:kept])
    with pytest.raises(UnusableFile, match=r"c\.pt: "):
        load_torch(checkpoint)


def test_a_saved_web_page(tmp_path: Path):
    (tmp_path / "c.pt").write_text("<!DOCTYPE html><html><body>Not found</body></html>")
    with pytest.raises(UnusableFile, match="this is a saved web page"):
        load_torch(tmp_path / "c.pt")


def test_a_foreign_class_is_named(tmp_path: Path):
    torch.save({"w": fractions.Fraction(1, 2)}, tmp_path / "c.pt")
    torch.save({"w": fractions.Fraction(1, 2)}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    (tmp_path / "pickle.pt").write_bytes(pickle.dumps({"w": fractions.Fraction(1, 2)}))
    for name in ("c.pt", "old.pt", "pickle.pt"):
        with pytest.raises(UnusableFile, match=rf"{name}: .* it names fractions\.Fraction, which could run code"):
            load_torch(tmp_path / name)


def test_a_pickle_bomb_inside(checkpoint: Path):
    bomb = checkpoint.with_name("bomb.pt")
    with zipfile.ZipFile(checkpoint) as old, zipfile.ZipFile(bomb, "w") as new:
        for name in old.namelist():
            new.writestr(name, b"\x80\x02)" + b"2\x86" * 60 + b"." if name.endswith("data.pkl") else old.read(name))
    with pytest.raises(UnusableFile, match="members"):
        load_torch(bomb)
