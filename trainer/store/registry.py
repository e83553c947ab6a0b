"""The model registry: versions and their aliases, found and fetched."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import mlflow.artifacts
from mlflow import MlflowClient
from mlflow.entities import RunData
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from trainer.contract import CHAMPION, EXTRA_FILES, LARGEST_FILES, SPEC_FILE, WEIGHTS_FILE, Tag
from trainer.store.location import Store, StoreError, is_missing, reason

Key = tuple[str, int]
"""A version's name and number."""
PAGE = 10_000
HIGHEST = 2**31 - 1
"""Of the numbers of versions: what databases have room for."""
MOST_NAMED = 10
"""Of the versions of a model, the newest."""
NOT_THERE = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "PERMISSION_DENIED")
"""A server with accounts, where everyone may read, says the last of what is gone to all but administrators."""
REFERENCE = re.compile(r"(?:models:/)?(?P<name>[^/@:]+)(?:@(?P<alias>[^/@]+)|/(?P<version>\d+))$")


@dataclass(frozen=True)
class Version:
    """One version of a registered model, with the aliases that point to it."""

    name: str
    version: int
    run_id: str | None
    aliases: tuple[str, ...]
    tags: dict[str, str]
    created_ms: int = 0
    description: str = ""

    @property
    def reference(self) -> str:
        """What people call it by, and give to commands: NAME/VERSION."""
        return f"{self.name}/{self.version}"

    @property
    def uri(self) -> str:
        return f"models:/{self.reference}"


def all_versions(store: Store) -> list[Version]:
    """Every version of every registered model, in order of name and version."""
    client = store.client()
    aliases = aliases_of(client)
    found: list[Version] = []
    token: str | None = ""
    while token is not None:
        page = client.search_model_versions(max_results=PAGE, page_token=token or None)
        found += [version_from(version, aliases) for version in page]
        token = page.token or None
    return sorted(found, key=lambda version: (version.name, version.version))


def aliases_of(client: MlflowClient) -> dict[Key, list[str]]:
    found: dict[Key, list[str]] = {}
    token: str | None = ""
    while token is not None:
        page = client.search_registered_models(max_results=1000, page_token=token or None)
        for model in page:
            for alias, number in model.aliases.items():
                found.setdefault((model.name, int(number)), []).append(alias)
        token = page.token or None
    return found


def version_from(version: ModelVersion, aliases: Mapping[Key, Sequence[str]]) -> Version:
    key = (version.name, int(version.version))
    return Version(
        *key,
        version.run_id or None,
        tuple(sorted(aliases.get(key, ()))),
        dict(version.tags),
        version.creation_timestamp or 0,
        version.description or "",
    )


def find_version(store: Store, reference: str) -> Version:
    """The version that `models:/NAME/3`, `models:/NAME@ALIAS`, `NAME/3` or `NAME@ALIAS` names.

    Raises StoreError, naming what there is instead, where it names none.
    """
    match = REFERENCE.match(reference)
    if not match:
        raise StoreError(
            f"'{reference}' names no model: write NAME@champion, NAME/3, models:/NAME/3 or a folder with "
            f"{SPEC_FILE}"
        )
    name, alias, number = match["name"], match["alias"], match["version"]
    if number is not None and int(number) > HIGHEST:
        raise StoreError(f"'{reference}': {HIGHEST} is the highest number that a version can have")
    if (found := _named(store.client(), name, alias, number)) is not None:
        return found
    known = all_versions(store)
    candidates = [version for version in known if version.name == name]
    if not candidates:
        names = sorted({version.name for version in known})
        there = f"there are: {', '.join(names)}" if names else "there is none yet: `make train` makes one"
        raise StoreError(f"there is no registered model '{name}'; {there}")
    told = [v for v in candidates if v.aliases or v in candidates[-MOST_NAMED:]]
    have = [f"{v.version}" + (f" ({', '.join(v.aliases)})" if v.aliases else "") for v in told]
    others = f", and {len(candidates) - len(told)} older ones" if len(told) < len(candidates) else ""
    raise StoreError(f"'{reference}': {name} has versions {', '.join(have)}{others}")


def _named(client: MlflowClient, name: str, alias: str | None, number: str | None) -> Version | None:
    """Asked for by itself: a server may have thousands of versions, each with its card."""
    try:
        pointed = client.get_registered_model(name).aliases
        number = number or pointed.get(alias or "")
        if number is None:
            return None
        aliases = {
            (name, int(of)): [one for one, at in pointed.items() if at == of] for of in pointed.values()
        }
        return version_from(client.get_model_version(name, str(number)), aliases)
    except MlflowException as error:
        if error.error_code not in NOT_THERE:
            raise
        return None


def run_params(store: Store, run_id: str) -> dict[str, str]:
    """Parameters of a run; none where it is gone. Raises StoreError where the store cannot be asked."""
    data = _run_data(store, run_id)
    return {} if data is None else dict(data.params)


def place_of_images(store: Store, run_id: str) -> str | None:
    """Where a run last found its images; None for their usual place, or where the run is gone.

    Raises StoreError where the store cannot be asked.
    """
    data = _run_data(store, run_id)
    return None if data is None else data.tags.get(Tag.DATA_DIR) or data.params.get("data_dir") or None


def _run_data(store: Store, run_id: str) -> RunData | None:
    """None where the run is gone, or the id empty, as of a version that came of none."""
    if not run_id:
        return None
    try:
        return store.client().get_run(run_id).data
    except MlflowException as error:
        if is_missing(error):
            return None
        raise StoreError(f"run {run_id} cannot be read: {reason(error)}") from error


def has_bundle(version: Version) -> bool:
    """Whether the version carries the files of our format. Raises StoreError where that cannot be told."""
    return set(_bundle_sizes(version)) >= {SPEC_FILE, WEIGHTS_FILE}


def bundle_folder(version: Version, into: Path) -> Path:
    """The folder below `into` to which the version's weights and spec are fetched.

    Raises StoreError where the version carries none (a foreign format), they are too large, or cannot be fetched.
    """
    sizes = _bundle_sizes(version)
    for name, limit in LARGEST_FILES.items():
        if name not in sizes:
            raise StoreError(f"{version.uri} has no {name}: it is not of Moodify's format")
        if sizes[name] > limit:
            raise StoreError(f"{name} of {version.uri} has {sizes[name]:,} bytes; at most {limit:,} are read")
    try:
        fetched = [
            Path(
                mlflow.artifacts.download_artifacts(f"{version.uri}/{EXTRA_FILES}/{name}", dst_path=str(into))
            )
            for name in LARGEST_FILES
        ]
    except (MlflowException, OSError) as error:
        raise StoreError(f"the files of {version.uri} cannot be fetched: {error}".splitlines()[0]) from error
    return fetched[0].parent


def _bundle_sizes(version: Version) -> dict[str, int]:
    """File name → bytes of what lies beside the version's MLflow model."""
    try:
        found = mlflow.artifacts.list_artifacts(f"{version.uri}/{EXTRA_FILES}")
        if not found and not mlflow.artifacts.list_artifacts(version.uri):
            raise StoreError(f"the files of {version.uri} are gone from the store")
    except (MlflowException, OSError) as error:
        raise StoreError(f"the files of {version.uri} cannot be listed: {error}".splitlines()[0]) from error
    return {Path(file.path).name: file.file_size or 0 for file in found if not file.is_dir}


def run_bundle_folder(store: Store, run_id: str, artifact_path: str, into: Path) -> Path:
    """The folder below `into` to which files that a run logged are fetched. Raises StoreError as `bundle_folder`."""
    try:
        return Path(store.client().download_artifacts(run_id, artifact_path, str(into)))
    except (MlflowException, OSError) as error:
        raise StoreError(f"run {run_id} has no {artifact_path}: {error}".splitlines()[0]) from error


def crown_first(store: Store, name: str, version: int) -> bool:
    """Make `version` the champion where it is the model's first and there is none; returns whether it did.

    Where a champion was taken away, later versions wait to be promoted all the same.
    """
    client = store.client()
    if CHAMPION in client.get_registered_model(name).aliases:
        return False
    [first] = client.search_model_versions(f"name='{name}'", max_results=1, order_by=["version_number ASC"])
    if int(first.version) != version:
        return False
    client.set_registered_model_alias(name, CHAMPION, str(version))
    return True


def set_alias(store: Store, name: str, version: int, alias: str) -> int | None:
    """Move `alias` to `version`; returns the version that had it before.

    Raises StoreError where there is no such version.
    """
    client = store.client()
    try:
        before = client.get_registered_model(name).aliases.get(alias)
        client.get_model_version(name, str(version))
        client.set_registered_model_alias(name, alias, str(version))
    except MlflowException as error:
        raise StoreError(f"{name} version {version} cannot become {alias}: {reason(error)}") from error
    return int(before) if before is not None else None


def remove_alias(store: Store, name: str, alias: str) -> None:
    """Raises StoreError where the model is gone."""
    try:
        store.client().delete_registered_model_alias(name, alias)
    except MlflowException as error:
        raise StoreError(f"the alias {alias} of {name} cannot be removed: {reason(error)}") from error
