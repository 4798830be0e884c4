"""What a benchmark ran on, for its report."""

import os
import platform
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
