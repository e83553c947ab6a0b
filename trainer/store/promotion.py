"""Promotions: the gates' verdict on a version, and the alias that is moved with a record of why."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from getpass import getuser

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from trainer.contract import CHAMPION, Tag
from trainer.evaluation.comparison import Comparison, Predictions, compare
from trainer.evaluation.gates import COMPARING, Gates, Verdict, failed, judge
from trainer.store.location import Store, StoreError, credentials
from trainer.store.location import reason as reason_of
from trainer.store.reader import Reader
from trainer.store.registry import Version, set_alias
from trainer.store.snapshot import Snapshot

LONGEST_REASON = 500


def champion_of(snapshot: Snapshot, name: str) -> Version | None:
    return next((v for v in snapshot.versions if v.name == name and CHAMPION in v.aliases), None)


def before_champion(snapshot: Snapshot, champion: Version) -> Version | None:
    """The champion that it was promoted over, where that is known and still there."""
    over, number = (
        champion.tags.get(Tag.PROMOTED_OVER),
        _number_elsewhere if _came_as_one(champion) else _number,
    )
    return next((v for v in snapshot.versions if v.name == champion.name and number(v) == over), None)


def _came_as_one(champion: Version) -> bool:
    """Whether it was promoted in the store that it was copied from: numbers may be others there."""
    try:
        promoted = datetime.fromisoformat(champion.tags.get(Tag.PROMOTED_AT, ""))
    except ValueError:
        return False
    return Tag.MIGRATED_FROM in champion.tags and promoted.timestamp() * 1000 < champion.created_ms


def _number(version: Version) -> str:
    return str(version.version)


def _number_elsewhere(version: Version) -> str | None:
    """Of NAME/NUMBER ID, by which a copy tells what it is of; None where it is no copy."""
    place = version.tags.get(Tag.MIGRATED_FROM, "").rpartition(" ")[0]  # a name may have blanks, too
    return place.rpartition("/")[2] or None


def predecessor_unknown(snapshot: Snapshot, champion: Version) -> bool:
    """Whether nobody can tell over whom it became champion: it was made so in MLflow, or the former one is gone."""
    since = champion.tags.get(Tag.PROMOTED_AT, "")
    others = (v for v in snapshot.versions if v.name == champion.name and Tag.MIGRATED_FROM not in v.tags)
    if any(v.tags.get(Tag.PROMOTED_AT, "") > since for v in others):
        return True  # the alias was set back; of one that was migrated, the promotion was another store's
    if champion.tags.get(Tag.PROMOTED_OVER) == "" or before_champion(snapshot, champion) is not None:
        return False
    held = [v.version for v in snapshot.versions if v.name == champion.name]
    return champion.version != (1 if snapshot.has_older_versions else min(held))


def judged(
    gates: Gates,
    snapshot: Snapshot,
    version: Version,
    against: Version | None,
    comparison: Callable[[str, str], Comparison],
) -> list[Verdict]:
    """Every gate's verdict on `version` as the successor of `against`.

    Args:
        comparison: Of two runs, the second against the first. ValueError where they cannot be compared.
    """

    def row(one: Version) -> dict[str, object]:
        found = one.run_id in snapshot.runs.index
        return {str(k): v for k, v in snapshot.runs.loc[one.run_id].items()} if found else {}

    def found() -> Comparison:
        assert against is not None
        try:
            return comparison(against.run_id or "", version.run_id or "")
        except StoreError as error:
            raise ValueError(str(error)) from error

    return judge(gates, row(version), None if against is None else row(against), found)


def judged_champion(
    gates: Gates, snapshot: Snapshot, champion: Version, comparison: Callable[[str, str], Comparison]
) -> tuple[list[Verdict], Version | None]:
    """Every gate's verdict on today's champion, and the version that it followed; None where nobody knows it, or it
    followed none.

    Args:
        comparison: As for `judged`.
    """
    unknown = predecessor_unknown(snapshot, champion)
    followed = None if unknown else before_champion(snapshot, champion)
    verdicts = judged(gates, snapshot, champion, followed, comparison)
    if unknown:
        verdicts = [
            Verdict(v.gate, None, "nobody knows which champion it followed") if v.gate in COMPARING else v
            for v in verdicts
        ]
    return verdicts, followed


def compare_runs(reader: Reader, a: str, b: str) -> Comparison:
    """B against A, from what both predicted. Raises ValueError where they cannot be compared."""
    found = []
    for run_id in (a, b):
        if (table := reader.predictions(run_id)) is None:
            raise ValueError(f"run {run_id[:8]} logged no predictions")
        found.append(Predictions.from_table(table))
    return compare(*found)


def promote(
    store: Store, version: Version, over: Version | None, verdicts: Sequence[Verdict], reason: str = ""
) -> None:
    """Make `version` the champion; the gates' result, the reason, the user and the time are kept as its tags.

    over: the champion that it was judged against; None where there was none.

    Raises ValueError where a gate is not passed and no reason is given, and StoreError where the store refuses, or
    another version has become champion meanwhile.
    """
    reason = " ".join(reason.split())[:LONGEST_REASON]
    lost = failed(list(verdicts))
    if lost and not reason:
        raise ValueError(f"not passed: {', '.join(lost)}; a promotion all the same needs a reason")
    tags = {
        Tag.PROMOTED_AT: datetime.now(UTC).isoformat(timespec="seconds"),
        Tag.PROMOTED_BY: _user(store),
        Tag.PROMOTED_OVER: str(over.version) if over else "",
        Tag.PROMOTION_GATES: f"not passed: {', '.join(lost)}" if lost else "passed",
        Tag.PROMOTION_REASON: reason,
    }
    client, where = store.client(), (version.name, str(version.version))
    written = []
    try:
        _refuse_another(client, version.name, over)
        for key, value in tags.items():
            written.append(key)
            client.set_model_version_tag(*where, key, value)
        _refuse_another(client, version.name, over)
        # Last, so that no champion is seen without its tags.
        set_alias(store, version.name, version.version, CHAMPION)
    except BaseException as error:  # Ctrl-C, too
        has_moved = True  # as far as anybody knows, where the store is silent
        with suppress(MlflowException):
            has_moved = _champion_now(client, version.name) == str(version.version)
        for key in written if not has_moved else ():
            with suppress(MlflowException):
                if key in version.tags:
                    client.set_model_version_tag(*where, key, version.tags[key])
                else:
                    client.delete_model_version_tag(*where, key)
        if not isinstance(error, MlflowException):
            raise
        raise StoreError(f"{version.uri} cannot be promoted: {reason_of(error)}") from error


def _champion_now(client: MlflowClient, name: str) -> str | None:
    """The number of the version that the alias points to in the store."""
    number = client.get_registered_model(name).aliases.get(CHAMPION)
    return None if number is None else str(number)


def _refuse_another(client: MlflowClient, name: str, over: Version | None) -> None:
    """Raises StoreError where the champion is another one than `over`."""
    now = _champion_now(client, name)
    if now != (str(over.version) if over else None):
        what = f"version {now} has become champion of {name}" if now else f"{name} has lost its champion"
        raise StoreError(f"{what} meanwhile: nothing is promoted; judge again")


def _user(store: Store) -> str:
    """On a server the account, else that of the operating system."""
    if store.uri.startswith("http") and (name := credentials().username):
        return name
    try:
        return getuser()
    except (OSError, KeyError, ImportError):
        return "unknown"  # a process without an account, as in some containers
