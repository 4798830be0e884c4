"""mmpt_plugin/preparation/check_data.py on a small demo world, whole and with everything that can be wrong with it."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from demo.corpus import write_demo_corpus
from demo.world import DemoWorld
from mmpt_plugin.data.caption_files import write_captions
from mmpt_plugin.data.captions import Caption
from mmpt_plugin.data.shard_writer import ShardWriter
from mmpt_plugin.evaluation.benchmark_files import BenchmarkFiles
from mmpt_plugin.evaluation.benchmarks import BENCHMARKS
from mmpt_plugin.features.manifest import Failures, FeatureSettings, write_settings
from mmpt_plugin.finetuning.training_sets import TRAINING_SETS
from mmpt_plugin.preparation import check_data, folder_check

WORLD = DemoWorld(
    families=3,
    tasks_per_family=3,
    verbs=10,
    objects=20,
    tools=4,
    min_steps=4,
    max_steps=5,
    train_videos=6,
    val_videos=3,
    youcook2_clips=12,
    msrvtt_clips=10,
    didemo_videos=6,
    coin_tasks=2,
    coin_videos_per_task=2,
    crosstask_tasks=1,
    crosstask_videos_per_task=33,
)
SETTINGS = FeatureSettings(network="s3d", weights_sha256="0", feature_size=512)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world") / "data"
    write_demo_corpus(folder, WORLD)
    return folder


@pytest.fixture
def data(world, tmp_path):
    return shutil.copytree(world, tmp_path / "data")


@pytest.fixture
def check(capsys):
    """Runs the script: exit code, and what it says of each data set."""

    def run(*arguments):
        code = check_data.main([str(argument) for argument in arguments])
        sections, own = {}, ""
        for line in capsys.readouterr().out.splitlines():
            if not line.startswith(" "):
                name, _, state = line.partition(": ")
                sections[name] = own = [state]
            else:
                own.append(line.strip())
        return code, {name: "\n".join(lines) for name, lines in sections.items()}

    return run


def features_of(data, name):
    return sorted((data / BENCHMARKS[name].folder / "features").glob("*.npy"))


@pytest.mark.parametrize("full", [[], ["--full"]])
def test_a_whole_folder(check, data, full):
    code, said = check(data, *full)
    assert code == 0
    assert list(said) == ["howto100m", *BENCHMARKS]
    assert all(text.startswith("complete") for text in said.values())
    assert "2 shards, 9 videos" in said["howto100m"] and "train: 6 videos listed" in said["howto100m"]
    assert "next: fairseq-hydra-train" in said["howto100m"]
    assert "12 test items, the official set has 3350, so its numbers do not compare" in said["youcook2"]
    for name in BENCHMARKS:
        assert f"next: scripts/evaluate_{name}.sh" in said[name]
        assert ("; 0 of its videos without features" in said[name]) == (name in TRAINING_SETS)


def test_what_there_is_to_fine_tune_on(check, data):
    split = TRAINING_SETS["coin"](BenchmarkFiles(data))
    for video in split.videos[:2]:
        (data / "coin" / "features" / f"{video.windows[0].video_id}.npy").unlink()
    (data / "msrvtt" / "MSRVTT_data.json").write_text("{}")
    said = check(data)[1]
    assert f"to fine-tune on: {len(split.videos) - 2} videos; 2 of its videos without" in said["coin"]
    assert said["coin"].startswith("complete")  # for the test set is
    assert "nothing to fine-tune on: " in said["msrvtt"] and said["msrvtt"].startswith("complete")
    for video in split.videos[2:]:
        (data / "coin" / "features" / f"{video.windows[0].video_id}.npy").unlink()
    assert "nothing to fine-tune on: " in check(data)[1]["coin"]
    (data / "msrvtt" / "MSRVTT_data.json").unlink()
    assert "fine-tune" not in check(data)[1]["msrvtt"]


def test_every_test_set_is_the_evaluation_s(data):
    for name, benchmark in BENCHMARKS.items():
        evaluated = benchmark(data)
        videos = folder_check.OFFICIAL[name].videos(data / benchmark.folder)
        assert len(videos) == evaluated.found
        assert set(videos) == {window.video_id for window in evaluated.plan().windows}


def test_tables_of_one_s_own_and_hirest_where_they_are(check, data):
    own, hirest = data / "csv", data / "hirest"
    for folder in (own, hirest):
        (folder / "features").mkdir(parents=True)
        np.save(folder / "features" / "a.mp4.npy", np.ones((9, 512), np.float16))
    assert "next: get test.csv into" in check(data)[1]["csv"]
    (own / "test.csv").write_text("video,start,end,text\na,1,3,cut\nb,,,stir\n")
    (own / "train.csv").write_text("video,start,end,text\na,1,3,cut\n")
    moment = {"relevant": True, "clip": True, "bounds": [1, 4]}
    (hirest / "all_data_test.json").write_text(
        json.dumps({"cook": {"a.mp4": moment, "c.mp4": moment | {"clip": False}}})
    )
    said = check(data)[1]
    assert said["csv"].startswith("incomplete") and "2 test items\n" in said["csv"]
    assert "of 2 of 2 videos: a, b. Some are there under names with the video's suffix: --drop-suffix" in said["csv"]
    code, said = check(data, "--drop-suffix")
    assert code == 0 and said["hirest"].startswith("complete") and "1 test items\n" in said["hirest"]
    assert f"next: scripts/evaluate_hirest.sh CHECKPOINT {data} RESULTS task.drop_suffix=true" in said["hirest"]
    assert "features of 1 of 2 videos: b" in said["csv"] and "to fine-tune on: 1 clips; 0 of its" in said["csv"]
    (own / "features" / "a.webm.npy").write_bytes((own / "features" / "a.mp4.npy").read_bytes())
    code, said = check(data, "--drop-suffix")
    assert code == 1 and "1 video ids have several feature files" in said["csv"]
    (hirest / "all_data_test.json").write_text("{}")
    assert check(data)[1]["hirest"].startswith("BROKEN")


def test_an_empty_folder(check, tmp_path):
    code, said = check(tmp_path)
    assert code == 0
    assert all(text.startswith("absent") for text in said.values())
    assert "next: get youcook_val.pkl, youcookii_annotations_trainval.json into" in said["youcook2"]
    steps = said["howto100m"].splitlines()[1:]
    programs = ["get HowTo100M's", "prepare_captions.py", "extract_features.py", "make_shards.py"]
    assert all(program in step for program, step in zip(programs, steps, strict=True))


def test_no_folder(tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        check_data.main([str(tmp_path / "no")])
    assert stopped.value.code == 1 and "no such folder" in capsys.readouterr().err


def test_missing_features_are_counted_and_named(check, data):
    for path in features_of(data, "didemo_moment")[:2]:
        path.unlink()
    missing = features_of(data, "coin")[:3]
    for path in missing:
        path.unlink()
    shutil.rmtree(data / "msrvtt" / "features")
    Failures(data / "coin" / "features").add(missing[0].stem, "a.mp4", "no frames")
    code, said = check(data)
    assert code == 0
    assert said["coin"].startswith("incomplete")
    assert "4 test items" in said["coin"] and "1 of them with features" in said["coin"]
    assert f"features of 3 of 4 videos: {', '.join(path.stem for path in missing)}" in said["coin"]
    assert "1 videos could not be extracted" in said["coin"]
    assert "next: python scripts/extract_features.py" in said["coin"] and "--keep-suffix" not in said["coin"]
    assert "--keep-suffix" in said["didemo_moment"] and "--keep-suffix" in said["didemo_retrieval"]
    assert "0 of them with features" in said["msrvtt"] and "features of 10 videos" in said["msrvtt_qa"]
    assert said["youcook2"].startswith("complete")


def test_all_missing_ids_on_demand(check, data):
    with (data / "msrvtt" / "MSRVTT_JSFUSION_test.csv").open() as lines:
        test_ids = [row["video_id"] for row in csv.DictReader(lines)]
    files = [data / "msrvtt" / "features" / f"{video_id}.npy" for video_id in test_ids[:8]]
    for path in files:
        path.unlink()
    few, all_of_them = check(data)[1]["msrvtt"], check(data, "--all")[1]["msrvtt"]
    assert sum(path.stem in few for path in files) == 5 and "... (3 more; --all shows them)" in few
    assert sum(path.stem in all_of_them for path in files) == 8 and "more" not in all_of_them


@pytest.mark.parametrize(
    ("name", "file", "content"),
    [
        ("youcook2", "youcook_val.pkl", b"cos\nsystem\n."),
        ("msrvtt", "MSRVTT_JSFUSION_test.csv", b"a;b\n1;2\n"),
        ("msrvtt_qa", "MSR_MC_test.csv", b""),
        ("didemo_moment", "test_data.json", b'[{"video": "a.avi"'),
        ("coin", "COIN.json", b"{}"),
        ("coin", "COIN.json", b'{"database": {}}'),
        ("crosstask", "crosstask_release/tasks_related.txt", b"1\ntitle\n"),
    ],
)
def test_broken_annotation_files(check, data, name, file, content):
    (data / BENCHMARKS[name].folder / file).write_bytes(content)
    code, said = check(data)
    assert code == 1
    assert said[name].startswith("BROKEN") and "broken: " in said[name] and Path(file).stem.split("_")[0] in said[name]
    assert sum(text.startswith("BROKEN") for text in said.values()) == 1 + (name == "didemo_moment")


def test_a_broken_step_file(check, data):
    release = data / "crosstask" / "crosstask_release"
    video = folder_check.OFFICIAL["crosstask"].videos(data / "crosstask")[0]
    (file,) = (release / "annotations").glob(f"*_{video}.csv")
    file.write_text("99,0,1\n")
    code, said = check(data)
    assert code == 1 and f"{file.name}: line 1: step 99" in said["crosstask"]


def test_a_missing_official_file(check, data):
    (data / "crosstask" / "crosstask_release" / "videos_val.csv").unlink()
    code, said = check(data)
    assert code == 0 and said["crosstask"].startswith("incomplete")
    assert "missing: " in said["crosstask"] and "the official videos.csv or videos_val.csv" in said["crosstask"]


def test_broken_features(check, data):
    truncated, wide, nan = features_of(data, "youcook2")[:3]
    truncated.write_bytes(truncated.read_bytes()[:-10])
    np.save(wide, np.zeros((3, 7), np.float16))
    np.save(nan, np.full((3, 512), np.nan, np.float16))
    code, said = check(data)
    assert code == 1 and said["youcook2"].count("broken: ") == 2  # values are not looked at
    code, said = check(data, "--full")
    assert code == 1 and said["youcook2"].count("broken: ") == 3


def test_features_unlike_those_trained_on(check, data, tmp_path):
    shards = data / "howto100m" / "shards"
    shutil.rmtree(shards)
    for split in ("train", "val"):
        source = {"features": {"network": "s3d", "fps": 30}}
        with ShardWriter(shards, f"{split}_00000", source=source, feature_size=4) as writer:
            for video_id in (data / "howto100m" / f"{split}.txt").read_text().split():
                writer.add(video_id, np.ones((2, 4)), [[0, 1]], [[1]])
    files = data / "coin" / "features"
    for path in (data / "msrvtt" / "features", files):
        manifest = FeatureSettings(network="s3d", weights_sha256="0", feature_size=512, fps=30 if path != files else 10)
        (path / "manifest.json").write_text(json.dumps(manifest.__dict__))
    code, said = check(data)
    assert code == 1
    assert said["msrvtt"].startswith("complete") and said["howto100m"].startswith("complete")
    assert said["coin"].startswith("BROKEN") and "fps: 10 here, 30 expected" in said["coin"]


class TestHowTo100M:
    def test_damaged_shards(self, check, data):
        path = data / "howto100m" / "shards" / "train_00000" / "tokens.npy"
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
        assert check(data)[0] == 0
        code, said = check(data, "--full")
        assert code == 1 and "tokens.npy: altered or damaged" in said["howto100m"]
        path.write_bytes(content[:-4])
        code, said = check(data)
        assert code == 1 and "tokens.npy: truncated" in said["howto100m"]

    def test_lists(self, check, data):
        folder = data / "howto100m"
        with (folder / "train.txt").open("a") as file:
            file.write("stranger\n")
        code, said = check(data)
        assert code == 0 and said["howto100m"].startswith("incomplete")
        assert "1 of 7 videos are in no shard, or are empty there: stranger" in said["howto100m"]
        with (folder / "val.txt").open("a") as file:
            file.write("stranger\n")
        code, said = check(data)
        assert code == 1 and "val.txt: 1 videos are also in train: stranger" in said["howto100m"]

    def test_what_to_run_next(self, check, tmp_path):
        folder = tmp_path / "howto100m"
        folder.mkdir()
        (folder / "raw_caption.json").write_text("{}")
        (folder / "features").mkdir()
        write_settings(folder / "features", SETTINGS)
        np.save(folder / "features" / "a.npy", np.zeros((3, 512), np.float16))
        said = check(tmp_path)[1]["howto100m"]
        assert said.startswith("incomplete") and "features of 1 videos" in said
        assert "next: get" not in said and "extract_features" not in said and "prepare_captions.py" in said

        write_captions(folder / "captions.jsonl", [("a", [Caption(0, 1, [5])])], settings={}, counts={})
        said = check(tmp_path)[1]["howto100m"]
        assert "captions prepared of 1 videos" in said
        assert [line for line in said.splitlines() if line.startswith("next")] == [
            f"next: python scripts/make_shards.py --features {folder / 'features'} "
            f"--captions {folder / 'captions.jsonl'} --out {folder}"
        ]
        (folder / "captions.jsonl").write_text("?")
        code, sections = check(tmp_path)
        assert code == 1 and sections["howto100m"].startswith("BROKEN")
