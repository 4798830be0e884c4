"""mmpt_plugin/preparation/make_shards.py: features and captions in, what pre-training reads out."""

import json
import os
import subprocess
from itertools import chain

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmpt_plugin.data.caption_files import write_captions
from mmpt_plugin.data.captions import Caption
from mmpt_plugin.data.corpus import VideoTextCorpus, read_video_list
from mmpt_plugin.data.mmpt_shards import read_mmpt_shards
from mmpt_plugin.data.shards import read_shard
from mmpt_plugin.features.manifest import FeatureSettings, write_settings
from mmpt_plugin.files.writing import aside_path
from mmpt_plugin.preparation import make_shards, shard_plan, shard_run

WIDTH = 8
SETTINGS = FeatureSettings(network="random", weights_sha256="0", feature_size=WIDTH)


def video(number):
    """Features of number + 2 seconds; captions in the first and the third second, of number + 1 and of 2 pieces."""
    rng = np.random.default_rng(number)
    captions = [Caption(0.0, 1.0, list(range(number + 1))), Caption(2.0, 3.0, [7, 8])]
    return rng.standard_normal((number + 2, WIDTH)).astype(np.float16), captions


@pytest.fixture
def parts(tmp_path):
    """12 videos; v00 has no captions, v01 no features, v02 features of 0 seconds."""
    features, captions = tmp_path / "features", tmp_path / "captions.jsonl"
    features.mkdir()
    write_settings(features, SETTINGS)
    for number in range(12):
        if number != 1:
            np.save(features / f"v{number:02}.npy", video(number)[0][: 0 if number == 2 else None])
    write_captions(
        captions,
        [(f"v{number:02}", video(number)[1]) for number in (5, 3, 4, 1, 2, *range(6, 12))],
        settings={"tokenizer": "tiny"},
        counts={},
    )
    return features, captions


@pytest.fixture
def command(parts, tmp_path):
    features, captions = parts
    return [
        *("--features", str(features), "--captions", str(captions), "--out", str(tmp_path / "howto100m")),
        *("--val", "2", "--videos-per-shard", "3", "--workers", "1"),
    ]


def listed(folder, name):
    return (folder / name).read_text().split()


def bytes_of(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def fails(capsys, command):
    with pytest.raises(SystemExit) as stopped:
        make_shards.main(command)
    assert stopped.value.code == 1
    return capsys.readouterr().err


def test_end_to_end(command, tmp_path, capsys):
    out = tmp_path / "howto100m"
    make_shards.main(command)
    train, val = read_video_list(out / "train.txt"), read_video_list(out / "val.txt")
    assert len(val) == 2 and sorted(train + val) == [f"v{number:02}" for number in range(3, 12)]
    assert listed(out, "missing_features.txt") == ["v01", "v02"]
    assert listed(out, "missing_captions.txt") == ["v00"]
    assert sorted(path.name for path in (out / "shards").iterdir()) == [
        *("train_00000", "train_00001", "train_00002"),  # 7 videos, 3 a shard
        "val_00000",
    ]
    for ids in (train, val):
        corpus = VideoTextCorpus.open(out / "shards", ids, feature_size=WIDTH)
        assert corpus.source["features"]["network"] == "random"
        assert corpus.source["captions"] == {"tokenizer": "tiny"}
        for position, video_id in enumerate(ids):
            features, captions = video(int(video_id[1:]))
            np.testing.assert_array_equal(corpus.features(position), features)
            times, counts = corpus.captions(position)
            assert times.tolist() == [[caption.start, caption.end] for caption in captions]
            assert counts.tolist() == [len(caption.pieces) for caption in captions]
            assert corpus.text(position, 0, 2).tolist() == captions[0].pieces + captions[1].pieces
    output = capsys.readouterr().out
    assert "2 videos lack features, 1 captions" in output and "paper" in output


def test_statistics_by_hand(command, tmp_path):
    make_shards.main([*command[:6], "--val-list", str(write_lines(tmp_path / "val", ["v03"])), "--workers", "1"])
    statistics = json.loads((tmp_path / "howto100m" / "statistics.json").read_text())
    # v03: 5 seconds; captions [0, 1] and [2, 3] of 4 and 2 pieces
    assert statistics["val"] == {
        "videos": 1,
        "minutes a video": round(5 / 60, 2),
        "captions a video": 2,
        "pieces a second": 6 / 5,
        "coverage": 2 / 5,
        "captions beyond": 0,
    }
    assert statistics["train"]["videos"] == 8
    assert statistics["paper"] == {"minutes a video": 6.5, "captions a video": 110, "pieces a second": 2.4}


def write_lines(path, lines):
    path.write_text("\n".join(lines) + "\n")
    return path


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # on a busy machine
@given(
    st.lists(st.tuples(st.integers(-2, 12), st.integers(-2, 12)), max_size=8),
    st.integers(0, 10),
)
def test_covered_seconds_equals_counting(times, seconds):
    covered = sum(any(start <= second < end for start, end in times) for second in range(seconds))
    assert shard_run.covered_seconds(np.array(times, np.float32).reshape(-1, 2), seconds) == covered


def test_worker_processes_change_nothing(command, tmp_path):
    make_shards.main(command)
    several = [*command[:-1], "2"]
    several[several.index("--out") + 1] = str(tmp_path / "several")
    make_shards.main(several)
    assert bytes_of(tmp_path / "howto100m") == bytes_of(tmp_path / "several")


def test_goes_on_where_it_was_stopped(command, tmp_path, monkeypatch, capsys):
    out = tmp_path / "howto100m"
    make_shards.main(command)
    whole = bytes_of(out)
    for name in ("train.txt", "shards/train_00001/index.json"):
        (out / name).unlink()
    for path in (out / "shards" / "train_00001").iterdir():
        path.unlink()
    (out / "shards" / "train_00001").rmdir()
    made = []
    read_pairs = shard_plan.read_pairs
    monkeypatch.setattr(shard_plan, "read_pairs", lambda *args: made.append(args[3]) or read_pairs(*args))
    make_shards.main(command)
    assert len(made) == 1 and bytes_of(out) == whole


def test_a_run_beside_this_one_may_be_faster(command, tmp_path, monkeypatch):
    """Another run finishes the first shard while this one is at it: its work is kept."""
    read_pairs = shard_plan.read_pairs
    monkeypatch.setattr(shard_plan, "read_pairs", read_pairs)

    def other_run_first(*args):
        monkeypatch.setattr(shard_plan, "read_pairs", read_pairs)
        make_shards.main(command)
        return read_pairs(*args)

    monkeypatch.setattr(shard_plan, "read_pairs", other_run_first)
    make_shards.main(command)
    make_shards.main([*command[4:6], "--verify"])
    assert not list((tmp_path / "howto100m" / "shards").glob(".*"))


def test_validation_hardly_changes_when_videos_are_added():
    ids = [f"v{number}" for number in range(1000)]
    before = set(shard_plan.split_videos(ids[:990], 20, None)["val"])
    after = set(shard_plan.split_videos(ids, 20, None)["val"])
    assert len(before) == len(after) == 20 and len(before & after) >= 17
    assert len(shard_plan.split_videos(ids, None, None)["val"]) == 3  # one in 300


def test_validation_list(command, tmp_path, caplog):
    make_shards.main(
        [*command[:6], "--val-list", str(write_lines(tmp_path / "val", ["v01", "v09", "v04"])), "--workers", "1"]
    )
    assert listed(tmp_path / "howto100m", "val.txt") == ["v04", "v09"]
    assert "1 of 3 videos lack a side" in caplog.text


class TestRefuses:
    def test_shards_of_another_plan(self, command, capsys):
        make_shards.main(command)
        other = list(command)
        other[other.index("--videos-per-shard") + 1] = "4"
        assert "shards that this run would not make (train_00002" in fails(capsys, other)

    def test_shards_of_other_features(self, command, parts, capsys):
        make_shards.main(command)
        manifest = parts[0] / "manifest.json"
        manifest.write_text(manifest.read_text().replace("random", "other"))
        assert "made from other videos, or from features or captions made in another way" in fails(capsys, command)

    def test_all_damaged_features_at_once(self, command, parts, tmp_path, capsys):
        (parts[0] / "v05.npy").write_bytes(b"no array")
        np.save(parts[0] / "v06.npy", np.zeros((3, WIDTH + 1), np.float16))
        message = fails(capsys, command)
        assert "2 feature files cannot be used" in message and "v05.npy" in message and "v06.npy has shape" in message
        assert not (tmp_path / "howto100m" / "train.txt").exists()

    @pytest.mark.parametrize("workers", ["1", "2"])
    def test_nan(self, command, parts, tmp_path, capsys, workers):
        np.save(parts[0] / "v07.npy", np.full((3, WIDTH), np.nan, np.float16))
        message = fails(capsys, [*command[:-1], workers])
        assert "v07.npy: NaN" in message
        assert not (tmp_path / "howto100m" / "train.txt").exists()
        assert not list((tmp_path / "howto100m" / "shards").glob(".*"))

    def test_nothing_in_common(self, command, parts, tmp_path, capsys):
        write_captions(parts[1], [("other", video(0)[1])], settings={}, counts={})
        assert "no video has both features" in fails(capsys, command)

    def test_nothing_left_to_train_on(self, command, capsys):
        assert "nothing is left for train" in fails(capsys, [*command, "--val", "9"])

    def test_missing_files(self, command, parts, tmp_path, capsys):
        parts[1].unlink()
        assert "prepare_captions.py makes it" in fails(capsys, command)
        assert "no such folder" in fails(capsys, ["--from-mmpt", str(tmp_path / "no"), "--out", str(tmp_path)])

    @pytest.mark.parametrize("options", [[], ["--val", "0"], ["--workers", "0"], ["--val", "1", "--val-list", "x"]])
    def test_command_lines(self, tmp_path, options):
        with pytest.raises(SystemExit) as stopped:
            make_shards.main(["--out", str(tmp_path), *options])
        assert stopped.value.code == 2


def test_features_without_a_manifest(command, parts, tmp_path, caplog):
    (parts[0] / "manifest.json").unlink()
    make_shards.main(command)
    assert "has no manifest" in caplog.text
    assert read_shard(tmp_path / "howto100m/shards/val_00000").source["features"] is None


class TestVerify:
    def test_finds_all_that_is_damaged(self, command, tmp_path, capsys):
        make_shards.main(command)
        out = tmp_path / "howto100m"
        verify = ["--verify", "--out", str(out), "--workers", "2"]
        make_shards.main(verify)
        assert "4 shards" in capsys.readouterr().out
        for name in ("shards/train_00000/tokens.npy", "shards/val_00000/features.npy"):
            content = bytearray((out / name).read_bytes())
            content[-1] ^= 1
            (out / name).write_bytes(content)
        with (out / "val.txt").open("a") as file:
            file.write("stranger\n")
        message = fails(capsys, verify)
        assert "train_00000/tokens.npy: altered" in message and "val_00000/features.npy: altered" in message
        assert "stranger" in message

    def test_finds_a_video_in_both_lists(self, command, tmp_path, capsys):
        make_shards.main(command)
        out = tmp_path / "howto100m"
        with (out / "val.txt").open("a") as file:
            file.write(listed(out, "train.txt")[0] + "\n")
        assert "1 videos are in two lists" in fails(capsys, ["--verify", "--out", str(out)])

    def test_needs_shards(self, tmp_path, capsys):
        assert "no shards" in fails(capsys, ["--verify", "--out", str(tmp_path)])


@pytest.mark.parametrize("workers", ["1", "2"])
def test_from_mmpt(golden, tmp_path, workers):
    folder = golden / "shards" / "data" / "feat" / "feat_how2_s3d_shard_small"
    out = tmp_path / "howto100m"
    make_shards.main(["--from-mmpt", str(folder), "--out", str(out), "--workers", workers])
    decoded = golden / "shards" / "decoded"
    for split in ("train", "val"):
        metas = json.loads((decoded / f"{split}_meta.json").read_text())
        assert listed(out, f"{split}.txt") == [video_id for ids in metas.values() for video_id in ids]
    captions = json.loads((decoded / "raw_caption_dedup.bert-tiny.json").read_text())
    originals = read_mmpt_shards(folder)
    for original in originals:
        split, number = original.name.split("_")
        converted = read_shard(out / "shards" / f"{split}_{int(number):05d}")
        converted.verify()
        assert converted.source == original.source
        for position, video_id in enumerate(converted.video_ids):
            np.testing.assert_array_equal(converted.features[position], original.features[position])
            np.testing.assert_array_equal(converted.caption_times[position], original.caption_times[position])
            expected = captions[video_id]["cap"]
            assert converted.piece_counts(position).tolist() == [len(caption) for caption in expected]
            assert converted.pieces(position, 0, len(expected)).tolist() == list(chain(*expected))


def test_captions_in_milliseconds_are_refused(command, parts, tmp_path, capsys):
    captions = [(f"v{n:02}", [Caption(2000.0 * i, 2000.0 * i + 1500, [7]) for i in range(3)]) for n in range(3, 12)]
    write_captions(parts[1], captions, settings={}, counts={})
    message = fails(capsys, command)
    assert "of 9 captions start after their video's features end: are times in seconds?" in message
    assert not list((tmp_path / "howto100m" / "shards").iterdir())


def test_captions_beyond_the_video_are_counted(command, parts, tmp_path, caplog):
    captions = [(f"v{n:02}", [Caption(0.0, 1.0, [7]), Caption(50.0 * (n == 5), 60.0, [7])]) for n in range(3, 12)]
    write_captions(parts[1], captions, settings={}, counts={})
    make_shards.main(command)
    statistics = json.loads((tmp_path / "howto100m" / "statistics.json").read_text())
    assert statistics["train"]["captions beyond"] + statistics["val"]["captions beyond"] == 1
    assert "1 of" in caplog.text and "start after their video's features end" in caplog.text


def test_features_named_as_videos_meet_their_ids_on_demand(command, parts, tmp_path, capsys):
    for path in list(parts[0].glob("*.npy")):
        path.rename(path.with_name(f"{path.stem}.mp4.npy"))
    assert "set --drop-suffix" in fails(capsys, command)
    make_shards.main([*command, "--drop-suffix"])
    assert len(read_video_list(tmp_path / "howto100m" / "train.txt")) == 7
    for name in ("v04.webm", "v05.avi"):
        np.save(parts[0] / f"{name}.npy", video(4)[0])
    message = fails(capsys, [*command, "--drop-suffix"])
    assert "2 video ids have several feature files: v04.mp4, v04.webm; v05.avi, v05.mp4" in message


def test_left_overs_of_dead_runs_are_cleared(command, tmp_path, caplog):
    """The folder of a process that has ended goes; that of a living one, this, stays."""
    shards = tmp_path / "howto100m" / "shards"
    dead = subprocess.Popen(["true"])
    dead.wait()
    mine = aside_path(shards / "a")
    left = mine.with_name(mine.name.replace(str(os.getpid()), str(dead.pid)))
    for folder in (mine, left):
        folder.mkdir(parents=True)
    make_shards.main(command)
    assert mine.exists() and not left.exists() and "removed 1 unfinished" in caplog.text


def test_a_name_that_breaks_lists_is_left_out_and_named(command, parts, tmp_path, caplog):
    np.save(parts[0] / "two\nlines.npy", video(4)[0])
    np.save(parts[0] / "._v05.npy", video(4)[0])  # macOS's shadow
    make_shards.main(command)
    assert "two\\nlines.npy' is left out, as such an id has a line break" in caplog.text
    assert listed(tmp_path / "howto100m", "missing_captions.txt") == ["v00"]


def test_a_pipe_among_the_features_is_refused(command, parts, capsys):
    (parts[0] / "manifest.json").unlink()
    os.mkfifo(parts[0] / "a.npy")
    message = fails(capsys, command)
    assert "a.npy: this is a named pipe" in message
