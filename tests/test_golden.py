"""The reference arrays in tests/golden are those of the whole reference data."""

import json
from pathlib import Path

import numpy as np


def test_the_part_equals_the_whole(golden: Path, golden_part: Path) -> None:
    files = [
        path for path in golden_part.rglob("*") if path.is_file() and path.name not in ("README.md", "seconds.json")
    ]
    assert len(files) > 200
    for path in files:
        whole = golden / path.relative_to(golden_part)
        if path.suffix == ".npy":  # only lengths are kept of features
            assert np.load(path, mmap_mode="r").shape == np.load(whole, mmap_mode="r").shape
        elif path.suffix == ".npz":
            with np.load(path) as ours, np.load(whole) as theirs:
                assert ours.files == theirs.files and all(
                    np.array_equal(ours[name], theirs[name]) for name in ours.files
                )
        else:
            assert path.read_bytes() == whole.read_bytes()


def test_it_stays_small_and_says_where_it_comes_from() -> None:
    folder = Path(__file__).parent / "golden"
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 1_000_000
    assert "made by running the original" in (folder / "README.md").read_text()
    for listed in folder.glob("*/seconds.json"):
        assert all(isinstance(seconds, int) for seconds in json.loads(listed.read_text())["seconds"].values())
