"""`restore`: an embedded store from a backup."""

from pathlib import Path

import tyro


def main(arguments: list[str]) -> int:
    return tyro.cli(restore, args=arguments, prog="python -m trainer restore")


def restore(file: tyro.conf.Positional[Path]) -> int:
    """Make an embedded store from a backup, where there is none yet: in mlruns/, or where MLFLOW_TRACKING_URI says.

    Args:
        file: What `python -m trainer backup` wrote.
    """
    from trainer.store.backup import restore as restore_store
    from trainer.store.location import StoreError, embedded_database, open_store, store_uri

    if (database := embedded_database(store_uri())) is None:
        raise StoreError(
            "a backup becomes an embedded store: unset MLFLOW_TRACKING_URI, or name a SQLite file by it"
        )
    contents = restore_store(file, database)
    open_store(create=False)  # as every command will
    print(
        f"{database.parent}: {contents.runs:,} runs and {contents.versions:,} versions, as they were at "
        f"{contents.made}; every file was found whole."
    )
    for version in contents.gone:
        print(f"The files of {version} were not all there any more when the backup was made.")
    return 0
