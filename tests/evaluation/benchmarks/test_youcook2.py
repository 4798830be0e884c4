"""YouCook2: its reader on malformed files, its benchmark on the original's recorded scores."""

import json
import logging
import pickle

import numpy as np
import pytest

from mmpt_plugin.data.windows import Window
from mmpt_plugin.evaluation.benchmark import Encodings
from mmpt_plugin.evaluation.benchmarks.youcook2 import YouCook2, YouCook2Clip, read_youcook2

DATABASE = {
    "-a_b": {
        "annotations": [
            {"segment": [0, 5], "id": 0, "sentence": "NA"},
            {"segment": [5.0, 60], "id": 1, "sentence": "fry the onions"},
        ]
    },
    "short": {"annotations": [{"segment": [30, 40], "id": 0, "sentence": "serve"}]},
}


def write_files(folder, records, database):
    folder.mkdir(exist_ok=True)
    (folder / "youcook_val.pkl").write_bytes(pickle.dumps(records))
    (folder / "youcookii_annotations_trainval.json").write_text(json.dumps(database))
    return folder / "youcook_val.pkl", folder / "youcookii_annotations_trainval.json"


def clips_named(*ids):
    return [{"id": clip_id, "caption": "stop words removed"} for clip_id in ids]


def test_clips_are_read_in_the_order_of_the_list(tmp_path):
    files = write_files(tmp_path, clips_named("-a_b_1", "short_0", "-a_b_0"), {"database": DATABASE})
    assert read_youcook2(*files) == [
        YouCook2Clip("-a_b", 1, 5, 60, "fry the onions"),
        YouCook2Clip("short", 0, 30, 40, "serve"),
        YouCook2Clip("-a_b", 0, 0, 5, "NA"),
    ]


def test_windows_follow_segments_and_features(tmp_path, caplog):
    write_files(
        tmp_path / "youcook2",
        clips_named("-a_b_1", "gone_0", "short_0"),
        {"database": DATABASE | {"gone": {"annotations": [{"segment": [0, 1], "sentence": "never seen"}]}}},
    )
    features = tmp_path / "youcook2" / "features"
    features.mkdir()
    np.save(features / "-a_b.npy", np.zeros((50, 4), np.float16))
    np.save(features / "short.npy", np.zeros((20, 4), np.float16))
    with pytest.raises(FileNotFoundError, match="gone"):
        YouCook2(tmp_path, feature_size=4)
    with caplog.at_level(logging.WARNING):
        benchmark = YouCook2(tmp_path, on_missing="skip", feature_size=4)
    assert benchmark.plan().windows == [Window("-a_b", 5, 37), Window("short", 20, 20)]
    assert benchmark.plan().texts == ["fry the onions", "serve"]
    assert (benchmark.found, benchmark.missing) == (2, ["gone"])
    assert "2 items found, the official test set has 3350 and the paper's numbers are on 3305" in caplog.text
    assert "1 stretches hold no second" in caplog.text


def segment(start, end, sentence="x"):
    return {"database": {"v": {"annotations": [{"segment": [start, end], "sentence": sentence}]}}}


@pytest.mark.parametrize(
    ("records", "database", "words"),
    [
        (clips_named("v_0"), segment(5, 4), r"clip 0 of video v: segment \(5.0, 4.0\) is not start <= end"),
        (
            clips_named("v_0"),
            segment(-1, 4),
            r"video v: Expected `float` >= 0.0 - at `\$.annotations\[0\].segment\[0\]`",
        ),
        (clips_named("v_0"), segment(1.5, 4), "whole seconds"),
        (clips_named("v_0"), segment(float("nan"), 4), "NaN is no number"),
        (clips_named("v_0"), segment("1", 4), "video v: Expected `float`, got `str`"),
        (clips_named("v_0"), segment(0, 4, None), r"Expected `str`, got `null` - at .*sentence"),
        (clips_named("v_0"), segment(0, 4, " "), "Expected `str` matching .*sentence"),
        (clips_named("v_1"), segment(0, 4), "clip 1 of video v, named in the clip list, is not there"),
        (clips_named("w_0"), segment(0, 4), "clip 0 of video w"),
        (clips_named("v_0"), {"database": {"v": []}}, "video v: Expected `object`, got `array`"),
        (clips_named("v_0"), {"database": {"v": {"annotations": [3]}}}, "Expected `object`, got `int`"),
        (clips_named("v_0"), [{"video": "1.avi", "times": []}], 'no table "database"'),
        (clips_named("v"), segment(0, 4), "id 'v' names no clip"),
        (clips_named("v_x"), segment(0, 4), "names no clip"),
        (clips_named("_0"), segment(0, 4), "names no clip"),
        ([{"caption": "x"}], segment(0, 4), "record 0: id None names no clip"),
        ({"v_0": 1}, segment(0, 4), "holds dict, not a filled list"),
        ([], segment(0, 4), "not a filled list"),
        (clips_named("v_99999999999"), segment(0, 4), "names no clip"),
        (clips_named("v_0"), {"database": {"v": {"annotations": [], "subset": "trainning"}}}, "Invalid enum value"),
    ],
)
def test_malformed_files_are_refused(tmp_path, records, database, words):
    files = write_files(tmp_path, records, database)
    with pytest.raises(ValueError, match=words) as error:
        read_youcook2(*files)
    assert "the official youcook" in str(error.value)


def test_truncated_and_swapped_files_are_refused(tmp_path):
    clip_list, annotations = write_files(tmp_path, clips_named("short_0"), {"database": DATABASE})
    with pytest.raises(ValueError, match=r"youcook_val\.pkl.*the official youcookii_annotations_trainval"):
        read_youcook2(clip_list, clip_list)
    with pytest.raises(ValueError, match=r"youcookii_annotations_trainval\.json.*the official youcook_val"):
        read_youcook2(annotations, annotations)
    annotations.write_text(annotations.read_text()[:-10])
    with pytest.raises(ValueError, match="truncated"):
        read_youcook2(clip_list, annotations)
    clip_list.write_bytes(clip_list.read_bytes()[:-10])
    write_files(tmp_path / "whole", [], {"database": DATABASE})
    with pytest.raises(ValueError, match="the official youcook_val"):
        read_youcook2(clip_list, tmp_path / "whole" / annotations.name)


def test_missing_files_are_named(tmp_path):
    clip_list, annotations = write_files(tmp_path, clips_named("short_0"), {"database": DATABASE})
    with pytest.raises(FileNotFoundError, match=r"other\.json.*task\.annotations"):
        read_youcook2(clip_list, tmp_path / "other.json")
    with pytest.raises(FileNotFoundError, match=r"other\.pkl.*the official youcook_val"):
        read_youcook2(tmp_path / "other.pkl", annotations)


class Intruder:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return open, (self.target, "w")


def test_a_pickle_that_would_run_code_is_refused(tmp_path):
    trace = tmp_path / "trace"
    files = write_files(tmp_path / "files", [Intruder(str(trace))], {"database": DATABASE})
    with pytest.raises(ValueError, match="the official youcook_val"):
        read_youcook2(*files)
    assert not trace.exists()


def test_there_is_one_split(tmp_path):
    with pytest.raises(ValueError, match=r"task\.split is 'original'"):
        YouCook2(tmp_path, split="original")


def test_the_recorded_embeddings_give_the_recorded_numbers(golden_part):
    folder = golden_part / "eval_youcook"
    benchmark = YouCook2(
        folder,
        annotations=folder / "data" / "youcook",
        features=folder / "data" / "feat" / "feat_youcook_s3d",
        on_missing="skip",
    )
    with np.load(folder / "golden.npz") as arrays:
        text, video, recorded = arrays["pooled_text"], arrays["pooled_video"], arrays["scores"]
    details = json.loads((folder / "details.json").read_text())
    squeezed = ["".join(sentence.lower().split()) for sentence in benchmark.sentences]
    assert squeezed == ["".join(sentence.split()) for sentence in details["decoded_texts"]]
    plan = benchmark.plan()
    texts = [benchmark.sentences.index(sentence) for sentence in plan.texts]
    windows = [benchmark.windows.index(window) for window in plan.windows]
    scores = benchmark.score(Encodings(text[texts], video[windows]))
    np.testing.assert_allclose(scores["similarities"], recorded, atol=1e-4, rtol=0)
    evaluation = benchmark.evaluate(scores)
    expected = json.loads((folder / "metrics.json").read_text())
    pessimistic = next(v for k, v in details["tie_free_alternatives"].items() if k.startswith("pessimistic"))
    for ours, theirs in (("R@1", "R1"), ("R@5", "R5"), ("R@10", "R10"), ("median_rank", "MR")):
        assert evaluation.original[ours] == pytest.approx(expected[theirs], abs=1e-12)
        assert evaluation.metrics[ours] == pytest.approx(pessimistic[theirs], abs=1e-12)
    assert evaluation.queries == benchmark.found == 61
