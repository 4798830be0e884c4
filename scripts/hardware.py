"""What a benchmark runs on: its description for the report, and how fast matrix products are there."""

import os
import platform
import statistics
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("av", "faiss-cpu", "faiss-gpu", "numpy", "torch", "transformers")


def hardware(device: str = "cpu") -> dict[str, Any]:
    """Processor, cores, load, the GPU where `device` names one, and versions of what computes."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    installed = {package.metadata["Name"]: package.version for package in metadata.distributions()}
    report = {
        "cpu": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS"),
        "load_average": os.getloadavg()[0],
        "system": platform.platform(),
        "versions": {"python": platform.python_version()}
        | {name: installed[name] for name in PACKAGES if name in installed},
    }
    if device.startswith("cuda"):
        report["gpu"] = torch.cuda.get_device_name(device)
    return report


def matmul_gigaflops(dtype: torch.dtype, device: str = "cpu", size: int = 2048, repeats: int = 5) -> float:
    """What a plain matrix product of two squares reaches here."""
    a, b = torch.randn(2, size, size, device=device).to(dtype)
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        a @ b
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return 2 * size**3 / statistics.median(times) / 1e9


def bf16_is_fast() -> bool:
    """Whether this processor has arithmetic for bf16. Without it a step takes many times as long as in fp32."""
    return matmul_gigaflops(torch.bfloat16, size=256) > matmul_gigaflops(torch.float32, size=256)
