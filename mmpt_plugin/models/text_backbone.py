"""The text backbone, BERT or another text encoder: its configuration, weights and tokenizer, from a folder or the hub.

A folder is foreign input. No code that it brings is run, and every error names it.
"""

from __future__ import annotations

import copy
import hashlib
import inspect
import json
import logging
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
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

from mmpt_plugin.files.text import read_json, read_text
from mmpt_plugin.files.torch_files import load_torch
from mmpt_plugin.files.writing import whole_folder
from mmpt_plugin.models.checkpoint import backbone_record
from mmpt_plugin.models.dropout import replace_dropout
from mmpt_plugin.models.packing import can_be_packed
from mmpt_plugin.models.positions import POSITIONS, resampled

logger = logging.getLogger(__name__)

SIZES = {  # the largest value of each; what is larger is a damaged file
    "hidden_size": 2**14,
    "num_hidden_layers": 2**9,
    "num_attention_heads": 2**10,
    "intermediate_size": 2**17,
    "vocab_size": 2**22,
    "max_position_embeddings": 2**20,
}
LARGEST_PARAMETERS = 2 * 10**10
UNKNOWN_WORD = "\u2603"  # a snowman; a vocabulary without a token for unknown words fails on it


@dataclass(frozen=True)
class TextBackbone:
    """What building a model takes, beside its weights.

    Attributes:
        config: of the transformer.
        cls_id, sep_id: the tokens around a text.
        vocabulary: hash of the word pieces and their ids.
    """

    config: PretrainedConfig
    cls_id: int
    sep_id: int
    vocabulary: str

    @classmethod
    def load(cls, bert: str) -> TextBackbone:
        """That of a folder or hub name.

        Raises:
            ValueError: if its configuration or tokenizer cannot be used, or the two do not belong together.
        """
        config, tokenizer = load_config(bert), load_tokenizer(bert)
        largest = max(tokenizer.get_vocab().values())
        if largest >= config.vocab_size:
            raise ValueError(
                f"model.bert: the tokenizer at {bert!r} has ids up to {largest}, but its config.json a vocab_size of "
                f"{config.vocab_size}: vocabulary and configuration are of different models, or a special token is missing "
                "in the vocabulary and was added behind it"
            )
        return cls(config, tokenizer.cls_token_id, tokenizer.sep_token_id, vocabulary_hash(tokenizer))

    def record(self) -> dict[str, Any]:
        """Plain values to keep in a checkpoint, from which `of_record` makes the same."""
        config = json.loads(self.config.to_json_string(use_diff=False))
        return {"config": config, "cls_id": self.cls_id, "sep_id": self.sep_id, "vocabulary": self.vocabulary}

    @classmethod
    def of_record(cls, record: dict[str, Any], source: str) -> TextBackbone:
        """What `record` kept.

        Raises:
            ValueError: if the record is not whole; `source` names the file it stands in.
        """
        with naming(source, "the record of the text backbone"):
            settings = dict(record["config"])
            config = AutoConfig.for_model(settings.pop("model_type"), **settings)
            check_config(config, source)
            return cls(config, int(record["cls_id"]), int(record["sep_id"]), str(record["vocabulary"]))


def vocabulary_hash(tokenizer: PreTrainedTokenizerBase) -> str:
    """Hash of all word pieces with their ids, by which checkpoint and tokenizer are compared."""
    words = sorted(tokenizer.get_vocab().items())
    return hashlib.sha256(json.dumps(words).encode()).hexdigest()


@contextmanager
def naming(bert: str, part: str) -> Iterator[None]:
    """Turn whatever transformers raises for a damaged folder into an error that names the folder."""
    try:
        yield
    except Exception as error:
        if isinstance(error, ValueError) and str(error).startswith("model."):
            raise
        raise ValueError(f"model.bert: {part} at {bert!r} cannot be used ({_first_line(error)})") from error


def load_config(bert: str) -> PretrainedConfig:
    """The folder's configuration, checked, for float32.

    Raises:
        ValueError: if there is none, it is no encoder, or its sizes do not make one.
    """
    try:
        _check_json(bert, "config.json")
        config = AutoConfig.from_pretrained(bert, trust_remote_code=False)
    except Exception as error:
        raise ValueError(
            f"model.bert: no BERT configuration at {bert!r}. Give a folder with config.json, vocab.txt and "
            f"weights, or a name on the model hub that this machine can reach ({_first_line(error)})"
        ) from error
    check_config(config, bert)
    return config


def check_config(config: PretrainedConfig, bert: str) -> None:
    """Refuse what is no text encoder, and sizes that do not make one.

    Raises:
        ValueError: naming the folder and the value.
    """
    if type(config) not in MODEL_MAPPING or config.is_encoder_decoder or not hasattr(config, "hidden_size"):
        raise ValueError(
            f"model.bert: {bert!r} is of the type {config.model_type!r}, which is no text encoder. Give one that yields "
            "a state for each token: bert, roberta, xlm-roberta, distilbert, deberta-v2, ..."
        )
    for name, largest in SIZES.items():
        value = getattr(config, name, 1)
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= largest:
            raise ValueError(
                f"model.bert: {bert!r} has {name} {value!r:.100}; a whole number from 1 to {largest} is needed: correct its "
                "config.json"
            )
    if config.hidden_size % config.num_attention_heads:
        raise ValueError(
            f"model.bert: {bert!r} has hidden_size {config.hidden_size}, which is not divisible by its "
            f"num_attention_heads {config.num_attention_heads}: correct its config.json"
        )
    width, inner = config.hidden_size, getattr(config, "intermediate_size", 4 * config.hidden_size)
    parameters = width * (config.vocab_size + config.num_hidden_layers * (4 * width + 2 * inner))
    if parameters > LARGEST_PARAMETERS:
        raise ValueError(
            f"model.bert: {bert!r} asks for {parameters:.1e} parameters, more than the {LARGEST_PARAMETERS:.0e} that are "
            "allowed: correct its config.json"
        )
    config.dtype = torch.float32  # training and evaluation choose their own precision, whatever the folder is stored in


def load_tokenizer(bert: str) -> PreTrainedTokenizerBase:
    """The folder's tokenizer.

    A text's first word is tokenized like the others (`add_prefix_space`, which only byte-level BPE would do otherwise):
    clips join captions, so that the same word stands first and in the middle.

    Raises:
        ValueError: if there is none, or it has no words, or lacks [CLS], [SEP] or [PAD], has one twice, or sets them
            elsewhere.
    """
    try:
        _check_json(bert, "tokenizer_config.json", "tokenizer.json")
        tokenizer = AutoTokenizer.from_pretrained(bert, add_prefix_space=True, trust_remote_code=False)
        _prefix_spaces(tokenizer)
    except Exception as error:
        raise ValueError(
            f"model.bert: no tokenizer at {bert!r}; a BERT folder needs vocab.txt or tokenizer.json "
            f"({_first_line(error)})"
        ) from error
    special = {name: getattr(tokenizer, f"{name}_token_id") for name in ("cls", "sep", "pad")}
    if None in special.values() or len(set(special.values())) < len(special):
        raise ValueError(
            f"model.bert: the tokenizer at {bert!r} must have [CLS], [SEP] and [PAD] tokens of their own; it has the ids "
            f"{special}"
        )
    if len(tokenizer) == len(tokenizer.all_special_ids):  # what a folder with config.json alone gives, without an error
        raise ValueError(f"model.bert: no vocabulary at {bert!r}; a BERT folder needs vocab.txt or tokenizer.json")
    _check_word_list(Path(bert) / "vocab.txt", [tokenizer.cls_token, tokenizer.sep_token, tokenizer.pad_token])
    with naming(bert, "the tokenizer"):
        frame = tokenizer("")["input_ids"]
        tokenizer(UNKNOWN_WORD)
    if frame and frame != [tokenizer.cls_token_id, tokenizer.sep_token_id]:
        raise ValueError(
            f"model.bert: the tokenizer at {bert!r} sets {tokenizer.convert_ids_to_tokens(frame)} around a text; "
            f"{tokenizer.cls_token!r} before it and {tokenizer.sep_token!r} after it are needed"
        )
    return tokenizer


def _prefix_spaces(tokenizer: PreTrainedTokenizerBase) -> None:
    """Sets `add_prefix_space` where transformers passes it over: in byte-level BPE without a class of its own (ModernBERT)."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return
    state = json.loads(backend.to_str())
    outer = state.get("pre_tokenizer") or {}
    changed = False
    for part in (outer, *outer.get("pretokenizers", ())):
        if part.get("type") == "ByteLevel" and part.get("add_prefix_space") is False:
            part["add_prefix_space"] = changed = True
    if changed:
        backend.pre_tokenizer = Tokenizer.from_str(json.dumps(state)).pre_tokenizer


def _check_json(bert: str, *names: str) -> None:
    """Refuse what transformers would read of a damaged file: of a key that is given twice, for one, the last value."""
    for name in names:
        if (path := Path(bert) / name).is_file():
            read_json(path)


def _check_word_list(path: Path, special: list[str]) -> None:
    """Refuse special tokens that are missing in vocab.txt, which tokenizers add behind it, or stand in it twice."""
    if not path.is_file():
        return
    words = read_text(path).split("\n")
    for token in special:
        if (times := words.count(token)) != 1:
            raise ValueError(f"model.bert: {path} has {token!r} {times} times; each special token must be there once")


def new_transformer(config: PretrainedConfig) -> PreTrainedModel:
    """A transformer of that configuration with random weights, without BERT's unused pooler, with quick dropout."""
    with naming(config.name_or_path or config.model_type, "the configuration"):
        transformer = AutoModel.from_config(
            config, trust_remote_code=False, dtype=torch.float32, **_without_pooler(config)
        )
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


def video_transformer(config: PretrainedConfig, layers: int | None, positions: int = 0) -> PreTrainedModel:
    """The same architecture with fewer layers (None: as many) and a vocabulary of two: [CLS] at 0 and [SEP] at 1.

    Where the architecture takes nothing but a text's own sequence of tokens, it is a BERT of the same width instead.

    Args:
        config: of the text transformer.
        layers: how many of its layers.
        positions: how many it must have at least.

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
    config.max_position_embeddings = max(config.max_position_embeddings, positions)
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
        pickled = Path(bert) / "pytorch_model.bin"
        if pickled.is_file() and not pickled.with_name("model.safetensors").is_file():
            load_torch(pickled)  # transformers does not compare the checksums
        arguments = _without_pooler(transformer.config) | {"trust_remote_code": False, "dtype": torch.float32}
        source, info = AutoModel.from_pretrained(bert, **arguments, output_loading_info=True)
    except Exception as error:
        raise ValueError(
            f"model.bert: no weights at {bert!r} (model.safetensors or pytorch_model.bin) that can be loaded to start "
            f"from ({_first_line(error)})"
        ) from error
    if info["missing_keys"]:
        raise ValueError(f"model.bert: the weights at {bert!r} lack {sorted(info['missing_keys'])[:20]}")
    check_finite(source.state_dict(), f"model.bert: the weights at {bert!r}")
    with naming(bert, "the weights"):
        transformer.load_state_dict(source.state_dict())


def check_finite(weights: Mapping[str, Any], source: str) -> None:
    """Refuse weights with NaN or infinite values, of a diverged training or a damaged file.

    Raises:
        ValueError: naming the weights by `source` and by their names.
    """

    def is_finite(value: torch.Tensor) -> bool:
        # A finite sum has finite terms, and is found faster.
        return bool(value.sum().isfinite()) or bool(value.isfinite().all())

    damaged = [name for name, value in weights.items() if torch.is_tensor(value) and not is_finite(value)]
    if damaged:
        raise ValueError(f"{source} have NaN or infinite values in {len(damaged)} tensors, as {damaged[0]}")


@torch.no_grad()
def initialise_video(transformer: PreTrainedModel, text: PreTrainedModel, cls_id: int, sep_id: int) -> None:
    """Copy embeddings and first layers of an initialised text transformer; of its words, [CLS] and [SEP] alone.

    Positions for clips that are longer than its texts are interpolated.

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
    if len(weights[POSITIONS]) < transformer.config.max_position_embeddings:
        weights[POSITIONS] = resampled(weights[POSITIONS], transformer.config.max_position_embeddings)
    transformer.load_state_dict(weights)


def save_reference(bert: str, folder: Path) -> None:
    """Keep configuration and tokenizer (not the weights) beside a run's checkpoints, so that these can be used alone.

    What stands there already is kept if it is the same, and replaced if it is of another text backbone or not whole. One
    process of a run must call this, not all.
    """
    config, tokenizer = load_config(bert), load_tokenizer(bert)
    if folder.exists():
        try:
            kept = TextBackbone.load(str(folder))
        except ValueError:
            kept = None
        if kept and kept.vocabulary == vocabulary_hash(tokenizer) and _settings(kept.config) == _settings(config):
            return
        shutil.rmtree(folder)
    with whole_folder(folder) as aside:
        config.save_pretrained(aside)
        tokenizer.save_pretrained(aside)


def _settings(config: PretrainedConfig) -> dict[str, Any]:
    """What tells configurations apart; the version that wrote one and the folder it was read from do not."""
    return {
        name: value for name, value in config.to_dict().items() if name not in ("transformers_version", "_name_or_path")
    }


def check_vocabulary(bert: str, checkpoint: dict[str, Any], reference: Path, source: str) -> None:
    """Refuse a tokenizer that gives words other ids than a checkpoint was trained with.

    Args:
        bert: folder or hub name of the tokenizer to use.
        checkpoint: its content. The vocabulary's hash is part of it, but for MMPT's and early ones of ours.
        reference: what `save_reference` kept beside the checkpoint, the next best where there is no hash.
        source: names the checkpoint in the message.

    Raises:
        ValueError: if the vocabularies differ.
    """
    record = backbone_record(checkpoint)
    given = load_tokenizer(bert)
    if record is not None:
        differ = vocabulary_hash(given) != record.get("vocabulary")
    elif (reference / "config.json").is_file() and Path(bert) != reference:
        differ = given.get_vocab() != load_tokenizer(str(reference)).get_vocab()
    else:
        return
    if differ:
        raise ValueError(
            f"model.bert: {bert!r} has another vocabulary than {source} was trained with, so that every text would be "
            f"read wrongly. Leave model.bert empty to use the checkpoint's own, {reference}; if another training wrote to "
            "the same folder, give the text encoder that the checkpoint was trained with"
        )


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__
