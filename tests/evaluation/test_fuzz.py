"""Each reader of evaluation under a few hundred seeded mutations: a clear error that names the file, or something usable.

A mutation flips bytes, cuts, repeats, or swaps a value of the file for an odd one. What is read must fit the reader's own
checks; whatever else comes must be a `ValueError` or `FileNotFoundError` that begins with, or names, the file.
"""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mmpt_plugin.data.feature_folder import FeatureFolder
from mmpt_plugin.evaluation.benchmarks import coin, crosstask, didemo, msrvtt, msrvtt_qa, own_data, youcook2
from mmpt_plugin.evaluation.bootstrap import VideoSums
from mmpt_plugin.evaluation.results import read_results, read_scores, read_sums

MUTATIONS = 300
ODD = [
    b"", b"null", b"NaN", b"-1", b"1e999", b"true", b'"\\ud800"', b"[" * 5000, b"{}", b"99999999999999999999", b"0.5",
    b'""', b'" "', b"\xff\xfe", b"\x00", b"\xe2\x80\xa8", b",", b"\n", b"\t", b'"', b"\\", b"[[0,5]]", b"inf",
]  # fmt: skip


def mutate(content: bytes, rng: np.random.Generator) -> bytes:
    """One to three changes of a file's bytes."""
    for _ in range(rng.integers(1, 4)):
        place = int(rng.integers(0, len(content) + 1))
        length = int(rng.integers(0, 12))
        match rng.integers(0, 6):
            case 0:
                content = content[:place] + bytes([rng.integers(0, 256)]) + content[place + 1 :]
            case 1:
                content = content[:place]
            case 2:
                content = content[:place] + content[place : place + length] * 2 + content[place + length :]
            case 3:
                content = content[:place] + content[place + length :]
            case 4:
                content = content[:place] + ODD[rng.integers(len(ODD))] + content[place:]
            case _:
                content = content[:place] + ODD[rng.integers(len(ODD))] + content[place + length :]
    return content


Reader = Callable[[Path], object]


def write_coin(path: Path) -> None:
    segments = [{"id": "3", "segment": [1.5, 9], "label": "cut"}, {"id": 7, "segment": [9, 12], "label": "stir"}]
    database = {
        "a": {"subset": "testing", "annotation": segments},
        "b": {"subset": "training", "annotation": segments[:1]},
    }
    path.write_text(json.dumps({"database": database}))


def write_didemo(path: Path) -> None:
    path.write_text(
        json.dumps([{"video": f"{i}.avi", "description": "a dog", "times": [[0, i], [1, 5]]} for i in range(5)])
    )


def write_youcook2(path: Path) -> None:
    clips = [{"segment": [3, 9], "sentence": "cut"}, {"segment": [10, 40], "sentence": "stir"}]
    path.write_text(json.dumps({"database": {"a": {"subset": "training", "annotations": clips}}}))


def write_clip_list(path: Path) -> None:
    path.write_bytes(pickle.dumps([{"id": "a_0", "caption": "x"}, {"id": "a_1", "caption": "y"}]))


def read_clip_list(path: Path) -> object:
    annotations = path.with_name("youcookii_annotations_trainval.json")
    write_youcook2(annotations)
    return youcook2.read_youcook2(path, annotations)


def write_captions(path: Path) -> None:
    sentences = [{"video_id": f"video{i}", "caption": "a man"} for i in (0, 0, 1)]
    path.write_text(json.dumps({"videos": [{"video_id": "video0"}, {"video_id": "video1"}], "sentences": sentences}))


def write_msrvtt(path: Path) -> None:
    path.write_text('key,vid_key,video_id,sentence\nr0,msr0,video0,"a man, running"\nr1,msr1,video1,a dog\n')


def write_questions(path: Path) -> None:
    path.write_text("\tkey\tvid_key\ta1\ta2\ta3\ta4\ta5\tanswer\n0\tk\tmsr7\ta\tb\tc\td\te\t4\n")


def write_tasks(path: Path) -> None:
    path.write_text("10\nMake tea\nhttps://x\n2\nboil water,pour\n\n20\nFry\nhttps://y\n1\nfry\n")


def write_videos(path: Path) -> None:
    path.write_text("10,a,https://x\n10,b,https://y\n20,c,https://z\n")


def write_steps(path: Path) -> None:
    path.write_text("1,0.5,3\n2,3,3.25\n1,8,9\n")


def write_table(path: Path) -> None:
    path.write_text('video,start,end,text\na,1,2.5,cut\nb,,,stir\na,00:01:02,70,"add, stir"\n')


def write_results(path: Path) -> None:
    numbers = {"R@1": 0.5, "calibrated": {"R@1": None}}
    counts = {"expected": 3, "paper": 3, "found": 3, "missing": ["a"], "queries": 3}
    content = {"benchmark": "x", "metrics": numbers, "baselines": {"chance": numbers}, "paper": {}, "counts": counts}
    path.write_text(json.dumps({**content, "checkpoint": {"path": "a.pt"}, "intervals": {"R@1": [0.1, 0.9]}}))


def write_scores(path: Path) -> None:
    sums = VideoSums.of(["a", "b"], {"R@1": ([1, 0], 1)}, ranks=np.array([1, 2]))
    np.savez(path, similarities=np.eye(3, dtype=np.float32), **sums.arrays())


def read_scores_and_sums(path: Path) -> object:
    results = path.with_name(path.name.replace("_scores.npz", ".json"))
    return read_scores(results), read_sums(results).metrics()


def write_features(path: Path) -> None:
    np.save(path, np.linspace(-1, 1, 88, dtype=np.float16).reshape(22, 4))


def read_features(path: Path) -> object:
    folder = FeatureFolder(path.parent, 4)
    return folder.seconds("a"), folder.load("a", 0, 5)


READERS: dict[str, tuple[Callable[[Path], None], Reader]] = {
    "COIN.json": (write_coin, coin.read_coin),
    "test_data.json": (write_didemo, didemo.read_didemo),
    "youcookii_annotations_trainval.json": (write_youcook2, youcook2.read_youcook2_training),
    "youcook_val.pkl": (write_clip_list, read_clip_list),
    "MSRVTT_data.json": (write_captions, msrvtt.read_msrvtt_captions),
    "MSRVTT_JSFUSION_test.csv": (write_msrvtt, msrvtt.read_msrvtt),
    "MSR_MC_test.csv": (write_questions, msrvtt_qa.read_msrvtt_qa),
    "tasks_primary.txt": (write_tasks, crosstask.read_tasks),
    "videos.csv": (write_videos, crosstask.read_videos),
    "10_a.csv": (write_steps, lambda path: crosstask.read_step_intervals(path, 2)),
    "test.csv": (write_table, own_data.read_own_data),
    "youcook2.json": (write_results, read_results),
    "youcook2_scores.npz": (write_scores, read_scores_and_sums),
    "a.npy": (write_features, read_features),
}


def outcome(read: Reader, path: Path) -> str:
    """ "read" or "refused"; anything else fails the test with the mutated file's content."""
    try:
        read(path)
    except (ValueError, FileNotFoundError) as error:
        assert path.name in str(error), f"{type(error).__name__} does not name the file: {error}\n{path.read_bytes()!r}"
        return "refused"
    except Exception as error:
        raise AssertionError(f"{type(error).__name__}: {error}\n{path.read_bytes()[:2000]!r}") from error
    return "read"


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_mutated_files_are_refused_by_name_or_read(tmp_path: Path, name: str) -> None:
    write, read = READERS[name]
    path = tmp_path / name
    write(path)
    whole = path.read_bytes()
    assert outcome(read, path) == "read"
    rng = np.random.default_rng(sorted(READERS).index(name))
    outcomes = []
    for _ in range(MUTATIONS):
        path.write_bytes(mutate(whole, rng))
        outcomes.append(outcome(read, path))
    assert outcomes.count("refused") > MUTATIONS / 10


@pytest.mark.parametrize("name", READERS)
def test_what_is_no_file(tmp_path: Path, name: str) -> None:
    _, read = READERS[name]
    path = tmp_path / name
    path.mkdir()
    assert outcome(read, path) == "refused"
    shutil.rmtree(path)
    path.symlink_to(tmp_path / "nowhere")
    assert outcome(read, path) == "refused"
    path.unlink()
    assert outcome(read, path) == "refused"


def test_rows_that_a_header_denies(tmp_path: Path) -> None:
    """(22, 512) changed to (5, 512): the file is longer than its header says."""
    path = tmp_path / "a.npy"
    write_features(path)
    path.write_bytes(path.read_bytes().replace(b"(22, 4)", b"(5, 4) "))
    with pytest.raises(ValueError, match=r"a\.npy: truncated or altered: .* bytes, but its header \(shape \(5, 4\)"):
        read_features(path)
