"""The tables that a run of the benchmarks prints."""

import statistics
from collections.abc import Callable, Mapping, Sequence

from rich.console import Console
from rich.table import Table

from tests.benchmarks.bulk import Bulk
from tests.benchmarks.dashboard import Pages, View
from tests.benchmarks.images import Loading
from tests.benchmarks.logging_cost import TARGET_EPOCHS, RunCost, Share
from tests.benchmarks.means import Effect
from tests.benchmarks.photos import Photos, median_ms
from tests.benchmarks.reading import HISTORIES, SAMPLE, Reading
from tests.benchmarks.server import ServerSize
from tests.benchmarks.throughput import REPORT_BATCH, Comparison

OURS_OF_LIMIT = 0.9
OURS_OF_REPORT = 2.0
AUGMENTATION_SHARE = 0.1
TRAINING_MIB = 1536
CACHED_SECONDS = 0.5
LOGGING_SHARE = 0.05
FIRST_VIEW_SECONDS = 2.0
CLICK_SECONDS = 0.15
COMPARE_FIRST_SECONDS = 0.5
COMPARE_LATER_SECONDS = 0.1
MEMORY_MIB = 600
SERVER_VIEW_SECONDS = 3.0
PHOTO_MS = 300
CROP_MS = {"report's CNN": 10, "fast CNN": 10, "ResNet18 at 48 px": 30}
LOADING_SECONDS = 1.0
COMMAND_SHARE = 0.8


def print_throughput(console: Console, comparisons: Sequence[Comparison], idle_share: float) -> None:
    """One table a network. Speeds and ratios are medians over the rounds, with the lowest and the highest."""
    for comparison in comparisons:
        config = comparison.network.config
        title = f"{comparison.network.label}: training, images/s, median (lowest–highest)"
        table = Table(title=title, caption=_loader_note(comparison))
        for column in (
            "batch",
            "steps a round†",
            "report",
            "ours",
            "limit",
            "ours / limit",
            "ours / report",
            "augmentation‡",
        ):
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
                f"{statistics.median(share := comparison.augmentation_share(size)):.1%} "
                + _met(statistics.median(share) < AUGMENTATION_SHARE),
            )
        console.print(table)
    console.print(
        f"Report: ImageFolder on JPEG files, PIL transforms, DataLoader of batch {REPORT_BATCH}, contiguous fp32, "
        "Adam; in a process with glibc's own allocator settings.\n"
        "Ours: trainer.training.loop.fit with the recipe's augmentation. Limit: forward, backward, optimizer on one "
        "batch in memory. Both after keep_memory(), in a process of their own.\n"
        f"Ratios are taken round by round; targets: ours / limit at least {OURS_OF_LIMIT}, ours / report at least "
        f"{OURS_OF_REPORT:g}. * is the recipe's batch size; † of report / ours / limit; "
        f"‡ share of a step of ours, target: below {AUGMENTATION_SHARE:.0%}.\n"
        f"The process that waits takes {idle_share:.2%} of a core."
    )


def print_memory(console: Console, torch: float, beyond: Mapping[str, float]) -> None:
    """Peaks of whole runs, beyond what a process that only imports torch takes."""
    table = Table("network", "MiB beyond `import torch` at most", title="Memory of a run of two epochs")
    for label, peak in beyond.items():
        table.add_row(label, f"{peak:,.0f} {_met(peak < TRAINING_MIB)}")
    console.print(table)
    console.print(f"`import torch` takes {torch:,.0f} MiB; target: below {TRAINING_MIB:,} MiB.")


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
        f"Training the report's CNN for {TARGET_EPOCHS} epochs on FER-2013's train takes "
        f"{share.training_seconds:.0f} s at {share.images_per_second:.0f} images/s (ours, batch 64). All of the above "
        f"is {share.share:.1%} of that {_met(share.share < LOGGING_SHARE)} (target: below {LOGGING_SHARE:.0%}); "
        f"without imports and making the store it is {share.store_share:.1%}.\n"
        f"Not counted: importing torch and Fabric, {cost.importing_training:.1f} s."
    )


def print_reading(console: Console, reading: Reading) -> None:
    """Milliseconds; medians over the rounds, with the lowest and the highest."""
    table = Table(
        title=f"Reading {reading.runs:,} runs, {reading.values:,} values of curves: ms, median (lowest–highest)"
    )
    for column in ("what", "ours", "MLflow's own calls", "times"):
        table.add_column(column, justify="left" if column == "what" else "right")
    for what, ours, theirs in (
        ("snapshot, new reader", reading.snapshot, reading.mlflow_snapshot),
        ("snapshot, nothing new", reading.unchanged, reading.mlflow_snapshot),
        ("snapshot, after a commit", reading.after_commit, reading.mlflow_snapshot),
        ("snapshot, nothing new, a run is running", reading.beside_training, reading.mlflow_snapshot),
        (f"histories of {HISTORIES} runs", reading.histories_some, reading.mlflow_histories(HISTORIES)),
        ("histories of all runs", reading.histories_all, reading.mlflow_histories(reading.runs)),
    ):
        ratio = theirs / statistics.median(ours)
        table.add_row(what, milliseconds(ours), f"≈ {1000 * theirs:,.0f}", f"{ratio:,.0f}")
    console.print(table)
    console.print(
        f"MLflow's figures are reckoned from search_runs, all pages, {milliseconds(reading.mlflow_search)} ms (runs, "
        f"parameters, tags, last metrics), and get_metric_history, {milliseconds(reading.mlflow_history)} ms a call of "
        f"one metric of one run, measured on {min(SAMPLE, reading.runs)} runs: one call a run for a snapshot, which "
        "shows validation curves, and one for each metric and run for histories."
    )


def print_pages(console: Console, pages: Sequence[Pages]) -> None:
    """Milliseconds of scripts; medians over all views of all processes."""
    table = Table(
        title=f"Pages of the dashboard, {len(pages)} new processes: ms of the script, median (lowest–highest)"
    )
    for column in ("what", "ms", "of imports, not counted", "target"):
        table.add_column(column, justify="left" if column == "what" else "right")
    lines: list[tuple[str, Callable[[Pages], Sequence[View]], float | None]] = [
        ("Runs, first view", lambda p: [p.first], FIRST_VIEW_SECONDS),
        ("a filter", lambda p: p.filters, CLICK_SECONDS),
        ("a selection", lambda p: p.selections, CLICK_SECONDS),
        ("a filter, just after a training has logged", lambda p: p.beside_training, CLICK_SECONDS),
        ("Compare with 10 runs, first", lambda p: [p.compare_first], COMPARE_FIRST_SECONDS),
        ("Compare with 10 runs, again", lambda p: p.compare_later, COMPARE_LATER_SECONDS),
    ]
    lines += [
        (f"{name.capitalize()}, first", lambda p, name=name: [p.others[name]], None)  # type: ignore[misc]
        for name in pages[0].others
    ]
    for what, views_of, target in lines:
        views = [view for process in pages for view in views_of(process)]
        seconds = [view.seconds for view in views]
        met = "" if target is None else f"{1000 * target:,.0f} {_met(statistics.median(seconds) <= target)}"
        table.add_row(what, milliseconds(seconds), milliseconds([view.importing for view in views]), met)
    console.print(table)
    peak = max(process.peak_mib for process in pages)
    imported = any(process.torch_imported for process in pages)
    console.print(
        f"Peak memory of the process {peak:.0f} MiB {_met(peak < MEMORY_MIB)} (target: below {MEMORY_MIB}); torch was "
        f"{'' if imported else 'not '}imported {_met(not imported)}. Scripts run by Streamlit's AppTest: browser, "
        "network and web server come on top."
    )


def print_server(console: Console, sizes: Sequence[ServerSize]) -> None:
    """Milliseconds; medians over all readings and views of all processes."""
    processes = len(sizes[0].readings)
    table = Table(title=f"A shared server, {processes} new processes: ms, median (lowest–highest)")
    table.add_column("what")
    for size in sizes:
        table.add_column(f"{size.runs:,} runs", justify="right")
    table.add_column("target", justify="right")
    table.add_row("runs that are held at first", *(f"{size.held:,}" for size in sizes), "")
    lines: list[tuple[str, Callable[[ServerSize], Sequence[float]]]] = [
        ("first reading", lambda size: [one.first for one in size.readings]),
        ("– CPU time, of client, server and database", lambda size: [one.first_cpu for one in size.readings]),
        ("reading again", lambda size: [value for one in size.readings for value in one.unchanged]),
        ("after a new run", lambda size: [value for one in size.readings for value in one.after_run]),
    ]
    for what, of in lines:
        table.add_row(what, *(milliseconds(of(size)) for size in sizes), "")
    for page in sizes[0].pages:
        views = [[view.seconds for view in size.pages[page]] for size in sizes]
        met = page == "runs" and f"{1000 * SERVER_VIEW_SECONDS:,.0f} " + _met(
            statistics.median(views[-1]) <= SERVER_VIEW_SECONDS
        )
        name = f"{page.capitalize()}, first view"
        table.add_row(name, *(milliseconds(seconds) for seconds in views), met or "")
    table.add_row(
        "all runs read, once, as no page does",
        *("–" if size.whole is None else f"{1000 * size.whole:,.0f}" for size in sizes),
        "",
    )
    console.print(table)


def print_photos(console: Console, found: Photos) -> None:
    """Medians over all trials, with the lowest and the highest."""
    table = Table(title="A photo of 12 megapixels with two faces, report's CNN: ms on the server")
    for column in ("what", "ms", "target"):
        table.add_column(column, justify="left" if column == "what" else "right")
    for name, seconds in found.stages.items():
        met = f"{PHOTO_MS} {_met(median_ms(seconds) <= PHOTO_MS)}" if name == "all" else ""
        table.add_row(name, milliseconds(seconds), met)
    console.print(table)
    runtimes = Table(title="One crop: ms")
    for column in (
        "network",
        "torch",
        "ONNX Runtime",
        "torch / ONNX Runtime",
        "largest difference",
        "target",
    ):
        runtimes.add_column(column, justify="left" if column == "network" else "right")
    for network, times in found.runtimes.items():
        torch_ms, other_ms = median_ms(times["torch"]), median_ms(times["ONNX Runtime"])
        runtimes.add_row(
            network, milliseconds(times["torch"]), milliseconds(times["ONNX Runtime"]), f"{torch_ms / other_ms:.2f}",
            f"{found.differences[network]:.0e}", f"{CROP_MS[network]} {_met(torch_ms <= CROP_MS[network])}",
        )  # fmt: skip
    console.print(runtimes)
    shares = [alone / command for alone, command in zip(found.alone, found.command, strict=True)]
    rates = [found.photos / seconds for seconds in found.command]
    met = _met(statistics.median(found.loading) <= LOADING_SECONDS)
    console.print(
        f"First model: {milliseconds(found.loading)} ms {met} beyond {milliseconds(found.importing)} ms of imports.\n"
        f"The command on {found.photos} photos of 2 megapixels: {spread(rates, 1)} photos/s, "
        f"{against(shares, COMMAND_SHARE)} of detector and network alone (target {COMMAND_SHARE}).\n"
        f"Peak memory of the page's process, torch and OpenCV included: {found.peak_mib:.0f} MiB."
    )


def print_bulk(console: Console, found: Bulk) -> None:
    """Medians over the rounds, with the lowest and the highest. Gains are over one process on one core."""
    table = Table(title=f"{found.photos:,} crops of {found.dataset} answered into a folder, report's CNN")
    for column in ("", "photos/s", "gain", "all seconds", "CPU ms a photo", "largest process, MiB"):
        table.add_column(column, justify="right" if column else "left")
    first = next(iter(found.ways.values()))
    for way, commands in found.ways.items():
        gains = [one.rate / base.rate for one, base in zip(commands, first, strict=True)]
        table.add_row(
            way,
            spread([one.rate for one in commands], 0),
            spread(gains, 2),
            spread([one.all_seconds for one in commands], 0),
            spread([1000 * one.cpu_seconds / one.photos for one in commands], 2),
            f"{max(one.peak_mib for one in commands):,.0f}",
        )
    console.print(table)
    sizes = Table("crops", "peak memory, MiB", "photos/s", title="One process on one core, at several sizes")
    for size, command in found.sizes.items():
        sizes.add_row(f"{size:,}", f"{command.peak_mib:,.0f}", f"{command.rate:.0f}")
    console.print(sizes)
    console.print("All seconds and CPU hold imports, the listing, and the making of the ONNX form, too.")


def milliseconds(seconds: Sequence[float]) -> str:
    """Median (lowest–highest)."""
    middle, low, high = (1000 * value for value in (statistics.median(seconds), min(seconds), max(seconds)))
    digits = 0 if middle >= 10 else 2
    return f"{middle:,.{digits}f} ({low:,.{digits}f}–{high:,.{digits}f})"


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
