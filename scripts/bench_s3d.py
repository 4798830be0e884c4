#!/usr/bin/env python
"""How many seconds of video per second S3D embeds, how exactly, and how well decoding overlaps with it.

    python scripts/bench_s3d.py --out bench_s3d.json                      # random weights
    python scripts/bench_s3d.py --checkpoint s3d_howto100m.pth --compile --out bench_s3d.json

All variants take turns within each round, after a warm-up, so that other load on the machine falls on all of them; the
medians over the rounds count. Where the machine is busy, `cpu_s_per_clip` (processor time of this process, all threads)
tells more than the wall clock. A clip is one second of video: 30 frames of 224 x 224.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # as scripts/extract_features.py does

import av
import numpy as np
import torch
from hardware import hardware
from torch import Tensor, nn
from tqdm import tqdm

from mmpt_plugin.data.workers import available_cores
from mmpt_plugin.features.command import checked_device, whole_number
from mmpt_plugin.features.networks import FeatureNetwork, NetworkConfig, load_network
from mmpt_plugin.features.one_video import embed_blocks
from mmpt_plugin.features.s3d import S3D, load_s3d, optimize_for_inference
from mmpt_plugin.features.video import VideoBlocks

PLAIN = "plain fp32"
SIZE = 224
positive = whole_number(1, 1024)
FRAMES = 30
Variant = tuple[nn.Module, torch.dtype, torch.memory_format]


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, metavar="FILE", help="s3d_howto100m.pth (default: random weights)")
    parser.add_argument("--video", type=Path, metavar="FILE", help="for the overlap (default: one is rendered)")
    parser.add_argument("--video-seconds", type=positive, default=20, help="length of the rendered video (default 20)")
    parser.add_argument("--batches", type=positive, nargs="+", default=[2, 4], help="clips in a batch (default 2 4)")
    parser.add_argument("--rounds", type=positive, default=5, help="measurements of each variant (default 5)")
    parser.add_argument("--threads", type=positive, nargs="+", default=[available_cores()], help="(default: all cores)")
    parser.add_argument("--compile", action="store_true", help="measure the compiled variants too (minutes)")
    parser.add_argument("--device", default="cpu", help="cpu (default), cuda, cuda:1... or auto")
    parser.add_argument("--out", type=Path, metavar="FILE", help="JSON (default: standard output)")
    args = parser.parse_args()
    try:
        args.device = checked_device(args.device)
    except ValueError as error:
        parser.error(str(error))
    return args


def random_model() -> S3D:
    """Random weights under which activations keep their size from layer to layer, and nothing drowns in the last bias."""
    model = S3D().eval()
    for module in model.modules():
        if isinstance(module, nn.Conv3d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    nn.init.zeros_(model.fc.bias)
    return model


def build_variants(model: S3D, device: str, compiled: bool) -> dict[str, Variant]:
    """Networks to compare, by name."""
    channels_last = torch.channels_last_3d
    plain, contiguous = copy.deepcopy(model), torch.contiguous_format
    variants: dict[str, Variant] = {
        PLAIN: (plain, torch.float32, contiguous),
        "channels last fp32": (_channels_last(model, torch.float32), torch.float32, channels_last),
        "channels last bf16": (_channels_last(model, torch.bfloat16), torch.bfloat16, channels_last),
        "optimized fp32": (optimize_for_inference(model), torch.float32, channels_last),
        "optimized bf16": (optimize_for_inference(model, torch.bfloat16), torch.bfloat16, channels_last),
    }
    if compiled:
        for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
            variants[f"optimized compiled {name}"] = (optimize_for_inference(model, dtype, True), dtype, channels_last)
    return {name: (network.to(device), dtype, layout) for name, (network, dtype, layout) in variants.items()}


def _channels_last(model: S3D, dtype: torch.dtype) -> nn.Module:
    return copy.deepcopy(model).to(dtype=dtype).to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]


def measure_networks(
    variants: dict[str, Variant], clips: Tensor, rounds: int, label: str
) -> dict[str, dict[str, float]]:
    """Seconds per clip of each variant on the same clips (B, 3, T, H, W), and how far its result is from the plain one."""
    inputs = {name: clips.to(dtype=dtype, memory_format=layout) for name, (_, dtype, layout) in variants.items()}
    results = {name: network(inputs[name]).float().cpu() for name, (network, _, _) in variants.items()}  # warm-up
    wall: dict[str, list[float]] = {name: [] for name in variants}
    cpu: dict[str, list[float]] = {name: [] for name in variants}
    for _ in tqdm(range(rounds), desc=label):
        for name, (network, _, _) in variants.items():
            wall_s, cpu_s = timed(lambda network=network, name=name: network(inputs[name]).cpu())  # type: ignore[misc]
            wall[name].append(wall_s / len(clips))
            cpu[name].append(cpu_s / len(clips))
    plain_s = statistics.median(wall[PLAIN])
    return {
        name: {
            "video_s_per_s": 1 / statistics.median(wall[name]),
            "best_video_s_per_s": 1 / min(wall[name]),
            "times_plain": plain_s / statistics.median(wall[name]),
            "cpu_s_per_clip": statistics.median(cpu[name]),
            "times_plain_by_cpu": statistics.median(cpu[PLAIN]) / statistics.median(cpu[name]),
            "difference": float((results[name] - results[PLAIN]).abs().max() / results[PLAIN].abs().max()),
        }
        for name in variants
    }


def measure_overlap(
    video: Path, network: FeatureNetwork, batch: int, decode_threads: int, rounds: int
) -> dict[str, float]:
    """Decoding alone, the network alone, and both as the extraction runs them, in seconds."""
    seconds: dict[str, list[float]] = {"decode_s": [], "network_s": [], "both_s": []}
    blocks = list(VideoBlocks(video))
    network(torch.from_numpy(np.stack(blocks[:1])))  # warm-up
    for _ in tqdm(range(rounds), desc="overlap"):
        seconds["decode_s"].append(timed(lambda: [None for _ in VideoBlocks(video, threads=decode_threads)])[0])
        seconds["network_s"].append(timed(lambda: embed_blocks(blocks, network, batch))[0])
        seconds["both_s"].append(
            timed(lambda: embed_blocks(VideoBlocks(video, threads=decode_threads), network, batch))[0]
        )
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    slower = max(medians["decode_s"], medians["network_s"])
    return {
        **medians,
        "video_s": len(blocks),
        "decode_video_s_per_s": len(blocks) / medians["decode_s"],
        "both_over_slower": medians["both_s"] / slower,
        "both_over_sum": medians["both_s"] / (medians["decode_s"] + medians["network_s"]),
    }


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Wall clock and processor time of one call, in seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def render_video(path: Path, seconds: int) -> Path:
    """640 x 360, H.264, 30 frames a second: a moving pattern with some noise, as hard to decode as ordinary video."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:360, :640]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FRAMES, options={"preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = 640, 360, "yuv420p"
        for i in range(seconds * FRAMES):
            pattern = 128 + 80 * np.sin((columns + 4 * i) / 30) * np.cos((rows - 2 * i) / 20)
            picture = np.stack([pattern, np.roll(pattern, 40, 1), pattern[:, ::-1]], axis=2)
            picture += rng.normal(0, 4, (360, 640, 1))
            frame = av.VideoFrame.from_ndarray(picture.clip(0, 255).astype(np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@torch.no_grad()
def main() -> None:
    """Measures and writes the JSON."""
    args = parse_arguments()
    torch.manual_seed(0)
    report: dict[str, Any] = {"before": hardware(args.device), "rounds": args.rounds, "networks": {}}
    with tempfile.TemporaryDirectory() as folder:
        video = args.video or render_video(Path(folder) / "video.mp4", args.video_seconds)
        frames = torch.from_numpy(np.stack([block for block, _ in zip(VideoBlocks(video), range(max(args.batches)))]))
        clips = (frames.permute(0, 4, 1, 2, 3).contiguous().float() / 255).to(args.device)
        model = load_s3d(args.checkpoint) if args.checkpoint else random_model()
        variants = build_variants(model, args.device, args.compile)
        for threads in args.threads:
            torch.set_num_threads(threads)
            for batch in args.batches:
                label = f"{threads} threads, batch {batch}"
                report["networks"][label] = measure_networks(variants, clips[:batch], args.rounds, label)
        checkpoint = Path(folder) / "s3d.pth"
        torch.save(model.state_dict(), checkpoint)
        report["overlap"] = {}
        decode_threads = 0 if args.device.startswith("cuda") else 1  # as scripts/extract_features.py
        for precision in ("fp32", "bf16"):
            network = load_network(NetworkConfig("s3d", checkpoint, precision, device=args.device))
            for threads in args.threads:
                torch.set_num_threads(threads)
                for batch in args.batches:
                    label = f"{precision}, {threads} threads, batch {batch}"
                    report["overlap"][label] = measure_overlap(video, network, batch, decode_threads, args.rounds)
    report["after"] = hardware(args.device)
    text = json.dumps(report, indent=1) + "\n"
    if args.out:
        args.out.write_text(text)
    else:
        print(text)


if __name__ == "__main__":
    main()
