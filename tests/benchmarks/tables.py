"""The tables that a run of the benchmarks prints."""

import statistics
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table

from tests.benchmarks.images import Loading
from tests.benchmarks.logging_cost import TARGET_EPOCHS, RunCost, Share
from tests.benchmarks.means import Effect
from tests.benchmarks.throughput import REPORT_BATCH, Comparison, Effort

OURS_OF_LIMIT = 0.9
OURS_OF_REPORT = 2.0
CACHED_SECONDS = 0.5
LOGGING_SHARE = 0.05


def print_conditions(console: Console, facts: Mapping[str, object], effort: Effort) -> None:
    table = Table("", "", title="Conditions", show_header=False)
    for name, value in facts.items():
        if value != "":
            table.add_row(name.replace("_", " "), f"{value:.1f}" if isinstance(value, float) else str(value))
    table.add_row("rounds", f"{effort.rounds}, each about {effort.seconds:g} s of every line, interleaved")
    console.print(table)


def print_throughput(console: Console, comparisons: Sequence[Comparison], idle_share: float) -> None:
    """One table a network. Speeds and ratios are medians over the rounds, with the lowest and the highest."""
    for comparison in comparisons:
        config = comparison.network.config
        title = f"{comparison.network.label}: training, images/s, median (lowest–highest)"
        table = Table(title=title, caption=_loader_note(comparison))
        for column in ("batch", "steps a round†", "report", "ours", "limit", "ours / limit", "ours / report"):
            table.add_column(column, justify="right")
        for size in comparison.network.batch_sizes:
            ours, limit = f"ours {size}", f"limit {size}"
            first = size == comparison.network.batch_sizes[0]
            names = (["report"] if first else []) + [ours, limit]
            table.add_row(
                f"{size}{' *' if size == config.batch_size else ''}",
                " / ".join(str(comparison.steps[name]) for name in names),
                spread(comparison.rates["report"], 0) if first else "",
                spread(comparison.rates[ours], 0),
                spread(comparison.rates[limit], 0),
                against(comparison.ratios(ours, limit), OURS_OF_LIMIT),
                against(comparison.ratios(ours, "report"), OURS_OF_REPORT),
            )
        console.print(table)
    console.print(
        f"Report: ImageFolder on JPEG files, PIL transforms, DataLoader of batch {REPORT_BATCH}, contiguous fp32, "
        "Adam; in a process with glibc's own allocator settings.\n"
        "Ours: trainer.training.loop.fit with the recipe's augmentation. Limit: forward, backward, optimizer on one "
        "batch in memory. Both after keep_memory(), in a process of their own.\n"
        f"Ratios are taken round by round; targets: ours / limit at least {OURS_OF_LIMIT}, ours / report at least "
        f"{OURS_OF_REPORT:g}. * is the recipe's batch size; † of report / ours / limit.\n"
        f"The process that waits takes {idle_share:.2%} of a core."
    )


def print_means(console: Console, means: Mapping[str, Sequence[Effect]]) -> None:
    """Ratios to the default, which is measured anew just before each round of a change."""
    table = Table(
        title=f"What each means does to the bare step (default: batch {REPORT_BATCH}, see Limit), × default"
    )
    table.add_column("change")
    for label in means:
        table.add_column(label, justify="right")
    for effects in zip(*means.values(), strict=True):
        table.add_row(effects[0].label, *(_effect(effect) for effect in effects))
    console.print(table)


def print_loading(console: Console, loading: Loading) -> None:
    table = Table(
        "what", "seconds", title=f"Loading {loading.dataset}: {loading.images:,} images, train and test"
    )
    table.add_row(
        "first load: read and decode (files perhaps in the page cache)", f"{loading.first_seconds:.2f}"
    )
    table.add_row(
        f"next load: from the cache (target: below {CACHED_SECONDS})",
        f"{loading.cached_seconds:.2f} {_met(loading.cached_seconds < CACHED_SECONDS)}",
    )
    console.print(table)


def print_logging(console: Console, cost: RunCost, share: Share) -> None:
    table = Table(
        "of a run, besides its epochs", "seconds", title="The cost of logging (new store, sketch, real code)"
    )
    later = TARGET_EPOCHS - 1
    for what, seconds in (
        ("imports of logging: MLflow, matplotlib, pandas", cost.importing_logging),
        ("making the store: only a store's first run", cost.opening),
        ("cached data, network, begin, parameters, dataset", cost.beginning),
        ("first epoch's metrics and checkpoint, energy meter", cost.rest),
        (f"metrics and checkpoint of {later} more epochs, {cost.per_epoch:.3f} each", later * cost.per_epoch),
        ("evaluation, artifacts, export, registration", cost.concluding),
        ("all of it", share.logging_seconds),
        ("without imports and making the store", share.store_seconds),
    ):
        table.add_row(what, f"{seconds:.2f}")
    console.print(table)
    console.print(
        f"Training the report's CNN for {TARGET_EPOCHS} epochs on FER-2013's train takes {share.training_seconds:.0f} s "
        f"at {share.images_per_second:.0f} images/s (ours, batch 64). All of the above is {share.share:.1%} of that "
        f"{_met(share.share < LOGGING_SHARE)} (target: below {LOGGING_SHARE:.0%}); without imports and making the "
        f"store it is {share.store_share:.1%}.\nNot counted: importing torch and Fabric, {cost.importing_training:.1f} s."
    )


def spread(values: Sequence[float], digits: int) -> str:
    """Median (lowest–highest)."""
    middle, low, high = statistics.median(values), min(values), max(values)
    return f"{middle:.{digits}f} ({low:.{digits}f}–{high:.{digits}f})"


def against(ratios: Sequence[float], target: float) -> str:
    return f"{spread(ratios, 2)} {_met(statistics.median(ratios) >= target)}"


def _met(met: bool) -> str:
    return "[green]✓[/]" if met else "[red]✗[/]"


def _loader_note(comparison: Comparison) -> str:
    trials = ", ".join(f"{count}: {rate:.0f}" for count, rate in comparison.loader_trial.items())
    return (
        f"The report's DataLoader has {comparison.loader_workers} processes, the better in a trial "
        f"(processes: images/s; {trials})"
    )


def _effect(effect: Effect) -> str:
    if effect.skipped:
        return f"skipped: {effect.skipped}"
    warm_up = f", warm-up {effect.warm_up_seconds:.0f} s" if effect.warm_up_seconds > 5 else ""
    return spread(effect.ratios(), 2) + warm_up
