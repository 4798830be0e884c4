"""Reading a BERT folder (or hub name): its configuration, its weights, its tokenizer."""

from __future__ import annotations

import logging
import pickle
from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModel,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

logger = logging.getLogger(__name__)


def load_config(bert: str) -> PretrainedConfig:
    """The folder's configuration, checked.

    Raises:
        ValueError: if there is none, or its width is not divisible by its heads.
    """
    try:
        config = AutoConfig.from_pretrained(bert)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"model.bert: no BERT configuration at {bert!r}. Give a folder with config.json, vocab.txt and weights, or a "
            f"name on the model hub that this machine can reach ({_first_line(error)})"
        ) from error
    if config.hidden_size % config.num_attention_heads:
        raise ValueError(
            f"model.bert: {bert!r} has hidden_size {config.hidden_size}, which is not divisible by its "
            f"num_attention_heads {config.num_attention_heads}: correct its config.json"
        )
    return config


def load_tokenizer(bert: str) -> PreTrainedTokenizerBase:
    """The folder's tokenizer.

    Raises:
        ValueError: if there is none, or it has no words, or lacks [CLS], [SEP] or [PAD].
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(bert)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"model.bert: no tokenizer at {bert!r}; a BERT folder needs vocab.txt or tokenizer.json ({_first_line(error)})"
        ) from error
    if None in (tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.pad_token_id):
        raise ValueError(f"model.bert: the tokenizer at {bert!r} must have [CLS], [SEP] and [PAD] tokens")
    if len(tokenizer) == len(tokenizer.all_special_ids):  # what a folder with config.json alone gives, without an error
        raise ValueError(f"model.bert: no vocabulary at {bert!r}; a BERT folder needs vocab.txt or tokenizer.json")
    return tokenizer


def text_transformer(config: PretrainedConfig) -> PreTrainedModel:
    """A text transformer of that configuration with random weights, without BERT's unused pooler."""
    return AutoModel.from_config(config, add_pooling_layer=False)


def video_transformer(config: PretrainedConfig, layers: int) -> PreTrainedModel:
    """The same architecture with fewer layers and a vocabulary of two: [CLS] at 0 and [SEP] at 1.

    Raises:
        ValueError: if the folder's BERT has fewer layers.
    """
    if not 1 <= layers <= config.num_hidden_layers:
        raise ValueError(
            f"model.video_layers is {layers}; {config.name_or_path!r} has {config.num_hidden_layers} layers: "
            f"choose 1 to {config.num_hidden_layers}"
        )
    overrides = {"num_hidden_layers": layers, "vocab_size": 2, "pad_token_id": None}
    return AutoModel.from_config(type(config).from_dict(config.to_dict() | overrides), add_pooling_layer=False)


def initialise_text(transformer: PreTrainedModel, bert: str) -> None:
    """Copy the folder's weights into `transformer`.

    Raises:
        ValueError: if the folder has no weights, lacks some of them, or they are damaged or unsafe to load.
    """
    try:
        source, info = AutoModel.from_pretrained(bert, add_pooling_layer=False, output_loading_info=True)
    except (OSError, ValueError, RuntimeError, SafetensorError, pickle.UnpicklingError) as error:
        raise ValueError(
            f"model.bert: no weights at {bert!r} (model.safetensors or pytorch_model.bin) that can be loaded to start "
            f"from ({_first_line(error)})"
        ) from error
    if info["missing_keys"]:
        raise ValueError(f"model.bert: the weights at {bert!r} lack {sorted(info['missing_keys'])}")
    transformer.load_state_dict(source.state_dict())


@torch.no_grad()
def initialise_video(transformer: PreTrainedModel, text: PreTrainedModel, cls_id: int, sep_id: int) -> None:
    """Copy embeddings and first layers of an initialised text transformer; of its words, [CLS] and [SEP] alone."""
    name = "embeddings.word_embeddings.weight"
    source = text.state_dict()
    weights = {key: source[key] for key in transformer.state_dict() if key != name}
    weights[name] = source[name][[cls_id, sep_id]]
    transformer.load_state_dict(weights)


def save_reference(bert: str, folder: Path) -> None:
    """Keep the configuration and tokenizer (not the weights) beside a checkpoint, so that it can be used on its own."""
    if not folder.exists():
        load_config(bert).save_pretrained(folder)
        load_tokenizer(bert).save_pretrained(folder)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
