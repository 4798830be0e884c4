"""The demo world's captions in another vocabulary, to pre-train another text encoder than its own small BERT on them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from mmpt_plugin.data.captions import Tokenize, vocabulary_sha256
from mmpt_plugin.data.shard_writer import ShardWriter
from mmpt_plugin.data.shards import read_shard
from mmpt_plugin.files.writing import aside_path


def retokenize(corpus: Path, folder: Path, tokenize: Tokenize, tokenizer: str, vocabulary: Mapping[str, int]) -> None:
    """Write a copy of a demo corpus whose captions are word pieces of another vocabulary.

    The test sets, which are text, are linked; there is no `bert/`. Whatever `folder` holds already is kept.

    Args:
        corpus: written by `write_demo_corpus`.
        folder: the copy to be; made with its parents.
        tokenize: of the other vocabulary.
        tokenizer: its name, for the shards to record.
        vocabulary: word pieces and their ids.
    """
    if folder.exists():
        return
    raw = json.loads((corpus / "howto100m" / "raw_caption.json").read_text())
    captions = {"tokenizer": tokenizer, "vocabulary_sha256": vocabulary_sha256(vocabulary)}
    aside = aside_path(folder)
    (aside / "howto100m").mkdir(parents=True)
    try:
        for path in corpus.iterdir():
            if path.name not in ("bert", "howto100m"):
                (aside / path.name).symlink_to(path.resolve())
        for split in ("train", "val"):
            shutil.copy(corpus / "howto100m" / f"{split}.txt", aside / "howto100m")
        for path in sorted((corpus / "howto100m" / "shards").iterdir()):
            shard = read_shard(path)
            source = shard.source | {"captions": captions}
            with ShardWriter(aside / "howto100m" / "shards", path.name, source=source) as writer:
                for video, video_id in enumerate(shard.video_ids):
                    pieces = tokenize(raw[video_id]["text"])
                    writer.add(video_id, shard.features[video], shard.caption_times[video], pieces)
        aside.rename(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
