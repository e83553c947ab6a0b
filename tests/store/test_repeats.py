"""A training that was done before is recognised by what it was, not by where."""

import dataclasses
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.store.entities import PagedList

from trainer.config import Config
from trainer.contract import Tag
from trainer.store.location import Store, open_store
from trainer.store.registry import Version, find_version
from trainer.store.repeats import trained_before


@pytest.fixture
def done(trained, tmp_path) -> tuple[Store, Version, Config, dict[str, str]]:
    """A store with a training in it; its version, its configuration, and the fingerprints of its data."""
    store = open_store(create=False)
    version = find_version(store, "fer2013-emotion/1")
    file = store.client().download_artifacts(version.run_id, "config.json", str(tmp_path))
    config = Config.from_json(Path(file).read_text())
    data = {"train": version.tags[Tag.TRAIN_FINGERPRINT], "test": version.tags[Tag.TEST_FINGERPRINT]}
    return store, version, config, data


def test_a_training_is_known_by_its_configuration_seed_and_data(done):
    store, version, config, data = done
    found = trained_before(store, config, data)
    assert found is not None
    assert found.run_id == version.run_id
    elsewhere = dataclasses.replace(config, data_dir="/another/place", device="cuda")
    assert trained_before(store, elsewhere, data) == found
    for other in ({"seed": 1}, {"dropout": 0.111}, {"epochs": 3}):
        assert trained_before(store, dataclasses.replace(config, **other), data) is None
    assert trained_before(store, config, data | {"train": "0" * 32}) is None


def test_a_training_is_known_however_many_like_it_were_done_since(done, monkeypatch):
    store, version, config, data = done
    asked = []

    def search(self, experiments, filter_string, max_results, page_token):
        """Two pages, the run on the second."""
        asked.append(page_token)
        run = self.get_run(version.run_id)
        if page_token:
            return PagedList([run], None)
        run.data.params["learning_rate"] = "0.5"
        return PagedList([run] * max_results, "next")

    monkeypatch.setattr(MlflowClient, "search_runs", search)
    assert trained_before(store, config, data).run_id == version.run_id
    assert asked == [None, "next"]


def test_a_server_that_is_down_knows_of_no_training(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    gone = Store("http://127.0.0.1:9", None)
    assert trained_before(gone, Config(), {"train": "0" * 32, "test": "1" * 32}) is None


def test_a_run_from_before_a_setting_is_the_repeat_of_one_that_leaves_it_out(done, monkeypatch):
    store, version, config, data = done
    run = store.client().get_run(version.run_id)
    assert run.data.params["width"] == ""
    del run.data.params["width"]
    monkeypatch.setattr(MlflowClient, "search_runs", lambda *_, **__: PagedList([run], None))
    assert trained_before(store, config, data) is not None
    assert trained_before(store, dataclasses.replace(config, width=48), data) is None
