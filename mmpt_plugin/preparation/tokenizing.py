"""The model's tokenizer as a plain function, fast."""

from __future__ import annotations

from collections.abc import Mapping

from mmpt_plugin.data.captions import Tokenize

_tokenizers: dict[tuple[str, bool], Tokenize] = {}  # a dict, as Ray cannot send functools.cache to its workers


def load_tokenize(bert: str, special_words_are_text: bool) -> Tokenize:
    """The model's tokenizer as a function; made once a process.

    Args:
        bert: folder or hub name.
        special_words_are_text: whether "[SEP]" in a caption is a word like others, not the special token.
    """
    key = (bert, special_words_are_text)
    if key not in _tokenizers:
        _tokenizers[key] = _make_tokenize(*key)
    return _tokenizers[key]


def _make_tokenize(bert: str, special_words_are_text: bool) -> Tokenize:
    from mmpt_plugin.models.text_backbone import load_tokenizer  # imports torch

    tokenizer = load_tokenizer(bert)
    if tokenizer.is_fast:  # without the wrapper it takes half the time
        backend = tokenizer.backend_tokenizer
        backend.no_truncation()
        backend.no_padding()
        backend.encode_special_tokens = special_words_are_text
        return lambda texts: [encoding.ids for encoding in backend.encode_batch_fast(texts, add_special_tokens=False)]
    plain = {"add_special_tokens": False, "split_special_tokens": special_words_are_text, "verbose": False}
    return lambda texts: tokenizer(texts, **plain)["input_ids"] if texts else []


def vocabulary_of(bert: str) -> tuple[Mapping[str, int], int | None]:
    """A tokenizer's word pieces with their ids, and the id of the unknown one."""
    from mmpt_plugin.models.text_backbone import load_tokenizer  # imports torch

    tokenizer = load_tokenizer(bert)
    return tokenizer.get_vocab(), tokenizer.unk_token_id
