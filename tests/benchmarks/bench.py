"""The story of one run of the benchmarks, top to bottom."""

import dataclasses
import json
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console

from tests.benchmarks import tables
from tests.benchmarks.bulk import PHOTOS, measure_bulk
from tests.benchmarks.conditions import conditions, load_average, print_conditions, settle
from tests.benchmarks.dashboard import measure_dashboard
from tests.benchmarks.images import (
    Loading,
    Source,
    find_source,
    measure_loading,
    write_jpegs,
)
from tests.benchmarks.logging_cost import RunCost, logging_share, measure_run, warm_up
from tests.benchmarks.means import measure_means
from tests.benchmarks.memory import measure_memory
from tests.benchmarks.photos import FOLDER_PHOTOS, measure_photos
from tests.benchmarks.server import SIZES, measure_server
from tests.benchmarks.throughput import Comparison, Effort, Say, compare, networks
from tests.benchmarks.worker import Worker

QUICK = Effort(rounds=1, seconds=0.4)
QUICK_RUNS = 60
QUICK_PHOTOS = 40
QUICK_CROPS = 2000
Flag = Annotated[bool, tyro.conf.FlagCreatePairsOff]


@dataclass(frozen=True)
class Options:
    """Measure speed: training throughput, data loading, the cost of logging; the dashboard on a big store; photos;
    very many photos; the dashboard on a shared server.

    Run nothing beside it.
    """

    only: Literal["training", "dashboard", "photos", "predict", "server"] | None = None
    """Leave the others out. `server` needs PostgreSQL and takes a quarter of an hour: it is measured only by name."""
    means: Flag = False
    """Also measure what each means to speed gains by itself (twice the time)."""
    quick: Flag = False
    """One round with few steps: shows that everything runs, and measures nothing."""
    rounds: int = 3
    """Rounds of every comparison; new processes of the dashboard."""
    seconds: float = 4.0
    """About how long one line takes in a round."""
    runs: int = 1000
    """Runs in the store that the dashboard is measured on."""
    store: Path | None = None
    """Folder of a store that `python -m tests.benchmarks.big_store` wrote; a copy is read. Default: a new one."""
    crops: int = PHOTOS
    """Crops that `predict` answers into a folder."""
    json: Path | None = None
    """Write all numbers to this file."""


def main() -> None:
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # cleans up as Ctrl-C does
    options = tyro.cli(Options, prog="python -m tests.benchmarks")
    effort = QUICK if options.quick else Effort(rounds=options.rounds, seconds=options.seconds)
    console = Console()
    if not console.is_terminal:
        console = Console(width=120)
    say = make_say()
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="moodify-bench-") as scratch:
        if options.only in (None, "training"):
            results |= measure_training(Path(scratch), effort, options.means, console, say)
        if options.only in (None, "dashboard"):
            results |= measure_on_big_store(Path(scratch), effort.rounds, options, console, say)
        if options.only in (None, "photos"):
            results |= measure_on_photos(Path(scratch), effort.rounds, options, console, say)
        if options.only in (None, "predict"):
            results |= measure_predict(Path(scratch), effort.rounds, options, console, say)
        if options.only == "server":
            results |= measure_on_server(effort.rounds, options.quick, console, say)
    if options.json is not None:
        options.json.write_text(json.dumps(results, indent=2, default=_as_json))
        console.print(f"All numbers: {options.json}")


def measure_training(
    scratch: Path, effort: Effort, with_means: bool, console: Console, say: Say
) -> dict[str, Any]:
    """Measure one thing after the other, and print each table as soon as it is known."""
    load_before = load_average()
    source = find_source(scratch)
    cache = {"MOODIFY_CACHE": str(scratch / "cache"), "TORCHINDUCTOR_CACHE_DIR": str(scratch / "inductor")}
    loading = load_data(source, cache, say)
    means = {}
    with ExitStack() as stack:
        plain, kept = (stack.enter_context(Worker(cache)) for _ in range(2))
        plain.call(settle, keep=False)
        facts = {
            "memory_kept": kept.call(settle, keep=True),
            "dataset": source.dataset,
            "train_images": loading.train_images,
            "load_average_before": load_before,
        }
        facts = plain.call(conditions) | facts
        rounds = f"{effort.rounds}, each about {effort.seconds:g} s of every line, interleaved"
        print_conditions(console, facts, rounds)
        comparisons = [compare(network, source, effort, plain, kept, say) for network in networks()]
        idle_share = (plain.idle_cpu_seconds + kept.idle_cpu_seconds) / (
            plain.idle_seconds + kept.idle_seconds
        )
        tables.print_throughput(console, comparisons, idle_share)
        if with_means:
            passive = stack.enter_context(Worker(cache | {"OMP_WAIT_POLICY": "PASSIVE"}))
            passive.call(settle, keep=True)
            workers = {"plain": plain, "kept": kept, "passive": passive}
            half = dataclasses.replace(effort, seconds=effort.seconds / 2)  # a bare step varies little
            for network in networks()[:2]:
                means[network.label] = measure_means(network, source, half, workers, say)
            tables.print_means(console, means)
    memory = None
    if effort is not QUICK:
        memory = measure_memory(source, scratch, cache, say)
        tables.print_memory(console, *memory)
    tables.print_loading(console, loading)
    cost = run_cost(scratch, say)
    share = logging_share(cost, comparisons[0].median("ours 64"))
    tables.print_logging(console, cost, share)
    facts["load_average_after"] = load_average()
    console.print(f"Load average before {load_before:.1f}, after {facts['load_average_after']:.1f}.")
    return {
        "conditions": facts,
        "effort": effort,
        "throughput": [throughput_numbers(comparison) for comparison in comparisons],
        "idle_cpu_share": idle_share,
        "memory": memory,
        "means": means,
        "loading": loading,
        "logging": cost,
        "logging_share": share,
    }


@contextmanager
def surrounded(console: Console, *, tell_conditions: bool) -> Iterator[None]:
    """Tells of the machine before what is measured, unless that is known already, and of its load afterwards."""
    if tell_conditions:
        with Worker() as worker:
            facts = worker.call(conditions) | {"load_average_before": load_average()}
            print_conditions(console, facts)
    yield
    console.print(f"Load average after {load_average():.1f}.")


def measure_on_big_store(
    scratch: Path, rounds: int, options: Options, console: Console, say: Say
) -> dict[str, Any]:
    """The store's reader and the dashboard on top of it."""
    with surrounded(console, tell_conditions=options.only == "dashboard"):
        runs = min(options.runs, QUICK_RUNS) if options.quick else options.runs
        result = measure_dashboard(scratch, runs, options.store, rounds, say)
        tables.print_reading(console, result.reading)
        tables.print_pages(console, result.pages)
    return {"dashboard": result}


def measure_on_photos(
    scratch: Path, rounds: int, options: Options, console: Console, say: Say
) -> dict[str, Any]:
    """What it takes from a photo to an answer."""
    with surrounded(console, tell_conditions=options.only == "photos"):
        result = measure_photos(scratch, rounds, QUICK_PHOTOS if options.quick else FOLDER_PHOTOS, say)
        tables.print_photos(console, result)
    return {"photos": result}


def measure_predict(
    scratch: Path, rounds: int, options: Options, console: Console, say: Say
) -> dict[str, Any]:
    """Very many photos, by one and more processes."""
    with surrounded(console, tell_conditions=options.only == "predict"):
        count = min(options.crops, QUICK_CROPS) if options.quick else options.crops
        result = measure_bulk(scratch / "predict", rounds, count, say)
        tables.print_bulk(console, result)
    return {"predict": result}


def measure_on_server(rounds: int, quick: bool, console: Console, say: Say) -> dict[str, Any]:
    """The dashboard on a shared server, as its runs grow."""
    with surrounded(console, tell_conditions=True):
        sizes = measure_server((QUICK_RUNS,) if quick else SIZES, rounds, say)
        tables.print_server(console, sizes)
    return {"server": sizes}


def load_data(source: Source, cache: dict[str, str], say: Say) -> Loading:
    """Fills the cache for the workers; for sketch, also writes the files of the report's pipeline."""
    say(f"loading {source.dataset} for the first time")
    with Worker(cache) as worker:
        loading = worker.call(measure_loading, source.dataset, source.data_dir)
        if source.dataset == "sketch":
            worker.call(write_jpegs, source)
    return loading


def run_cost(scratch: Path, say: Say) -> RunCost:
    """A run of the real code in a new process and a new store; sketch is drawn before where it has to be."""
    say("a short run on sketch, for the cost of logging (sketch is drawn first where the cache lacks it)")
    with Worker() as worker:
        worker.call(warm_up)
    with Worker({"MLFLOW_TRACKING_URI": f"sqlite:///{scratch.absolute()}/store/mlflow.db"}) as worker:
        return worker.call(measure_run)


def throughput_numbers(comparison: Comparison) -> dict[str, Any]:
    """A comparison with its ratios, round by round."""
    ratios = {}
    for size in comparison.network.batch_sizes:
        ratios[f"ours/limit {size}"] = comparison.ratios(f"ours {size}", f"limit {size}")
        ratios[f"ours {size}/report"] = comparison.ratios(f"ours {size}", "report")
    return dataclasses.asdict(comparison) | {"ratios": ratios}


def make_say() -> Say:
    """Progress goes to stderr, with the time since the start."""
    console, started = Console(stderr=True), time.monotonic()

    def say(message: str) -> None:
        console.print(
            f"[dim]{time.monotonic() - started:4.0f} s[/] {message}", highlight=False, soft_wrap=True
        )

    return say


def _as_json(value: object) -> object:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    return str(value)
