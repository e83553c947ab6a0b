"""`runs`: a table of the runs in the store."""

import tyro


def main(arguments: list[str]) -> int:
    return tyro.cli(runs, args=arguments, prog="python -m trainer runs")


def runs(*, dataset: str | None = None, limit: int = 30, json: bool = False) -> int:
    """List the runs of the store, newest first.

    Args:
        dataset: Only the runs on this dataset.
        limit: Only this many; 0 for all.
        json: Print a JSON list instead of a table.
    """
    from rich.console import Console
    from rich.table import Table

    from trainer.commands.progress import duration
    from trainer.commands.report import number
    from trainer.store.location import open_store
    from trainer.store.reader import Reader

    table = Reader(open_store(create=False)).snapshot().runs.reset_index()
    if dataset is not None:
        table = table[table["dataset"] == dataset]
    total = len(table)
    if limit:
        table = table.head(limit)
    if json:
        print(table.to_json(orient="records", date_format="iso"))
        return 0
    if table.empty:
        print("There are no runs yet: `make train` makes the first ones.")
        return 0
    view = Table(show_edge=False)
    for column in ("run", "name", "dataset", "mode", "status", "started (UTC)", "time"):
        view.add_column(column)
    for column in ("accuracy", "macro recall", "version"):
        view.add_column(column, justify="right")
    for row in table.itertuples():
        view.add_row(
            row.run_id[:8], row.name, row.dataset, row.mode, row.status, f"{row.started:%Y-%m-%d %H:%M}",
            duration(row.seconds), number(row.test_accuracy), number(row.test_macro_recall),
            ", ".join(map(str, row.versions)) or "–",
        )  # fmt: skip
    Console().print(view)
    if total > len(table):
        print(f"{total - len(table)} more: --limit 0 shows all.")
    return 0
