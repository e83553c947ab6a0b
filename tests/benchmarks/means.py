"""What each means to speed gains or loses by itself, on the bare training step."""

import dataclasses
import os
import shutil
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.benchmarks.images import Source
from tests.benchmarks.pipelines import Line, forget, measure
from tests.benchmarks.throughput import (
    REPORT_BATCH,
    WARM_UP_STEPS,
    Effort,
    Network,
    Say,
    calibrate,
    with_batch,
)
from tests.benchmarks.worker import Worker, WorkerError


@dataclass(frozen=True)
class Change:
    """One departure from the default: channels_last, fused optimiser, kept memory, batch 64, fp32.

    worker: the process that it runs in. line: fields of `Line` that differ.
    """

    label: str
    worker: str = "kept"
    line: Mapping[str, Any] = field(default_factory=dict)
    batch_size: int = REPORT_BATCH


CHANGES = (
    Change("contiguous instead of channels_last", line={"channels_last": False}),
    Change("optimizer not fused", line={"fused": False}),
    Change("without keep_memory()", worker="plain"),
    Change("torch.compile", line={"compiled": True}),
    Change("batch 32", batch_size=32),
    Change("batch 128", batch_size=128),
    Change("batch 256", batch_size=256),
    Change("oneDNN off", line={"setting": "onednn_off"}),
    Change("set_flush_denormal(True)", line={"setting": "flush_denormal"}),
    Change("float32_matmul_precision medium", line={"setting": "matmul_medium"}),
    Change("bf16 autocast", line={"setting": "bf16"}),
    Change("OMP_WAIT_POLICY=PASSIVE", worker="passive"),
    Change("one thread", line={"setting": "one_thread"}),
)


@dataclass(frozen=True, kw_only=True)
class Effect:
    """Images per second with a change, and of the default just before it, round by round.

    warm_up_seconds: of the first steps, which is where torch.compile compiles. skipped: why there are no
    figures.
    """

    label: str
    rates: list[float] = field(default_factory=list)
    default_rates: list[float] = field(default_factory=list)
    warm_up_seconds: float = 0.0
    skipped: str = ""

    def ratios(self) -> list[float]:
        return [rate / of for rate, of in zip(self.rates, self.default_rates, strict=True)]


def measure_means(
    network: Network, source: Source, effort: Effort, workers: Mapping[str, Worker], say: Say
) -> list[Effect]:
    """One effect for each change; `workers` are those that the changes name."""
    default = Line(pipeline="limit", source=source, config=with_batch(network.config, REPORT_BATCH))
    default_steps = calibrate(workers["kept"], default, effort.seconds)
    effects = []
    for change in CHANGES:
        effect = _measure(change, default, default_steps, effort, workers)
        middle = statistics.median(effect.ratios()) if effect.rates else float("nan")
        say(f"{network.label}, {change.label}: {effect.skipped or f'{middle:.2f}'}")
        effects.append(effect)
    for worker in workers.values():
        worker.call(forget)
    return effects


def _measure(
    change: Change, default: Line, default_steps: int, effort: Effort, workers: Mapping[str, Worker]
) -> Effect:
    config = with_batch(default.config, change.batch_size)
    line = dataclasses.replace(default, config=config, **change.line)
    if line.compiled and (reason := no_compiler()):
        return Effect(label=change.label, skipped=reason)
    worker = workers[change.worker]
    rates, default_rates = [], []
    try:
        first = worker.call(measure, line, WARM_UP_STEPS)
        steps = calibrate(worker, line, effort.seconds)
    except WorkerError as error:
        return Effect(label=change.label, skipped=str(error).strip().splitlines()[-1])
    for _ in range(effort.rounds):
        default_rates.append(workers["kept"].call(measure, default, default_steps))
        rates.append(worker.call(measure, line, steps))
    return Effect(
        label=change.label,
        rates=rates,
        default_rates=default_rates,
        warm_up_seconds=WARM_UP_STEPS * change.batch_size / first,
    )


def no_compiler() -> str:
    """Why torch.compile cannot be measured here; empty where it can."""
    compiler = os.environ.get("CXX", "g++")
    return "" if shutil.which(compiler) else f"no C++ compiler ({compiler}) for torch.compile"
