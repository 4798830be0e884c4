#!/usr/bin/env python3
"""Pairs per second of a training step: towers on real tokens only against padded ones, whole batches against chunks.

BERT-base's size with random weights, pairs of uniform lengths (video 3-32 s, text 8-61 pieces), forward + backward +
clipping + Adam. Each variant runs in a process of its own, as training does, because steps of different sizes that share a
process pay for each other's memory. The variants of a precision make one step each in turn, so that a machine whose rate
drifts drifts for all of them. Every wait has a limit (--limit) and names the variant that it was for; the processes die with
this one. bf16 is not judged where the processor computes it more slowly than fp32. Also the chunks' peak of memory above
weights, gradients and optimizer. Writes JSON.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # huge pages for activations: must be set before torch is loaded

import torch
from hardware import bf16_is_fast, hardware, matmul_gigaflops
from torch import Tensor
from tqdm import tqdm
from transformers import BertConfig, BertModel

from mmpt_plugin.criterions.contrastive import symmetric_info_nce
from mmpt_plugin.data.pairs import Inputs
from mmpt_plugin.models.encoders import TextEncoder, VideoEncoder
from mmpt_plugin.models.packing import length_mask
from mmpt_plugin.models.text_backbone import new_transformer
from mmpt_plugin.models.videoclip import VideoClipModel

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Variant:
    """A way to make steps.

    Attributes:
        pairs: of a batch.
        steps: to measure.
        precision: one of PRECISIONS; bf16 by autocast.
        padded: compute every position, by Hugging Face's own attention.
        chunk_pairs: as `model.chunk_pairs`.
    """

    pairs: int
    steps: int
    precision: str = "fp32"
    padded: bool = False
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


def build_model(config: BertConfig, device: str, padded: bool = False) -> VideoClipModel:
    """VideoCLIP with random weights: all layers for text, half of them for video; where `padded`, with torch's dropout."""
    video = BertConfig(**config.to_dict() | {"num_hidden_layers": config.num_hidden_layers // 2, "vocab_size": 2})
    video.pad_token_id = None
    towers = [BertModel(each, add_pooling_layer=False) if padded else new_transformer(each) for each in (video, config)]
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
    lengths = {"video": (batch["video_lengths"], 32), "text": (batch["text_lengths"], 63)}
    masks = {side: torch.from_numpy(length_mask(*own)) for side, own in lengths.items()}
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
        with torch.autocast(device, torch.bfloat16, enabled=variant.precision == "bf16"):
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


def resident_mebibytes(key: str) -> float:
    """VmRSS (now) or VmHWM (the highest since the last reset) of this process."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) / 1024


def die_with(parent: int) -> None:
    """End this process when its parent ends, however that happens."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def make_steps(connection: Connection, parent: int, machine: Machine, variant: Variant, warm_up: int) -> None:
    """A process's life: warm up, say so, then for each word from the connection make a step and send its seconds.

    With them goes the peak of memory, in mebibytes, above weights, gradients and moments: the warm-up starts with a step on
    two pairs, after which these exist. Chunks warm up on a batch of two.
    """
    die_with(parent)
    torch.set_num_threads(machine.threads)
    torch.manual_seed(0)
    model = build_model(machine.config, machine.device, variant.padded)
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
    for seed in range(warm_up):
        step(prepare(draw_batch(2 * variant.chunk_pairs or variant.pairs, machine.device, seed)))
    batches = itertools.cycle([prepare(draw_batch(variant.pairs, machine.device, seed)) for seed in range(4)])
    spent = 0.0
    while True:
        peak = torch.cuda.max_memory_allocated() / 2**20 if cuda else resident_mebibytes("VmHWM")
        connection.send((spent, round(peak - before)))
        connection.recv()
        spent = seconds(step, next(batches))


class Worker:
    """A variant's process, which makes a step when asked.

    Attributes:
        seconds: of each step.
        peak: as `make_steps` sends it.
    """

    def __init__(self, name: str, machine: Machine, variant: Variant, warm_up: int, limit: float) -> None:
        context = get_context("spawn")  # a direct child that shares none of this process's threads
        self.name, self.limit = name, limit
        self.connection, theirs = context.Pipe()
        arguments = (theirs, os.getpid(), machine, variant, warm_up)
        self.process = context.Process(target=make_steps, args=arguments, daemon=True)
        self.process.start()
        theirs.close()  # so that the end of the process ends recv() too
        self.seconds: list[float] = []
        self.peak = 0
        self._receive("its start and warm-up")

    def step(self) -> None:
        """Make a step and keep its seconds."""
        self.connection.send("step")
        self.seconds.append(self._receive(f"step {len(self.seconds) + 1}"))

    def _receive(self, what: str) -> float:
        """What the process sends, or an error that says which variant took too long at what, or died."""
        if not self.connection.poll(self.limit):
            raise TimeoutError(f"{self.name}: {what} took longer than {self.limit:g} s (--limit)")
        try:
            spent, self.peak = self.connection.recv()
        except EOFError:
            self.process.join(10)
            raise RuntimeError(f"{self.name}: its process ended during {what}, code {self.process.exitcode}") from None
        return spent

    def close(self) -> None:
        """End the process, in the middle of a step or not."""
        self.process.kill()
        self.process.join(10)


def measure(
    machine: Machine, variants: dict[str, Variant], precision: str, warm_up: int, limit: float
) -> tuple[dict[str, Worker], list[float]]:
    """The variants' workers when all have made their steps in turn, and the rate of matrix products before each round."""
    products = []
    with ExitStack() as stack:
        workers = {
            name: stack.enter_context(closing(Worker(name, machine, variant, warm_up, limit)))
            for name, variant in variants.items()
        }
        rounds = max(variant.steps for variant in variants.values())
        for done in tqdm(range(rounds), unit="round", desc=precision, disable=None):
            products.append(matmul_gigaflops(PRECISIONS[precision], machine.device))
            for name, variant in variants.items():  # few steps of a large batch, spread over the rounds
                if done * variant.steps // rounds < (done + 1) * variant.steps // rounds:
                    workers[name].step()
    return workers, products


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, nargs="+", default=[64], help="sizes; the first one is compared in depth")
    parser.add_argument("--large-batch", type=int, default=0, help="also a step of so many pairs in chunks of --chunk")
    parser.add_argument("--chunk", type=int, default=32)
    parser.add_argument("--large-steps", type=int, default=1, help="of the large batch")
    parser.add_argument("--steps", type=int, default=6, help="of every other variant")
    parser.add_argument("--warm-up", type=int, default=2, help="steps of a process before those that count")
    parser.add_argument("--limit", type=float, default=300, help="most seconds to wait for a step, or for a warm-up")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--width", type=int, default=768)
    args = parser.parse_args()
    machine = Machine(args.device, args.threads, args.layers, args.width)
    before = hardware(args.device)
    torch.set_num_threads(args.threads)
    judged = [name for name in PRECISIONS if name == "fp32" or args.device != "cpu" or bf16_is_fast()]
    pairs = args.pairs[0]
    variants = {
        f"{kind}_{precision}": Variant(pairs, args.steps, precision, padded=kind == "padded")
        for precision in judged
        for kind in ("padded", "packed")
    }
    if args.large_batch:
        variants["chunked_fp32"] = Variant(args.large_batch, args.large_steps, chunk_pairs=args.chunk)
    variants |= {f"packed_fp32_{size}_pairs": Variant(size, args.steps) for size in args.pairs[1:]}
    workers: dict[str, Worker] = {}
    products: dict[str, list[float]] = {precision: [] for precision in judged}
    for precision in judged:
        names = [name for name, variant in variants.items() if variant.precision == precision]
        # a GPU keeps its rate, but has no memory for several at once
        for group in [[name] for name in names] if args.device == "cuda" else [names]:
            measured = measure(machine, {name: variants[name] for name in group}, precision, args.warm_up, args.limit)
            workers |= measured[0]
            products[precision] += measured[1]
    times = {name: worker.seconds for name, worker in workers.items()}
    # a large batch has few steps, each as long as many small ones: only means compare like with like on a drifting machine
    rates = {name: variants[name].pairs / statistics.mean(values) for name, values in times.items()}
    flops = useful_flops(machine.config, draw_batch(pairs, "cpu")) / pairs
    peaks = {name: statistics.median(values) for name, values in products.items()}
    report = {
        "threads": args.threads,
        "machine": before,
        "layers": args.layers,
        "width": args.width,
        "pairs": pairs,
        "seconds": {name: [round(value, 4) for value in values] for name, values in times.items()},
        "pairs_per_second": {  # medians
            name: round(variants[name].pairs / statistics.median(values), 3) for name, values in times.items()
        },
        "not_judged": [name for name in PRECISIONS if name not in judged],  # slower than fp32 on this processor
        "packed_over_padded": {name: round(rates[f"packed_{name}"] / rates[f"padded_{name}"], 3) for name in judged},
        "useful_gigaflops_per_pair": round(flops / 1e9, 2),
        "matmul_gigaflops": {name: round(value) for name, value in peaks.items()},
        "share_of_matmul_rate": {
            name: round(flops * rates[f"packed_{name}"] / 1e9 / peaks[name], 3) for name in judged
        },
    }
    if args.large_batch:
        report["large_batch"] = {
            "pairs": args.large_batch,
            "chunk_pairs": args.chunk,
            "pair_time_over_whole": round(rates["packed_fp32"] / rates["chunked_fp32"], 3),
            "peak_above_weights_MiB": workers["chunked_fp32"].peak,
        }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
