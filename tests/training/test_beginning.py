"""A training that begins with a model: its network, its weights, and its classes by their names."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.extra.grey_faces import Trained
from tests.extra.stored_files import stored_files
from trainer.__main__ import main
from trainer.commands.progress import Silent
from trainer.commands.train import parse
from trainer.config import Config
from trainer.contract import Tag
from trainer.models.base import Classifier
from trainer.settings import flags
from trainer.store.location import Store, open_store
from trainer.store.registry import find_version, run_params
from trainer.training.beginning import by_class
from trainer.training.loop import Epoch
from trainer.training.run import train

FIRST = "fer2013-emotion/1"
FLAGS = ["--epochs", "1", "--batch-size", "16", "--augmentation", "0", "--progressive", "None"]
AS_IT_IS = ["--optimizer", "adamw", "--learning-rate", "1e-9"]
"""A training that changes next to nothing."""


@pytest.fixture
def store(trained_copy: Trained) -> Store:
    return open_store(create=False)


def params_of(store: Store, reference: str) -> dict[str, str]:
    return run_params(store, find_version(store, reference).run_id or "")


@pytest.mark.slow
def test_a_training_begins_with_the_network_and_the_weights_of_a_model(
    trained_copy: Trained, store: Store, capsys
):
    own = ["--dataset", "office", "--data-dir", str(trained_copy.data_dir), *FLAGS, *AS_IT_IS]
    assert main(["train", *own, "--start-from", "fer2013-emotion@champion"]) == 0
    params = params_of(store, "office-emotion/1")
    assert (params["blocks"], params["hidden"], params["start_from"]) == ("8 16", "32", FIRST)
    assert params["dropout"] == "0.3"  # the recipe's: no weight depends on it
    before, after = (stored_files(find_version(store, name)) for name in (FIRST, "office-emotion/1"))
    assert json.loads((before / "model.json").read_text())["dataset"] == "fer2013"
    assert json.loads((after / "model.json").read_text())["dataset"] == "office"
    capsys.readouterr()
    assert main(["evaluate", "office-emotion/1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["test"]["accuracy"] == 1.0
    assert f"It began with the weights of {FIRST}." in find_version(store, "office-emotion/1").description

    # At random nothing is known after such a training.
    network = ["--blocks", "8 16", "--hidden", "32", "--image-size", "40"]
    assert main(["train", *own, *network]) == 0
    capsys.readouterr()
    assert main(["evaluate", "office-emotion/2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["test"]["accuracy"] < 0.8


@pytest.mark.slow
def test_the_head_alone_may_be_trained_on_what_a_model_sees(trained_copy: Trained, store: Store):
    own = ["--dataset", "heads", "--data-dir", str(trained_copy.data_dir), *FLAGS, *AS_IT_IS]
    assert main(["train", *own, "--start-from", "fer2013-emotion/2", "--mode", "fc"]) == 0
    params = params_of(store, "heads-emotion/1")
    assert (params["architecture"], params["channels"], params["pretrained"]) == ("resnet18", "3", "none")
    assert int(params["trainable_parameters"]) < 10_000 < int(params["parameters"])


def test_classes_that_a_model_knows_keep_their_weights_and_others_begin_anew():
    def classifier(classes: int) -> Classifier:
        network = nn.Sequential(nn.Sequential(nn.Linear(3, 4)), nn.Sequential(nn.Linear(4, classes)))
        return Classifier(network, image_size=2, mean=(0.5,), std=(0.5,))

    known, new = classifier(3), classifier(3)
    weights = by_class(known.state_dict(), ("angry", "happy", "sad"), new, ("sad", "tired", "angry"))
    before, fresh = known.state_dict(), new.state_dict()
    assert torch.equal(weights["network.0.0.weight"], before["network.0.0.weight"])
    for part in ("weight", "bias"):
        key = f"network.1.0.{part}"
        assert torch.equal(weights[key], torch.stack([before[key][2], fresh[key][1], before[key][0]]))
    new.load_state_dict(weights)

    fewer = classifier(2)
    fewer.load_state_dict(by_class(before, ("angry", "happy", "sad"), fewer, ("happy", "tired")))
    assert torch.equal(fewer.state_dict()["network.1.0.weight"][0], before["network.1.0.weight"][1])


def test_flags_of_another_network_are_refused_with_those_of_its_own(
    trained_copy: Trained, store: Store, capsys
):
    command = ["train", "--data-dir", str(trained_copy.data_dir), *FLAGS, "--start-from", FIRST]
    assert main([*command, "--blocks", "4 8", "--hidden", "16"]) == 2
    assert (
        f"--start-from {FIRST} is another network: its own has --blocks '8 16' --hidden 32"
        in capsys.readouterr().err
    )
    assert main([*command, "--architecture", "resnet18"]) == 2
    assert f"--start-from {FIRST}: it is a cnn, no resnet18" in capsys.readouterr().err
    assert main([*command, "--pretrained", "imagenet"]) == 2
    assert f"--start-from {FIRST} with --pretrained imagenet: give one of them" in capsys.readouterr().err


def test_a_model_that_may_have_learned_the_validation_is_refused_before_a_run_begins(
    trained_copy: Trained, store: Store, capsys
):
    command = ["train", "--data-dir", str(trained_copy.data_dir), *FLAGS, "--start-from", FIRST]
    runs = len(store.client().search_runs([store.experiment_id("fer2013")]))
    assert main([*command, "--validation-seed", "1"]) == 2
    assert (
        f"--start-from {FIRST} was not trained on the same part of fer2013's train" in capsys.readouterr().err
    )
    assert main([*command[:-1], "fer2013-emotion/9"]) == 2
    assert "'fer2013-emotion/9': fer2013-emotion has versions" in capsys.readouterr().err
    assert len(store.client().search_runs([store.experiment_id("fer2013")])) == runs


def test_the_shown_defaults_are_those_of_the_model(
    trained_copy: Trained, store: Store, tmp_path, monkeypatch
):
    config, _ = parse(["--start-from", "fer2013-emotion/2", "--epochs", "3"])
    assert (config.architecture, config.stem, config.image_size, config.channels) == (
        "resnet18",
        "imagenet",
        32,
        3,
    )
    assert config.epochs == 3
    assert parse(flags(config)) == (config, None)
    folder = stored_files(find_version(store, FIRST))
    (elsewhere := tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(elsewhere)
    config, _ = parse(["--start-from", str(folder)])
    assert not list(elsewhere.iterdir())  # a folder needs no store
    assert (config.architecture, config.blocks, config.start_from) == ("cnn", "8 16", str(folder))


@pytest.mark.slow
def test_what_a_model_learned_before_it_began_with_another_counts_as_well(trained_copy: Trained, capsys):
    """Else the images of a validation could have been learned two models ago."""
    data = ["--data-dir", str(trained_copy.data_dir), *FLAGS, *AS_IT_IS]
    assert main(["train", "--dataset", "office", *data, "--start-from", FIRST]) == 0
    assert main(["train", "--dataset", "home", *data, "--start-from", "office-emotion/1"]) == 0
    learned = json.loads(find_version(open_store(), "home-emotion/1").tags[Tag.LEARNED])
    assert [dataset for dataset, _ in learned] == ["office", "fer2013"]
    capsys.readouterr()
    again = ["train", *data, "--start-from", "home-emotion/1"]
    assert main([*again, "--validation-seed", "1"]) == 2
    assert "was not trained on the same part of fer2013's train" in capsys.readouterr().err
    assert main(again) == 0


@pytest.mark.slow
def test_a_run_goes_on_without_the_model_that_it_began_with(trained_copy: Trained, tmp_path, monkeypatch):
    folder = Path(shutil.copytree(stored_files(find_version(open_store(), FIRST)), tmp_path / "model"))
    shutil.copytree(trained_copy.data_dir, tmp_path / "own")
    config, _ = parse(["--start-from", "model", *FLAGS[2:], "--epochs", "3", *AS_IT_IS])
    config = dataclasses.replace(config, dataset="office", data_dir=str(tmp_path / "own"))
    with pytest.raises(KeyboardInterrupt):
        train(config, Impatient())
    store = open_store()
    [run] = store.client().search_runs([store.experiment_id("office")])
    assert run.data.params["start_from"] == str(folder)
    shutil.rmtree(folder)
    # Its images have moved as well, and are found again by whoever goes on once more.
    (tmp_path / "own").rename(tmp_path / "moved")
    with pytest.raises(KeyboardInterrupt):
        train(Config(data_dir=str(tmp_path / "moved")), Impatient(), resume=run.info.run_id)
    outcome = train(Config(), Silent(), resume=run.info.run_id)
    assert outcome is not None
    assert outcome.test.summary["accuracy"] == 1.0


class Impatient(Silent):
    """Stops after each epoch."""

    def epoch(self, epoch: Epoch) -> None:
        raise KeyboardInterrupt
