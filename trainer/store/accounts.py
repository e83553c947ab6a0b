"""Who may do what on a shared server: accounts of MLflow's own login, each with one of three roles."""

import re
import warnings
from collections.abc import Callable
from typing import Literal, TypeVar, cast, get_args

from mlflow.exceptions import MlflowException

from trainer.store.location import Store, StoreError, credentials, is_missing, reason
from trainer.store.server import SHORTEST_PASSWORD

with warnings.catch_warnings(
    action="ignore"
):  # the server, which comes with it, uses what Starlette will drop
    from mlflow.server.auth.client import AuthServiceClient
    from mlflow.server.auth.entities import User

T = TypeVar("T")
Role = Literal["viewer", "promoter", "trainer"]
PERMISSIONS: dict[Role, dict[str, str]] = {
    "viewer": {},  # everyone who can log in may read
    "promoter": {"registered_model": "EDIT"},
    "trainer": {"registered_model": "EDIT", "experiment": "EDIT", "workspace": "USE"},
}
"""Role → what it may do with every thing of a kind; who may use the workspace may make new ones in it."""
_PREFIX, _WORKSPACE = "moodify-", "default"
_OF_ONE_USER = re.compile(r"__user_\d+__")
"""MLflow's hidden role of an account: it may manage what it has made, and what is in it."""
_REFUSALS = ("DENY", "NO_PERMISSIONS")


def set_account(store: Store, name: str, role: Role | None, password: str | None) -> bool:
    """Make the account where it is missing, and let it do what this role may, and no more; returns whether it is new.

    role, password: None leaves that of an account as it is; a new one is a viewer's. Raises StoreError where the server
    refuses.
    """
    if ":" in name:
        raise StoreError(f"the name '{name}' has a colon: nobody could log in by it")
    client = AuthServiceClient(store.uri)
    account = _find(store, client, name)
    known = account is not None
    if role is not None and account is not None and account.is_admin:
        raise StoreError(f"'{name}' is an administrator, who may do everything: no role changes that")
    if password is None and not known:
        raise StoreError(f"there is no account '{name}' yet: a new one needs a password")
    if password is not None:
        if len(password) < SHORTEST_PASSWORD:
            raise StoreError(
                f"the password has {len(password)} characters; at least {SHORTEST_PASSWORD} are needed"
            )
        if known:
            own = credentials()
            current = own.password if name == own.username else None  # asked for where it is one's own
            _asked(store, lambda: client.update_user_password(name, password, current))
        else:
            _asked(store, lambda: client.create_user(name, password))
    if role is None:
        return not known
    ours = {one.name: one for one in _asked(store, lambda: client.list_roles(_WORKSPACE))}
    for one in _asked(store, lambda: client.list_user_roles(name)):
        if one.name.startswith(_PREFIX) and one.name != f"{_PREFIX}{role}":
            client.unassign_role(name, one.id)
        if one.workspace == _WORKSPACE and _OF_ONE_USER.fullmatch(one.name):
            for permission in client.list_role_permissions(one.id):
                if permission.permission not in _REFUSALS:  # which somebody gave on purpose
                    client.remove_role_permission(permission.id)
    if not PERMISSIONS[role]:
        return not known
    if (found := ours.get(f"{_PREFIX}{role}")) is None:
        found = _asked(
            store, lambda: client.create_role(_WORKSPACE, f"{_PREFIX}{role}", f"Moodify's {role}s")
        )
    granted = {one.resource_type for one in client.list_role_permissions(found.id)}
    for kind, allowed in PERMISSIONS[role].items():
        if kind not in granted:
            client.add_role_permission(found.id, kind, "*", allowed)
    if f"{_PREFIX}{role}" not in {one.name for one in client.list_user_roles(name)}:
        client.assign_role(name, found.id)
    return not known


def delete_account(store: Store, name: str) -> None:
    """Raises StoreError where there is none, or the server refuses."""
    _asked(store, lambda: AuthServiceClient(store.uri).delete_user(name))


def _find(store: Store, client: AuthServiceClient, name: str) -> User | None:
    try:
        return cast(User, client.get_user(name))
    except MlflowException as error:
        if is_missing(error):
            return None
        raise _explained(store, error) from error


def _asked(store: Store, ask: Callable[[], T]) -> T:
    try:
        return ask()
    except MlflowException as error:
        raise _explained(store, error) from error


def _explained(store: Store, error: MlflowException) -> StoreError:
    if error.error_code == "ENDPOINT_NOT_FOUND":
        return StoreError(
            f"{store.uri} has no accounts: it was not started with a login (`make server` starts one that has)"
        )
    return StoreError(f"{store.uri} refuses: {reason(error)}")


assert set(get_args(Role)) == set(PERMISSIONS)
