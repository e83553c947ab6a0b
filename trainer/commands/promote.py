"""`promote`: point an alias at a version."""

from typing import Annotated

import tyro

from trainer.contract import CHAMPION


def main(arguments: list[str]) -> int:
    return tyro.cli(promote, args=arguments, prog="python -m trainer promote")


def promote(
    model: Annotated[str, tyro.conf.Positional],
    version: Annotated[int, tyro.conf.Positional],
    /,
    *,
    alias: str = CHAMPION,
) -> int:
    """Make a version of a registered model its champion, or move another alias to it.

    Args:
        model: Name of the registered model, such as fer2013-emotion.
        version: Number of the version.
        alias: What to point at it: champion, challenger, or a name of your own.
    """
    from trainer.store.location import open_store
    from trainer.store.registry import find_version, set_alias

    store = open_store(create=False)
    find_version(store, f"{model}/{version}")
    before = set_alias(store, model, version, alias)
    was = f"; before, it was version {before}" if before is not None and before != version else ""
    print(f"{model} version {version} is now {alias}{was}.")
    return 0
