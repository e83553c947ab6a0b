"""Copies registered models with their versions and aliases, and reads each version back."""

import re
from collections.abc import Callable

from mlflow.entities.model_registry import ModelVersion, RegisteredModel
from mlflow.exceptions import MlflowException

from trainer.contract import Tag
from trainer.store.location import refusal
from trainer.store.migration.runs import RunCopies
from trainer.store.migration.sides import ORIGIN, PAGE, Report, Side, named, own_tags

MODEL_SOURCE = re.compile(r"models:/(m-[0-9a-f]{32})$")
_PROMOTION = {
    *(Tag.PROMOTED_AT, Tag.PROMOTED_BY, Tag.PROMOTED_OVER),
    *(Tag.PROMOTION_GATES, Tag.PROMOTION_REASON),
}
_FILLER = "migration_filler"
"""Tags a version that uses up a number, for as long as it is there."""
_FOREIGN_SOURCE = "its run was not copied, its model was deleted, or its files lie elsewhere"


class VersionCopies:
    """runs: what has copied the runs that versions come from.

    check_all: read back also what an earlier migration has copied.
    """

    def __init__(self, here: Side, there: Side, report: Report, runs: RunCopies, check_all: bool):
        self.here, self.there, self.report = here, there, report
        self.runs, self.check_all = runs, check_all

    def copy(self, versions: list[ModelVersion], advance: Callable[[], None]) -> None:
        known = {model.name: model for model in self.there.models()}
        copied: dict[str, dict[str, ModelVersion]] = {}
        for version in self.there.versions():
            # One that has come from elsewhere is known by where; of others a copy may come home.
            origin = version.tags.get(ORIGIN) or _origin(version)
            copied.setdefault(version.name, {})[origin] = version
        for model in self.here.models():
            numbers: dict[str, str] = {}
            if model.name not in known:
                self.there.client.create_registered_model(model.name, model.tags, model.description)
                self.report.models += 1
            for version in versions:
                if version.name == model.name and _FILLER not in version.tags:
                    with named(f"{model.name}/{version.version}"):
                        number = self._version(version, copied.get(model.name, {}))
                        if number is not None:
                            numbers[str(version.version)] = number
                    advance()
            self._aliases(model, known.get(model.name), numbers)

    def _version(self, version: ModelVersion, copied: dict[str, ModelVersion]) -> str | None:
        """Its number in the target; None where it was left out."""
        origin = _origin(version)
        if origin not in copied and version.tags.get(ORIGIN) in copied:
            self.report.versions_there += 1
            return str(copied[version.tags[ORIGIN]].version)
        if (copy := copied.get(origin)) is not None:
            self.report.versions_there += 1
            if self._update_version(version, copy) or self.check_all:
                self._check_version(version, copy)
            return str(copy.version)
        run_id = self.runs.run_ids.get(version.run_id or "")
        model_id = self._model_of(version, run_id)
        if (source := self._source(version, model_id, run_id)) is None:
            self.report.left_out.append(f"{version.name}/{version.version}: {_FOREIGN_SOURCE}")
            return None
        if not self._skip_to(int(version.version), version.name, source, model_id):
            return None
        copy = self.there.client.create_model_version(
            version.name, source, run_id, dict(version.tags) | {ORIGIN: origin}, None, version.description or None,
            model_id=model_id,
        )  # fmt: skip
        self.report.versions += 1
        self._check_version(version, copy)
        return str(copy.version)

    def _update_version(self, version: ModelVersion, copy: ModelVersion) -> bool:
        """Bring what was said of it since it was copied; whether there was anything."""
        tags = {k: v for k, v in _version_tags(version, copy).items() if copy.tags.get(k) != v}
        for key, value in tags.items():
            self.there.client.set_model_version_tag(copy.name, str(copy.version), key, value)
        is_described_so = (version.description or "") == (copy.description or "")
        if not is_described_so:
            self.there.client.update_model_version(copy.name, str(copy.version), version.description or "")
        return bool(tags) or not is_described_so

    def _model_of(self, version: ModelVersion, run_id: str | None) -> str | None:
        """The id of the copy of its logged model; None where there is none. One that no run logged is copied now."""
        found = MODEL_SOURCE.match(version.source or "")
        if found is None:
            return None
        if found[1] not in self.runs.model_ids and run_id is not None:
            if (model := self.here.logged_model(found[1])) is None:
                return None
            experiment_id = self.there.client.get_run(run_id).info.experiment_id
            copies = {m.tags.get(ORIGIN): m for m in self.there.logged_models(experiment_id, run_id)}
            copy = self.runs.copy_model(model, copies.get(model.model_id), experiment_id, run_id, set())
            self.runs.model_ids[model.model_id] = copy.model_id
        return self.runs.model_ids.get(found[1])

    def _source(self, version: ModelVersion, model_id: str | None, run_id: str | None) -> str | None:
        if model_id is not None:
            return f"models:/{model_id}"
        if run_id is None:
            return None
        root = self.here.client.get_run(version.run_id).info.artifact_uri.rstrip("/") + "/"
        for beginning in (f"runs:/{version.run_id}/", root):
            if version.source and version.source.startswith(beginning):
                return f"runs:/{run_id}/{version.source.removeprefix(beginning)}"
        return None

    def _skip_to(self, number: int, name: str, source: str, model_id: str | None) -> bool:
        """Use up the numbers of versions that were deleted, so that the next one is `number`, where that is free.

        False where the other store lets nobody delete what was made for that, and said so.
        """
        quote = "'" if "'" not in name else '"'
        client = self.there.client
        while True:
            taken = client.search_model_versions(f"name={quote}{name}{quote}", max_results=PAGE)
            fillers = [v for v in taken if _FILLER in v.tags and ORIGIN not in v.tags]
            if not fillers:
                others = [v for v in taken if ORIGIN not in v.tags]
                if others or max((int(v.version) for v in taken), default=0) >= number - 1:
                    return True
                fillers = [
                    client.create_model_version(name, source, tags={_FILLER: "true"}, model_id=model_id)
                ]
            for filler in fillers:
                try:
                    client.delete_model_version(name, str(filler.version))
                except MlflowException as error:
                    if refusal(error) is None:
                        raise
                    self.report.left_out.append(
                        f"{name}/{number}: its number needs version {filler.version} to be made and deleted again, "
                        "which only an administrator may do: until one migrates, that version is there, and nobody's"
                    )
                    return False
            if max(int(filler.version) for filler in fillers) >= number - 1:
                return True

    def _check_version(self, version: ModelVersion, copy: ModelVersion) -> None:
        self.report.checked_versions += 1
        copy = self.there.client.get_model_version(copy.name, str(copy.version))
        wrong = [
            what
            for what, one, other in (
                ("tags", _version_tags(version, copy), own_tags(copy.tags)),
                ("description", version.description or "", copy.description or ""),
                # Of a run that was deleted since, or was not copied, nothing is known.
                ("run", self.runs.run_ids.get(version.run_id or "", copy.run_id), copy.run_id),
            )
            if one != other
        ]
        if found := MODEL_SOURCE.match(version.source or ""):
            one = self.here.logged_model(found[1])
            other = None if one is None else self.there.logged_model(self._model_of(version, copy.run_id))
            if one is None:
                self.report.left_out.append(
                    f"{version.name}/{version.version}: its model was deleted: nothing to compare the copy with"
                )
            elif other is None or (
                self.here.digests(one.artifact_location) != self.there.digests(other.artifact_location)
            ):
                wrong.append("files")
        if wrong:
            self.report.different.append(f"{version.name}/{version.version}: {', '.join(wrong)}")

    def _aliases(
        self, model: RegisteredModel, known: RegisteredModel | None, numbers: dict[str, str]
    ) -> None:
        have = {} if known is None else {alias: str(number) for alias, number in known.aliases.items()}
        for alias, number in model.aliases.items():
            wanted = numbers.get(str(number))
            if wanted is None or have.get(alias) == wanted:
                continue
            if alias in have:
                self.report.left_out.append(
                    f"{model.name}@{alias}: it stays version {have[alias]} there, and would be {wanted}"
                )
                continue
            self.there.client.set_registered_model_alias(model.name, alias, wanted)
            self.report.aliases += 1


def _version_tags(version: ModelVersion, copy: ModelVersion) -> dict[str, str]:
    """Those that its copy shall have: of two promotions, here and there, the later one is kept."""
    tags = own_tags(version.tags)
    if copy.tags.get(Tag.PROMOTED_AT, "") > tags.get(Tag.PROMOTED_AT, ""):
        tags |= {key: copy.tags[key] for key in _PROMOTION & set(copy.tags)}
    return tags


def _origin(version: ModelVersion) -> str:
    """What tells a version from every other one, of other stores as well."""
    return f"{version.name}/{version.version} {version.run_id or version.creation_timestamp}"
