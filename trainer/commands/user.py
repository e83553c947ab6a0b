"""`user`: lets a person or a program into a shared server."""

import os
import sys
from getpass import getpass
from typing import Annotated, Literal

import tyro

NEW = "MOODIFY_NEW_PASSWORD"


def main(arguments: list[str]) -> int:
    return tyro.cli(user, args=arguments, prog="python -m trainer user")


def user(
    name: Annotated[str, tyro.conf.Positional],
    /,
    *,
    role: Literal["viewer", "promoter", "trainer"] | None = None,
    keep_password: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
    delete: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
) -> int:
    """Make an account on the server that MLFLOW_TRACKING_URI names, or change its role and password.

    An administrator does so: MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD are yours. The new password is
    asked for, or read from standard input or MOODIFY_NEW_PASSWORD; it is never an argument.

    Args:
        name: Of the account.
        role: A viewer reads (the dashboard needs no more); a promoter also changes registered models and sets their
            aliases; a trainer logs and registers as well. What somebody has made may be managed by them until their
            role is set anew. Without it a new account is a viewer's, and another keeps its role.
        keep_password: Change only the role.
        delete: Remove the account.
    """
    from trainer.store.location import StoreError, open_store

    store = open_store(create=False)
    if not store.uri.startswith("http"):
        raise StoreError(f"{store.uri} is no server: MLFLOW_TRACKING_URI must name one (http://…)")
    from trainer.store.accounts import delete_account, set_account

    if delete:
        delete_account(store, name)
        print(f"{name} cannot log in any more.")
        return 0
    is_new = set_account(store, name, role, None if keep_password else new_password(name))
    if is_new:
        print(f"{name} can log in now, as a {role or 'viewer'}.")
    else:
        print(f"{name} is there already, {f'as a {role}' if role else 'with the role that it had'}.")
    return 0


def new_password(name: str) -> str:
    """Raises ValueError where two answers differ."""
    if given := os.environ.get(NEW):
        return given
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\r\n")
    try:
        first = getpass(f"Password of {name}: ")
        again = getpass("Again: ")
    except EOFError:
        raise ValueError("no password was given: nothing was changed") from None
    if again != first:
        raise ValueError("the two passwords differ: nothing was changed")
    return first
