"""The machine that a run trains on, and the versions and hardware that its figures depend on."""

import logging
import os
import platform
import subprocess
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from lightning_fabric.strategies import DDPStrategy
from lightning_fabric.utilities.exceptions import MisconfigurationException
from lightning_utilities.core import rank_zero

import trainer
from trainer import torchrun
from trainer.config import Config

log = logging.getLogger(__name__)

LONGEST_WAIT = timedelta(hours=3)
"""Of one process for another: the first alone tests, logs and registers. One that has died is noticed at once."""


def make_fabric(config: Config) -> Fabric:
    """Of one device, or of all that torchrun has started processes for; then it waits until all have found each other.

    Raises ValueError where this machine has no such device, or a batch has no image for each process.
    """
    if config.batch_size < torchrun.world_size():
        raise ValueError(
            f"--batch-size {config.batch_size}: must not lie below the number of processes, "
            f"{torchrun.world_size()}"
        )
    # Fabric tells at every start which precision it was asked for, and which process it is: by the logger of whichever
    # package of Lightning's was imported last.
    for logger in (logging.getLogger("lightning_fabric"), rank_zero.log):
        logger.setLevel(logging.WARNING)
    try:
        fabric = _fabric(config, "32-true")
        if fabric.device.type == "mps":
            if config.precision == "bf16":
                log.info("On mps networks are trained in 32 bits.")
        elif config.precision == "bf16" or (config.precision == "auto" and computes_bf16(fabric.device)):
            fabric = _fabric(config, "bf16-mixed")
        if torchrun.world_size() > 1:
            meet(fabric.device)
        fabric.launch()
    except (RuntimeError, ValueError, MisconfigurationException) as error:
        raise ValueError(f"--device {config.device} cannot be used here: {error}".splitlines()[0]) from error
    return fabric


def _fabric(config: Config, precision: Literal["32-true", "bf16-mixed"]) -> Fabric:
    processes, here = torchrun.world_size(), torchrun.local_world_size()
    if processes == 1:
        return Fabric(accelerator=config.device, devices=1, precision=precision)
    return Fabric(
        accelerator=config.device,
        devices=here,
        num_nodes=processes // here,
        strategy=DDPStrategy(timeout=LONGEST_WAIT),
        precision=precision,
    )


def meet(device: torch.device) -> None:
    """Connect this process with the others; Fabric takes what is there."""
    dist.init_process_group(
        "nccl" if device.type == "cuda" else "gloo",
        store=torchrun.meeting_place(),
        rank=torchrun.rank(),
        world_size=torchrun.world_size(),
        timeout=LONGEST_WAIT,
    )


def part() -> None:
    """Undo `meet`, when no process waits for another any more: threads of the connection are not to outlive it."""
    if dist.is_initialized():
        dist.destroy_process_group()


def computes_bf16(device: torch.device) -> bool:
    """Whether a device has instructions for bfloat16, which are faster there than float32 (measured on CPUs)."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        # Older torch does not tell.
        abilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
        return bool(abilities.get("avx512_bf16") or abilities.get("amx_bf16"))
    return False


def in_bf16(fabric: Fabric) -> bool:
    """Whether networks are trained in mixed precision."""
    with fabric.autocast():
        return torch.is_autocast_enabled(fabric.device.type)


def environment(fabric: Fabric) -> dict[str, object]:
    """Versions and hardware that a figure depends on."""
    device = fabric.device
    precision = "bf16" if in_bf16(fabric) else "32"
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
        "processes": fabric.world_size,
        "torch_threads": torch.get_num_threads(),
    }


def git_commit() -> str:
    """The commit of this code, with `-dirty` where files differ from it; empty outside of a checkout of its own."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():  # git would find that of another project around it
        return ""
    try:
        run = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            cwd=root, capture_output=True, text=True, timeout=10,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return run.stdout.strip()
