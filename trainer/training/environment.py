"""The machine that a run trains on, and the versions and hardware that its figures depend on."""

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import torch
from lightning_fabric import Fabric

import trainer
from trainer.config import Config


def make_fabric(config: Config) -> Fabric:
    precision: Literal["bf16-mixed", "32-true"] = "bf16-mixed" if config.precision == "bf16" else "32-true"
    try:
        return Fabric(accelerator=config.device, devices=1, precision=precision)
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"--device {config.device} cannot be used here: {error}".splitlines()[0]) from error


def environment(fabric: Fabric) -> dict[str, object]:
    """Versions and hardware that a figure depends on."""
    device = fabric.device
    name = (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else platform.processor() or platform.machine()
    )
    return {
        "torch": torch.__version__,
        "torchvision": version("torchvision"),
        "moodify": trainer.__version__,
        "python": platform.python_version(),
        "git_commit": git_commit(),
        "device_used": f"{device.type}: {name}",
        "cpu_count": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
    }


def git_commit() -> str:
    """The commit of this code, with `-dirty` where files differ from it; empty outside of a checkout."""
    root = Path(__file__).parents[2]
    try:
        run = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            cwd=root, capture_output=True, text=True, timeout=10,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return run.stdout.strip()
