"""`migrate`: copies runs and models from one store to another, and checks the copy."""

import os
from typing import TYPE_CHECKING, Annotated

import tyro

if TYPE_CHECKING:
    from trainer.store.migration import Report

MOST_SHOWN = 10


def main(arguments: list[str]) -> int:
    return tyro.cli(migrate, args=arguments, prog="python -m trainer migrate")


def migrate(
    *,
    to: Annotated[str | None, tyro.conf.arg(metavar="URI")] = None,
    source: Annotated[str | None, tyro.conf.arg(name="from", metavar="URI")] = None,
    check: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
) -> int:
    """Copy all runs, registered models, aliases and files from one store to another, and read the copy back.

    It can be repeated: what is there already is left alone, and what was interrupted is gone on with. Ends with exit
    code 1 where something was left out or differs. Name and password of a server: MLFLOW_TRACKING_USERNAME,
    MLFLOW_TRACKING_PASSWORD.

    Args:
        to: Address of the store that receives; by default MLFLOW_TRACKING_URI.
        source: Address of the store that gives; by default the embedded one of this folder, mlruns/mlflow.db.
        check: Read back also what an earlier migration has copied.
    """
    from trainer.store.location import StoreError, embedded_uri, is_same, open_store, store_uri

    giving, receiving = source or embedded_uri(), to or store_uri()
    # Before they are opened: each opening would write its own address into the store.
    if is_same(giving, receiving):
        raise StoreError(
            f"both stores are {giving}: name the one that receives with --to, or MLFLOW_TRACKING_URI"
        )
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

    from trainer.store.migration import migrate as copy

    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # of every run
    origin, goal = open_store(uri=giving, create=False), open_store(uri=receiving)
    console = Console(stderr=True)
    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task("runs and versions", total=None)
        report = copy(
            origin, goal, check_all=check,
            started=lambda total: bar.update(task, total=total), advance=lambda: bar.advance(task),
        )  # fmt: skip
    print_report(report)
    return 1 if report.left_out or report.different else 0


def print_report(report: "Report") -> None:
    print(
        f"Copied {report.runs:,} runs ({report.runs_there:,} were there), {report.versions:,} versions "
        f"({report.versions_there:,} were there), {report.aliases:,} aliases, {report.values:,} values of metrics, "
        f"{report.files:,} files ({report.size_bytes / 1e6:,.1f} MB)."
    )
    lines = [
        *(f"left out: {line}" for line in report.left_out),
        *(f"differs: {line}" for line in report.different),
    ]
    for line in lines[:MOST_SHOWN]:
        print(line)
    if len(lines) > MOST_SHOWN:
        print(f"… and {len(lines) - MOST_SHOWN:,} more")
    if not report.checked_runs and not report.checked_versions:
        print("Nothing was read back; --check does so with what was copied before.")
        return
    read = f"Read back {report.checked_runs:,} runs and {report.checked_versions:,} versions, every value and file"
    print(f"{read}: {'all are alike.' if not report.different else f'{len(report.different):,} differ.'}")
