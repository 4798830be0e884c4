"""A table of one's own: its reader, both benchmarks, and their agreement with YouCook2's and COIN's protocols."""

from pathlib import Path

import numpy as np
import pytest

from mmpt_plugin.data.windows import Window
from mmpt_plugin.evaluation.benchmark import Encodings
from mmpt_plugin.evaluation.benchmark_files import BenchmarkFiles
from mmpt_plugin.evaluation.benchmarks.coin import Coin
from mmpt_plugin.evaluation.benchmarks.own_data import (
    OwnClip,
    OwnRetrieval,
    OwnSegmentation,
    label_id,
    own_benchmark,
    read_own_data,
)
from mmpt_plugin.finetuning.training_sets import TRAINING_SETS

TEXTS = 'video,start,end,text\na,12.5,20,cut\nb,,,stir\na,00:00:30,00:01:10,"add, then stir"\nb,3,4,cut\n'
LABELS = "video,start,end,label\na,0.5,3,cut\na,5,9,stir\nb,2,4,cut\n"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "csv" / "features").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for video, seconds in (("a", 40), ("b", 10)):
        np.save(tmp_path / "csv" / "features" / f"{video}.npy", rng.standard_normal((seconds, 4)).astype(np.float16))
    return tmp_path


def write(data: Path, content: str, name: str = "test.csv") -> Path:
    path = data / "csv" / name
    path.write_text(content)
    return path


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_tables_of_any_delimiter(data: Path, delimiter: str) -> None:
    content = TEXTS if delimiter == "," else TEXTS.replace(",", delimiter).replace('"', "")
    content = content.replace(f"add{delimiter} then", "add then") if delimiter != "," else content
    kind, clips = read_own_data(write(data, content))
    assert kind == "text" and clips[:2] == [OwnClip("a", 12.5, 20.0, "cut"), OwnClip("b", 0.0, None, "stir")]
    assert (clips[2].start, clips[2].end) == (30, 70)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("video,start,end\na,1,2\n", "needs one of the columns text and label"),
        ("video,start,end,text,label\na,1,2,x,y\n", "needs one of the columns text and label"),
        ("video,from,to,text\na,1,2,x\n", r"columns \['start', 'end'\] are missing"),
        ("video,start,end,text\n,1,2,x\n", "line 2 has an empty video or text"),
        ("video,start,end,label\na,1,2, \n", "line 2 has an empty video or label"),
        ("video,start,end,text\na,soon,2,x\n", r"line 2: \['soon', '2'\] are no times"),
        ("video,start,end,text\na,3,2,x\n", "needed is 0 <= start <= end"),
        ("video,start,end,text\na,-3,2,x\n", "needed is 0 <= start <= end|are no times"),
        ("video,start,end,text\na,1,1e30,x\n", "needed is 0 <= start <= end"),
        ("video,start,end,text\n", "no rows"),
        ("", "needs one of the columns"),
    ],
)
def test_malformed_tables_are_refused(data: Path, content: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        own_benchmark(write(data, content).parents[1], feature_size=4)
    assert "test.csv" in str(error.value) and "video,start,end,text" in str(error.value)


def test_retrieval(data: Path) -> None:
    write(data, TEXTS)
    benchmark = own_benchmark(data, feature_size=4)
    assert isinstance(benchmark, OwnRetrieval) and (benchmark.official_items, benchmark.found) == (4, 4)
    plan = benchmark.plan()
    assert plan.windows == [Window("a", 12, 20), Window("b", 0, 10), Window("a", 30, 40), Window("b", 3, 4)]
    assert plan.texts == ["cut", "stir", "add, then stir"]
    scores = benchmark.score(Encodings(np.eye(3, dtype=np.float32), np.eye(4, 3, dtype=np.float32)))
    evaluation = benchmark.evaluate(scores)
    assert evaluation.metrics["R@1"] == 0.75  # the last finds the first clip, whose sentence is its own
    assert evaluation.baselines["chance"]["R@1"] == 0.25 and set(evaluation.intervals) > {"R@1", "video_to_text/R@1"}
    assert not benchmark.paper


def test_segmentation_is_coins(data: Path) -> None:
    write(data, LABELS)
    benchmark = own_benchmark(data, feature_size=4)
    assert isinstance(benchmark, OwnSegmentation) and not isinstance(benchmark, Coin)
    assert sorted(benchmark.labels) == ["cut", "stir"] and benchmark.official_items == benchmark.found == 2
    described = benchmark.describe()
    cut, stir = (benchmark.class_of[label_id(label)] for label in ("cut", "stir"))
    assert described["targets"][:10].tolist() == [cut, cut, cut, 0, 0, stir, stir, stir, stir, 0]
    assert described["targets"][40:].tolist() == [0, 0, cut, cut, 0, 0, 0, 0, 0, 0]
    plan = benchmark.plan()
    assert plan.per_frame and not plan.attend_to_cls and len(plan.windows) == 3
    scores = benchmark.score(
        Encodings(np.eye(2, dtype=np.float32), [np.zeros((w.end - w.start, 2), np.float32) for w in plan.windows])
    )
    evaluation = benchmark.evaluate(scores)
    assert set(evaluation.baselines) == {"all_background", "chance"} and "calibrated" in evaluation.metrics


def test_missing_features_and_other_splits(data: Path) -> None:
    write(data, TEXTS + "gone,1,2,fry\n")
    with pytest.raises(FileNotFoundError, match="gone"):
        own_benchmark(data, feature_size=4)
    assert own_benchmark(data, feature_size=4, on_missing="skip").missing == ["gone"]
    with pytest.raises(ValueError, match="split"):
        own_benchmark(data, feature_size=4, split="original")
    with pytest.raises(FileNotFoundError, match=r"nowhere\.csv not found: a table with the columns"):
        own_benchmark(data, annotations=data / "nowhere.csv", feature_size=4)


def test_training_on_it(data: Path) -> None:
    write(data, TEXTS + "a,12.5,20,slice\n", "train.csv")
    training = TRAINING_SETS["csv"](BenchmarkFiles(data, feature_size=4))
    assert [(clip.window, clip.sentences) for clip in training.clips[:2]] == [
        (Window("a", 12, 20), ("cut", "slice")),
        (Window("b", 0, 10), ("stir",)),
    ]
    write(data, LABELS, "train.csv")
    training = TRAINING_SETS["csv"](BenchmarkFiles(data, feature_size=4))
    assert training.label_ids == tuple(sorted(map(label_id, ("cut", "stir")))) and len(training.videos) == 2
    write(data, LABELS)
    benchmark = own_benchmark(data, feature_size=4)
    benchmark.use_frame_classifier(training.label_ids)
    assert benchmark.plan().classify_frames


def test_features_named_as_videos_meet_their_ids_on_demand(data: Path) -> None:
    write(data, TEXTS)
    write(data, TEXTS, "train.csv")
    expected = own_benchmark(data, feature_size=4).plan()
    for path in list((data / "csv" / "features").glob("*.npy")):
        path.rename(path.with_suffix(".mp4.npy"))
    assert own_benchmark(data, feature_size=4, drop_suffix=True).plan() == expected
    assert len(TRAINING_SETS["csv"](BenchmarkFiles(data, feature_size=4, drop_suffix=True)).clips) == 4
