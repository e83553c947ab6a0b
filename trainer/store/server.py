"""The settings of a shared server: read from an environment file, checked, and handed on so that no secret is seen."""

import importlib.util
import os
import stat
from collections.abc import Mapping
from configparser import RawConfigParser
from pathlib import Path
from urllib.parse import urlsplit

import sqlalchemy
from dotenv import dotenv_values
from sqlalchemy.exc import ArgumentError

from trainer.store.location import unreachable, with_driver

EXAMPLE = "docs/server/server.env.example"
SHORTEST_PASSWORD = 12
"""Characters; MLflow takes no shorter one."""
PLACEHOLDER = "change-me"
_DATABASE, _ARTIFACTS = "MLFLOW_BACKEND_STORE_URI", "MLFLOW_ARTIFACTS_DESTINATION"
_KEY, _PASSWORD = "MLFLOW_FLASK_SERVER_SECRET_KEY", "MLFLOW_AUTH_ADMIN_PASSWORD"
_HOSTS = "MLFLOW_SERVER_ALLOWED_HOSTS"
_DEFAULTS = {
    "MLFLOW_HOST": "127.0.0.1",
    "MLFLOW_PORT": "5000",
    "MLFLOW_WORKERS": "2",
    "MLFLOW_AUTH_ADMIN_USERNAME": "admin",
    # Without it the server starts eight more processes for jobs that are never sent.
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # Without workspaces whoever can log in may make experiments and models; with them, who was given the right.
    "MLFLOW_ENABLE_WORKSPACES": "true",
    "PYTHONWARNINGS": "ignore:starlette.middleware.wsgi is deprecated",
}
# What tells a client where the store is, and as whom to ask: nothing that a server shall take for itself.
_OF_CLIENTS = (
    *("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"),
    *("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"),
)


class ServerError(ValueError):
    """The server cannot be started as it is set up; the message says what to change, without a secret."""


def read_settings(env_file: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of the server: `environment` with what the file adds; where both name it, the first counts.

    The database's password is moved from its address into PGPASSWORD, where PostgreSQL's library looks for it: so no
    message, list of processes or file shows it. Raises ServerError for what is missing or cannot work.
    """
    given = {key: value for key, value in environment.items() if key not in _OF_CLIENTS}
    if env_file.is_file():
        if env_file.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise ServerError(f"{env_file} can be read by other users of this machine: chmod 600 {env_file}")
        try:
            found = dotenv_values(env_file, interpolate=False)
        except ValueError as error:
            raise ServerError(f"{env_file} is no environment file: it is no text in UTF-8") from error
        given = {key: value for key, value in found.items() if value} | given
    elif _DATABASE not in given:
        raise ServerError(f"there is no {env_file}: copy {EXAMPLE} there, fill it in, and chmod 600 it")
    settings = _DEFAULTS | given
    for name in (_DATABASE, _ARTIFACTS, _KEY):
        if not settings.get(name) or PLACEHOLDER in settings[name]:
            raise ServerError(f"{name} is not set; {EXAMPLE} says what it is")
    _check_password(settings.get(_PASSWORD, ""))
    _check_artifacts(settings[_ARTIFACTS])
    if not _is_loopback(settings["MLFLOW_HOST"]) and not settings.get(_HOSTS):
        raise ServerError(
            f"MLFLOW_HOST={settings['MLFLOW_HOST']} lets other machines in: name in {_HOSTS} under which addresses"
        )
    for name in ("MLFLOW_PORT", "MLFLOW_WORKERS"):
        if not settings[name].isdigit():
            raise ServerError(f"{name} is '{settings[name]}', and must be a number")
    return _without_password(settings)


def check_database(settings: Mapping[str, str]) -> None:
    """Raises ServerError where the database does not answer, or takes nobody under this name and password."""
    address = sqlalchemy.make_url(settings[_DATABASE])
    password = settings.get("PGPASSWORD")
    why = unreachable(address, **({"password": password} if password else {}))
    if why is not None:
        raise ServerError(f"the database {address.render_as_string()} does not answer: {why}")


def write_login(folder: Path, settings: Mapping[str, str]) -> Path:
    """MLflow's file on who may log in, in `folder`: accounts lie in the same database, and everyone may read."""
    file = folder / "login.ini"
    config = RawConfigParser()
    config["mlflow"] = {
        "default_permission": "READ",
        "grant_default_workspace_access": "true",
        "database_uri": settings[_DATABASE].replace("%", "%%"),  # MLflow reads it with interpolation
        "admin_username": settings["MLFLOW_AUTH_ADMIN_USERNAME"],
        # A password is checked anew after so long; until then a request costs a third of the time.
        "auth_cache_ttl_seconds": "60",
    }
    with file.open("w") as lines:
        config.write(lines)
    return file


def _check_password(password: str) -> None:
    if not password or PLACEHOLDER in password:
        raise ServerError(f"{_PASSWORD} is not set; {EXAMPLE} says what it is")
    if len(password) < SHORTEST_PASSWORD:
        raise ServerError(
            f"{_PASSWORD} has {len(password)} characters; at least {SHORTEST_PASSWORD} are needed"
        )


def _check_artifacts(destination: str) -> None:
    scheme = urlsplit(destination).scheme
    if scheme == "s3" and importlib.util.find_spec("boto3") is None:
        raise ServerError(f"{_ARTIFACTS}={destination} needs boto3: .venv/bin/python -m pip install boto3")
    if scheme == "" and not Path(destination).is_absolute():
        raise ServerError(
            f"{_ARTIFACTS} is '{destination}', and must be an absolute path or an address (s3://…)"
        )
    if scheme == "":
        folder = next(path for path in (Path(destination), *Path(destination).parents) if path.exists())
        if not folder.is_dir() or not os.access(folder, os.W_OK):
            raise ServerError(f"{_ARTIFACTS}={destination} cannot be written by this user")


def _is_loopback(host: str) -> bool:
    return host in ("localhost", "::1") or host.startswith("127.")


def _without_password(settings: dict[str, str]) -> dict[str, str]:
    try:
        address = sqlalchemy.make_url(with_driver(settings[_DATABASE]))
    except ArgumentError as error:  # which repeats the address, and the password with it
        raise ServerError(
            f"{_DATABASE} is no address of a database: write postgresql://USER:PASSWORD@HOST/NAME"
        ) from error
    if address.get_backend_name() != "postgresql":
        raise ServerError(
            f"{_DATABASE} names {address.get_backend_name()}; a shared server keeps its runs in PostgreSQL "
            "(postgresql://USER:PASSWORD@HOST/NAME)"
        )
    query = dict(address.query)
    if password := query.pop("password", None) or address.password:
        settings = settings | {"PGPASSWORD": str(password)}
    bare = sqlalchemy.URL.create(
        address.drivername, address.username, None, address.host, address.port, address.database, query
    )
    return settings | {_DATABASE: bare.render_as_string(hide_password=False)}
