"""What a command, or this process, costs by itself: without its parent.

The kernel counts to a process's memory what it shared with its parent until it had a program of its own; for a child of
the benchmarks that would be torch.
"""

import functools
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_SMALL_PARENT = """
import json, os, subprocess, sys, time
started = time.monotonic()
process = subprocess.Popen(sys.argv[1:])
_, status, usage = os.wait4(process.pid, 0)
seconds, cpu_seconds = time.monotonic() - started, usage.ru_utime + usage.ru_stime
code = os.waitstatus_to_exitcode(status)
print("\\n" + json.dumps([code, seconds, cpu_seconds, usage.ru_maxrss]))
"""
_UNIT = 1024 if sys.platform.startswith("linux") else 1


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Of the process that was started and of its children that it waited for; `peak_mib` of the largest of them."""

    output: str
    """What it wrote to stdout."""
    seconds: float
    cpu_seconds: float
    peak_mib: float


def run_alone(
    arguments: Sequence[str], *, environment: Mapping[str, str] | None = None, cores: Sequence[int] = ()
) -> Cost:
    """Run Python with `arguments` until it ends, on `cores` alone where any are given.

    Raises RuntimeError with what it said where it fails.
    """
    pin = functools.partial(os.sched_setaffinity, 0, cores) if cores and sys.platform == "linux" else None
    done = subprocess.run(
        [sys.executable, "-c", _SMALL_PARENT, sys.executable, *arguments],
        env=os.environ | dict(environment or {}), capture_output=True, text=True, check=True, preexec_fn=pin,
    )  # fmt: skip
    output, _, report = done.stdout.rstrip().rpartition("\n")
    code, seconds, cpu_seconds, peak = json.loads(report)
    if code:
        raise RuntimeError(f"{' '.join(arguments)} ended with {code}:\n{output}{done.stderr}")
    return Cost(output=output, seconds=seconds, cpu_seconds=cpu_seconds, peak_mib=peak * _UNIT / 2**20)


def peak_mib() -> float:
    """Largest resident set of this process; where the system keeps none, the one that it has now."""
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    import psutil

    return psutil.Process().memory_info().rss / 2**20
