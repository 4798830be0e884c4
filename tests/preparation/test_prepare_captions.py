"""mmpt_plugin/preparation/prepare_captions.py: raw captions in, word pieces out."""

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from mmpt_plugin.data.caption_files import PreparedCaptions, load_captions
from mmpt_plugin.preparation import caption_run, prepare_captions, tokenizing

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "prepare_captions.py"


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


def test_end_to_end(raw, tiny_bert, tmp_path, capsys, caplog):
    out = tmp_path / "captions.jsonl"
    prepare_captions.main(
        [str(raw), "--bert", str(tiny_bert), "--out", str(out), "--workers", "1", "--max-pieces", "32"]
    )
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
    source = captions.settings["raw"]
    assert (source["file"], source["bytes"]) == (raw.name, raw.stat().st_size)
    assert captions.counts == {
        "bad_times": 1,
        "captions": 9,
        "empty": 1,
        "lines": 12,
        "malformed_videos": 2,
        "not_text": 2,
        "pieces": sum(len(piece) for _, own in videos.values() for piece in own),
        "split": 1,
        "unknown_pieces": 3,
        "videos": 4,
        "videos_without_captions": 1,
    }
    assert "malformed_videos" in capsys.readouterr().out
    assert "uneven is malformed" in caplog.text and "strange is malformed" in caplog.text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["captions.jsonl", "raw_caption.json"]


def test_worker_processes_change_nothing(raw, tiny_bert, tmp_path):
    command = [str(raw), "--bert", str(tiny_bert), "--videos-per-part", "2", "--out"]
    prepare_captions.main([*command, str(tmp_path / "one"), "--workers", "1"])
    prepare_captions.main([*command, str(tmp_path / "two"), "--workers", "2"])
    prepare_captions.main([*command[:-3], "--out", str(tmp_path / "whole"), "--workers", "1"])
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes() == (tmp_path / "whole").read_bytes()


def test_a_dead_worker_is_reported_and_the_rest_kept(raw, tiny_bert, tmp_path, monkeypatch, capsys):
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
    make_part = caption_run.make_part

    def die(job, part):
        if "last" in [transcript.video_id for transcript in part.transcripts]:
            os._exit(9)
        make_part(job, part)

    with monkeypatch.context() as patch:
        patch.setattr(caption_run, "make_part", die)
        with pytest.raises(SystemExit) as stopped:
            prepare_captions.main([*command, "2"])
    assert stopped.value.code == 1 and "A worker process died" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    prepare_captions.main([*command, "2"])
    assert len(read(tmp_path / "out")) == 4


def test_goes_on_where_it_was_stopped(raw, tiny_bert, tmp_path, monkeypatch, caplog):
    command = [str(raw), "--bert", str(tiny_bert), "--workers", "1", "--videos-per-part", "2", "--out"]
    prepare_captions.main([*command, str(tmp_path / "whole")])
    made = []

    def make_two(job, part):
        if len(made) == 2:
            raise ValueError("stopped")
        made.append(part.path.name)
        make_part(job, part)

    make_part = caption_run.make_part
    with monkeypatch.context() as patch:
        patch.setattr(caption_run, "make_part", make_two)
        with pytest.raises(SystemExit):
            prepare_captions.main([*command, str(tmp_path / "resumed")])
        assert not (tmp_path / "resumed").exists()
        made.clear()
        prepare_captions.main([*command, str(tmp_path / "resumed")])
    assert made == ["000002.jsonl", "000003.jsonl"]  # four parts of two videos, two were there
    assert (tmp_path / "resumed").read_bytes() == (tmp_path / "whole").read_bytes()

    monkeypatch.delattr(caption_run, "make_part")  # a third run makes nothing
    prepare_captions.main([*command, str(tmp_path / "resumed")])
    assert "is there already" in caplog.text


def test_another_run_is_kept_out(raw, tiny_bert, tmp_path, monkeypatch, capsys):
    command = [str(raw), "--bert", str(tiny_bert), "--out", str(tmp_path / "out"), "--workers", "1"]

    def run_beside(job, part):
        with pytest.raises(SystemExit):
            prepare_captions.main(command)
        make_part(job, part)

    make_part = caption_run.make_part
    monkeypatch.setattr(caption_run, "make_part", run_beside)
    prepare_captions.main(command)
    assert f"is in use by this very process ({os.getpid()})" in capsys.readouterr().err


def test_other_settings_are_refused_unless_told(raw, tiny_bert, tmp_path, capsys):
    command = [str(raw), "--bert", str(tiny_bert), "--out", str(tmp_path / "out"), "--workers", "1"]
    prepare_captions.main(command)
    with pytest.raises(SystemExit) as stopped:
        prepare_captions.main([*command, "--max-pieces", "7"])
    assert stopped.value.code == 1
    assert "max_pieces is 32, now 7" in capsys.readouterr().err
    prepare_captions.main([*command, "--max-pieces", "7", "--overwrite"])
    assert PreparedCaptions(tmp_path / "out").settings["max_pieces"] == 7


@pytest.mark.parametrize(
    ("content", "bert", "message"),
    [
        ('{"a": {"start": [0], "end": [1], "te', None, "no whole JSON file"),
        (None, None, "raw_caption.json: missing"),
        ("{}", "/nowhere", "no tokenizer at '/nowhere'"),
    ],
)
def test_bad_input(tiny_bert, tmp_path, capsys, content, bert, message):
    raw = tmp_path / "raw_caption.json"
    if content is not None:
        raw.write_text(content)
    with pytest.raises(SystemExit) as stopped:
        prepare_captions.main(
            [str(raw), "--bert", bert or str(tiny_bert), "--out", str(tmp_path / "out"), "--workers", "1"]
        )
    assert stopped.value.code == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_compat_equals_the_original(golden, tmp_path):
    folder = golden / "shards"
    raw, bert, out = folder / "data/how2/raw_caption.json", folder / "bert-tiny", tmp_path / "captions.jsonl"
    options = ["--compat", "--seed", "20241", "--workers", "2", "--videos-per-part", "4"]
    prepare_captions.main([str(raw), "--bert", str(bert), "--out", str(out), *options])
    expected = json.loads((folder / "decoded/raw_caption_dedup.bert-tiny.json").read_text())
    assert read(out) == {
        video_id: ([list(times) for times in zip(video["start"], video["end"])], video["cap"])
        for video_id, video in expected.items()
    }


def test_fast_and_plain_tokenizer_agree(tiny_bert):
    texts = ["cut the onions", "", "salt [SEP] salt", "x" * 200, "add " * 600]
    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
    for special_words_are_text in (True, False):
        expected = tokenizer(
            texts, add_special_tokens=False, split_special_tokens=special_words_are_text, verbose=False
        )
        assert tokenizing.load_tokenize(str(tiny_bert), special_words_are_text)(texts) == expected["input_ids"]


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


def run(*arguments):
    return prepare_captions.main([str(argument) for argument in arguments])


def test_a_folder_of_subtitles(tiny_bert, tmp_path, capsys, caplog):
    """One video's failure is its own; everything that is left out is counted by its reason."""
    folder = tmp_path / "videos"
    folder.mkdir()
    files = {
        "talk.mp4": "",
        "talk.en.vtt": "WEBVTT\n\n00:01.000 --> 00:02.000\n[Music] ANN: add <b>salt</b>\n",
        "talk.de.vtt": "WEBVTT\n\n00:01.000 --> 00:02.000\nSalz\n",
        "broken.srt": "no cue",
        "cut.srt": "1\n00:00:10,500 --> 00:00:12,000\ncut the onion\n",
        "foreign.srt": "1\n00:00:10,500 --> 00:00:12,000\n" + "Zwiebel " * 30,
        "silent.vtt": "WEBVTT\n\n00:01.000 --> 00:02.000\n[Music]\n",
        "milliseconds.csv": "start,end,text\n2000,4000,add the salt\n",
    }
    for name, text in files.items():
        (folder / name).write_text(text)
    out = tmp_path / "captions.jsonl"
    options = ["--language", "en", "--shift", "1", "--drop-marks", "--drop-speakers", "--workers", 1]
    assert run(folder, "--bert", tiny_bert, "--out", out, *options) == 0
    assert {video_id: times for video_id, (times, _) in read(out).items()} == {
        "cut": [[11.5, 13]],
        "milliseconds": [[3, 5]],
        "talk": [[2, 3]],
    }
    counts = PreparedCaptions(out).counts
    expected = {"videos": 3, "unreadable_files": 1, "second_files": 1, "unknown_language": 1, "only_marks": 1}
    assert expected.items() <= counts.items() and counts["milliseconds_videos"] == 1
    assert "broken.srt: Not a caption file" in caplog.text and "unknown_language" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("whisper.json", '{"segments": []}'),
        ("raw_caption.json", '{"a": {"start": ["0"], "end": ["1"], "text": ["salt"]}}'),
        ("raw_caption.json", '{"a": {"start": [0], "end": [1], "text": [null]}}'),
        ("silent.srt", "1\n00:00:01,000 --> 00:00:02,000\n<i></i>\n"),
    ],
)
def test_no_caption_is_a_failure(tiny_bert, tmp_path, capsys, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(SystemExit) as stopped:
        run(tmp_path / name, "--bert", tiny_bert, "--out", tmp_path / "out", "--workers", 1)
    assert stopped.value.code == 1
    assert re.search(r"no caption is left|without any caption", capsys.readouterr().err)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_an_edit_that_keeps_size_and_time_is_noticed(raw, tiny_bert, tmp_path, capsys):
    command = [raw, "--bert", tiny_bert, "--out", tmp_path / "out", "--workers", 1]
    run(*command)
    status = raw.stat()
    raw.write_text(raw.read_text().replace("onions to", "onions in"))
    os.utime(raw, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(SystemExit):
        run(*command)
    assert "raw is" in capsys.readouterr().err


def test_help_says_what_it_takes(capsys):
    with pytest.raises(SystemExit) as stopped:
        run("--help")
    assert stopped.value.code == 0 and "WhisperX" in capsys.readouterr().out


@pytest.mark.slow
def test_workers_end_with_the_command_and_the_next_one_goes_on(tiny_bert, tmp_path):
    """kill -9 of the main process: no worker is left, and the same command again makes the same file."""
    raw = tmp_path / "raw_caption.json"
    lines = {"start": list(range(300)), "end": list(range(1, 301)), "text": ["add salt to the pan " * 4] * 300}
    raw.write_text(json.dumps({f"v{i}": lines for i in range(400)}))
    command = [sys.executable, SCRIPT, raw, "--bert", tiny_bert, "--videos-per-part", "10", "--workers", "2", "--out"]
    subprocess.run([*command, tmp_path / "whole"], check=True, stdout=subprocess.PIPE)
    killed = subprocess.Popen([*command, tmp_path / "out"], stdout=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while len(list(tmp_path.glob(".out.*.parts/*.jsonl"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    workers = list(descendants(killed.pid))
    killed.kill()
    killed.wait()
    assert len(workers) >= 2
    while any(Path(f"/proc/{worker}").exists() for worker in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)
    subprocess.run([*command, tmp_path / "out"], check=True, stdout=subprocess.PIPE)
    assert (tmp_path / "out").read_bytes() == (tmp_path / "whole").read_bytes()
    assert not list(tmp_path.glob(".*"))
