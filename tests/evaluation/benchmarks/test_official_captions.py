"""Caption files of ActivityNet, VATEX, LSMDC and MSVD: made small, read as published, refused when malformed."""

import json
from pathlib import Path

import numpy as np
import pytest

from mmpt_plugin.data.windows import Window
from mmpt_plugin.evaluation.benchmark import Encodings
from mmpt_plugin.evaluation.benchmark_files import BenchmarkFiles
from mmpt_plugin.evaluation.benchmarks.own_data import OwnClip, own_benchmark, read_own_data
from mmpt_plugin.files import UnusableFile
from mmpt_plugin.finetuning.training_sets import TRAINING_SETS
from mmpt_plugin.report.parts import Detail
from mmpt_plugin.report.retrieval import section_parts

ACTIVITYNET = {
    "v_a-1": {
        "duration": 82.7,
        "timestamps": [[0.8, 19.9], [60.8, 17.4]],  # some end before they start
        "sentences": ["A man sits.", " He peels an onion. "],
    },
    "v__b": {"duration": 9, "timestamps": [[0, 9]], "sentences": ["Snow falls."]},
}
VATEX = [
    {"videoID": "Ptf_2VRj-V0_000122_000132", "enCap": ["a man climbs", "climbing"], "chCap": ["一个人"]},
    {"videoID": "b_000000_000010", "enCap": ["a dog"]},
]
LSMDC = (
    "0001_American_Beauty_00.00.51.926-00.00.54.129\t00.00.51.926\t00.00.54.129\t00.00.51.926\t00.00.54.129\t"
    'SOMEONE says "hello.\n'
    "0001_American_Beauty_00.01.00.000-00.01.02.000\t00.01.00\t00.01.02\t00.01.00\t00.01.02\tShe nods.\n"
)
MSVD = (
    "# Copyright\n\n-4wsuPCjDBc_5_15 a squirrel eats\nb_1_2 a cat\n-4wsuPCjDBc_5_15 a squirrel is eating\nc_0_4 rain\n"
)


def write(folder: Path, content: object, name: str = "captions") -> Path:
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (ACTIVITYNET, [("v_a-1", "A man sits. He peels an onion."), ("v__b", "Snow falls.")]),
        (
            VATEX,
            [
                ("Ptf_2VRj-V0_000122_000132", "a man climbs"),
                ("Ptf_2VRj-V0_000122_000132", "climbing"),
                ("b_000000_000010", "a dog"),
            ],
        ),
        (
            LSMDC,
            [
                ("0001_American_Beauty_00.00.51.926-00.00.54.129", 'SOMEONE says "hello.'),
                ("0001_American_Beauty_00.01.00.000-00.01.02.000", "She nods."),
            ],
        ),
        (
            MSVD,
            [
                ("c_0_4", "rain"),
                ("-4wsuPCjDBc_5_15", "a squirrel eats"),
                ("-4wsuPCjDBc_5_15", "a squirrel is eating"),
            ],
        ),
    ],
    ids=["activitynet", "vatex", "lsmdc", "msvd"],
)
def test_the_content_tells_the_data_set(tmp_path: Path, content: object, expected: list[tuple[str, str]]) -> None:
    write(tmp_path, "c_0_4\n-4wsuPCjDBc_5_15\n", "test_list.txt")
    clips = [OwnClip(video, 0.0, None, words) for video, words in expected]
    assert read_own_data(write(tmp_path, content)) == ("text", clips)


def one(record: dict) -> dict:
    return {"v_a": {"duration": 1, "timestamps": [[0, 1]], "sentences": ["x"]} | record}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (json.dumps(ACTIVITYNET)[:-9], "not valid JSON"),
        ("{}", "no video in it.*ActivityNet"),
        (one({"sentences": ["x", "y"]}), "video v_a: 2 sentences, but 1 timestamps"),
        (one({"sentences": [" "]}), r"video v_a: .*sentences\[0\]"),
        (one({"sentences": [], "timestamps": []}), "video v_a: .*length >= 1"),
        (one({"timestamps": [[1]]}), r"video v_a: .*timestamps\[0\]"),
        ({"v_a": {"duration": 3}}, "video v_a: .*missing required field"),
        ('{"v_a": 1, "v_a": 2}', "given twice"),
        ("[]", "no video in it.*VATEX"),
        ([{"videoID": "a_1_2"}], "record 0: .*missing required field `enCap`"),
        ([{"videoID": "a_1_2", "enCap": []}], "record 0: .*length >= 1"),
        ([{"videoID": "", "enCap": ["x"]}], r"record 0: .*videoID"),
        ([VATEX[1], VATEX[1]], "1 videos are there twice, first b_000000_000010"),
        (LSMDC + "short\tline\n", "line 3 has 2 cells.*LSMDC"),
        (LSMDC + "clip\t0\t1\t0\t1\t \n", "line 3 has an empty clip or sentence"),
        (MSVD + "b_1 x\n", "line 7 is 'b_1 x'.*MSVD"),
        (MSVD + "b_1_2\n", "line 7 is 'b_1_2'"),
    ],
)
def test_malformed_files_are_refused(tmp_path: Path, content: object, message: str) -> None:
    write(tmp_path, "b_1_2\n", "test_list.txt")
    with pytest.raises(UnusableFile, match=message) as error:
        read_own_data(write(tmp_path, content))
    assert str(tmp_path / "captions") in str(error.value)


@pytest.mark.parametrize(
    ("listed", "message"),
    [
        (None, r"test_list\.txt not found"),
        ("\n", "no video in it"),
        ("b_1_2\nb_1_2\n", "1 videos are there twice, first b_1_2"),
        ("b_1_2\nd_1_2\n", "1 of 2 videos have no description, first d_1_2"),
    ],
)
def test_msvd_needs_its_list(tmp_path: Path, listed: str | None, message: str) -> None:
    if listed is not None:
        write(tmp_path, listed, "test_list.txt")
    with pytest.raises((UnusableFile, FileNotFoundError), match=message):
        read_own_data(write(tmp_path, MSVD))


@pytest.fixture
def msvd(tmp_path: Path) -> dict:
    """Where MSVD's files lie: a test list of two clips, three descriptions; and a training list."""
    write(tmp_path, "-4wsuPCjDBc_5_15\nb_1_2\n", "test_list.txt")
    write(tmp_path, "c_0_4\n", "train_list.txt")
    features = tmp_path / "features"
    features.mkdir()
    for video in ("-4wsuPCjDBc_5_15", "b_1_2", "c_0_4"):
        np.save(features / f"{video}.npy", np.ones((40, 4), np.float16))
    return {"annotations": write(tmp_path, MSVD), "features": features, "feature_size": 4}


def test_each_caption_is_a_query_and_each_video_stands_once(tmp_path: Path, msvd: dict) -> None:
    benchmark = own_benchmark(tmp_path, **msvd)
    plan = benchmark.plan()
    assert plan.windows == [Window("-4wsuPCjDBc_5_15", 0, 32), Window("b_1_2", 0, 32)]
    assert plan.texts == ["a squirrel eats", "a squirrel is eating", "a cat"]
    # the second description prefers the cat's clip; each clip prefers one of its own sentences
    text = np.array([[2, 0], [1, 3], [0, 4]], np.float32)
    scores = benchmark.score(Encodings(text, np.eye(2, dtype=np.float32)))
    assert scores["similarities"].tolist() == [[2, 0], [1, 3], [0, 4]]
    evaluation = benchmark.evaluate(scores)
    assert evaluation.queries == 3 and evaluation.original == {}
    assert evaluation.metrics["R@1"] == pytest.approx(2 / 3) and evaluation.metrics["mean_rank"] == pytest.approx(4 / 3)
    assert evaluation.metrics["video_to_text"]["R@1"] == 1
    assert evaluation.baselines["chance"]["R@1"] == 1 / 2
    assert evaluation.baselines["chance"]["video_to_text"]["R@1"] == pytest.approx(1 / 3)
    described = benchmark.describe()
    assert described["targets"].tolist() == [0, 0, 1]
    assert described["gallery_ids"].tolist() == ["-4wsuPCjDBc_5_15", "b_1_2"]
    parts, said = section_parts({**scores, **described}, Detail(3))
    assert parts and not said


def test_scores_of_another_gallery_are_refused(tmp_path: Path, msvd: dict) -> None:
    with pytest.raises(ValueError, match=r"shape \(3, 3\) do not fit the annotations, which need \(3, 2\)"):
        own_benchmark(tmp_path, **msvd).evaluate({"similarities": np.eye(3)})


def test_training_takes_the_training_list(tmp_path: Path, msvd: dict) -> None:
    training = TRAINING_SETS["csv"](BenchmarkFiles(tmp_path, **msvd))
    assert [(clip.window, clip.sentences) for clip in training.clips] == [(Window("c_0_4", 0, 32), ("rain",))]
