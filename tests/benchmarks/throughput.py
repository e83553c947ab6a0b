"""Training throughput of each network: the report's pipeline, ours and the limit, interleaved in rounds."""

import dataclasses
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tests.benchmarks.images import Source
from tests.benchmarks.pipelines import Line, forget, measure
from tests.benchmarks.worker import Worker
from trainer.config import Config, recipe_defaults

REPORT_BATCH = 64
WARM_UP_STEPS = 3
LOADER_WORKERS = (0, 2)

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How long is measured: `rounds` rounds, in each of them about `seconds` of every line."""

    rounds: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Network:
    """A network, the recipe that it is trained with, and the batch sizes it is measured at."""

    label: str
    config: Config
    batch_sizes: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Images per second of each line in each round; a line is "report", "ours 64", "limit 64", "augmentation 64", …

    steps: of a round. loader_trial: processes of the report's DataLoader → images per second before the
    rounds; the better one was taken.
    """

    network: Network
    steps: Mapping[str, int]
    rates: Mapping[str, list[float]]
    loader_trial: Mapping[int, float]
    loader_workers: int

    def ratios(self, line: str, base: str) -> list[float]:
        """Round by round: a disturbance of the machine that outlasts a round falls on both."""
        return [rate / of for rate, of in zip(self.rates[line], self.rates[base], strict=True)]

    def augmentation_share(self, size: int) -> list[float]:
        """Of the time of a step of ours at batch `size`, round by round."""
        return self.ratios(f"ours {size}", f"augmentation {size}")

    def median(self, line: str) -> float:
        return statistics.median(self.rates[line])


def networks() -> tuple[Network, ...]:
    """On the CPU in every case: the report's pipeline knows nothing else."""
    cnn = recipe_defaults("report", "cnn")
    resnet = dataclasses.replace(
        recipe_defaults("report", "resnet18", pretrained="none"), image_size=48, channels=1
    )
    fast, fast_resnet = (recipe_defaults("fast", architecture) for architecture in ("cnn", "resnet18"))
    return (
        Network(label="report's CNN", config=_endless(cnn), batch_sizes=(64, 128, 256)),
        Network(label="report's ResNet18, 48 px", config=_endless(resnet), batch_sizes=(64, 128)),
        Network(label="fast CNN", config=_endless(fast), batch_sizes=(128, 256)),
        Network(label="fast ResNet18", config=_endless(fast_resnet), batch_sizes=(256,)),
    )


def _endless(config: Config) -> Config:
    """Measured epoch by epoch: it must never come to its end, where the learning rate would be 0; at one side."""
    return dataclasses.replace(config, epochs=10_000, progressive=None, device="cpu")


def compare(
    network: Network, source: Source, effort: Effort, plain: Worker, kept: Worker, say: Say
) -> Comparison:
    """Measure one network. The report's pipeline runs in `plain`, the others in `kept`."""
    report = Line(pipeline="report", source=source, config=with_batch(network.config, REPORT_BATCH))
    trial_steps, trial = calibrate(plain, report, effort.seconds / 2), {}
    for count in LOADER_WORKERS:
        candidate = dataclasses.replace(report, loader_workers=count)
        trial[count] = plain.call(measure, candidate, trial_steps)
        say(
            f"{network.label}: the report's pipeline with {count} loader processes: {trial[count]:.0f} images/s"
        )
    loader_workers = max(trial, key=lambda count: trial[count])
    lines = {"report": (plain, dataclasses.replace(report, loader_workers=loader_workers))}
    for size in network.batch_sizes:
        config = with_batch(network.config, size)
        lines[f"ours {size}"] = kept, Line(pipeline="ours", source=source, config=config)
        lines[f"limit {size}"] = kept, Line(pipeline="limit", source=source, config=config)
        lines[f"augmentation {size}"] = kept, Line(pipeline="augmentation", source=source, config=config)
    steps = {name: calibrate(worker, line, effort.seconds) for name, (worker, line) in lines.items()}
    rates: dict[str, list[float]] = {name: [] for name in lines}
    for round_number in range(1, effort.rounds + 1):
        for name, (worker, line) in lines.items():
            rates[name].append(worker.call(measure, line, steps[name]))
        shown = ", ".join(f"{name} {values[-1]:.0f}" for name, values in rates.items())
        say(f"{network.label}, round {round_number} of {effort.rounds}, images/s: {shown}")
    for worker in (plain, kept):
        worker.call(forget)
    return Comparison(
        network=network, steps=steps, rates=rates, loader_trial=trial, loader_workers=loader_workers
    )


def calibrate(worker: Worker, line: Line, seconds: float) -> int:
    """Warm `line` up; returns the steps that take about `seconds`."""
    worker.call(measure, line, WARM_UP_STEPS)
    rate = worker.call(measure, line, WARM_UP_STEPS)
    return max(2, round(seconds * rate / line.config.batch_size))


def with_batch(config: Config, size: int) -> Config:
    return dataclasses.replace(config, batch_size=size)
