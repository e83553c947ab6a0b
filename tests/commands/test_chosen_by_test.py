"""Of a model whose epoch PublicTest chose, PublicTest is no test; the commands say so."""

import json

import pytest
import torch
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from tests.extra.grey_faces import GREY_LEVELS, write_grey_folder
from tests.extra.odd_runs import make_run
from trainer.__main__ import main
from trainer.contract import Tag
from trainer.data.splits import load_splits
from trainer.inference.bundle import ModelSpec
from trainer.inference.predictor import Predictor
from trainer.store.location import StoreError, open_store
from trainer.store.registry import run_params


@pytest.fixture
def registered(stocked, monkeypatch):
    """A function that registers an untrained model with a validation protocol; returns flags that name data."""
    torch.manual_seed(0)
    spec = ModelSpec(
        architecture="cnn", options={"blocks": "4 8", "hidden": 0, "dropout": 0.0},
        class_names=tuple(sorted(GREY_LEVELS)), source_size=48, image_size=48, channels=1, mean=(0.5,), std=(0.25,),
        dataset="fer2013", train_fingerprint="0",
    )  # fmt: skip
    predictor = Predictor(spec.build().eval(), spec)
    monkeypatch.setattr(
        "trainer.commands.models.load_predictor", lambda _: (predictor, "models:/fer2013-emotion/1")
    )

    def register(validation: str) -> list[str]:
        store = open_store()
        client = store.client()
        run_id = make_run(client, store.experiment_id("fer2013"), params={"validation": validation})
        client.create_registered_model("fer2013-emotion")
        folder = write_grey_folder(stocked / "faces", train=4, test=4)
        for path in folder.glob("test/*/PublicTest_[01].png"):
            path.rename(path.with_name(path.name.replace("Public", "Private")))
        tested_on = {
            Tag.TEST_FINGERPRINT: load_splits("fer2013", str(folder), protocol=validation).fingerprints()[
                "test"
            ]
        }
        client.create_model_version("fer2013-emotion", f"runs:/{run_id}/model", run_id, tested_on)
        return ["fer2013-emotion/1", "--data-dir", str(folder)]

    return register


@pytest.mark.parametrize(
    ("validation", "told"), [("public", True), pytest.param("stratified", False, marks=pytest.mark.slow)]
)
def test_the_commands_say_where_test_images_chose_the_epoch(registered, tmp_path, capsys, validation, told):
    sentence = (
        "The images of PublicTest chose the epoch of models:/fer2013-emotion/1 and fitted its temperature"
    )
    flags = registered(validation)
    assert main(["evaluate", *flags]) == 0
    assert (sentence in capsys.readouterr().out) is told
    assert main(["evaluate", *flags, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["test_private"]["images"] == 10
    assert len(found.get("caveats", [])) == told  # and none that its images are others
    main(["export", *flags, "--output", str(tmp_path / "out")])
    assert (sentence in capsys.readouterr().out) is told


def test_a_store_that_does_not_answer_is_not_taken_for_one_without_the_run(stocked, monkeypatch):
    store = open_store()
    assert run_params(store, "0" * 32) == {}
    assert run_params(store, "") == {}  # of a version that came of no run

    def silent(*_: object) -> None:
        raise MlflowException("the database is away")

    monkeypatch.setattr(MlflowClient, "get_run", silent)
    with pytest.raises(StoreError, match="cannot be read: the database is away"):
        run_params(store, "0" * 32)
