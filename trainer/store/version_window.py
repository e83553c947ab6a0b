"""The part of a server's versions that is held: the newest, those that aliases point to, those of held runs."""

import dataclasses
from collections.abc import Container, Mapping

from mlflow.exceptions import MlflowException

from trainer.contract import Tag
from trainer.store.location import Store
from trainer.store.registry import NOT_THERE, PAGE, REFERENCE, Key, Version, aliases_of, version_from

STEP = 10
"""Of the newest versions of a server, how many one reading looks at."""
RUNS_ASKED = 200
"""Of the runs whose versions are asked for at once."""


class VersionWindow:
    """most: how many of the newest are held."""

    def __init__(self, store: Store, most: int):
        self.most = most
        self.has_older = False
        self._client = store.client()
        self._held: dict[Key, Version] = {}
        self._wanted: set[Key] = set()
        self._aliases: dict[Key, list[str]] = {}

    def read(self, runs: Mapping[str, int], anew: bool) -> None:
        """Ask for the newest, and the versions of these runs (id → when it began, in ms since 1970).

        anew: look at all that are held again, and not only at what is likely to have changed.
        """
        self._aliases = aliases_of(self._client)
        page = self._client.search_model_versions(
            max_results=self.most if anew else min(STEP, self.most), order_by=["creation_timestamp DESC"]
        )
        fresh = [version_from(version, {}) for version in page]
        since = fresh[-1].created_ms if page.token else -1
        if anew:
            self.has_older = bool(page.token)
        # No version is older than its run.
        others = [run_id for run_id, started in runs.items() if started < since and run_id.isalnum()]
        for start in range(0, len(others), RUNS_ASKED):
            some = ", ".join(f"'{run_id}'" for run_id in others[start : start + RUNS_ASKED])
            fresh += self._search(f"run_id IN ({some})")
        asked = set(others)
        self._held = {
            key: version
            for key, version in self._held.items()
            if version.created_ms <= since and version.run_id not in asked
        } | {(version.name, version.version): version for version in fresh}
        for key in {*self._aliases, *self._wanted}:
            if anew or key not in self._held:
                self._get(key)
        for key in self._predecessors() - set(self._held):
            self._get(key)

    def versions(self) -> list[Version]:
        """In order of name and number."""
        found = (
            dataclasses.replace(version, aliases=tuple(sorted(self._aliases.get(key, ()))))
            for key, version in self._held.items()
        )
        return sorted(found, key=lambda version: (version.name, version.version))

    def own_runs(self) -> set[str]:
        """Of those versions that are held for their own sake, and not for their run's."""
        return {version.run_id for version in self._own().values() if version.run_id}

    def trim(self, runs: Container[str]) -> None:
        """Let go of those whose run is none of these, and that are not held for their own sake."""
        own = self._own()
        self._held = {key: v for key, v in self._held.items() if key in own or v.run_id in runs}

    def want(self, reference: str) -> str | None:
        """Hold the version that NAME/VERSION or NAME@ALIAS names, too; returns the id of its run."""
        if not (match := REFERENCE.match(reference)):
            return None
        key = match["name"], int(match["version"] or 0)
        if match["alias"]:
            self._aliases = aliases_of(self._client)
            pointed = (one for one, aliases in self._aliases.items() if match["alias"] in aliases)
            key = next((one for one in pointed if one[0] == match["name"]), key)
        found = self._get(key)
        if found is None:
            return None
        self._wanted.add(key)
        return found.run_id

    def _own(self) -> dict[Key, Version]:
        newest = sorted(self._held, key=lambda key: self._held[key].created_ms, reverse=True)[: self.most]
        keys = {*newest, *self._aliases, *self._wanted, *self._predecessors()}
        return {key: version for key, version in self._held.items() if key in keys}

    def _predecessors(self) -> set[Key]:
        """Over which versions those with an alias were promoted."""
        pointed = (self._held[key] for key in self._aliases if key in self._held)
        over = ((version.name, version.tags.get(Tag.PROMOTED_OVER, "")) for version in pointed)
        return {(name, int(number)) for name, number in over if number.isdigit()}

    def _get(self, key: Key) -> Version | None:
        """Of one version that may be gone."""
        try:
            self._held[key] = version_from(self._client.get_model_version(key[0], str(key[1])), {})
        except MlflowException as error:
            if error.error_code not in NOT_THERE:
                raise
            self._held.pop(key, None)
            self._wanted.discard(key)
        return self._held.get(key)

    def _search(self, condition: str) -> list[Version]:
        found = self._client.search_model_versions(condition, max_results=PAGE)
        return [version_from(version, {}) for version in found]
