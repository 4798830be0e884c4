"""From a checkpoint, ours or MMPT's, to a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers.initialization import no_init_weights

from mmpt_plugin.models.checkpoint import model_settings, read_checkpoint, weights_to_evaluate
from mmpt_plugin.models.config import DEFAULT_BERT, VideoClipConfig
from mmpt_plugin.models.mmpt_checkpoint import with_our_names
from mmpt_plugin.models.text_backbone import TextBackbone, check_finite, check_vocabulary
from mmpt_plugin.models.videoclip import FRAME_CLASSIFIER, LEARNED_LOGITS, VideoClipModel

FLOATING = (torch.float32, torch.float16, torch.bfloat16, torch.float64)  # what weights are stored in


def checkpoint_config(path: Path, content: dict[str, Any], bert: str | None = None) -> VideoClipConfig:
    """The model settings to load a checkpoint with.

    Args:
        path: where the checkpoint lies; a folder `bert` beside it is preferred to the recorded path.
        content: as read by `read_checkpoint`.
        bert: overrides the checkpoint's own `model.bert`; MMPT's files record none that can be used.
    """
    settings = model_settings(content)
    settings.pop("_name", None)
    beside = path.parent / "bert"
    recorded = str(beside) if settings and (beside / "config.json").is_file() else settings.get("bert", DEFAULT_BERT)
    return VideoClipConfig.of(settings | {"bert": bert or recorded}, str(path))


def load_videoclip(path: str | Path, bert: str | None = None) -> tuple[VideoClipModel, VideoClipConfig]:
    """A model with the weights of a checkpoint, ours or MMPT's, in evaluation mode and float32.

    Raises:
        FileNotFoundError, ValueError: if the file is missing, unsafe, or does not fit.
    """
    path = Path(path)
    content = read_checkpoint(path)
    cfg = checkpoint_config(path, content, bert)
    return model_of_checkpoint(path, content, cfg), cfg


def model_of_checkpoint(path: Path, content: dict[str, Any], cfg: VideoClipConfig) -> VideoClipModel:
    """The model of a checkpoint that was read, in evaluation mode and float32.

    Raises:
        ValueError: if vocabulary, settings and weights do not belong together.
    """
    check_vocabulary(cfg.bert, content, path.parent / "bert", str(path))
    with no_init_weights():  # every parameter comes from the file; drawing them first takes longer than reading
        model = new_model(cfg, str(path))
    load_weights(model, weights_to_evaluate(content), str(path))
    return model.eval()


def new_model(cfg: VideoClipConfig, source: str, backbone: TextBackbone | None = None) -> VideoClipModel:
    """`VideoClipModel.from_config`, for settings that stand in a file.

    Raises:
        ValueError: as there; `source` names the file.
    """
    try:
        return VideoClipModel.from_config(cfg, backbone)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error


def load_weights(model: VideoClipModel, state_dict: dict[str, Any], source: str) -> None:
    """Copy a checkpoint's parameters, ours or MMPT's, into the model.

    Raises:
        ValueError: if they do not fit; `source` names the checkpoint.
    """
    check_state_dict(model, state_dict, source)
    check_finite(state_dict, f"the weights in {source}")
    model.load_state_dict(with_our_names(state_dict, model.cls_id, model.sep_id))


def _is_plain(value: Any) -> bool:
    """Whether it is a tensor whose values are there, none of them left out as zero."""
    return torch.is_tensor(value) and value.layout == torch.strided and not value.is_meta


def check_state_dict(
    model: VideoClipModel, state_dict: dict[str, Tensor], source: str, new_classifier: bool = False
) -> None:
    """Refuse parameters that do not fit the model.

    Args:
        model: to load them into.
        state_dict: a checkpoint's parameters, ours or MMPT's.
        source: names the checkpoint in the message.
        new_classifier: the frame classifier is yet to be trained: no parameters are expected for it.

    Raises:
        ValueError: listing the missing, the unknown and those of another shape.
    """
    other = [key for key, value in state_dict.items() if not (isinstance(key, str) and _is_plain(value))]
    if other:
        raise ValueError(f"{source} has {other[0]!r} among its parameters, which is no plain tensor with a name")
    own, given = model.state_dict(), with_our_names(state_dict, model.cls_id, model.sep_id)
    for key in given.keys() & own.keys():
        if given[key].dtype not in FLOATING:
            raise ValueError(
                f"{source} has {key} as {given[key].dtype}: a parameter must be of one of {', '.join(map(str, FLOATING))}"
            )
    if new_classifier:
        own = {key: value for key, value in own.items() if not key.startswith(FRAME_CLASSIFIER)}
    problems = {
        "missing": sorted(own.keys() - given.keys()),
        "unknown": sorted(given.keys() - own.keys()),
        "of another shape": [
            f"{key} {tuple(given[key].shape)} instead of {tuple(own[key].shape)}"
            for key in sorted(own.keys() & given.keys())
            if own[key].shape != given[key].shape
        ],
    }
    if any(problems.values()):
        listing = "; ".join(f"{len(keys)} {problem}: {', '.join(keys)}" for problem, keys in problems.items() if keys)
        raise ValueError(
            f"{source} does not fit the model: {listing}. Check model.bert, model.video_layers and model.shared_encoder"
            + (", model.logit_scale and model.logit_bias" if set(LEARNED_LOGITS) & (own.keys() ^ given.keys()) else "")
        )
