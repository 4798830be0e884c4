"""Fine-tuning through fairseq: it trains, resumes, and its result is evaluated; what does not fit is refused."""

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from fairseq import checkpoint_utils
from transformers import BertConfig, BertModel, BertTokenizer

from mmpt_plugin.evaluation.results import read_results
from mmpt_plugin.features.manifest import MANIFEST, FeatureSettings
from mmpt_plugin.models.checkpoint import read_checkpoint

SMALL = (
    "common.fp16=false",
    "dataset.num_workers=0",
    "lr_scheduler.warmup_updates=1",
    "optimization.lr=[0.001]",
    "optimization.max_epoch=2",
)


@pytest.fixture
def finetune(
    fairseq_train: Callable[..., None], benchmark_data: Path, tiny_checkpoint: Path, tmp_path: Path
) -> Callable[..., dict]:
    """Fine-tunes the tiny checkpoint; gives what was saved."""

    def run(
        name: str, *overrides: str, data: Path = benchmark_data, checkpoint: Path = tiny_checkpoint, to: str = "run"
    ):
        fairseq_train(
            f"finetune_{name}",
            f"task.data={data}",
            f"checkpoint.finetune_from_model={checkpoint}",
            f"checkpoint.save_dir={tmp_path / to}",
            *SMALL,
            *overrides,
        )
        return read_checkpoint(tmp_path / to / "checkpoint_last.pt")

    return run


@pytest.fixture
def evaluate(fairseq_train: Callable[..., None], benchmark_data: Path, tmp_path: Path) -> Callable[..., dict]:
    """Evaluates what `finetune` saved; gives the results."""

    def run(name: str, data: Path = benchmark_data) -> dict:
        fairseq_train(
            f"zeroshot_{name}",
            f"task.data={data}",
            f"task.results_path={tmp_path / 'results'}",
            f"checkpoint.restore_file={tmp_path / 'run' / 'checkpoint_last.pt'}",
            "dataset.num_workers=0",
        )
        return read_results(tmp_path / "results" / f"{name}.json")

    return run


def changed(saved: dict, start: Path, part: str) -> bool:
    """Whether training moved the parameters of that part."""
    before = read_checkpoint(start)["model"]
    return any(not torch.equal(saved["model"][key], value) for key, value in before.items() if key.startswith(part))


@pytest.mark.parametrize(
    ("name", "updates", "paper"),
    [
        ("youcook2", 2, {"R@1": 0.322, "R@5": 0.626, "R@10": 0.75}),  # 5 clips: one batch an epoch
        # 4 and 3 videos, 20 times each: one batch of at most 224 and 128 an epoch
        pytest.param("msrvtt", 2, {"R@1": 0.309, "R@5": 0.554, "R@10": 0.668}, marks=pytest.mark.slow),
        pytest.param("msrvtt_qa", 2, {"accuracy": 0.921}, marks=pytest.mark.slow),
    ],
)
def test_retrieval(
    finetune: Callable[..., dict],
    evaluate: Callable[..., dict],
    tiny_checkpoint: Path,
    name: str,
    updates: int,
    paper: dict,
) -> None:
    saved = finetune(name)
    assert saved["optimizer_history"][-1]["num_updates"] == updates
    assert changed(saved, tiny_checkpoint, "video_encoder") and changed(saved, tiny_checkpoint, "text_encoder")
    results = evaluate(name)
    assert results["checkpoint"]["fine_tuned_on"] == name
    assert results["paper"] == paper


def test_coin_by_its_classifier(
    finetune: Callable[..., dict], evaluate: Callable[..., dict], tiny_checkpoint: Path, tmp_path: Path
) -> None:
    saved = finetune("coin", "optimization.max_epoch=30")
    assert saved["cfg"]["model"]["frame_labels"] == [3, 7, 12] and saved["cfg"]["model"]["video_layers"] == 2
    assert saved["model"]["frame_classifier.weight"].shape == (4, 32)
    assert changed(saved, tiny_checkpoint, "video_encoder") and not changed(saved, tiny_checkpoint, "text_encoder")
    results = evaluate("coin")
    assert "Loss" in (tmp_path / "run" / "report.html").read_text()
    assert "Timelines of" in (tmp_path / "results" / "coin.html").read_text()
    scores = np.load(tmp_path / "results" / "coin_scores.npz")
    assert scores["logits"].shape == (35, 4) and scores["label_ids"].tolist() == [3, 7, 12]
    # test labels 3 and 12 are its classes 1 and 2; the classifier's class 2 (label 7) is no class of the test
    target = np.zeros(35, int)
    target[0:3], target[4:7] = 1, 2
    predicted = np.array([0, 1, -1, 2])[scores["logits"].argmax(1)]
    assert results["metrics"]["frame_accuracy"] == pytest.approx((predicted == target).mean())
    assert "calibrated" not in results["metrics"] and results["paper"] == {"frame_accuracy": 0.687}
    # most seconds are background, which the classifier must have learned
    assert results["metrics"]["frame_accuracy"] > 0.7


def test_crosstask_by_the_steps_texts(
    finetune: Callable[..., dict], evaluate: Callable[..., dict], tiny_checkpoint: Path
) -> None:
    saved = finetune("crosstask", "optimization.max_epoch=1")
    assert saved["optimizer_history"][-1]["num_updates"] == 30
    assert changed(saved, tiny_checkpoint, "video_encoder") and changed(saved, tiny_checkpoint, "text_encoder")
    results = evaluate("crosstask")
    assert results["counts"]["found"] == 2 and results["paper"] == {"recall": 0.473}


@pytest.mark.parametrize("name", ["msrvtt", pytest.param("coin", marks=pytest.mark.slow)])
def test_a_run_that_is_stopped_ends_as_one_that_is_not(finetune: Callable[..., dict], name: str) -> None:
    few = ("dataset.batch_size=1", "task.repeats=1")  # of msrvtt: 4 updates an epoch; of coin 2
    whole = finetune(name, *few, to="whole")
    finetune(name, *few, "optimization.max_update=3", to="stopped")
    resumed = finetune(name, *few, to="stopped")
    assert resumed["optimizer_history"][-1]["num_updates"] == whole["optimizer_history"][-1]["num_updates"] > 3
    for key, value in whole["model"].items():
        torch.testing.assert_close(resumed["model"][key], value, rtol=0, atol=1e-6)


def test_fairseq_loads_the_result(finetune: Callable[..., dict], tmp_path: Path) -> None:
    saved = finetune("coin")
    models, cfg, _ = checkpoint_utils.load_model_ensemble_and_task([str(tmp_path / "run" / "checkpoint_last.pt")])
    assert list(cfg.model.frame_labels) == [3, 7, 12]
    torch.testing.assert_close(models[0].state_dict()["frame_classifier.bias"], saved["model"]["frame_classifier.bias"])


@pytest.mark.slow
def test_the_originals_checkpoint(finetune: Callable[..., dict], golden: Path) -> None:
    bert = f"model.bert={golden / 'model' / 'bert-tiny'}"
    saved = finetune("youcook2", bert, checkpoint=golden / "model" / "checkpoint_best.pt")
    assert saved["cfg"]["model"]["video_layers"] == 6


# --- what is refused ---


def other_bert(folder: Path, words: list[str], width: int = 32) -> Path:
    """A BERT folder like the tiny one but for its words or its width."""
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=width,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    return folder


def test_a_bert_of_another_width_or_vocabulary(finetune: Callable[..., dict], tiny_bert: Path, tmp_path: Path) -> None:
    words = (tiny_bert / "vocab.txt").read_text().split()
    wider = other_bert(tmp_path / "wider", words, width=48)
    with pytest.raises(ValueError, match=r"finetune_from_model: .* does not fit the model: .*of another shape.*\(.*48"):
        finetune("youcook2", f"model.bert={wider}")
    swapped = other_bert(tmp_path / "swapped", [*words[:-2], words[-1], words[-2]])
    with pytest.raises(ValueError, match=r"another vocabulary than .*Leave model\.bert empty"):
        finetune("youcook2", f"model.bert={swapped}")
    assert not (tmp_path / "run" / "checkpoint_last.pt").exists()


def test_a_label_that_training_never_saw(
    finetune: Callable[..., dict], evaluate: Callable[..., dict], benchmark_data: Path, tmp_path: Path
) -> None:
    finetune("coin", "optimization.max_epoch=1")
    data = shutil.copytree(benchmark_data, tmp_path / "data")
    content = json.loads((data / "coin" / "COIN.json").read_text())
    content["database"]["test_a"]["annotation"].append({"id": "5", "segment": [9.0, 11.0], "label": "cut"})
    (data / "coin" / "COIN.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"1 labels of the test videos .* first 5 \('cut'\); .* knows 3 labels"):
        evaluate("coin", data)
    assert not list((tmp_path / "results").glob("coin*"))


def test_a_classifier_that_the_checkpoint_lacks(
    finetune: Callable[..., dict], evaluate: Callable[..., dict], tmp_path: Path
) -> None:
    finetune("coin", "optimization.max_epoch=1")
    path = tmp_path / "run" / "checkpoint_last.pt"
    content = dict(read_checkpoint(path))
    content["model"] = {key: value for key, value in content["model"].items() if "frame_classifier" not in key}
    torch.save(content, tmp_path / "altered.pt")  # aside: what was read is still mapped to the file
    (tmp_path / "altered.pt").rename(path)
    with pytest.raises(ValueError, match=r"2 missing: frame_classifier\.bias, frame_classifier\.weight"):
        evaluate("coin")


def test_where_to_start_from(finetune: Callable[..., dict], tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"checkpoint\.finetune_from_model: no checkpoint at .*none\.pt"):
        finetune("youcook2", checkpoint=tmp_path / "none.pt")
    with pytest.raises(ValueError, match="finetune_from_model is not set"):
        finetune("youcook2", "checkpoint.finetune_from_model=null")
    finetune("coin", "optimization.max_epoch=1")
    with pytest.raises(ValueError, match="was fine-tuned to classify frames already"):
        finetune("crosstask", checkpoint=tmp_path / "run" / "checkpoint_last.pt", to="again")


def test_features_made_with_other_settings_than_the_checkpoints(
    finetune: Callable[..., dict], benchmark_data: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    start = Path(shutil.copytree(tiny_checkpoint.parent, tmp_path / "start")) / tiny_checkpoint.name
    trained_on = FeatureSettings("s3d", "ab" * 32, 512)
    torch.save(read_checkpoint(start) | {"task_state": {"features": asdict(trained_on)}}, tmp_path / "with_settings.pt")
    (tmp_path / "with_settings.pt").replace(start)  # the checkpoint is mapped while it is read
    data = Path(shutil.copytree(benchmark_data, tmp_path / "data"))
    manifest = data / "youcook2" / "features" / MANIFEST
    manifest.write_text(json.dumps(asdict(replace(trained_on, fps=4))))
    with pytest.raises(ValueError, match=r"youcook2.features.*fps: 4 here, 30 expected"):
        finetune("youcook2", data=data, checkpoint=start)
    manifest.write_text(json.dumps(asdict(trained_on)))
    saved = finetune("youcook2", "optimization.max_update=1", data=data, checkpoint=start)
    assert saved["task_state"]["features"] == asdict(trained_on)


def test_negatives_of_other_processes(finetune: Callable[..., dict]) -> None:
    with pytest.raises(ValueError, match=r"criterion\.gather is true; .*set criterion\.gather=false"):
        finetune("youcook2", "+criterion.gather=true")


def test_repeats_that_make_no_sense(finetune: Callable[..., dict]) -> None:
    with pytest.raises(ValueError, match=r"task\.repeats is 0: it must be at least 1"):
        finetune("youcook2", "task.repeats=0")
    with pytest.raises(ValueError, match=r"task\.repeats is 2, but coin trains on whole videos"):
        finetune("coin", "task.repeats=2")


def test_a_table_of_ones_own(
    finetune: Callable[..., dict], fairseq_train: Callable[..., None], benchmark_data: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(benchmark_data / "coin", tmp_path / "data" / "csv"))
    rows = "train_a,0,3,{}\ntrain_a,4,7,{}\ntrain_b,0,3,{}\n"
    for kind, words, overrides in (
        ("text", ("cut the onions", "add salt", "stir"), ()),
        ("label", ("cut", "salt", "stir"), ("criterion._name=frame_cross_entropy", "dataset.batch_size=1")),
    ):
        for name in ("train.csv", "test.csv"):
            (folder / name).write_text(f"video,start,end,{kind}\n" + rows.format(*words))
        saved = finetune("csv", "optimization.max_epoch=1", *overrides, data=tmp_path / "data", to=kind)
        assert len(saved["cfg"]["model"]["frame_labels"]) == (3 if kind == "label" else 0)
        fairseq_train(
            "zeroshot_csv", f"task.data={tmp_path / 'data'}", f"task.results_path={tmp_path / kind}", "task.report=false",
            f"checkpoint.restore_file={tmp_path / kind / 'checkpoint_last.pt'}", "dataset.num_workers=0",
        )  # fmt: skip
        results = read_results(tmp_path / kind / "csv.json")
        assert ("R@1" if kind == "text" else "foreground_accuracy") in results["metrics"]
        assert results["counts"]["missing"] == [] and results["baselines"]["chance"]


def test_msvds_files_with_features_named_as_videos(
    finetune: Callable[..., dict], fairseq_train: Callable[..., None], tmp_path: Path
) -> None:
    """Trained on the videos of one list, tested on those of the other, from one caption file."""
    features = tmp_path / "features"
    features.mkdir()
    for video in ("-a_0_2", "b_1_3"):
        np.save(features / f"{video}.avi.npy", np.ones((5, 512), np.float16))
    (tmp_path / "train_list.txt").write_text("b_1_3\n")
    (tmp_path / "test_list.txt").write_text("-a_0_2\n")
    captions = tmp_path / "AllVideoDescriptions.txt"
    captions.write_text("# by many\n-a_0_2 stir the pan\n-a_0_2 stir\nb_1_3 add salt\n")
    given = (f"task.annotations={captions}", f"task.features={features}", "task.drop_suffix=true", "task.report=false")
    finetune("csv", "optimization.max_epoch=1", *given, data=tmp_path)
    fairseq_train(
        "zeroshot_csv", f"task.data={tmp_path}", f"task.results_path={tmp_path / 'results'}", "dataset.num_workers=0",
        f"checkpoint.restore_file={tmp_path / 'run' / 'checkpoint_last.pt'}", *given,
    )  # fmt: skip
    results = read_results(tmp_path / "results" / "csv.json")
    assert results["counts"]["queries"] == 2 and results["metrics"]["R@1"] == 1


def test_a_criterion_that_does_not_fit_the_data(finetune: Callable[..., dict]) -> None:
    with pytest.raises(ValueError, match=r"criterion\._name is frame_cross_entropy, but youcook2 gives pairs of clips"):
        finetune("youcook2", "criterion._name=frame_cross_entropy", "~criterion.direction", "~criterion.temperature")
    with pytest.raises(
        ValueError, match=r"criterion\._name is video_text_contrastive, but coin gives labels of seconds"
    ):
        finetune("coin", "criterion._name=video_text_contrastive")


def test_a_checkpoint_that_chose_parts_of_clips(
    finetune: Callable[..., dict], pretrain: Callable[..., None], tmp_path: Path
) -> None:
    parts = ("model.clip_parts=2", "criterion._name=choosing_parts", "optimization.max_update=1")
    pretrain(tmp_path / "parts", *parts)
    saved = finetune("youcook2", checkpoint=tmp_path / "parts" / "checkpoint_last.pt")
    assert saved["cfg"]["model"]["clip_parts"] == 1
    with pytest.raises(ValueError, match=r"criterion\.false_negatives is mask, but the batches do not tell"):
        finetune("youcook2", "+criterion.false_negatives=mask", to="other")


def test_batches_of_nothing(finetune: Callable[..., dict]) -> None:
    with pytest.raises(ValueError, match=r"dataset\.batch_size is 0: it must be at least 1"):
        finetune("youcook2", "dataset.batch_size=0")


def test_repeats_make_an_epoch_longer(finetune: Callable[..., dict]) -> None:
    saved = finetune("msrvtt", "dataset.batch_size=10", "optimization.max_epoch=1")  # 4 videos, 20 times each
    assert saved["optimizer_history"][-1]["num_updates"] == 8


def test_several_labelled_videos_a_batch(finetune: Callable[..., dict]) -> None:
    with pytest.raises(ValueError, match=r"dataset\.batch_size is 2; coin takes 1 video a batch: .*update_freq"):
        finetune("coin", "dataset.batch_size=2")


def test_a_training_split_without_captions_or_files(
    finetune: Callable[..., dict], benchmark_data: Path, tmp_path: Path
) -> None:
    data = shutil.copytree(benchmark_data, tmp_path / "data")
    path = data / "msrvtt" / "MSRVTT_data.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"sentences": []}))
    with pytest.raises(ValueError, match=r"of length >= 1 - at .*sentences"):
        finetune("msrvtt", data=data)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"MSRVTT_data\.json not found"):
        finetune("msrvtt", data=data)
