"""Evaluation only: the checkpoint's weights, and nothing else, are measured; what does not fit is refused."""

import json
import logging
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.core.hydra_config import HydraConfig

from mmpt_plugin import VideoClip
from mmpt_plugin.evaluation.results import read_results
from mmpt_plugin.models import text_backbone
from mmpt_plugin.models.checkpoint import read_checkpoint, sha256
from mmpt_plugin.optimizers import NoUpdate
from mmpt_plugin.tasks.zeroshot import VideoClipZeroShotTask, given_model_settings

from ..together import composed

SENTENCES = ["add the onions", "cut the potatoes", "stir", "salt to a pan", "add salt", "cut a onion", "stir the pan"]
SEGMENTS = [[0, 5], [5, 50], [3, 4], [10, 40], [59, 70], [60, 70], [20, 52]]  # seconds of two videos of 60


@pytest.fixture
def youcook2(tmp_path: Path) -> Path:
    """A data folder whose youcook2 has seven clips of two videos."""
    folder = tmp_path / "data" / "youcook2"
    (folder / "features").mkdir(parents=True)
    rng = np.random.default_rng(0)
    database: dict[str, dict] = {"one": {"annotations": []}, "-t_wo": {"annotations": []}}
    records = []
    for i, (sentence, segment) in enumerate(zip(SENTENCES, SEGMENTS)):
        video = ("one", "-t_wo")[i % 2]
        records.append({"id": f"{video}_{len(database[video]['annotations'])}", "caption": ""})
        database[video]["annotations"].append({"segment": segment, "sentence": sentence})
    for video in database:
        np.save(folder / "features" / f"{video}.npy", rng.standard_normal((60, 512)).astype(np.float16))
    (folder / "youcook_val.pkl").write_bytes(pickle.dumps(records))
    (folder / "youcookii_annotations_trainval.json").write_text(json.dumps({"database": database}))
    return folder.parent


@pytest.fixture
def evaluate(
    fairseq_train: Callable[..., None], youcook2: Path, tiny_checkpoint: Path, tmp_path: Path
) -> Callable[..., dict]:
    """Evaluates a checkpoint, ours unless told otherwise; gives the results."""

    def run(*overrides: str, checkpoint: Path | str = tiny_checkpoint) -> dict:
        fairseq_train(
            "zeroshot_youcook2",
            f"task.data={youcook2}",
            f"task.results_path={tmp_path / 'results'}",
            f"checkpoint.restore_file={checkpoint}",
            "dataset.num_workers=0",
            *overrides,
        )
        return read_results(tmp_path / "results" / "youcook2.json")

    return run


@pytest.fixture
def refused(evaluate: Callable[..., dict], tmp_path: Path) -> Callable[..., None]:
    """Asserts that an evaluation fails with such a message and leaves no result."""

    def run(error: type[Exception], message: str, *overrides: str, **settings: Path | str) -> None:
        with pytest.raises(error, match=message):
            evaluate(*overrides, **settings)
        assert not list((tmp_path / "results").glob("youcook2*"))

    return run


class TouchesAFile:
    """Pickled, it runs a command when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.system, (f"touch '{self.path}'",)


# --- what is measured ---


def test_scores_are_those_of_the_checkpoints_embeddings(
    evaluate: Callable[..., dict], youcook2: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    results = evaluate()
    clip = VideoClip.from_pretrained(tiny_checkpoint)
    videos = [np.load(youcook2 / "youcook2" / "features" / f"{name}.npy") for name in ("one", "-t_wo")]
    windows = [videos[i % 2][start : min(end, start + 32)] for i, (start, end) in enumerate(SEGMENTS)]
    assert [len(window) for window in windows] == [5, 32, 1, 30, 1, 0, 32]
    similarities = (clip.encode_text(SENTENCES) @ clip.encode_video(windows).T).numpy()
    assert "YouCook2: which clip" in (tmp_path / "results" / "youcook2.html").read_text()
    saved = np.load(tmp_path / "results" / "youcook2_scores.npz")
    np.testing.assert_allclose(saved["similarities"], similarities, atol=1e-4)
    ranks = (similarities >= np.diag(similarities)[:, None]).sum(1)  # 1: only itself is as similar
    assert results["metrics"]["R@1"] == pytest.approx((ranks <= 1).mean())
    assert results["metrics"]["R@5"] == pytest.approx((ranks <= 5).mean())
    assert results["metrics"]["median_rank"] == pytest.approx(np.median(ranks))
    assert results["counts"] == {"expected": 3350, "paper": 3305, "found": 7, "missing": [], "queries": 7}
    assert results["checkpoint"] == {"path": str(tiny_checkpoint.resolve()), "sha256": sha256(tiny_checkpoint)}
    assert results["config"]["model"]["video_layers"] == 2 and results["config"]["task"]["benchmark"] == "youcook2"


@pytest.fixture
def averaged_checkpoint(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """The tiny checkpoint, as training with `ema.store_ema` would have left it."""
    folder = tmp_path / "averaged"
    shutil.copytree(tiny_checkpoint.parent / "bert", folder / "bert")
    content = read_checkpoint(tiny_checkpoint)
    content["extra_state"]["ema"] = {name: 0.5 * value for name, value in content["model"].items()}
    torch.save(content, folder / "checkpoint.tmp")
    return folder / "checkpoint.tmp"


@pytest.mark.parametrize("kind", ["tiny_checkpoint", "averaged_checkpoint"])
def test_weights_stay_bit_identical_and_nothing_is_saved(
    evaluate: Callable[..., dict],
    kind: str,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The average of the weights, where the checkpoint has one: fairseq loads the last ones once more."""
    checkpoint = request.getfixturevalue(kind)
    built: list[torch.nn.Module] = []
    optimizers: list[NoUpdate] = []
    build, initialise = VideoClipZeroShotTask.build_model, NoUpdate.__init__

    def building(task, cfg, from_checkpoint=False):
        built.append(build(task, cfg, from_checkpoint))
        return built[-1]

    def initialising(optimizer, *arguments):
        initialise(optimizer, *arguments)
        optimizers.append(optimizer)

    monkeypatch.setattr(VideoClipZeroShotTask, "build_model", building)
    monkeypatch.setattr(NoUpdate, "__init__", initialising)
    before = checkpoint.read_bytes()
    evaluate(checkpoint=checkpoint)
    content = read_checkpoint(checkpoint)
    (model,), expected = built, content["extra_state"].get("ema", content["model"])
    assert model.state_dict().keys() == expected.keys()
    assert all(torch.equal(value, expected[key]) for key, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert optimizers and not any(optimizer.state_dict()["state"] for optimizer in optimizers)
    assert checkpoint.read_bytes() == before
    assert not list(tmp_path.rglob("*.pt"))


@pytest.mark.slow
def test_workers_and_batches_change_nothing(evaluate: Callable[..., dict]) -> None:
    plain = evaluate()
    assert evaluate("dataset.num_workers=2", "task.batch_size=2")["metrics"] == plain["metrics"]


def test_the_table_ends_the_log(evaluate: Callable[..., dict], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        evaluate()
    assert caplog.messages[-1].startswith("results in ") and "| R@1 " in caplog.messages[-1]
    assert any(record.name == "fairseq_cli.train" for record in caplog.records)  # what came before was not silenced


def test_a_run_replaces_the_results_of_an_earlier_one(evaluate: Callable[..., dict], tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "youcook2.json").write_text("old")
    assert evaluate()["benchmark"] == "youcook2"


def test_the_originals_checkpoint(evaluate: Callable[..., dict], golden: Path) -> None:
    given = f"model.bert={golden / 'model' / 'bert-tiny'}"
    results = evaluate(given, checkpoint=golden / "model" / "checkpoint_best.pt")
    assert results["config"]["model"]["video_layers"] == 6


def test_a_model_of_ones_own(
    evaluate: Callable[..., dict], pretrain: Callable[..., None], youcook2: Path, tmp_path: Path
) -> None:
    """The example of docs/extending.md, trained for two updates: its scores are the products of its embeddings."""
    example = f"common.user_dir={Path(__file__).parents[1] / 'example_plugin'}"
    run = tmp_path / "own"
    pretrain(run, example, "model._name=bag_of_words", "task.retrieval.enabled=false", "optimization.max_update=2")
    checkpoint = run / "checkpoint_last.pt"
    results = evaluate(example, checkpoint=checkpoint)
    assert results["counts"]["found"] == 7 and results["config"]["model"]["_name"] == "bag_of_words"
    weights = read_checkpoint(checkpoint)["model"]
    features = torch.from_numpy(np.load(youcook2 / "youcook2" / "features" / "one.npy")[:5]).float()
    video = torch.nn.functional.linear(features, weights["video.weight"], weights["video.bias"]).mean(0)
    clip = text_backbone.load_tokenizer(results["config"]["model"]["bert"])
    text = weights["words.weight"][clip(SENTENCES[3])["input_ids"]].mean(0)
    scores = np.load(tmp_path / "results" / "youcook2_scores.npz")["similarities"]
    assert scores[3, 0] == pytest.approx(float(text @ video), abs=1e-4)


def test_a_model_of_ones_own_that_a_benchmark_cannot_use(
    fairseq_train: Callable[..., None], pretrain: Callable[..., None], benchmark_data: Path, tmp_path: Path
) -> None:
    example = f"common.user_dir={Path(__file__).parents[1] / 'example_plugin'}"
    pretrain(
        tmp_path / "own",
        example,
        "model._name=bag_of_words",
        "task.retrieval.enabled=false",
        "optimization.max_update=1",
    )
    with pytest.raises(ValueError, match="coin asks for the states of single seconds; the model bag_of_words"):
        fairseq_train(
            "zeroshot_coin", f"task.data={benchmark_data}", f"task.results_path={tmp_path / 'out'}", example,
            f"checkpoint.restore_file={tmp_path / 'own' / 'checkpoint_last.pt'}", "dataset.num_workers=0",
        )  # fmt: skip
    assert not list((tmp_path / "out").glob("coin*"))


# --- what is refused ---


def test_no_checkpoint(refused: Callable[..., None], tmp_path: Path) -> None:
    refused(
        FileNotFoundError,
        r"checkpoint\.restore_file: no checkpoint at .*none\.pt; give the path",
        checkpoint=tmp_path / "none.pt",
    )


def test_a_name_that_fairseq_looks_for_elsewhere(
    refused: Callable[..., None],
    evaluate: Callable[..., dict],
    tiny_checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """fairseq takes a bare checkpoint_last.pt, its default, for that of the folder to save in: here the results'."""
    shutil.copy(tiny_checkpoint, tmp_path / "checkpoint_last.pt")
    shutil.copytree(tiny_checkpoint.parent / "bert", tmp_path / "bert")
    monkeypatch.chdir(tmp_path)
    refused(ValueError, r"write \./checkpoint_last\.pt", checkpoint="checkpoint_last.pt")
    assert evaluate(checkpoint="./checkpoint_last.pt")["checkpoint"]["sha256"] == sha256(tiny_checkpoint)


def test_a_file_that_is_no_checkpoint(refused: Callable[..., None], tmp_path: Path) -> None:
    (tmp_path / "text.pt").write_text("no checkpoint")
    refused(ValueError, r"text\.pt cannot be loaded safely", checkpoint=tmp_path / "text.pt")
    torch.save({"weights": {}}, tmp_path / "other.pt")
    refused(ValueError, r"other\.pt holds no 'model'", checkpoint=tmp_path / "other.pt")


def test_a_checkpoint_that_would_run_code(refused: Callable[..., None], tiny_checkpoint: Path, tmp_path: Path) -> None:
    content = dict(read_checkpoint(tiny_checkpoint)) | {"extra_state": TouchesAFile(tmp_path / "touched")}
    torch.save(content, tmp_path / "unsafe.pt")
    refused(ValueError, r"unsafe\.pt cannot be loaded safely", checkpoint=tmp_path / "unsafe.pt")
    assert not (tmp_path / "touched").exists()


def test_missing_and_unknown_parameters_are_listed(
    refused: Callable[..., None], tiny_checkpoint: Path, tiny_bert: Path, tmp_path: Path
) -> None:
    content = dict(read_checkpoint(tiny_checkpoint))
    content["model"] = dict(content["model"])
    content["model"]["video_encoder.extra"] = content["model"].pop("video_encoder.feature_projection.norm.bias")
    torch.save(content, tmp_path / "altered.pt")
    refused(
        ValueError,
        r"altered\.pt does not fit the model: 1 missing: video_encoder\.feature_projection\.norm\.bias; "
        r"1 unknown: video_encoder\.extra\.",
        f"model.bert={tiny_bert}",
        checkpoint=tmp_path / "altered.pt",
    )


def test_a_bert_that_does_not_fit(refused: Callable[..., None], golden: Path) -> None:
    refused(
        ValueError,
        "has another vocabulary than .*Leave model.bert empty",
        f"model.bert={golden / 'model' / 'bert-tiny'}",
    )


def test_videos_without_features_stop_the_run_or_are_counted(
    refused: Callable[..., None], evaluate: Callable[..., dict], youcook2: Path
) -> None:
    (youcook2 / "youcook2" / "features" / "-t_wo.npy").unlink()
    refused(FileNotFoundError, r"1 of 2 videos have no <video id>\.npy in .*: -t_wo\. .*task\.on_missing=skip")
    counts = evaluate("task.on_missing=skip")["counts"]
    assert counts["missing"] == ["-t_wo"] and counts["found"] == counts["queries"] == 4


def test_features_named_as_videos(refused: Callable[..., None], evaluate: Callable[..., dict], youcook2: Path) -> None:
    for path in list((youcook2 / "youcook2" / "features").glob("*.npy")):
        path.rename(path.with_suffix(".mp4.npy"))
    refused(FileNotFoundError, r"2 of 2 videos have no .*set task\.drop_suffix=true")
    assert evaluate("task.drop_suffix=true", "task.report=false")["counts"]["found"] == 7


def test_features_that_cannot_be_used(refused: Callable[..., None], youcook2: Path) -> None:
    path = youcook2 / "youcook2" / "features" / "one.npy"
    whole = np.load(path)
    spoilt = whole.copy()
    spoilt[2, 7] = np.inf
    for array, message in (
        (spoilt, r"one\.npy: NaN or infinite values in 1 of rows 0\.\.5, first in row 2"),
        (whole[:, :100], r"one\.npy has shape \(60, 100\); features must be \(seconds, 512\)"),
        (whole.astype(np.float64), r"one\.npy holds float64"),
    ):
        np.save(path, array)
        refused(ValueError, message)
    np.save(path, whole)
    path.write_bytes(path.read_bytes()[:-1])
    refused(ValueError, r"one\.npy: truncated or altered")


def test_retrieval_and_misspelt_keys(refused: Callable[..., None], tmp_path: Path) -> None:
    nowhere = f"task.data={tmp_path / 'nothing'}"  # keys are checked before anything is read
    refused(Exception, "Could not override 'task.retrieval.enabled'", "task.retrieval.enabled=true", nowhere)
    refused(Exception, "Key 'retrieval' not in 'VideoClipZeroShotConfig'", "+task.retrieval.enabled=true", nowhere)
    refused(Exception, "Could not override 'task.onmissing'", "task.onmissing=skip", nowhere)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("dataset.batch_size=0", r"dataset\.batch_size is 0: leave it at 1; task\.batch_size is how much"),
        ("task.batch_size=0", r"task\.batch_size is 0: it must be at least 1"),
        ("optimization.max_update=0", r"optimization\.max_update is 0: an evaluation needs 1"),
        ("dataset.disable_validation=true", r"dataset\.disable_validation is True: an evaluation needs False"),
        ("dataset.validate_after_updates=5", r"dataset\.validate_after_updates is 5"),
        ("dataset.max_valid_steps=1", r"dataset\.max_valid_steps is 1"),
        (
            "+model.video_layers=3",
            r"model\.video_layers is 3: an evaluation takes the settings of the model from .*\.pt",
        ),
        ("+model.shared_encoder=true", r"model\.shared_encoder is True"),
    ],
)
def test_settings_that_would_end_in_nothing(refused: Callable[..., None], override: str, message: str) -> None:
    refused(ValueError, message, override)


def test_a_models_setting_that_equals_its_default(
    refused: Callable[..., None], tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the command line: what the model's settings are does not show it."""
    for given, named in (("+model.pooling=mean", True), (f"model.bert={tiny_checkpoint.parent / 'bert'}", False)):
        settings = composed("zeroshot_youcook2", given, return_hydra_config=True)
        with monkeypatch.context() as patched:
            patched.setattr(HydraConfig.instance(), "cfg", settings)
            assert given_model_settings() == [given] * named
    monkeypatch.setattr("mmpt_plugin.tasks.zeroshot.given_model_settings", lambda: ["+model.pooling=mean"])
    refused(ValueError, r"^\+model\.pooling=mean: an evaluation takes the settings of the model from")


def test_damaged_best_possible_scores_stop_the_run_before_it_encodes(
    refused: Callable[..., None], youcook2: Path
) -> None:
    path = youcook2 / "youcook2" / "best_possible_youcook2.npz"
    path.write_bytes(b"PK\x03\x04 cut")
    refused(ValueError, r"best_possible_youcook2\.npz: ")
    np.savez(path, other=np.zeros(3))
    refused(ValueError, r"best_possible_youcook2\.npz does not fit youcook2")


def test_a_place_for_results_that_cannot_be_written(evaluate: Callable[..., dict], tmp_path: Path) -> None:
    (tmp_path / "results").write_text("in the way")
    with pytest.raises(OSError, match="results"):
        evaluate()
