#!/usr/bin/env python3
"""Pairs per second of a training step: towers on real tokens only against padded ones, whole batches against chunks.

BERT-base's size with random weights, pairs of uniform lengths (video 3-32 s, text 8-61 pieces), forward + backward +
clipping + Adam. All variants run in turn within each repeat, so that drift of the machine touches them alike. Also a
batch of many pairs in chunks, with its peak of memory above weights, gradients and optimizer. Writes JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # huge pages for activations: must be set before torch is loaded

import torch
from torch import Tensor
from tqdm import tqdm
from transformers import BertConfig, BertModel

from mmpt_plugin.criterions.contrastive import symmetric_info_nce
from mmpt_plugin.models.encoders import TextEncoder, VideoEncoder
from mmpt_plugin.models.videoclip import VideoClipModel

Inputs = dict[str, Tensor]
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


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


def make_step(
    model: VideoClipModel, optimizer: torch.optim.Optimizer, batch: Inputs, padded: bool, chunk_pairs: int, bf16: bool
) -> Callable[[], None]:
    """One update of the model on the batch."""
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


def seconds(step: Callable[[], object]) -> float:
    started = time.perf_counter()
    step()
    return time.perf_counter() - started


def useful_flops(config: BertConfig, batch: Inputs) -> float:
    """Multiply-adds (x 2) of a step's matrix products on real tokens, without attention scores; backward is twice forward."""
    layer = 2 * (4 * config.hidden_size**2 + 2 * config.hidden_size * config.intermediate_size)
    video, text = int(batch["video_mask"].sum()), int(batch["text_mask"].sum())
    projection = 2 * video * (512 * config.hidden_size + config.hidden_size**2)
    video_tokens = video + 2 * len(batch["video_mask"])
    return 3 * (layer * (config.num_hidden_layers // 2 * video_tokens + config.num_hidden_layers * text) + projection)


def matmul_gigaflops(dtype: torch.dtype, device: str, size: int = 2048) -> float:
    """What a plain matrix product of two squares reaches here."""
    a, b = torch.randn(2, size, size, device=device).to(dtype)

    def product() -> None:
        a @ b
        if device == "cuda":
            torch.cuda.synchronize()

    return 2 * size**3 / min(seconds(product) for _ in range(5)) / 1e9


def resident_mebibytes(key: str) -> float:
    """VmRSS (now) or VmHWM (the highest since the last reset) of this process."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) / 1024


def large_batch(
    model: VideoClipModel, optimizer: torch.optim.Optimizer, pairs: int, chunk: int, device: str
) -> dict[str, float]:
    """A step of many pairs in chunks: its rate, and its peak memory above weights, gradients and optimizer."""
    make_step(model, optimizer, draw_batch(2, device), False, 0, False)()  # now gradients and moments exist
    step = make_step(model, optimizer, draw_batch(pairs, device), False, chunk, False)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        spent = seconds(step)
        growth = (torch.cuda.max_memory_allocated() - before) / 2**20
    else:
        Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM
        baseline = resident_mebibytes("VmRSS")
        spent = seconds(step)
        growth = resident_mebibytes("VmHWM") - baseline
    return {
        "pairs": pairs,
        "chunk_pairs": chunk,
        "pairs_per_second": round(pairs / spent, 3),
        "peak_above_weights_MiB": round(growth),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, nargs="+", default=[64], help="sizes; the first one is compared in depth")
    parser.add_argument("--large-batch", type=int, default=0, help="also a step of so many pairs in chunks of --chunk")
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
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-5, betas=(0.9, 0.98), weight_decay=0, fused=True)
    report: dict = {
        "threads": args.threads,
        "device": torch.cuda.get_device_name() if args.device == "cuda" else f"cpu ({platform.processor()})",
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "layers": args.layers,
        "width": args.width,
    }
    if args.large_batch:  # first, before other steps have left memory behind
        report["large_batch"] = large_batch(model, optimizer, args.large_batch, args.chunk, args.device)
    batch = draw_batch(args.pairs[0], args.device)
    settings = {  # padded, chunk_pairs, bf16
        "padded_fp32": (True, 0, False),
        "packed_fp32": (False, 0, False),
        "packed_fp32_chunked": (False, max(args.pairs[0] // 4, 1), False),
        "padded_bf16": (True, 0, True),
        "packed_bf16": (False, 0, True),
    }
    steps = {name: make_step(model, optimizer, batch, *chosen) for name, chosen in settings.items()}
    for size in args.pairs[1:]:
        steps[f"packed_fp32_{size}_pairs"] = make_step(model, optimizer, draw_batch(size, args.device), False, 0, False)
    times: dict[str, list[float]] = {name: [] for name in steps}
    for repeat in tqdm(range(args.repeats + 1), unit="repeat", disable=None):
        for name, step in steps.items():
            spent = seconds(step)
            if repeat:  # the first is warm-up
                times[name].append(spent)
    median = {name: statistics.median(values) for name, values in times.items()}
    flops = useful_flops(config, batch)
    peaks = {name: matmul_gigaflops(dtype, args.device) for name, dtype in PRECISIONS.items()}
    report |= {
        "pairs": args.pairs[0],
        "seconds": {name: [round(value, 4) for value in values] for name, values in times.items()},
        "pairs_per_second": {name: round(args.pairs[0] / median[name], 3) for name in settings},
        "packed_over_padded": {
            name: round(median[f"padded_{name}"] / median[f"packed_{name}"], 3) for name in PRECISIONS
        },
        "chunked_over_whole_time": round(median["packed_fp32_chunked"] / median["packed_fp32"], 3),
        "useful_gigaflops_per_pair": round(flops / args.pairs[0] / 1e9, 2),
        "matmul_gigaflops": {name: round(value) for name, value in peaks.items()},
        "share_of_matmul_rate": {
            name: round(flops / median[f"packed_{name}"] / 1e9 / peaks[name], 3) for name in PRECISIONS
        },
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
