#!/usr/bin/env python3
"""Pairs per second of a training step: towers on real tokens only against padded ones, whole batches against chunks.

BERT-base's size with random weights, pairs of uniform lengths (video 3-32 s, text 8-61 pieces), forward + backward +
clipping + Adam, a new batch each step. Each variant runs in a process of its own, as training does: steps of different
sizes that share a process pay for each other's memory. The variants, among them a batch of many pairs in chunks if asked
for, take turns, so that drift of the machine touches them alike. Also the chunks' peak of memory above weights, gradients
and optimizer. Writes JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # huge pages for activations: must be set before torch is loaded

import torch
from hardware import hardware
from torch import Tensor
from tqdm import tqdm
from transformers import BertConfig, BertModel

from mmpt_plugin.criterions.contrastive import symmetric_info_nce
from mmpt_plugin.data.pairs import Inputs
from mmpt_plugin.models.encoders import TextEncoder, VideoEncoder
from mmpt_plugin.models.packing import length_mask
from mmpt_plugin.models.videoclip import VideoClipModel

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Variant:
    """A way to make steps.

    Attributes:
        pairs: of a batch.
        padded: compute every position, by Hugging Face's own attention.
        bf16: autocast.
        chunk_pairs: as `model.chunk_pairs`.
    """

    pairs: int
    padded: bool = False
    bf16: bool = False
    chunk_pairs: int = 0


@dataclass(frozen=True)
class Machine:
    """What all variants run on: the model's size and the device."""

    device: str
    threads: int
    layers: int
    width: int

    @property
    def config(self) -> BertConfig:
        """A BERT of that size."""
        return BertConfig(
            hidden_size=self.width,
            num_hidden_layers=self.layers,
            intermediate_size=4 * self.width,
            num_attention_heads=self.width // 64,
        )


def build_model(config: BertConfig, device: str) -> VideoClipModel:
    """VideoCLIP with random weights: all layers for text, half of them for video."""
    video = BertConfig(**config.to_dict() | {"num_hidden_layers": config.num_hidden_layers // 2, "vocab_size": 2})
    video.pad_token_id = None
    towers = (BertModel(video, add_pooling_layer=False), BertModel(config, add_pooling_layer=False))
    return VideoClipModel(VideoEncoder(towers[0], 512, 32), TextEncoder(towers[1], 61), 2, 3).to(device).train()


def draw_batch(pairs: int, device: str, seed: int = 0) -> Inputs:
    """Pairs of uniform lengths as in data/pairs.py; whatever the seed, as many tokens."""
    generator = torch.Generator().manual_seed(seed)
    seconds, pieces = (  # evenly spaced in the range, in random order
        first + ((torch.randperm(pairs, generator=generator) + 0.5) / pairs * (last + 1 - first)).long()
        for first, last in ((3, 32), (8, 61))
    )
    tokens = pieces + 2
    return {
        "video_features": torch.randn(int(seconds.sum()), 512, generator=generator).half().to(device),
        "video_lengths": seconds.numpy(),
        "text_ids": torch.randint(5, 1000, (int(tokens.sum()),), generator=generator).to(device),
        "text_lengths": tokens.numpy(),
    }


def pad_batch(batch: Inputs) -> dict[str, Tensor]:
    """The same pairs as the original pads them: to 32 seconds and 63 tokens."""
    masks = {"video": length_mask(batch["video_lengths"], 32), "text": length_mask(batch["text_lengths"], 63)}
    padded = {"video_mask": masks["video"], "text_mask": masks["text"]}
    for name, mask in (("video_features", masks["video"]), ("text_ids", masks["text"])):
        values = batch[name].cpu()
        padded[name] = values.new_zeros(*mask.shape, *values.shape[1:])
        padded[name][mask] = values
    return {name: value.to(batch["text_ids"].device) for name, value in padded.items()}


def padded_forward(model: VideoClipModel, batch: dict[str, Tensor]) -> dict[str, Tensor]:
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


def make_step(model: VideoClipModel, optimizer: torch.optim.Optimizer, variant: Variant) -> Callable[[Inputs], None]:
    """One update of the model on a batch."""
    model.chunk_pairs = variant.chunk_pairs
    for tower in (model.video_encoder.transformer, model.text_encoder.transformer):
        tower.set_attn_implementation("sdpa" if variant.padded else "mmpt_packed")

    def step(batch: Inputs) -> None:
        device = batch["text_ids"].device.type
        with torch.autocast(device, torch.bfloat16, enabled=variant.bf16):
            output = padded_forward(model, batch) if variant.padded else model(**batch)
        loss = symmetric_info_nce(output["video_embeddings"].float(), output["text_embeddings"].float())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 2.0)
        optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()

    return step


def seconds(step: Callable[..., object], *args: object) -> float:
    started = time.perf_counter()
    step(*args)
    return time.perf_counter() - started


def useful_flops(config: BertConfig, batch: Inputs) -> float:
    """Multiply-adds (x 2) of a step's matrix products on real tokens, without attention scores; backward is twice forward."""
    layer = 2 * (4 * config.hidden_size**2 + 2 * config.hidden_size * config.intermediate_size)
    video, text = len(batch["video_features"]), len(batch["text_ids"])
    projection = 2 * video * (512 * config.hidden_size + config.hidden_size**2)
    video_tokens = video + 2 * len(batch["video_lengths"])
    return 3 * (layer * (config.num_hidden_layers // 2 * video_tokens + config.num_hidden_layers * text) + projection)


def matmul_gigaflops(dtype: torch.dtype, device: str, size: int = 2048) -> float:
    """What a plain matrix product of two squares reaches here."""
    a, b = torch.randn(2, size, size, device=device).to(dtype)

    def product() -> None:
        a @ b
        if device == "cuda":
            torch.cuda.synchronize()

    return 2 * size**3 / min(seconds(product) for _ in range(20)) / 1e9


def resident_mebibytes(key: str) -> float:
    """VmRSS (now) or VmHWM (the highest since the last reset) of this process."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) / 1024


def measure(machine: Machine, variant: Variant, warm_up: int, steps: int) -> dict:
    """Seconds of each step after the warm-up, and the peak of memory above weights, gradients and moments in mebibytes.

    A process calls this once. The warm-up starts with a step on two pairs, after which gradients and moments exist.
    """
    torch.set_num_threads(machine.threads)
    torch.manual_seed(0)
    model = build_model(machine.config, machine.device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-5, betas=(0.9, 0.98), weight_decay=0, fused=True)
    step = make_step(model, optimizer, variant)
    prepare = pad_batch if variant.padded else lambda batch: batch
    step(prepare(draw_batch(2, machine.device)))
    cuda = machine.device == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM
    before = torch.cuda.memory_allocated() / 2**20 if cuda else resident_mebibytes("VmRSS")
    batches = [prepare(draw_batch(variant.pairs, machine.device, seed)) for seed in range(warm_up + steps)]
    times = [seconds(step, batch) for batch in batches]
    peak = torch.cuda.max_memory_allocated() / 2**20 if cuda else resident_mebibytes("VmHWM")
    return {"seconds": times[warm_up:], "peak_above_weights_MiB": round(peak - before)}


def in_new_process(*args: object) -> dict:
    """`measure` in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(measure, *args).result()  # type: ignore[arg-type]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, nargs="+", default=[64], help="sizes; the first one is compared in depth")
    parser.add_argument("--large-batch", type=int, default=0, help="also a step of so many pairs in chunks of --chunk")
    parser.add_argument("--chunk", type=int, default=32)
    parser.add_argument(
        "--large-steps", type=int, default=1, help="steps of the large batch in a process that count, after one more"
    )
    parser.add_argument("--rounds", type=int, default=2, help="each variant runs in so many processes")
    parser.add_argument("--warm-up", type=int, default=2, help="steps of a process before those that count")
    parser.add_argument("--steps", type=int, default=3, help="steps of a process that count")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--width", type=int, default=768)
    args = parser.parse_args()
    machine = Machine(args.device, args.threads, args.layers, args.width)
    before = hardware(args.device)
    torch.set_num_threads(args.threads)
    pairs = args.pairs[0]
    variants = {
        "padded_bf16": Variant(pairs, padded=True, bf16=True),
        "packed_bf16": Variant(pairs, bf16=True),
        "padded_fp32": Variant(pairs, padded=True),
        "packed_fp32": Variant(pairs),
    }
    if args.large_batch:
        variants["chunked_fp32"] = Variant(args.large_batch, chunk_pairs=args.chunk)
    variants |= {f"packed_fp32_{size}_pairs": Variant(size) for size in args.pairs[1:]}
    times: dict[str, list[float]] = {name: [] for name in variants}
    memory: dict[str, list[int]] = {name: [] for name in variants}
    for _ in tqdm(range(args.rounds), unit="round", disable=None):
        for name, variant in variants.items():
            warm_up, steps = (1, args.large_steps) if variant.chunk_pairs else (args.warm_up, args.steps)
            measured = in_new_process(machine, variant, warm_up, steps)
            times[name] += measured["seconds"]
            memory[name].append(measured["peak_above_weights_MiB"])
    rates = {name: variants[name].pairs / statistics.median(values) for name, values in times.items()}
    flops = useful_flops(machine.config, draw_batch(pairs, "cpu")) / pairs
    peaks = {name: matmul_gigaflops(dtype, args.device) for name, dtype in PRECISIONS.items()}
    report = {
        "threads": args.threads,
        "machine": before,
        "layers": args.layers,
        "width": args.width,
        "pairs": pairs,
        "seconds": {name: [round(value, 4) for value in values] for name, values in times.items()},
        "pairs_per_second": {name: round(rate, 3) for name, rate in rates.items()},
        "packed_over_padded": {
            name: round(rates[f"packed_{name}"] / rates[f"padded_{name}"], 3) for name in PRECISIONS
        },
        "useful_gigaflops_per_pair": round(flops / 1e9, 2),
        "matmul_gigaflops": {name: round(value) for name, value in peaks.items()},
        "share_of_matmul_rate": {
            name: round(flops * rates[f"packed_{name}"] / 1e9 / peaks[name], 3) for name in PRECISIONS
        },
    }
    if args.large_batch:
        report["large_batch"] = {
            "pairs": args.large_batch,
            "chunk_pairs": args.chunk,
            "pair_time_over_whole": round(rates["packed_fp32"] / rates["chunked_fp32"], 3),
            "peak_above_weights_MiB": max(memory["chunked_fp32"]),
        }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
