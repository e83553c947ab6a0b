"""`backup`: the embedded store in one file."""

from pathlib import Path

import tyro


def main(arguments: list[str]) -> int:
    return tyro.cli(backup, args=arguments, prog="python -m trainer backup")


def backup(file: tyro.conf.Positional[Path]) -> int:
    """Copy the embedded store into one file, also while trainings run, and read the copy again.

    Args:
        file: Where to; a file that exists is left as it is.
    """
    from trainer.store.backup import back_up
    from trainer.store.location import open_store

    contents = back_up(open_store(create=False), file)
    print(
        f"{file}: {contents.runs:,} runs, {contents.versions:,} versions, {contents.files:,} files, "
        f"{contents.size_bytes / 1e6:,.1f} MB; read again and found whole."
    )
    for version in contents.gone:
        print(f"The files of {version} are not all there any more: it was copied as it is.")
    for version in contents.elsewhere:
        print(f"The files of {version} lie outside of the store and are not in it.")
    if others := contents.runs_elsewhere:
        some = ", ".join(others[:3]) + (", …" if len(others) > 3 else "")
        print(f"In other folders, which are not in it, lie the files of {len(others):,} of the runs: {some}")
    return 0
