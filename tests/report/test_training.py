"""The log of a training run and its page: by hand, and of a small run."""

import json
import logging
import math
import time
from pathlib import Path

import numpy as np
import pytest

from mmpt_plugin.report import training, wanted
from mmpt_plugin.report.command import make_pages
from mmpt_plugin.report.gallery import three_clusters, typical_captions
from mmpt_plugin.report.page import render
from mmpt_plugin.report.parts import Detail
from mmpt_plugin.report.run_log import LOG_FILE, append_record, read_run
from mmpt_plugin.report.run_settings import differing_settings, paper_settings, run_settings
from mmpt_plugin.report.training import curve_parts, hook_parts, points, remarks, training_page, write_training_page
from mmpt_plugin.tasks import recording


def write_log(folder: Path, *records: tuple) -> Path:
    """Records (kind, update, epoch, values) in a run's folder."""
    for kind, update, epoch, values in records:
        append_record(folder / LOG_FILE, kind, update, epoch, values)
    return folder


CLUSTERS = {
    "within_cluster_distance": 1.0,
    "random_distance": 2.0,
    "share_of_videos_seen": 0.6,
    "seconds_embed": 3.0,
    "seconds_index": 0.1,
    "seconds_search": 0.2,
    "gallery": [
        {"kind": "tightest", "spread": 0.5, "videos": ["a", "b"], "captions": [{"video": "a", "text": "<b>cut</b>"}]}
    ],
}


# ---------------------------------------------------------------------------------------------------------------- log


def test_what_a_resumed_run_does_again_stands_once(tmp_path):
    write_log(
        tmp_path,
        ("start", 0, 1, {}),
        ("step", 10, 1, {"loss": 3.0}),
        ("clusters", 10, 2, {"share_of_videos_seen": 0.5}),
        ("step", 20, 2, {"loss": 2.0}),
        ("valid", 20, 2, {"loss": 2.5}),
        ("start", 10, 2, {}),
        ("clusters", 10, 2, {"share_of_videos_seen": 0.7}),
        ("step", 20, 2, {"loss": 1.9}),
    )
    history = read_run(tmp_path / LOG_FILE)
    assert [record["loss"] for record in history.steps] == [3.0, 1.9]
    assert history.valid == [] and history.starts == 2
    assert [record["share_of_videos_seen"] for record in history.clusters] == [0.7]
    assert "resumed 1 times" in " ".join(remarks(history))


def test_a_run_begun_anew_replaces_the_old_one(tmp_path):
    write_log(tmp_path, ("start", 0, 1, {}), ("step", 10, 1, {"loss": 3.0}), ("start", 0, 1, {}))
    assert read_run(tmp_path / LOG_FILE).steps == []


def test_numbers_that_are_none_are_kept_as_such(tmp_path):
    write_log(tmp_path, ("step", 5, 1, {"loss": math.nan, "gnorm": math.inf}), ("step", 10, 1, {"loss": 1.0}))
    history = read_run(tmp_path / LOG_FILE)
    assert history.steps[0]["loss"] is None and history.steps[0]["gnorm"] is None
    assert "no number at 1 recorded updates, first at update 5" in remarks(history)[0]
    assert points(history.steps, "loss", "loss") == [{"update": 10, "loss": 1.0}]


def test_lines_that_cannot_be_read_are_counted(tmp_path):
    write_log(tmp_path, ("step", 10, 1, {"loss": 1.0}))
    with (tmp_path / LOG_FILE).open("ab") as file:
        file.write(b'{"kind": "st\xff\n[1]\n{"kind": "step", "update": "x", "epoch": 1}\n{"kind": "step", "upd')
    history = read_run(tmp_path / LOG_FILE)
    assert len(history.steps) == 1 and history.unreadable == 4
    (tmp_path / LOG_FILE).write_text("no log\n")
    with pytest.raises(ValueError, match="no log of a training run"):
        read_run(tmp_path / LOG_FILE)
    with pytest.raises(FileNotFoundError, match=r"checkpoint\.save_dir"):
        read_run(tmp_path / "other" / LOG_FILE)


# ------------------------------------------------------------------------------------------------------------- figures


def test_long_curves_are_averaged():
    records = [{"update": i, "loss": float(i)} for i in range(1, 1001)]
    rows = points(records, "loss", "loss", "train", wanted=10)
    assert [row["update"] for row in rows] == list(range(100, 1001, 100))
    assert rows[0]["loss"] == 50.5 and rows[0]["line"] == "train"
    assert points([], "loss", "loss") == []


def test_every_quantity_of_a_run_is_drawn(tmp_path):
    values = {"loss": 3.0, "text_to_video": 0.1, "video_to_text": 0.2, "lr": 1e-4, "gnorm": 9.0, "clip": 80.0}
    step = values | {"pairs_per_s": 300.0, "memory_gb": 1.0, "gpu_memory_gb": 8.0}
    write_log(tmp_path, ("step", 10, 1, step), ("valid", 10, 1, values), ("clusters", 10, 2, CLUSTERS))
    history = read_run(tmp_path / LOG_FILE)
    loss, accuracy, small = curve_parts(history)
    assert "10,3,train\n10,3,valid" in next(iter(loss.spec["datasets"].values()))
    assert '10,0.2,"valid, video to text"' in next(iter(accuracy.spec["datasets"].values()))
    assert [figure.title for figure in small.members] == [
        "Learning rate",
        "Gradient norm",
        "Clipped updates",
        "Pairs a second",
        "Peak memory of the process, GB",
        "Peak memory of the GPU, GB",
    ]
    assert "10,0.8\n" in next(iter(small.members[2].spec["datasets"].values()))
    assert "80% of the last recorded updates were clipped" in remarks(history)[0]
    hook, gallery = hook_parts(history.clusters)
    assert len(hook.members) == 3 and gallery.queries[0].hits[0].name == "<b>cut</b>"
    html = render(training_page(history, [("optimization.lr", [0.001], [5e-05])], Detail(), "run"))
    assert "&lt;b&gt;cut" in html and "<b>cut" not in html and "[5e-05]" in html


def test_charts_with_the_same_columns_do_not_share_data():
    one = training.curves([{"update": 1, "loss": 1.0}], x="update", y="loss")
    other = training.curves([{"update": 2, "loss": 5.0}], x="update", y="loss")
    assert list(one["datasets"].values()) == ["update,loss\n1,1\n"]
    assert list(other["datasets"].values()) == ["update,loss\n2,5\n"]


def test_a_run_without_a_step_has_a_page(tmp_path):
    page = write_training_page(write_log(tmp_path, ("start", 0, 1, {})))
    assert "No step is recorded yet" in page.read_text()


# ------------------------------------------------------------------------------------------------------------- gallery


def test_the_tightest_median_and_loosest_cluster():
    vectors = np.array([[0.0], [1], [0], [4], [0], [2]])
    clusters = np.array([[0, 1], [2, 3], [4, 5]])  # half the distances: 0.5, 2, 1
    assert three_clusters(clusters, vectors, np.random.default_rng(0)) == [
        ("tightest", 0, 0.5),
        ("median", 2, 1.0),
        ("loosest", 1, 2.0),
    ]
    assert three_clusters(clusters[:1], vectors, np.random.default_rng(0)) == [("tightest", 0, 0.5)]


def test_typical_captions_use_the_clusters_own_words():
    cut, fry, talk, onion, pan, hello = range(6)
    videos = [
        [[hello, talk, pan], [cut, onion, pan]],
        [[cut, onion, hello], [talk, talk, talk]],
        [[fry, hello, talk]],
        [[cut, onion]],  # too short
        [[cut, onion, pan]],  # as the first video says
    ]
    elsewhere = [[[hello, talk]], [[talk, fry]]]
    as_arrays = [[np.array(caption) for caption in captions] for captions in videos]
    assert typical_captions(as_arrays, elsewhere) == [(0, 1), (1, 0), (2, 0)]


# ------------------------------------------------------------------------------------------------------------ settings


def test_settings_that_differ_from_the_papers(tmp_path):
    hydra = tmp_path / ".hydra"
    hydra.mkdir()
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "pretrain.yaml").write_text(
        "task:\n  _name: a\n  data: ???\n  k: 32\n  retrieval: {every: 1}\noptimization: {lr: [0.00005]}\n"
        "lr_scheduler: {total: 1000}\ncommon: {seed: 1}\nmodel: {same: '(0.9,0.98)', bert: base}\n"
    )
    sources = [{"path": "x", "schema": "pkg"}, {"path": str(tmp_path / "configs"), "schema": "file"}]
    (hydra / "hydra.yaml").write_text(json.dumps({"hydra": {"runtime": {"config_sources": sources}}}))
    (hydra / "config.yaml").write_text(
        "task: {_name: b, data: /d, k: 16, retrieval: {every: 2}}\noptimization: {lr: [0.001], max: 9}\n"
        "lr_scheduler: {total: '${optimization.max}'}\ncommon: {seed: 5}\n"
        "model: {same: '(0.9, 0.98)', bert: '${task.data}/bert'}\n"
    )
    ours, paper = run_settings(tmp_path), paper_settings(tmp_path)
    assert differing_settings(ours, paper) == [
        ("task.k", 16, 32),
        ("task.retrieval.every", 2, 1),
        ("optimization.lr", [0.001], [5e-05]),
        ("lr_scheduler.total", 9, 1000),
        ("model.bert", "/d/bert", "base"),
    ]
    assert run_settings(tmp_path / "other") is None and paper_settings(tmp_path / "other") is None


# --------------------------------------------------------------------------------------------------------------- a run


def test_a_run_leaves_its_log_and_its_page(pretrain, tmp_path):
    pretrain(tmp_path, "optimization.max_epoch=3", "common.log_interval=3")
    history = read_run(tmp_path / LOG_FILE)
    assert [record["update"] for record in history.steps] == [3, 6, 9, 12, 15, 18]
    assert all(record["loss"] > 0 and record["gnorm"] > 0 and record["memory_gb"] > 0 for record in history.steps)
    assert {"lr", "clip", "text_to_video", "video_to_text"} <= history.steps[0].keys()
    assert [record["update"] for record in history.valid] == [6, 12, 18]
    assert [record["epoch"] for record in history.clusters] == [1, 2, 3]
    shown = history.clusters[-1]["gallery"]
    assert shown[0]["kind"] == "tightest" and len(shown[0]["videos"]) == 4
    assert all(caption["video"] in cluster["videos"] for cluster in shown for caption in cluster["captions"])
    html = (tmp_path / "report.html").read_text()
    assert "18 updates, epoch 3" in html and "Three clusters of epoch 3" in html
    assert make_pages([tmp_path]) == [tmp_path / "report.html"]


@pytest.mark.slow
def test_a_resumed_run_goes_on_with_its_log(pretrain, tmp_path):
    pretrain(tmp_path, "optimization.max_update=6", "common.log_interval=2")
    pretrain(tmp_path, "optimization.max_update=12", "common.log_interval=2", "task.report=false")
    history = read_run(tmp_path / LOG_FILE)
    assert [record["update"] for record in history.steps] == [2, 4, 6, 8, 10, 12] and history.starts == 2
    assert "6 updates" in (tmp_path / "report.html").read_text()  # the second run wrote none


def test_between_records_nothing_is_asked_of_fairseq(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(recording.metrics, "get_smoothed_values", lambda name: asked.append(name) or {"loss": 1.0})
    recorder = recording.RunRecorder(tmp_path, interval=10, page=False)
    for update in range(25):
        recorder.begin_step(update)
        recorder.end_step()
    assert asked == ["train_inner"] * 2
    assert [record["update"] for record in read_run(tmp_path / LOG_FILE).steps] == [10, 20]


def test_recording_costs_less_than_half_a_percent_of_a_step(tmp_path, monkeypatch):
    """Of a step of the demo, which takes 0.1 s of one core; a record every 25 steps, as there."""
    monkeypatch.setattr(
        recording.metrics, "get_smoothed_values", lambda name: dict.fromkeys(recording.STEP_VALUES, 1.0)
    )
    recorder = recording.RunRecorder(tmp_path, interval=25, page=False)
    recorder.begin_step(0)
    started = time.process_time()
    for update in range(1, 1001):
        recorder.begin_step(update)
        recorder.end_step()
    assert (time.process_time() - started) / 1000 < 0.005 * 0.1


def test_a_page_that_cannot_be_written_does_not_stop_the_run(tmp_path, monkeypatch, caplog):
    recorder = recording.RunRecorder(tmp_path, interval=1, page=True)
    recorder.begin_step(0)
    monkeypatch.setattr(training, "write_page", lambda path, text: (_ for _ in ()).throw(OSError("disk full")))
    with caplog.at_level(logging.ERROR):
        recorder.write_page()
    assert "the run goes on" in caplog.text and "disk full" in caplog.text


def test_without_the_libraries_the_log_is_kept_all_the_same(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(wanted, "find_spec", lambda name: None)
    recorder = recording.RunRecorder(tmp_path, interval=1, page=True)
    assert "pip install 'mmpt_plugin[report]'" in caplog.text
    recorder.begin_step(0)
    recorder.write_page()
    assert [file.name for file in tmp_path.iterdir()] == [LOG_FILE]
