"""Reading a folder (or hub name) of BERT or another text encoder: its configuration, its weights, its tokenizer."""

from __future__ import annotations

import copy
import inspect
import logging
import pickle
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import (
    MODEL_MAPPING,
    AutoConfig,
    AutoModel,
    AutoTokenizer,
    BertConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from mmpt_plugin.models.dropout import replace_dropout
from mmpt_plugin.models.packing import can_be_packed

logger = logging.getLogger(__name__)


def load_config(bert: str) -> PretrainedConfig:
    """The folder's configuration, checked.

    Raises:
        ValueError: if there is none, it is no encoder, or its width is not divisible by its heads.
    """
    try:
        config = AutoConfig.from_pretrained(bert)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"model.bert: no BERT configuration at {bert!r}. Give a folder with config.json, vocab.txt and weights, or a "
            f"name on the model hub that this machine can reach ({_first_line(error)})"
        ) from error
    if type(config) not in MODEL_MAPPING or config.is_encoder_decoder or not hasattr(config, "hidden_size"):
        raise ValueError(
            f"model.bert: {bert!r} is of the type {config.model_type!r}, which is no text encoder. Give one that yields "
            "a state for each token: bert, roberta, xlm-roberta, distilbert, deberta-v2, ..."
        )
    if config.hidden_size % config.num_attention_heads:
        raise ValueError(
            f"model.bert: {bert!r} has hidden_size {config.hidden_size}, which is not divisible by its "
            f"num_attention_heads {config.num_attention_heads}: correct its config.json"
        )
    return config


def load_tokenizer(bert: str) -> PreTrainedTokenizerBase:
    """The folder's tokenizer.

    A text's first word is tokenized like the others (`add_prefix_space`, which only byte-level BPE would do otherwise):
    clips join captions, so that the same word stands first and in the middle.

    Raises:
        ValueError: if there is none, or it has no words, or lacks [CLS], [SEP] or [PAD], or sets them elsewhere.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(bert, add_prefix_space=True)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"model.bert: no tokenizer at {bert!r}; a BERT folder needs vocab.txt or tokenizer.json ({_first_line(error)})"
        ) from error
    if None in (tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.pad_token_id):
        raise ValueError(f"model.bert: the tokenizer at {bert!r} must have [CLS], [SEP] and [PAD] tokens")
    if len(tokenizer) == len(tokenizer.all_special_ids):  # what a folder with config.json alone gives, without an error
        raise ValueError(f"model.bert: no vocabulary at {bert!r}; a BERT folder needs vocab.txt or tokenizer.json")
    frame = tokenizer("")["input_ids"]
    if frame and frame != [tokenizer.cls_token_id, tokenizer.sep_token_id]:
        raise ValueError(
            f"model.bert: the tokenizer at {bert!r} sets {tokenizer.convert_ids_to_tokens(frame)} around a text; "
            f"{tokenizer.cls_token!r} before it and {tokenizer.sep_token!r} after it are needed"
        )
    return tokenizer


def new_transformer(config: PretrainedConfig) -> PreTrainedModel:
    """A transformer of that configuration with random weights, without BERT's unused pooler, with quick dropout."""
    transformer = AutoModel.from_config(config, **_without_pooler(config))
    replace_dropout(transformer)
    return transformer


def _without_pooler(config: PretrainedConfig) -> dict[str, bool]:
    """The argument that leaves out the pooler, for the architectures that have one."""
    model: Any = MODEL_MAPPING[type(config)]
    has_pooler = "add_pooling_layer" in inspect.signature(model).parameters
    return {"add_pooling_layer": False} if has_pooler else {}


def first_position(config: PretrainedConfig) -> int:
    """The position of a sequence's first token: RoBERTa and its kin count on from padding's."""
    return config.pad_token_id + 1 if config.model_type in ("camembert", "roberta", "xlm-roberta") else 0


def video_transformer(config: PretrainedConfig, layers: int | None) -> PreTrainedModel:
    """The same architecture with fewer layers (None: as many) and a vocabulary of two: [CLS] at 0 and [SEP] at 1.

    Where the architecture takes nothing but a text's own sequence of tokens, it is a BERT of the same width instead.

    Raises:
        ValueError: if the folder's BERT has fewer layers.
    """
    layers = config.num_hidden_layers if layers is None else layers
    if not 1 <= layers <= config.num_hidden_layers:
        raise ValueError(
            f"model.video_layers is {layers}; {config.name_or_path!r} has {config.num_hidden_layers} layers: "
            f"choose 1 to {config.num_hidden_layers}"
        )
    if not can_be_packed(config):
        names = (
            "hidden_size num_attention_heads intermediate_size hidden_act max_position_embeddings hidden_dropout_prob"
        )
        names += " attention_probs_dropout_prob initializer_range layer_norm_eps"
        config = BertConfig(**{name: getattr(config, name) for name in names.split() if hasattr(config, name)})
    config = copy.deepcopy(config)
    config.num_hidden_layers, config.vocab_size, config.pad_token_id = layers, 2, None
    return new_transformer(config)


def check_shareable(config: PretrainedConfig, video_layers: int | None) -> None:
    """Refuse an architecture, or a depth of the video tower, that one transformer for both modalities cannot have.

    Raises:
        ValueError: if the towers would differ, or nothing would tell the modalities apart.
    """
    if video_layers not in (None, config.num_hidden_layers):
        raise ValueError(
            f"model.shared_encoder=true makes both towers one transformer, but model.video_layers is {video_layers} and "
            f"{config.name_or_path!r} has {config.num_hidden_layers} layers: set model.video_layers=null (all of them)"
        )
    token_types = getattr(config, "type_vocab_size", 0)
    if token_types < 2 or not can_be_packed(config):
        raise ValueError(
            f"model.shared_encoder=true needs a BERT with a token type for video and one for text; "
            f"{config.name_or_path!r} is of the type {config.model_type!r} with {token_types} token types: choose another "
            "model.bert or two towers"
        )


def initialise_text(transformer: PreTrainedModel, bert: str) -> None:
    """Copy the folder's weights into `transformer`.

    Raises:
        ValueError: if the folder has no weights, lacks some of them, or they are damaged or unsafe to load.
    """
    try:
        arguments = _without_pooler(transformer.config)
        source, info = AutoModel.from_pretrained(bert, **arguments, output_loading_info=True)
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
    """Copy embeddings and first layers of an initialised text transformer; of its words, [CLS] and [SEP] alone.

    A BERT beside another architecture (`video_transformer`) keeps its random weights.
    """
    if transformer.config.model_type != text.config.model_type:
        logger.info(
            f"model.bert is of the type {text.config.model_type!r}: its texts are padded, and the video tower is a BERT of "
            "the same width that starts from random weights"
        )
        return
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


def check_vocabulary(bert: str, reference: Path, source: str) -> None:
    """Refuse a tokenizer that gives words other ids than a checkpoint was trained with.

    Args:
        bert: folder or hub name of the tokenizer to use.
        reference: what `save_reference` kept beside the checkpoint; nothing is checked where there is no such folder.
        source: names the checkpoint in the message.

    Raises:
        ValueError: if the vocabularies differ.
    """
    if not (reference / "config.json").is_file() or Path(bert) == reference:
        return
    given, trained = load_tokenizer(bert).get_vocab(), load_tokenizer(str(reference)).get_vocab()
    differing = sorted(word for word in given.keys() | trained.keys() if given.get(word) != trained.get(word))
    if differing:
        raise ValueError(
            f"model.bert: {bert!r} has another vocabulary than {source} was trained with: {len(differing)} word pieces "
            f"differ, as {differing[0]!r}. Leave model.bert empty to use the checkpoint's own"
        )


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
