"""The machine and the versions that the figures depend on."""

import os
import platform
import sys
from collections.abc import Mapping
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from trainer.training.allocator import keep_memory
from trainer.training.environment import git_commit


def conditions() -> dict[str, str | int | float]:
    """Of the process that asks, without changing it."""
    return {
        "cpu": cpu_model(),
        "cores": os.cpu_count() or 0,
        "cores_allowed": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0,
        "torch_threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "omp_settings": " ".join(
            f"{name}={value}" for name, value in os.environ.items() if name.startswith(("OMP_", "GOMP_"))
        ),
        "malloc_settings": " ".join(name for name in os.environ if name.startswith("MALLOC_")),
        "git_commit": git_commit(),
    }


def print_conditions(console: Console, facts: Mapping[str, object], rounds: str = "") -> None:
    """`rounds` tells what was repeated, and how."""
    table = Table("", "", title="Conditions", show_header=False)
    for name, value in facts.items():
        if value != "":
            table.add_row(name.replace("_", " "), f"{value:.1f}" if isinstance(value, float) else str(value))
    if rounds:
        table.add_row("rounds", rounds)
    console.print(table)


def load_average() -> float:
    """Of the last minute: runnable processes on this machine; NaN where the system does not say."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")


def settle(keep: bool) -> bool:
    """Prepare a worker's process: keep memory where `keep`; returns whether the allocator listened."""
    return keep_memory() if keep else False


def cpu_model() -> str:
    if sys.platform.startswith("linux"):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
