"""A model as a folder of the ecosystem's file formats, in which nothing is pickled.

model.safetensors   the weights, float32
config.json         the settings, the text backbone, where all came from, and the SHA-256 of every file and of itself
tokenizer files     as transformers writes them
README.md           the model card
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import PreTrainedTokenizerBase

from mmpt_plugin.files.text import read_json
from mmpt_plugin.files.writing import whole_folder, write_whole
from mmpt_plugin.models.checkpoint import sha256
from mmpt_plugin.models.config import VideoClipConfig
from mmpt_plugin.models.loading import load_weights, new_model
from mmpt_plugin.models.text_backbone import TextBackbone, load_tokenizer, vocabulary_hash
from mmpt_plugin.models.videoclip import VideoClipModel

FORMAT_VERSION = 1
MODEL_TYPE = "videoclip"
CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class ExportedModel:
    """What a folder holds.

    Attributes:
        model: in evaluation mode.
        config: its settings.
        tokenizer: its tokenizer.
        features: how the features were made that it was trained on, where that is known.
        origin: what else is told: the checkpoint, and the benchmark that it was fine-tuned on.
    """

    model: VideoClipModel
    config: VideoClipConfig
    tokenizer: PreTrainedTokenizerBase
    features: Mapping[str, Any] | None
    origin: Mapping[str, Any]


def write_folder(folder: Path, exported: ExportedModel, backbone: TextBackbone, card: str) -> None:
    """Write a model; the folder is whole or absent.

    Args:
        folder: must not exist, or be empty.
        exported: what to write.
        backbone: the model's text backbone.
        card: content of README.md.

    Raises:
        FileExistsError: if there is something already.
    """
    with whole_folder(folder) as aside:
        weights = {name: value.contiguous() for name, value in exported.model.state_dict().items()}
        save_file(weights, aside / WEIGHTS, {"format": "pt"})
        exported.tokenizer.save_pretrained(aside)
        files = {path.name: sha256(path) for path in sorted(aside.iterdir()) if path.is_file()}
        settings = dataclasses.asdict(exported.config)
        del settings["bert"]  # the folder itself
        content = {
            "model_type": MODEL_TYPE,
            "format_version": FORMAT_VERSION,
            "weights_sha256": files.pop(WEIGHTS),
            "tokenizer_sha256": files,
            "model": settings,
            "text_backbone": backbone.record(),
            "features": exported.features,
            "origin": exported.origin,
        }
        content["config_sha256"] = config_hash(content)
        with write_whole(aside / CONFIG, text=True) as file:
            json.dump(content, file, indent=2)
        with write_whole(aside / CARD, text=True) as file:
            file.write(card)


def config_hash(content: Mapping[str, Any]) -> str:
    """The SHA-256 of all that config.json holds, less this hash itself; spaces and the order of keys do not count."""
    told = {name: value for name, value in content.items() if name != "config_sha256"}
    told = json.loads(json.dumps(told))  # as it is read back: keys are strings
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def read_folder(folder: Path) -> ExportedModel:
    """The model that `write_folder` wrote, from its files alone.

    Raises:
        FileNotFoundError: if it is no such folder.
        ValueError: if it is of a newer format, or a file of it is missing, damaged or was altered.
    """
    if not (folder / CONFIG).is_file():
        raise FileNotFoundError(
            f"{folder} has no {CONFIG}, so it is no exported model: give a folder that mmpt-export wrote, or a checkpoint's "
            "file, such as checkpoint_best.pt"
        )
    content = read_json(folder / CONFIG)
    if not isinstance(content, dict) or content.get("model_type") != MODEL_TYPE:
        raise ValueError(f"{folder / CONFIG} is not of an exported model: its model_type is not {MODEL_TYPE!r}")
    version = content.get("format_version")
    if type(version) is not int or version < 1:
        raise ValueError(f"{folder / CONFIG}: format_version is {version!r}; a whole number from 1 is needed")
    if version > FORMAT_VERSION:
        raise ValueError(
            f"{folder} is of the format {version}, and this version of mmpt_plugin reads up to {FORMAT_VERSION}: "
            "pip install --upgrade mmpt_plugin"
        )
    parts = {name: content.get(name) for name in ("model", "text_backbone", "origin", "tokenizer_sha256")}
    for name, part in parts.items():
        if not isinstance(part, dict):
            raise ValueError(f"{folder / CONFIG} has no {name!r}: export the checkpoint again")
    if content.get("config_sha256") != config_hash(content):
        raise ValueError(
            f"{folder / CONFIG} was altered: its content is not what config_sha256 in it says: copy or download it again, or "
            "export the checkpoint again with other settings"
        )
    for name, expected in content["tokenizer_sha256"].items():
        _check_file(folder, name, expected)
    _check_file(folder, WEIGHTS, content.get("weights_sha256"))
    config = VideoClipConfig.of({**content["model"], "bert": str(folder)}, str(folder / CONFIG))
    backbone = TextBackbone.of_record(content["text_backbone"], str(folder / CONFIG))
    tokenizer = load_tokenizer(str(folder))
    if vocabulary_hash(tokenizer) != backbone.vocabulary:
        raise ValueError(f"the tokenizer in {folder} is not the one that was exported: its vocabulary was altered")
    model = new_model(config, str(folder / CONFIG), backbone)
    load_weights(model, _weights(folder / WEIGHTS), str(folder / WEIGHTS))
    features = content.get("features")
    return ExportedModel(
        model.eval(), config, tokenizer, features if isinstance(features, dict) else None, content["origin"]
    )


def _check_file(folder: Path, name: str, expected: Any) -> None:
    """Refuse a file that is missing, or is not what was written."""
    path = folder / name
    if not path.is_file():
        raise ValueError(f"{folder} has no {name}: copy or download the folder again, as a whole")
    if (found := sha256(path)) != expected:
        raise ValueError(
            f"{path} was altered or cut: its SHA-256 is {found}, and {CONFIG} says {expected}: copy or download it again"
        )


def _weights(path: Path) -> dict[str, Any]:
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(f"{path} is no file of safetensors ({error})") from error


def download(name: str) -> Path:
    """The folder of a model on the Hugging Face hub, from its cache where it is there already.

    Raises:
        FileNotFoundError: if the hub has no such model, or cannot be reached.
    """
    from huggingface_hub import snapshot_download  # comes with transformers

    try:
        return Path(snapshot_download(name, ignore_patterns=["*.pt", "*.bin", "*.pkl"]))
    except Exception as error:
        raise FileNotFoundError(
            f"{name} is neither a file nor a folder here, nor a model on the hub that this machine can reach "
            f"({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''})"
        ) from error
