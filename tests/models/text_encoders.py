"""Tiny folders of text encoders with random weights, laid out as on the model hub."""

import io
import tempfile
from pathlib import Path

import torch
from sentencepiece import SentencePieceTrainer
from tokenizers import ByteLevelBPETokenizer, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoModel,
    AutoTokenizer,
    BertTokenizer,
    DebertaV2Config,
    DistilBertConfig,
    ModernBertConfig,
    PretrainedConfig,
    PreTrainedTokenizerFast,
    RobertaConfig,
    XLMRobertaConfig,
)

SENTENCES = [
    "add the onions to the pan",
    "cut the potatoes, stir and salt",
    "ajouter les oignons à la poêle",
    "schneide die Kartoffeln und rühre um",
    "把洋葱放进锅里",
    "добавьте лук",
    "pour the oil on a plate",
]
FAMILIES = ("roberta", "xlm-roberta", "distilbert", "deberta-v2", "deberta-v3", "modernbert")


def write_text_encoder(family: str, folder: Path, texts: list[str] = SENTENCES) -> Path:
    """Write the folder: a tokenizer trained on the texts, and 3 layers of width 32 whose weights tell tokens apart."""
    folder.mkdir(parents=True, exist_ok=True)
    {
        "roberta": _byte_level_bpe,
        "xlm-roberta": _xlm_sentencepiece,
        "distilbert": _word_pieces,
        "deberta-v2": _deberta_sentencepiece,
        "deberta-v3": _deberta_sentencepiece,
        "modernbert": _modernbert_bpe,
    }[family](folder, texts)
    config = _config(family, len(_tokenizer(folder, family)))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        AutoModel.from_config(config).save_pretrained(folder)
    return folder


def _config(family: str, vocabulary: int) -> PretrainedConfig:
    sizes = {
        "vocab_size": vocabulary,
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "max_position_embeddings": 66,
        "initializer_range": 0.2,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    }
    if family == "roberta":
        return RobertaConfig(**sizes, type_vocab_size=1)
    if family == "xlm-roberta":
        return XLMRobertaConfig(**sizes, type_vocab_size=1)
    if family == "modernbert":
        own = {"embedding_dropout": 0.0, "attention_dropout": 0.0, "mlp_dropout": 0.0, "local_attention": 8}
        ids = {"cls_token_id": 1, "sep_token_id": 2, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 3}
        return ModernBertConfig(**{k: v for k, v in sizes.items() if "dropout" not in k}, **own, **ids)
    if family == "distilbert":
        own = {"dropout": 0.0, "attention_dropout": 0.0}
        names = {"hidden_size": "dim", "num_hidden_layers": "n_layers", "num_attention_heads": "n_heads"}
        names["intermediate_size"] = "hidden_dim"
        return DistilBertConfig(**{names.get(k, k): v for k, v in sizes.items() if "dropout" not in k}, **own)
    relative = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "share_att_key": True, "type_vocab_size": 0}
    relative |= {"norm_rel_ebd": "layer_norm", "position_buckets": 8, "max_relative_positions": -1}
    kind = {"position_biased_input": False} if family == "deberta-v3" else {"conv_kernel_size": 3, "conv_act": "gelu"}
    return DebertaV2Config(**sizes, **relative, **kind)


def _tokenizer(folder: Path, family: str):
    with tempfile.TemporaryDirectory() as place:  # a configuration tells transformers which tokenizer it is
        copy = Path(place)
        for path in folder.iterdir():
            (copy / path.name).write_bytes(path.read_bytes())
        _config(family, 8).save_pretrained(copy)
        return AutoTokenizer.from_pretrained(copy)


def _byte_level_bpe(folder: Path, texts: list[str]) -> None:
    trainer = ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trainer.train_from_iterator(texts, vocab_size=320, special_tokens=special, show_progress=False)
    trainer.save_model(str(folder))


def _modernbert_bpe(folder: Path, texts: list[str], add_prefix_space: bool = True) -> None:
    special = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"]
    tokenizer = Tokenizer(models.BPE(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([f"{text} {text}" for text in texts], trainer=trainer)
    frame = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", special_tokens=frame)
    names = {f"{name}_token": f"[{name.upper()}]" for name in ("unk", "cls", "sep", "pad", "mask")}
    inputs = ["input_ids", "attention_mask"]
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_input_names=inputs, **names).save_pretrained(folder)


def _word_pieces(folder: Path, texts: list[str]) -> None:
    words = {word.strip(",") for text in texts for word in text.lower().split()}
    (folder / "vocab.txt").write_text(
        "\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ",", *sorted(words)]) + "\n"
    )
    BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)


def _sentencepiece(texts: list[str], **settings: object) -> bytes:
    model = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=model,
        vocab_size=150,
        hard_vocab_limit=False,
        minloglevel=2,
        **settings,
    )
    return model.getvalue()


def _xlm_sentencepiece(folder: Path, texts: list[str]) -> None:
    (folder / "sentencepiece.bpe.model").write_bytes(_sentencepiece(texts))


def _deberta_sentencepiece(folder: Path, texts: list[str]) -> None:
    special = {"pad_id": 0, "bos_id": 1, "eos_id": 2, "unk_id": 3, "pad_piece": "[PAD]", "bos_piece": "[CLS]"}
    (folder / "spm.model").write_bytes(_sentencepiece(texts, **special, eos_piece="[SEP]", unk_piece="[UNK]"))
