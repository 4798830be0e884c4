"""Checkpoints: only what is safe and whole is loaded, ours without being told its BERT."""

import argparse
import os
import pickle
import shutil
import zipfile
from pathlib import Path

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
    with pytest.raises(ValueError, match=r"checkpoint_last\.pt does not fit the model: .* of another shape: .*\(64,\)"):
        load_videoclip(tiny_checkpoint, str(golden / "model" / "bert-tiny"))


def test_half_precision_becomes_float32(altered) -> None:
    path = altered(lambda model: model.update({key: value.half() for key, value in model.items()}))
    model, _ = load_videoclip(path)
    assert {value.dtype for value in model.state_dict().values()} == {torch.float32}


def test_sha256_is_that_of_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")  # the first example of FIPS 180-2
    assert sha256(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
