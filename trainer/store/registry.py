"""The model registry: versions and their aliases, found, fetched and promoted."""

import re
from dataclasses import dataclass
from pathlib import Path

import mlflow.artifacts
from mlflow.exceptions import MlflowException

from trainer.contract import CHAMPION, EXTRA_FILES, LARGEST_FILES, SPEC_FILE, WEIGHTS_FILE
from trainer.store.location import Store, StoreError, reason

_REFERENCE = re.compile(r"(?:models:/)?(?P<name>[^/@:]+)(?:@(?P<alias>[^/@]+)|/(?P<version>\d+))$")


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
    def uri(self) -> str:
        return f"models:/{self.name}/{self.version}"


def all_versions(store: Store) -> list[Version]:
    """Every version of every registered model, in order of name and version."""
    client = store.client()
    aliases: dict[tuple[str, int], list[str]] = {}
    for model in client.search_registered_models(max_results=1000):
        for alias, number in model.aliases.items():
            aliases.setdefault((model.name, int(number)), []).append(alias)
    found = []
    for version in client.search_model_versions(max_results=10_000):
        key = (version.name, int(version.version))
        found.append(
            Version(
                *key,
                version.run_id or None,
                tuple(sorted(aliases.get(key, []))),
                dict(version.tags),
                version.creation_timestamp or 0,
                version.description or "",
            )
        )
    return sorted(found, key=lambda version: (version.name, version.version))


def find_version(store: Store, reference: str) -> Version:
    """The version that `models:/NAME/3`, `models:/NAME@ALIAS`, `NAME/3` or `NAME@ALIAS` names.

    Raises StoreError, naming what there is instead, where it names none.
    """
    match = _REFERENCE.match(reference)
    if not match:
        raise StoreError(
            f"'{reference}' names no model: write NAME@champion, NAME/3, models:/NAME/3 or a folder with "
            f"{SPEC_FILE}"
        )
    name, alias, number = match["name"], match["alias"], match["version"]
    known = all_versions(store)
    candidates = [version for version in known if version.name == name]
    for version in candidates:
        if alias in version.aliases or (number and version.version == int(number)):
            return version
    if not candidates:
        names = sorted({version.name for version in known})
        there = f"there are: {', '.join(names)}" if names else "there is none yet: `make train` makes one"
        raise StoreError(f"there is no registered model '{name}'; {there}")
    have = [f"{v.version}" + (f" ({', '.join(v.aliases)})" if v.aliases else "") for v in candidates[-10:]]
    raise StoreError(f"'{reference}': {name} has versions {', '.join(have)}")


def has_bundle(version: Version) -> bool:
    """Whether the version carries the files of our format. Raises StoreError where that cannot be told."""
    return set(_bundle_sizes(version)) >= {SPEC_FILE, WEIGHTS_FILE}


def bundle_folder(version: Version, into: Path | None = None) -> Path:
    """A local folder with the version's weights and spec; fetched (below `into`) where the store is a server.

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
                mlflow.artifacts.download_artifacts(
                    f"{version.uri}/{EXTRA_FILES}/{name}", dst_path=str(into) if into else None
                )
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


def run_bundle_folder(store: Store, run_id: str, artifact_path: str) -> Path:
    """The same, of files that a run logged as artifacts."""
    try:
        return Path(store.client().download_artifacts(run_id, artifact_path))
    except (MlflowException, OSError) as error:
        raise StoreError(f"run {run_id} has no {artifact_path}: {error}".splitlines()[0]) from error


def crown_first(store: Store, name: str, version: int) -> bool:
    """Make `version` the champion where the model has none; returns whether it did."""
    client = store.client()
    if CHAMPION in client.get_registered_model(name).aliases:
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
