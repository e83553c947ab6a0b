"""`runs`: a table of the runs in the store."""

import tyro

MOST_SHOWN = 24
"""Characters of a dataset's name."""


def main(arguments: list[str]) -> int:
    return tyro.cli(runs, args=arguments, prog="python -m trainer runs")


def runs(
    *,
    dataset: str | None = None,
    limit: int = 30,
    json: bool = False,
    mark_stale: tyro.conf.FlagCreatePairsOff[bool] = False,
) -> int:
    """List the runs of the store, newest first.

    Args:
        dataset: Only the runs on this dataset.
        limit: Only this many; 0 for all.
        json: Print a JSON list instead of a table.
        mark_stale: End the runs, sweeps and audits whose process is gone from this machine as failed, instead of
            listing.
    """
    if limit < 0:
        raise ValueError(f"--limit {limit}: must be 0 or more")
    if mark_stale:
        return mark()
    from rich.markup import escape
    from rich.table import Table

    from trainer.commands.report import number, screen
    from trainer.contract import model_name
    from trainer.store.location import open_store
    from trainer.store.reader import Reader
    from trainer.wording import duration

    newest = limit
    reader = Reader(open_store(create=False), newest=newest or None)
    while True:
        snapshot = reader.snapshot()
        table = snapshot.runs.reset_index()
        if snapshot.has_older:
            table = table.head(newest)  # older ones are held for another reason; what lies between is not
        if dataset is not None:
            table = table[table["dataset"] == dataset]
        if len(table) >= limit or not snapshot.has_older:
            break
        newest *= 4
        reader.reach(newest)
    total = len(table)
    if limit:
        table = table.head(limit)
    if json:
        print(table.to_json(orient="records", date_format="iso"))
        return 0
    if table.empty and not snapshot.runs.empty:
        print(f"There are no runs on {dataset}.")
        return 0
    if table.empty:
        print("There are no runs yet: `make train` makes the first ones.")
        return 0
    console = screen()
    wide = console.width >= 120
    view = Table(box=None, pad_edge=False, show_edge=False)
    for column in ("name", "dataset", "status"):
        view.add_column(column, no_wrap=True)
    for column in ("time", "accuracy", "recall", "version"):
        view.add_column(column, justify="right", no_wrap=True)
    if wide:
        view.add_column("started (UTC)", no_wrap=True)
        view.add_column("run", no_wrap=True)
    for row in table.itertuples():
        own = f"{model_name(row.dataset)}/"  # what the dataset says already
        versions = ", ".join(pair.removeprefix(own) for pair in row.versions)
        view.add_row(
            escape(row.name[:32]), escape(shortened(row.dataset)), row.status, duration(row.seconds),
            number(row.test_accuracy), number(row.test_macro_recall), escape(versions) or "–",
            *([f"{row.started:%Y-%m-%d %H:%M}", row.run_id] if wide else []),
        )  # fmt: skip
    console.print(view)
    if snapshot.has_older:
        print("There are more: --limit 0 shows all.")
    elif total > len(table):
        print(f"{total - len(table)} more: --limit 0 shows all.")
    return 0


def shortened(dataset: str) -> str:
    """With its end, by which names of one's own may differ."""
    return dataset if len(dataset) <= MOST_SHOWN else f"{dataset[:11]}…{dataset[-12:]}"


def mark() -> int:
    """Says of each stale run what became of it."""
    from trainer.jobs import is_resumable
    from trainer.store.location import open_store
    from trainer.store.reader import Reader
    from trainer.store.stale import mark_stale

    store = open_store(create=False)
    found = mark_stale(store, Reader(store).snapshot())
    for run in found:
        print(f"{run.name} ({run.run_id}): {run.left or 'marked as failed'}")
        if not run.left and is_resumable(store.checkpoints, run.run_id):
            print(f"  go on with: python -m trainer train --resume {run.run_id}")
    if not found:
        print("Every run that counts as running has its process.")
    return 0
