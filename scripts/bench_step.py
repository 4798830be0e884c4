#!/usr/bin/env python3
"""Pairs per second of a training step: towers on real tokens only against padded ones, whole batches against chunks.

BERT-base's size with random weights, pairs of uniform lengths (video 3-32 s, text 8-61 pieces), forward + backward +
clipping + Adam. All variants run in turn within each repeat, so that drift of the machine touches them alike. Also a
batch of many pairs in chunks, with its peak of memory above weights, gradients and optimizer. Writes JSON.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from transformers import BertConfig, BertModel

from mmpt_plugin.criterions.contrastive import symmetric_info_nce
from mmpt_plugin.models.encoders import TextEncoder, VideoEncoder
from mmpt_plugin.models.videoclip import VideoClipModel

Inputs = dict[str, Tensor]


def build_model(config: BertConfig, device: str) -> VideoClipModel:
    """VideoCLIP with random weights: all layers for text, half of them for video."""
    video = BertConfig(**config.to_dict() | {"num_hidden_layers": config.num_hidden_layers // 2, "vocab_size": 2})
    video.pad_token_id = None
    towers = (BertModel(video, add_pooling_layer=False), BertModel(config, add_pooling_layer=False))
    return VideoClipModel(VideoEncoder(towers[0], 512, 32), TextEncoder(towers[1], 61), 2, 3).to(device).train()


def draw_batch(pairs: int, device: str, seed: int = 0) -> Inputs:
    """Pairs of uniform lengths, padded as in data/pairs.py."""
    generator = torch.Generator().manual_seed(seed)
    seconds = torch.randint(3, 33, (pairs, 1), generator=generator)
    tokens = torch.randint(8, 62, (pairs, 1), generator=generator) + 2
    batch = {
        "video_features": torch.randn(pairs, 32, 512, generator=generator).half(),
        "video_mask": torch.arange(32) < seconds,
        "text_ids": torch.randint(5, 1000, (pairs, 63), generator=generator),
        "text_mask": torch.arange(63) < tokens,
    }
    return {name: value.to(device) for name, value in batch.items()}


def padded_forward(model: VideoClipModel, batch: Inputs) -> dict[str, Tensor]:
    """The same towers on every position of 34 and 63, real or not, by Hugging Face's own attention."""
    video, text = model.video_encoder, model.text_encoder
    B = len(batch["video_mask"])
    special: Tensor = video.transformer.get_input_embeddings().weight  # type: ignore[assignment]
    rows = video.feature_projection(batch["video_features"].to(video.feature_projection.input.weight.dtype))
    embeds = torch.cat([special[:1].expand(B, 1, -1), rows, special[1:].expand(B, 1, -1)], 1)
    ones = torch.ones(B, 1, dtype=torch.bool, device=embeds.device)
    mask = torch.cat([ones, batch["video_mask"], ones], 1)
    states = [
        (video.transformer(inputs_embeds=embeds, attention_mask=mask.long()).last_hidden_state, mask),
        (
            text.transformer(input_ids=batch["text_ids"], attention_mask=batch["text_mask"].long()).last_hidden_state,
            batch["text_mask"],
        ),
    ]
    means = [(hidden * m[..., None])[:, 1:].sum(1) / m[:, 1:].sum(1, keepdim=True) for hidden, m in states]
    return {"video_embeddings": means[0], "text_embeddings": means[1]}


def make_step(model: VideoClipModel, batch: Inputs, padded: bool, chunk_pairs: int, bf16: bool) -> Callable[[], None]:
    """One update of the model on the batch."""
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-5, betas=(0.9, 0.98))
    device = batch["text_ids"].device.type

    def step() -> None:
        model.chunk_pairs = chunk_pairs
        for tower in (model.video_encoder.transformer, model.text_encoder.transformer):
            tower.set_attn_implementation("sdpa" if padded else "mmpt_packed")
        with torch.autocast(device, torch.bfloat16, enabled=bf16):
            output = padded_forward(model, batch) if padded else model(**batch)
        loss = symmetric_info_nce(output["video_embeddings"].float(), output["text_embeddings"].float())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 2.0)
        optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()

    return step


def seconds(step: Callable[[], None]) -> float:
    started = time.perf_counter()
    step()
    return time.perf_counter() - started


def resident_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=64)
    parser.add_argument(
        "--large-batch", type=int, default=0, help="also one step of so many pairs in chunks of --chunk"
    )
    parser.add_argument("--chunk", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--width", type=int, default=768)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    config = BertConfig(
        hidden_size=args.width,
        num_hidden_layers=args.layers,
        intermediate_size=4 * args.width,
        num_attention_heads=args.width // 64,
    )
    model = build_model(config, args.device)
    batch = draw_batch(args.pairs, args.device)
    variants = {
        "padded_fp32": make_step(model, batch, padded=True, chunk_pairs=0, bf16=False),
        "packed_fp32": make_step(model, batch, padded=False, chunk_pairs=0, bf16=False),
        "packed_fp32_chunked": make_step(model, batch, padded=False, chunk_pairs=max(args.pairs // 4, 1), bf16=False),
        "packed_bf16": make_step(model, batch, padded=False, chunk_pairs=0, bf16=True),
    }
    times: dict[str, list[float]] = {name: [] for name in variants}
    for repeat in range(args.repeats + 1):
        for name, step in variants.items():
            spent = seconds(step)
            if repeat:  # the first is warm-up
                times[name].append(spent)
    median = {name: statistics.median(values) for name, values in times.items()}
    report = {
        "pairs": args.pairs,
        "pairs_per_second": {name: round(args.pairs / value, 3) for name, value in median.items()},
        "seconds": {name: [round(value, 3) for value in values] for name, values in times.items()},
        "packed_over_padded": round(median["padded_fp32"] / median["packed_fp32"], 3),
        "chunked_over_whole_time": round(median["packed_fp32_chunked"] / median["packed_fp32"], 3),
        "threads": args.threads,
        "device": torch.cuda.get_device_name() if args.device == "cuda" else "cpu",
        "torch": torch.__version__,
    }
    if args.large_batch:
        large = make_step(model, draw_batch(args.large_batch, args.device), False, args.chunk, False)
        before = resident_bytes()
        spent = seconds(large)
        report["large_batch"] = {
            "pairs": args.large_batch,
            "chunk_pairs": args.chunk,
            "pairs_per_second": round(args.large_batch / spent, 3),
            "growth_of_peak_resident_GiB": round((resident_bytes() - before) / 2**30, 2),
        }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
