"""Checkpoints: only what is safe and whole is loaded, ours without being told its BERT."""

import argparse
import os
import pickle
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from fairseq.checkpoint_utils import load_model_ensemble_and_task
from omegaconf import OmegaConf

from mmpt_plugin.models.checkpoint import model_settings, read_checkpoint, sha256
from mmpt_plugin.models.config import DEFAULT_BERT
from mmpt_plugin.models.loading import checkpoint_config, load_videoclip
from mmpt_plugin.models.videoclip import VideoClipModel


class TouchesAFile:
    """Pickled, it runs a command when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.system, (f"touch '{self.path}'",)


@pytest.fixture
def altered(tiny_checkpoint: Path, tmp_path: Path):
    """Write a copy of our checkpoint whose model was changed."""

    def write(change) -> Path:
        content = read_checkpoint(tiny_checkpoint)
        model = dict(content["model"])
        change(model)
        shutil.copytree(tiny_checkpoint.parent / "bert", tmp_path / "bert")
        torch.save({"model": model, "cfg": content["cfg"]}, tmp_path / "altered.pt")
        return tmp_path / "altered.pt"

    return write


def test_ours_is_whole_with_torchs_safe_loading(tiny_checkpoint: Path) -> None:
    content = torch.load(tiny_checkpoint, weights_only=True)
    assert (
        content["cfg"]["model"]["_name"] == "videoclip" and content["cfg"]["task"]["_name"] == "videoclip_pretraining"
    )
    assert model_settings(content)["video_layers"] == 2
    assert content["extra_state"]["train_iterator"]["iterations_in_epoch"] == 2
    assert content["optimizer_history"][-1]["num_updates"] == 2


def test_ours_needs_no_bert(tiny_checkpoint: Path, tiny_bert: Path) -> None:
    model, cfg = load_videoclip(tiny_checkpoint)
    assert cfg.bert == str(tiny_checkpoint.parent / "bert") and cfg.video_layers == 2
    assert not model.training
    weights = read_checkpoint(tiny_checkpoint)["model"]
    assert all(torch.equal(value, weights[key]) for key, value in model.state_dict().items())
    given, cfg = load_videoclip(tiny_checkpoint, str(tiny_bert))
    assert cfg.bert == str(tiny_bert)
    assert all(torch.equal(value, weights[key]) for key, value in given.state_dict().items())


def test_a_checkpoint_moved_from_its_folder_asks_for_the_recorded_bert(
    tiny_checkpoint: Path, tiny_bert: Path, tmp_path: Path
) -> None:
    shutil.copy(tiny_checkpoint, tmp_path / "moved.pt")
    config = checkpoint_config(tmp_path / "moved.pt", read_checkpoint(tmp_path / "moved.pt"))
    assert config.bert == str(tiny_bert)


def test_the_originals_settings_are_the_papers(golden: Path) -> None:
    path = golden / "model" / "checkpoint_best.pt"
    content = read_checkpoint(path)
    assert model_settings(content) == {}
    config = checkpoint_config(path, content)
    assert (config.bert, config.video_layers, config.max_video_seconds, config.max_text_pieces) == (
        DEFAULT_BERT,
        6,
        32,
        61,
    )


def test_fairseqs_own_loading(tiny_checkpoint: Path) -> None:
    (model,), saved_cfg, task = load_model_ensemble_and_task([str(tiny_checkpoint)])
    assert isinstance(model, VideoClipModel) and saved_cfg.model._name == "videoclip"
    assert type(task).__name__ == "VideoClipPretrainingTask"
    weights = read_checkpoint(tiny_checkpoint)["model"]
    assert all(torch.equal(value, weights[key]) for key, value in model.state_dict().items())


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"checkpoint\.restore_file: no checkpoint at .*none\.pt"):
        read_checkpoint(tmp_path / "none.pt")
    with pytest.raises(FileNotFoundError, match="no checkpoint at"):
        read_checkpoint(tmp_path)  # a folder


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_that_would_run_code_is_refused_and_nothing_runs(tmp_path: Path, zipped: bool) -> None:
    path, touched = tmp_path / "unsafe.pt", tmp_path / "touched"
    content = {"model": {"weight": torch.zeros(1)}, "extra_state": TouchesAFile(touched)}
    if zipped:
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content))
    with pytest.raises(ValueError, match=r"unsafe\.pt cannot be loaded safely; a checkpoint written by fairseq"):
        load_videoclip(path)
    assert not touched.exists()
    pickle.dumps(content)
    os.system(f"touch '{touched}'")  # the command would have worked
    assert touched.exists()


def test_any_other_class_is_refused(tmp_path: Path) -> None:
    torch.save({"model": {}, "cfg": OmegaConf.create({"a": 1})}, tmp_path / "object.pt")
    with pytest.raises(ValueError, match="cannot be loaded safely"):
        read_checkpoint(tmp_path / "object.pt")


def test_options_in_a_namespace_are_plain_data(tmp_path: Path) -> None:
    torch.save({"model": {}, "args": argparse.Namespace(lr=[0.1])}, tmp_path / "args.pt")
    assert read_checkpoint(tmp_path / "args.pt")["args"].lr == [0.1]


def test_a_damaged_file(tiny_checkpoint: Path, tmp_path: Path) -> None:
    whole = tiny_checkpoint.read_bytes()
    for name, content in {"half": whole[: len(whole) // 2], "empty": b"", "text": b"not a checkpoint\n"}.items():
        (tmp_path / f"{name}.pt").write_bytes(content)
        with pytest.raises(ValueError, match=rf"{name}\.pt cannot be loaded safely"):
            read_checkpoint(tmp_path / f"{name}.pt")
    with zipfile.ZipFile(tmp_path / "zip.pt", "w") as archive:
        archive.writestr("a.txt", "nothing of torch's")
    with pytest.raises(ValueError, match=r"zip\.pt cannot be loaded safely"):
        read_checkpoint(tmp_path / "zip.pt")


@pytest.mark.parametrize("content", [{"weights": {}}, [1, 2], torch.zeros(3)])
def test_a_file_without_a_model(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(ValueError, match=r"other\.pt holds no 'model': it is not a checkpoint of fairseq"):
        read_checkpoint(tmp_path / "other.pt")


def test_missing_unknown_and_misshapen_parameters_are_listed(altered) -> None:
    def change(model: dict) -> None:
        del model["video_encoder.feature_projection.norm.weight"]
        del model["text_encoder.transformer.embeddings.LayerNorm.bias"]
        model["projection.weight"] = torch.zeros(1)
        model["video_encoder.feature_projection.input.bias"] = torch.zeros(3)

    with pytest.raises(
        ValueError,
        match=r"altered\.pt does not fit the model: 2 missing: text_encoder\.transformer\.embeddings\.LayerNorm\.bias, "
        r"video_encoder\.feature_projection\.norm\.weight; 1 unknown: projection\.weight; 1 of another shape: "
        r"video_encoder\.feature_projection\.input\.bias \(3,\) instead of \(32,\)\. Check model\.bert",
    ):
        load_videoclip(altered(change))


def test_another_bert_is_refused(golden: Path, tiny_bert: Path, tiny_checkpoint: Path) -> None:
    with pytest.raises(ValueError, match=r"model\.video_layers is 6; '.*' has 3 layers"):
        load_videoclip(golden / "model" / "checkpoint_best.pt", str(tiny_bert))
    with pytest.raises(ValueError, match=r"bert-tiny' has another vocabulary than .*checkpoint_last\.pt was trained"):
        load_videoclip(tiny_checkpoint, str(golden / "model" / "bert-tiny"))


def test_a_folder_written_over_by_another_training_is_noticed(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """Same sizes, other words: only the hash in the checkpoint can tell."""
    run = Path(shutil.copytree(tiny_checkpoint.parent, tmp_path / "run"))
    for path in (run / "bert").glob("*"):
        path.write_text(path.read_text().replace('"onion"', '"leek"').replace("onion\n", "leek\n"))
    with pytest.raises(ValueError, match=r"another vocabulary than .*another training wrote to the same folder"):
        load_videoclip(run / "checkpoint_last.pt")
    model, _ = load_videoclip(run / "checkpoint_last.pt", str(tiny_checkpoint.parent / "bert"))
    assert not model.training


def test_fairseq_opens_a_checkpoint_whose_bert_is_gone(tiny_checkpoint: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(tiny_checkpoint.parent, tmp_path / "moved")) / "checkpoint_last.pt"
    overrides = {"bert": str(tmp_path / "gone"), "save_dir": str(tmp_path / "gone")}
    (model,), _, _ = load_model_ensemble_and_task([str(path)], arg_overrides=overrides)
    expected, _ = load_videoclip(tiny_checkpoint)
    assert all(torch.equal(value, expected.state_dict()[key]) for key, value in model.state_dict().items())


def test_the_file_format_of_before_torch_1_6(tiny_checkpoint: Path, tmp_path: Path) -> None:
    content = read_checkpoint(tiny_checkpoint)
    path = tmp_path / "old.pt"
    torch.save({"model": content["model"], "cfg": content["cfg"]}, path, _use_new_zipfile_serialization=False)
    model, _ = load_videoclip(path, str(tiny_checkpoint.parent / "bert"))
    assert all(torch.equal(value, content["model"][key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("number", [np.float64(0.5), np.float32(0.5), np.int64(3), np.bool_(True)])
def test_numbers_as_numpy_keeps_them(tmp_path: Path, number: np.generic) -> None:
    torch.save({"model": {}, "best": number}, tmp_path / "best.pt")
    assert read_checkpoint(tmp_path / "best.pt")["best"] == number


def test_a_saved_web_page_is_called_that(tmp_path: Path) -> None:
    (tmp_path / "page.pt").write_text("<!DOCTYPE html><html><body>Sign in</body></html>")
    with pytest.raises(ValueError, match=r"page\.pt cannot be loaded safely.*web page"):
        read_checkpoint(tmp_path / "page.pt")


def test_weights_that_are_not_finite(altered) -> None:
    def damage(model: dict) -> None:
        model["video_encoder.feature_projection.norm.weight"][0] = torch.nan

    with pytest.raises(ValueError, match=r"altered\.pt have NaN or infinite values .*norm\.weight"):
        load_videoclip(altered(damage))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"feature_size": "wide"}, r"model\.feature_size is 'wide', but must be of the type"),
        ({"video_layers": 2.5}, r"model\.video_layers is 2\.5"),
        ({"speed": 1}, r"model\.speed is no setting of this version"),
        ({"max_video_seconds": 0}, r"model\.max_video_seconds is 0: it must be at least 1"),
        ({"chunk_pairs": -1}, r"model\.chunk_pairs is -1: it must be at least 0"),
        ({"max_text_pieces": 0}, r"model\.max_text_pieces is 0"),
        ({"feature_size": 2**40}, r"model\.feature_size is \d+: it must be at least 1 and at most"),
        ({"pooling": "max"}, r"model\.pooling is 'max': it must be one of mean, cls"),
        ({"frame_labels": [1, 1]}, r"model\.frame_labels is \[1, 1\]: a label stands there twice"),
    ],
)
def test_settings_that_cannot_be(tiny_checkpoint: Path, tmp_path: Path, change: dict, message: str) -> None:
    content = read_checkpoint(tiny_checkpoint)
    content["cfg"]["model"] |= change
    torch.save({"model": content["model"], "cfg": content["cfg"]}, tmp_path / "altered.pt")
    with pytest.raises(ValueError, match=message):
        load_videoclip(tmp_path / "altered.pt", str(tiny_checkpoint.parent / "bert"))


def test_half_precision_becomes_float32(altered) -> None:
    path = altered(lambda model: model.update({key: value.half() for key, value in model.items()}))
    model, _ = load_videoclip(path)
    assert {value.dtype for value in model.state_dict().values()} == {torch.float32}


def test_sha256_is_that_of_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")  # the first example of FIPS 180-2
    assert sha256(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
