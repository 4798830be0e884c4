"""scripts/prepare_captions.py: raw captions in, word pieces out."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from mmpt_plugin.data.caption_files import PreparedCaptions, load_captions

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "prepare_captions.py"


@pytest.fixture(scope="module")
def script(load_script):
    return load_script("prepare_captions")


@pytest.fixture
def raw(tmp_path):
    """Seven videos: rolling captions, then each kind of line that cannot be used, then malformed ones."""
    path = tmp_path / "raw_caption.json"
    good = {"start": [0, 2, 5], "end": [3, 5, 8], "text": ["cut the onions", "the onions to", "add\nsalt"]}
    content = {
        "-rolling": good,
        "odd": {"start": [0, 1, 2, None], "end": [1, 2, 3, 4], "text": [math.nan, " ", "salt [SEP]", "the pan"]},
        "long": {"start": [0], "end": [10], "text": ["add salt " * 20]},
        "silent": {"start": [0], "end": [1], "text": [None]},
        "uneven": {"start": [0], "end": [1], "text": []},
        "strange": ["add", "salt"],
        "last": good,
    }
    path.write_text(json.dumps(content))
    return path


def read(path):
    captions = PreparedCaptions(path)
    videos = load_captions(path, list(captions.offsets.values()))
    return {video_id: (times.tolist(), tokens) for video_id, (times, tokens) in zip(captions.offsets, videos)}


def test_end_to_end(script, raw, tiny_bert, tmp_path, capsys, caplog):
    out = tmp_path / "captions.jsonl"
    script.main([str(raw), "--bert", str(tiny_bert), "--out", str(out), "--workers", "1", "--max-pieces", "32"])
    videos = read(out)
    ids = AutoTokenizer.from_pretrained(tiny_bert).get_vocab()
    cut, the, onion, s, to, add, salt = (ids[word] for word in ("cut", "the", "onion", "##s", "to", "add", "salt"))
    rolling = ([[0, 3], [3, 5], [5, 8]], [[cut, the, onion, s], [to], [add, salt]])
    assert list(videos) == ["-rolling", "odd", "long", "last"]
    assert videos["-rolling"] == videos["last"] == rolling
    times, tokens = videos["odd"]
    assert times == [[2, 3]] and tokens[0][0] == salt and ids["[SEP]"] not in tokens[0]
    assert videos["long"] == ([[0, 5], [5, 10]], [[add, salt] * 10] * 2)

    captions = PreparedCaptions(out)
    assert captions.settings["tokenizer"] == tiny_bert.name
    assert captions.settings["vocabulary_size"] == len(ids)
    assert captions.settings["raw"] == {"file": raw.name, "bytes": raw.stat().st_size}
    assert captions.counts == {
        "bad_times": 1,
        "captions": 9,
        "empty": 1,
        "lines": 12,
        "malformed_videos": 2,
        "not_text": 2,
        "pieces": sum(len(piece) for _, own in videos.values() for piece in own),
        "split": 1,
        "videos": 4,
        "videos_without_captions": 1,
    }
    assert "malformed_videos" in capsys.readouterr().out
    assert "uneven is malformed" in caplog.text and "strange is malformed" in caplog.text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["captions.jsonl", "raw_caption.json"]


def test_worker_processes_change_nothing(script, raw, tiny_bert, tmp_path):
    command = [str(raw), "--bert", str(tiny_bert), "--videos-per-part", "2", "--out"]
    script.main([*command, str(tmp_path / "one"), "--workers", "1"])
    script.main([*command, str(tmp_path / "two"), "--workers", "2"])
    script.main([*command[:-3], "--out", str(tmp_path / "whole"), "--workers", "1"])
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes() == (tmp_path / "whole").read_bytes()


def test_a_dead_worker_is_reported_and_the_rest_kept(script, raw, tiny_bert, tmp_path, monkeypatch, capsys):
    command = [
        str(raw),
        "--bert",
        str(tiny_bert),
        "--videos-per-part",
        "2",
        "--out",
        str(tmp_path / "out"),
        "--workers",
    ]
    make_part = script.make_part

    def die(job, part):
        if "last" in part.video_ids:
            os._exit(9)
        make_part(job, part)

    with monkeypatch.context() as patch:
        patch.setattr(script, "make_part", die)
        die.__module__, die.__qualname__ = "prepare_captions", "make_part"
        with pytest.raises(SystemExit) as stopped:
            script.main([*command, "2"])
    assert stopped.value.code == 1 and "a worker process died" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    script.main([*command, "2"])
    assert len(read(tmp_path / "out")) == 4


def test_goes_on_where_it_was_stopped(script, raw, tiny_bert, tmp_path, monkeypatch, capsys):
    command = [str(raw), "--bert", str(tiny_bert), "--workers", "1", "--videos-per-part", "2", "--out"]
    script.main([*command, str(tmp_path / "whole")])
    made = []

    def make_two(job, part):
        if len(made) == 2:
            raise ValueError("stopped")
        made.append(part.path.name)
        make_part(job, part)

    make_part = script.make_part
    with monkeypatch.context() as patch:
        patch.setattr(script, "make_part", make_two)
        with pytest.raises(SystemExit):
            script.main([*command, str(tmp_path / "resumed")])
        assert not (tmp_path / "resumed").exists()
        made.clear()
        script.main([*command, str(tmp_path / "resumed")])
    assert made == ["000002.jsonl", "000003.jsonl"]  # four parts of two videos, two were there
    assert (tmp_path / "resumed").read_bytes() == (tmp_path / "whole").read_bytes()

    monkeypatch.delattr(script, "make_part")  # a third run makes nothing
    script.main([*command, str(tmp_path / "resumed")])
    assert "is there already" in capsys.readouterr().out


def test_another_run_is_kept_out(script, tmp_path):
    with (
        script.exclusive(tmp_path / "parts"),
        pytest.raises(ValueError, match="another run is making this file"),
        script.exclusive(tmp_path / "parts"),
    ):
        pass


def test_other_settings_are_refused_unless_told(script, raw, tiny_bert, tmp_path, capsys):
    command = [str(raw), "--bert", str(tiny_bert), "--out", str(tmp_path / "out"), "--workers", "1"]
    script.main(command)
    with pytest.raises(SystemExit) as stopped:
        script.main([*command, "--max-pieces", "7"])
    assert stopped.value.code == 1
    assert "max_pieces is 32, now 7" in capsys.readouterr().err
    script.main([*command, "--max-pieces", "7", "--overwrite"])
    assert PreparedCaptions(tmp_path / "out").settings["max_pieces"] == 7


@pytest.mark.parametrize(
    ("content", "bert", "message"),
    [
        ('{"a": {"start": [0], "end": [1], "te', None, "no whole JSON file"),
        (None, None, "raw_caption.json: missing"),
        ("{}", "/nowhere", "no tokenizer at '/nowhere'"),
    ],
)
def test_bad_input(script, tiny_bert, tmp_path, capsys, content, bert, message):
    raw = tmp_path / "raw_caption.json"
    if content is not None:
        raw.write_text(content)
    with pytest.raises(SystemExit) as stopped:
        script.main([str(raw), "--bert", bert or str(tiny_bert), "--out", str(tmp_path / "out"), "--workers", "1"])
    assert stopped.value.code == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_compat_equals_the_original(script, golden, tmp_path):
    folder = golden / "shards"
    raw, bert, out = folder / "data/how2/raw_caption.json", folder / "bert-tiny", tmp_path / "captions.jsonl"
    options = ["--compat", "--seed", "20241", "--workers", "2", "--videos-per-part", "4"]
    script.main([str(raw), "--bert", str(bert), "--out", str(out), *options])
    expected = json.loads((folder / "decoded/raw_caption_dedup.bert-tiny.json").read_text())
    assert read(out) == {
        video_id: ([list(times) for times in zip(video["start"], video["end"])], video["cap"])
        for video_id, video in expected.items()
    }


def test_fast_and_plain_tokenizer_agree(script, tiny_bert):
    texts = ["cut the onions", "", "salt [SEP] salt", "x" * 200, "add " * 600]
    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
    for special_words_are_text in (True, False):
        expected = tokenizer(
            texts, add_special_tokens=False, split_special_tokens=special_words_are_text, verbose=False
        )
        assert script.load_tokenize(str(tiny_bert), special_words_are_text)(texts) == expected["input_ids"]


MEASURED = """
import runpy, sys
try:
    runpy.run_path(sys.argv[1])["main"](sys.argv[2:])
finally:
    print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_file(tiny_bert, tmp_path):
    """The whole script in a process that tells its own peak: what `wait4` says of a child counts its parent's too."""
    lines = ["add the salt to the pan"] + ["the pan"] * 79  # repeated words cost reading, but little tokenizing
    video = json.dumps({"start": [float(i) for i in range(80)], "end": [i + 1.5 for i in range(80)], "text": lines})
    peaks = []
    for name, videos in (("small", 2_000), ("large", 30_000)):
        raw = tmp_path / f"{name}.json"
        with raw.open("w") as file:
            file.write("{" + ",".join(f'"{i}":{video}' for i in range(videos)) + "}")
        arguments = [raw, "--bert", tiny_bert, "--out", tmp_path / name, "--workers", "1"]
        command = [sys.executable, "-c", MEASURED, SCRIPT, *arguments]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        assert PreparedCaptions(tmp_path / name).counts["lines"] == 80 * videos
        peaks.append(int(output.split()[-1]) // 1024)
    assert raw.stat().st_size > 50 << 20
    assert peaks[1] < peaks[0] + 25, peaks  # MiB: half of what the file grew by
    assert peaks[1] < 900


def descendants(pid: int) -> dict[int, str]:
    """The processes that a process started, and they theirs, with their command lines."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            child, parent = int(stat.parent.name), int(stat.read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):  # it ended meanwhile
            continue
        children.setdefault(parent, []).append(child)
    found, pending = {}, [pid]
    while pending:
        for child in children.get(pending.pop(), []):
            pending.append(child)
            try:
                found[child] = (Path("/proc") / str(child) / "cmdline").read_text()
            except (FileNotFoundError, ProcessLookupError):
                continue
    return found


def kill_one_ray_task(driver: subprocess.Popen) -> bool:
    """Waits until a worker of the driver's cluster is at work on a part, and kills it."""
    while driver.poll() is None:
        for pid, command in descendants(driver.pid).items():
            if command.startswith("ray::make_part"):
                os.kill(pid, signal.SIGKILL)
                return True
        time.sleep(0.01)
    return False


@pytest.mark.slow
def test_on_ray_with_a_killed_worker(tiny_bert, tmp_path):
    """Two workers, one of them killed in the middle of a part: the file is the one made without Ray."""
    raw = tmp_path / "raw_caption.json"
    video = {"start": list(range(200)), "end": list(range(1, 201)), "text": ["add salt to the pan " * 3] * 200}
    raw.write_text(
        json.dumps({f"v{i}": video | {"text": [f"{i} {text}" for text in video["text"]]} for i in range(600)})
    )
    command = [sys.executable, SCRIPT, raw, "--bert", tiny_bert, "--videos-per-part", "50", "--workers", "2", "--out"]
    subprocess.run([*command, tmp_path / "here"], check=True, stdout=subprocess.PIPE)
    on_ray = subprocess.Popen([*command, tmp_path / "ray", "--ray", "local"], stdout=subprocess.PIPE)
    assert kill_one_ray_task(on_ray), "nobody was killed"
    on_ray.communicate()
    assert on_ray.returncode == 0
    assert (tmp_path / "here").read_bytes() == (tmp_path / "ray").read_bytes()
    assert list(PreparedCaptions(tmp_path / "ray").offsets) == [f"v{i}" for i in range(600)]
