"""What is known of the champion that another one followed."""

from datetime import datetime

import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from tests.extra.grey_faces import Trained
from tests.extra.own_store import own_store
from trainer.contract import CHAMPION, Tag
from trainer.store import promotion
from trainer.store.location import StoreError, open_store
from trainer.store.promotion import before_champion, champion_of, predecessor_unknown, promote
from trainer.store.reader import Reader
from trainer.store.registry import Version, find_version
from trainer.store.snapshot import Snapshot


@pytest.mark.parametrize(
    ("numbers", "champion", "over", "older", "unknown"),
    [
        ((1, 2), 1, None, False, False),  # a model's first version becomes its champion
        ((3, 4), 3, None, False, False),  # those before it are gone
        ((3, 4), 3, None, True, True),  # those before it are not held
        ((1, 2), 2, None, False, True),  # by the MLflow UI
        ((1, 2), 2, "1", False, False),
        ((2, 3), 3, "1", False, True),  # which is gone
        ((1, 2), 2, "", False, False),  # nobody was champion
    ],
)
def test_a_predecessor_is_unknown_where_no_tag_names_one_that_is_there(
    numbers, champion, over, older, unknown
):
    tags = {} if over is None else {Tag.PROMOTED_OVER: over}
    versions = tuple(
        Version("faces", n, None, (CHAMPION,) if n == champion else (), tags if n == champion else {})
        for n in numbers
    )
    snapshot = Snapshot(pd.DataFrame(), versions=versions, has_older_versions=older)
    found = champion_of(snapshot, "faces")
    assert found is not None
    assert predecessor_unknown(snapshot, found) is unknown


@pytest.mark.parametrize(
    ("champion", "migrated", "unknown"),
    [(1, False, True), (2, False, True), (3, False, False), (1, True, False), (2, True, False)],
)
def test_nor_is_it_known_where_the_alias_was_set_back(champion, migrated, unknown):
    tags = {
        2: {Tag.PROMOTED_OVER: "1", Tag.PROMOTED_AT: "2026-01-02"},
        3: {Tag.PROMOTED_OVER: "2", Tag.PROMOTED_AT: "2026-01-03"},
    }
    for others in tags.values() if migrated else ():  # promoted in the store that they are from
        others[Tag.MIGRATED_FROM] = "faces/1"
    versions = tuple(
        Version("faces", n, None, (CHAMPION,) if n == champion else (), tags.get(n, {})) for n in (1, 2, 3)
    )
    other = Version("cats", 9, None, (CHAMPION,), {Tag.PROMOTED_AT: "2026-02-01"})
    snapshot = Snapshot(pd.DataFrame(), versions=(*versions, other))
    found = champion_of(snapshot, "faces")
    assert found is not None
    assert predecessor_unknown(snapshot, found) is unknown


@pytest.mark.parametrize(("promoted_at", "before"), [("2026-01-01", 2), ("2026-01-03", 1)])
def test_numbers_in_a_promotion_are_those_of_the_store_in_which_it_was_made(promoted_at, before):
    """The source's versions 1 and 2, the latter its champion, came to a store that had a version 1 of its own."""
    copied = int(datetime(2026, 1, 2).timestamp() * 1000)
    tags = {Tag.PROMOTED_OVER: "1", Tag.PROMOTED_AT: promoted_at, Tag.MIGRATED_FROM: "my faces/2 b"}
    versions = (
        Version("my faces", 1, None, (), {}),
        Version("my faces", 2, None, (), {Tag.MIGRATED_FROM: "my faces/1 a"}, copied),
        champion := Version("my faces", 3, None, (CHAMPION,), tags, copied),
    )
    found = before_champion(Snapshot(pd.DataFrame(), versions=versions), champion)
    assert found is not None
    assert found.version == before


def test_a_promotion_that_fails_at_its_last_step_leaves_no_tags(trained: Trained, tmp_path, monkeypatch):
    """Else the next one would be told that nobody knows over whom the champion became it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    store = own_store(trained)
    one, two = (v for v in Reader(store).snapshot().versions if v.name == "fer2013-emotion")
    promote(store, two, one, [], "it is better")
    promote(store, one, two, [], "no, it is not")
    before = {v.version: v.tags for v in Reader(store).snapshot().versions}
    assert before[2][Tag.PROMOTED_OVER] == "1"

    def refuse(*_: object) -> None:
        raise StoreError("the server has gone")

    monkeypatch.setattr(promotion, "set_alias", refuse)
    one, two = (v for v in Reader(store).snapshot().versions if v.name == "fer2013-emotion")
    with pytest.raises(StoreError, match="the server has gone"):
        promote(store, two, one, [], "but it is")
    assert {v.version: v.tags for v in Reader(store).snapshot().versions} == before

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(promotion, "set_alias", stop)
    with pytest.raises(KeyboardInterrupt):
        promote(store, two, one, [], "but it is")
    assert {v.version: v.tags for v in Reader(store).snapshot().versions} == before


def test_a_promotion_whose_answer_is_lost_keeps_its_tags(stocked, monkeypatch):
    """The alias may have moved, and no champion is without them."""
    store = open_store()
    store.client().create_registered_model("faces")
    store.client().create_model_version("faces", "nowhere")
    really, asked = promotion.set_alias, []

    def lost(*given: object) -> None:
        really(*given)
        asked.append(given)
        raise StoreError("the server has gone")

    def silent(client: MlflowClient, name: str) -> str | None:
        if asked:
            raise MlflowException("no answer")
        return None

    monkeypatch.setattr(promotion, "set_alias", lost)
    monkeypatch.setattr(promotion, "_champion_now", silent)
    with pytest.raises(StoreError, match="the server has gone"):
        promote(store, find_version(store, "faces/1"), None, [])
    found = find_version(store, "faces@champion")
    assert found.tags[Tag.PROMOTED_OVER] == ""


def test_a_version_does_not_replace_a_champion_that_it_was_not_judged_against(stocked):
    store = open_store()
    client = store.client()
    client.create_registered_model("faces")
    for _ in range(3):
        client.create_model_version("faces", "nowhere")
    one, two, three = (find_version(store, f"faces/{number}") for number in (1, 2, 3))
    promote(store, one, None, [])
    promote(store, three, one, [])
    with pytest.raises(
        StoreError, match="version 3 has become champion of faces meanwhile: nothing is promoted"
    ):
        promote(store, two, one, [])
    client.delete_registered_model_alias("faces", CHAMPION)
    with pytest.raises(StoreError, match="faces has lost its champion meanwhile"):
        promote(store, two, three, [])
    assert find_version(store, "faces/2").tags == {}
    seen = find_version(store, "faces/1")
    client.set_model_version_tag("faces", "1", Tag.PROMOTED_BY, "somebody else, meanwhile")
    with pytest.raises(StoreError, match="nothing is promoted"):
        promote(store, seen, three, [])
    assert find_version(store, "faces/1").tags[Tag.PROMOTED_BY] == "somebody else, meanwhile"
    promote(store, two, None, [])
    assert find_version(store, "faces@champion").version == 2
