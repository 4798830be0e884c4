"""Training splits from the official files: what is in them, what is not, and what is refused."""

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

from mmpt_plugin.data.windows import Window
from mmpt_plugin.evaluation.benchmark_files import BenchmarkFiles
from mmpt_plugin.evaluation.benchmarks.crosstask import CrossTask
from mmpt_plugin.finetuning.training_sets import TRAINING_SETS


@pytest.fixture
def data(benchmark_data: Path, tmp_path: Path) -> Path:
    """A copy to alter."""
    return shutil.copytree(benchmark_data, tmp_path / "data")


def alter(path: Path, change) -> None:
    """Rewrite a JSON file by a function of its content."""
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_youcook2_takes_every_clip_of_the_training_videos(benchmark_data: Path) -> None:
    training = TRAINING_SETS["youcook2"](BenchmarkFiles(benchmark_data))
    # segments 0-5, 5-50, 58-70 of a video of 60 s and 3-4, 10-20 of one of 25 s; at most 32 s, and only what there is
    assert [clip.window for clip in training.clips] == [
        Window("one", 0, 5),
        Window("one", 5, 37),
        Window("one", 58, 60),
        Window("two_", 3, 4),
        Window("two_", 10, 20),
    ]
    assert training.clips[1].sentences == ("the the onions",)
    assert not training.videos and not training.label_ids and not training.missing


def test_msrvtt_takes_all_videos_but_those_of_1k_a(benchmark_data: Path) -> None:
    clips = TRAINING_SETS["msrvtt"](BenchmarkFiles(benchmark_data)).clips
    assert [clip.window.video_id for clip in clips] == ["video0", "video1", "video2", "video3"]
    assert clips[3].sentences == ("add the pan", "cut the pan", "stir the pan")
    assert clips[3].window == Window("video3", 0, 32)  # of 38 seconds


def test_multiple_choice_takes_no_video_that_it_asks_about(benchmark_data: Path) -> None:
    clips = TRAINING_SETS["msrvtt_qa"](BenchmarkFiles(benchmark_data)).clips
    assert [clip.window.video_id for clip in clips] == ["video0", "video1", "video2"]


def test_coin_takes_its_classes_from_the_training_videos(benchmark_data: Path) -> None:
    training = TRAINING_SETS["coin"](BenchmarkFiles(benchmark_data))
    assert training.label_ids == (3, 7, 12)
    first, second = training.videos
    assert [(w.video_id, w.start, w.end) for w in first.windows] == [("train_a", 0, 32), ("train_a", 8, 40)]
    # label 7 is class 2 in seconds 0-2, label 3 class 1 in 4-6
    assert first.labels.tolist() == [2, 2, 2, 0, 1, 1, 1] + [0] * 33
    assert second.labels.tolist() == [3, 3, 3] + [0] * 6 and not second.steps


def test_crosstask_takes_thirty_videos_a_task_and_none_of_the_test(benchmark_data: Path) -> None:
    videos = TRAINING_SETS["crosstask"](BenchmarkFiles(benchmark_data)).videos
    ids = {video.windows[0].video_id for video in videos}
    tested = {video for _, video in CrossTask(benchmark_data).videos}
    assert len(ids) == len(videos) == 30 and len(tested) == 2 and not ids & tested
    assert videos[0].steps == ("add the onions", "stir")
    assert videos[0].labels[:5].tolist() == [[1, 0], [1, 0], [0, 1], [0, 1], [0, 0]]


def test_the_originals_draw_follows_the_features(data: Path) -> None:
    (data / "crosstask" / "features" / "ct00.npy").unlink()
    training = TRAINING_SETS["crosstask"](BenchmarkFiles(data, split="original"))
    assert len(training.videos) == 30 and training.missing == ["ct00"]


def test_small_tasks_train_with_all_their_videos(data: Path) -> None:
    listed = data / "crosstask" / "crosstask_release" / "videos.csv"
    listed.write_text("".join(listed.read_text().splitlines(keepends=True)[:5]))
    assert len(TRAINING_SETS["crosstask"](BenchmarkFiles(data)).videos) == 5


def test_videos_without_a_second_are_left_out_and_counted(data: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name, video, of in (("coin", "train_b", 2), ("crosstask", "ct00", 30)):
        np.save(data / name / "features" / f"{video}.npy", np.zeros((0, 512), np.float16))
        videos = TRAINING_SETS[name](BenchmarkFiles(data)).videos
        assert len(videos) == of - 1 and video not in {own.windows[0].video_id for own in videos}
        assert f"{name}: 1 of {of} training videos have no second of features, as of {video}; left out" in caplog.text


def test_clips_without_a_second_are_left_out_and_counted(data: Path, caplog: pytest.LogCaptureFixture) -> None:
    np.save(data / "youcook2" / "features" / "one.npy", np.zeros((5, 512), np.float16))
    clips = TRAINING_SETS["youcook2"](BenchmarkFiles(data)).clips  # of "one" only 0-5; 5-50 and 58-70 lie beyond
    assert [clip.window for clip in clips] == [Window("one", 0, 5), Window("two_", 3, 4), Window("two_", 10, 20)]
    assert "youcook2: 2 of 5 training clips have no second of features, as of one; left out" in caplog.text
    np.save(data / "msrvtt" / "features" / "video1.npy", np.zeros((0, 512), np.float16))
    assert len(TRAINING_SETS["msrvtt"](BenchmarkFiles(data)).clips) == 3
    for file in (data / "msrvtt" / "features").iterdir():
        np.save(file, np.zeros((0, 512), np.float16))
    with pytest.raises(ValueError, match=r"msrvtt: 4 of 4 training clips .*: nothing is left to train on"):
        TRAINING_SETS["msrvtt"](BenchmarkFiles(data))


def test_another_place_for_files_and_features(data: Path) -> None:
    for name, place in (("youcook2", "youcook2"), ("msrvtt", "msrvtt"), ("coin", "coin/COIN.json")):
        usual = TRAINING_SETS[name](BenchmarkFiles(data))
        elsewhere = BenchmarkFiles(Path("nowhere"), annotations=data / place, features=data / name / "features")
        assert TRAINING_SETS[name](elsewhere).clips == usual.clips


# --- what is refused ---


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("youcook2", "youcook2/youcookii_annotations_trainval.json"),
        ("msrvtt", "msrvtt/MSRVTT_data.json"),
        ("msrvtt", "msrvtt/MSRVTT_JSFUSION_test.csv"),
        ("msrvtt_qa", "msrvtt/MSR_MC_test.csv"),
        ("coin", "coin/COIN.json"),
        ("crosstask", "crosstask/crosstask_release/videos.csv"),
    ],
)
def test_a_missing_split_file(data: Path, name: str, file: str) -> None:
    (data / file).unlink()
    with pytest.raises(FileNotFoundError, match=rf"{Path(file).name} not found: the official .* belongs there, or set"):
        TRAINING_SETS[name](BenchmarkFiles(data))


def test_a_training_split_without_captions(data: Path) -> None:
    path = data / "msrvtt" / "MSRVTT_data.json"
    alter(
        path, lambda content: content.update(sentences=[s for s in content["sentences"] if "pan" not in s["caption"]])
    )
    with pytest.raises(ValueError, match=r"MSRVTT_data\.json: 1 videos have no caption, first video3\. Expected"):
        TRAINING_SETS["msrvtt"](BenchmarkFiles(data))
    alter(path, lambda content: content.update(sentences=[]))
    with pytest.raises(ValueError, match=r"of length >= 1 - at .*sentences"):
        TRAINING_SETS["msrvtt"](BenchmarkFiles(data))
    path = data / "youcook2" / "youcookii_annotations_trainval.json"
    alter(path, lambda content: content["database"]["two_"].update(annotations=[]))
    with pytest.raises(ValueError, match="1 training videos have no clips, first two_"):
        TRAINING_SETS["youcook2"](BenchmarkFiles(data))
    alter(path, lambda content: content["database"]["two_"].update(annotations=[{"segment": [0, 1], "sentence": " "}]))
    with pytest.raises(ValueError, match=r"video two_: .*annotations\[0\]\.sentence"):
        TRAINING_SETS["youcook2"](BenchmarkFiles(data))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda c: c["sentences"].append({"video_id": "video9", "caption": "add"}),
            "sentence of 'video9', which is not",
        ),
        (lambda c: c["sentences"][0].update(caption=""), r"matching regex .*\$.sentences\[0\].caption"),
        (lambda c: c["videos"].append({}), r"missing required field `video_id` - at `\$.videos\[5\]`"),
    ],
)
def test_spoilt_captions(data: Path, change, message: str) -> None:
    alter(data / "msrvtt" / "MSRVTT_data.json", change)
    with pytest.raises(ValueError, match=message):
        TRAINING_SETS["msrvtt"](BenchmarkFiles(data))


def test_files_without_a_training_split(data: Path) -> None:
    for path, key in (("youcook2/youcookii_annotations_trainval.json", "database"), ("coin/COIN.json", "database")):
        alter(data / path, lambda content: [video.update(subset="testing") for video in content[key].values()])  # noqa: B023
    with pytest.raises(ValueError, match='no video of subset "training"'):
        TRAINING_SETS["youcook2"](BenchmarkFiles(data))
    with pytest.raises(ValueError, match="no annotated video in subset 'training'"):
        TRAINING_SETS["coin"](BenchmarkFiles(data))
    questions = data / "msrvtt" / "MSR_MC_test.csv"
    rows = "".join(f"{i}\tk\tmsr{i}\ta\tb\tc\td\te\t0\n" for i in range(5))
    questions.write_text(questions.read_text().splitlines(keepends=True)[0] + rows)
    with pytest.raises(ValueError, match="all its videos are test videos of msrvtt_qa"):
        TRAINING_SETS["msrvtt_qa"](BenchmarkFiles(data))
    for file in (data / "crosstask" / "crosstask_release" / "annotations").iterdir():
        file.unlink()
    with pytest.raises(ValueError, match="no training video"):
        TRAINING_SETS["crosstask"](BenchmarkFiles(data))


@pytest.mark.parametrize(("name", "video"), [("youcook2", "one"), ("msrvtt", "video0"), ("coin", "train_a")])
def test_videos_without_features_stop_the_run_or_are_counted(data: Path, name: str, video: str) -> None:
    (data / name / "features" / f"{video}.npy").unlink()
    with pytest.raises(FileNotFoundError, match=rf"1 of \d+ videos have no .*: {video}\. .*task\.on_missing=skip"):
        TRAINING_SETS[name](BenchmarkFiles(data))
    training = TRAINING_SETS[name](BenchmarkFiles(data, on_missing="skip"))
    assert training.missing == [video]
    assert video not in {clip.window.video_id for clip in training.clips}
    assert video not in {own.windows[0].video_id for own in training.videos}


@pytest.mark.parametrize("name", list(TRAINING_SETS))
def test_another_split(benchmark_data: Path, name: str) -> None:
    with pytest.raises(ValueError, match=r"task\.split is 'other'"):
        TRAINING_SETS[name](BenchmarkFiles(benchmark_data, split="other"))


def test_the_clip_list_of_the_test_set_is_not_needed(data: Path) -> None:
    (data / "youcook2" / "youcook_val.pkl").write_bytes(pickle.dumps([]))
    assert len(TRAINING_SETS["youcook2"](BenchmarkFiles(data)).clips) == 5
