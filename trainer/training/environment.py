"""The machine that a run trains on, and the versions and hardware that its figures depend on."""

import logging
import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

import torch
from lightning_fabric import Fabric

import trainer
from trainer.config import Config

# Fabric tells at every start which precision it was asked for.
logging.getLogger("lightning_fabric.utilities.rank_zero").setLevel(logging.WARNING)


def make_fabric(config: Config) -> Fabric:
    """Raises ValueError where this machine has no such device."""
    try:
        fabric = Fabric(accelerator=config.device, devices=1)
        if config.precision == "bf16" or (config.precision == "auto" and computes_bf16(fabric.device)):
            fabric = Fabric(accelerator=config.device, devices=1, precision="bf16-mixed")
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"--device {config.device} cannot be used here: {error}".splitlines()[0]) from error
    return fabric


def computes_bf16(device: torch.device) -> bool:
    """Whether a device has instructions for bfloat16, which are faster there than float32 (measured on CPUs)."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        # Older torch does not tell.
        abilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
        return bool(abilities.get("avx512_bf16") or abilities.get("amx_bf16"))
    return False


def environment(fabric: Fabric) -> dict[str, object]:
    """Versions and hardware that a figure depends on."""
    device = fabric.device
    with fabric.autocast():
        precision = "bf16" if torch.is_autocast_enabled(device.type) else "32"
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
        "precision_used": precision,
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
