"""A small BERT with random weights and the demo world's words, so that the demo needs no download.

The only file of this package that knows torch.
"""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoConfig, AutoModel, AutoTokenizer, BertConfig, BertModel, BertTokenizer

from demo import words

WIDTH = 128
WEIGHT_STD = 0.05
POSITION_STD = 0.02


def write_bert(folder: Path, seed: int, dropout: float = 0.0, width: int = WIDTH) -> None:
    """Write a BERT folder: config.json, model.safetensors, vocab.txt and the tokenizer's files.

    3 layers of width 128 with 4 heads. Weights are drawn from N(0, 0.05) and positions from N(0, 0.02): VideoCLIP
    compares raw dot products, and from BERT's usual 0.02 throughout they start too close to each other to learn in the
    few hundred updates of the demo. Of another width, weights are drawn so that their products are as large.

    Args:
        folder: made if it does not exist.
        seed: of the weights.
        dropout: of the hidden states and of the attention.
        width: of the hidden states, a multiple of 4.
    """
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = words.vocabulary()
    vocabulary_file = folder / "vocab.txt"
    vocabulary_file.write_text("\n".join(vocabulary) + "\n")
    BertTokenizer(vocab=str(vocabulary_file), do_lower_case=True, model_max_length=64).save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=width,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=4 * width,
        max_position_embeddings=64,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        initializer_range=WEIGHT_STD * (WIDTH / width) ** 0.5,
    )
    with torch.random.fork_rng(devices=[]):  # so that a training run does not depend on who wrote the folder
        torch.manual_seed(seed)
        model = BertModel(config, add_pooling_layer=False)
        torch.nn.init.normal_(model.embeddings.position_embeddings.weight, std=POSITION_STD)
    model.save_pretrained(folder)


def write_random_copy(bert: Path, folder: Path, seed: int) -> None:
    """Write a folder with the configuration and tokenizer of another, and random weights: N(0, 0.05), as above.

    Args:
        bert: the folder to copy.
        folder: made if it does not exist.
        seed: of the weights.
    """
    config = AutoConfig.from_pretrained(bert, initializer_range=WEIGHT_STD, trust_remote_code=False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModel.from_config(config, add_pooling_layer=False, trust_remote_code=False)
        torch.nn.init.normal_(model.embeddings.position_embeddings.weight, std=POSITION_STD)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(bert, trust_remote_code=False).save_pretrained(folder)
