"""`bundled`: begins an empty store with the model that comes with the program, or makes another one that model."""

from typing import Annotated

import tyro


def main(arguments: list[str]) -> int:
    return tyro.cli(bundled, args=arguments, prog="python -m trainer bundled")


def bundled(
    *,
    keep: Annotated[str | None, tyro.conf.arg(metavar="MODEL")] = None,
) -> int:
    """Register the model that comes with the program, where the store is empty.

    The dashboard, `make train` and `audit` do so by themselves.

    Args:
        keep: For those who release the program: NAME/VERSION that it shall come with from now on.
    """
    from trainer.store.bundled import FOLDER, install
    from trainer.store.bundled import keep as keep_version
    from trainer.store.location import open_store
    from trainer.store.registry import find_version

    if keep is not None:
        store = open_store(create=False)
        version = find_version(store, keep)
        keep_version(store, version)
        print(f"{version.uri} is in {FOLDER} now.")
    elif install(open_store()):
        print("Registered the model that comes with the program as champion of a new store.")
    else:
        print("Nothing to do: the store is not empty.")
    return 0
