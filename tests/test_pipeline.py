"""From files to a registered model that answers, with every part a real one."""

import dataclasses
import json
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from tests.extra.grey_faces import ARCHITECTURE_FLAGS, GREY_LEVELS, Trained, grey_face
from tests.extra.stored_files import stored_files
from trainer.__main__ import main
from trainer.config import Config
from trainer.contract import (
    CLASS_METRICS,
    EPOCH_METRICS,
    ROBUSTNESS,
    SUMMARY_METRICS,
    UNCALIBRATED,
    Tag,
    metric_key,
)
from trainer.data import DATASETS
from trainer.data.corruptions import CORRUPTIONS
from trainer.data.fer2013 import SOURCE
from trainer.evaluation.robustness import Robustness, by_kind, relative
from trainer.inference.bundle import read, write
from trainer.inference.predictor import Predictor
from trainer.models import ARCHITECTURES, Listing
from trainer.store.location import Store, StoreError, open_store
from trainer.store.registry import all_versions, crown_first, find_version, remove_alias
from trainer.training.data import configured_splits
from trainer.training.environment import make_fabric
from trainer.training.loop import Training
from trainer.training.pretrained import make_classifier
from trainer.training.teachers import naming_models, teach

NAMES = sorted(GREY_LEVELS)
VERSIONS = dict(zip(ARCHITECTURE_FLAGS, (1, 2), strict=True))


@pytest.fixture
def store(trained: Trained) -> Store:
    return open_store(create=False)


def run_of(store: Store, version: int):
    return store.client().get_run(find_version(store, f"fer2013-emotion/{version}").run_id)


def artifact(store: Store, version: int, path: str) -> Path:
    return Path(store.client().download_artifacts(run_of(store, version).info.run_id, path))


@pytest.mark.parametrize("version", VERSIONS.values(), ids=VERSIONS.keys())
def test_each_grey_level_is_predicted_under_its_own_name(trained, tmp_path, capsys, version):
    generator = np.random.default_rng(1)
    paths = {name: tmp_path / f"{name}.png" for name in NAMES}
    for name, path in paths.items():
        Image.fromarray(grey_face(generator, GREY_LEVELS[name])).save(path)
    assert (
        main(["predict", f"fer2013-emotion/{version}", *map(str, paths.values()), "--whole", "--json"]) == 0
    )
    predictions = json.loads(capsys.readouterr().out)["predictions"]
    assert {Path(p["photo"]).stem: p["answer"] for p in predictions} == {name: name for name in NAMES}


@pytest.mark.parametrize("version", VERSIONS.values(), ids=VERSIONS.keys())
def test_the_logged_matrix_has_its_mass_on_the_diagonal_under_the_right_names(store, version):
    matrix = json.loads(artifact(store, version, "evaluation/confusion_test.json").read_text())
    assert matrix["class_names"] == NAMES
    assert matrix["counts"] == np.diag([8] * len(NAMES)).tolist()


@pytest.mark.parametrize(
    "batch", [pytest.param(1, marks=pytest.mark.slow), 3, pytest.param(64, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("version", VERSIONS.values(), ids=VERSIONS.keys())
def test_both_stored_forms_give_the_probabilities_of_the_trained_network(trained, store, version, batch):
    """The network's own are those that it gave when it was evaluated."""
    table = pd.read_parquet(artifact(store, version, "evaluation/predictions.parquet"))
    expected = table[table["part"] == "test"][[f"p_{name}" for name in NAMES]].to_numpy()
    images = SOURCE.load(trained.data_dir, ("test",)).parts["test"].images
    images = images.repeat(2, 1, 1, 1)[:64]
    expected = np.tile(expected, (2, 1))[:64]
    predictor = Predictor.load(stored_files(find_version(store, f"fer2013-emotion/{version}")))
    exported = mlflow.pytorch.load_model(f"models:/fer2013-emotion/{version}")
    for start in range(0, len(images), batch):
        some, wanted = images[start : start + batch], expected[start : start + batch]
        np.testing.assert_allclose(predictor(some), wanted, atol=1e-5)
        with torch.no_grad():
            np.testing.assert_allclose(exported(some.float() / 255).numpy(), wanted, atol=1e-5)


def test_mlflow_serves_a_version_where_there_is_a_gpu_too(store, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    served = mlflow.pyfunc.load_model("models:/fer2013-emotion/1")
    answers = served.predict(np.zeros((2, 1, 48, 48), np.float32))
    np.testing.assert_allclose(answers.sum(1), 1, atol=1e-5)


def test_a_run_holds_every_metric_of_the_contract(store):
    run = run_of(store, 1)
    assert run.info.status == "FINISHED"
    for name in EPOCH_METRICS:
        history = store.client().get_metric_history(run.info.run_id, name)
        assert [metric.step for metric in history] == list(range(1, 9)), name
    for part in ("validation_best", "test", "test_public", "test_without_twins"):
        for name in SUMMARY_METRICS:
            assert np.isfinite(run.data.metrics[metric_key(part, name)]), (part, name)
        for name in CLASS_METRICS:
            for class_name in NAMES:
                assert metric_key(part, name, class_name) in run.data.metrics
    assert run.data.metrics["test/accuracy"] == 1.0
    assert run.data.metrics["energy/estimated_kwh"] > 0


def test_one_search_shows_the_recall_of_every_class_for_all_runs(store):
    found = mlflow.search_runs(experiment_names=["fer2013"], filter_string="metrics.`test/recall/fear` > 0.9")
    assert len(found) == 2
    assert set(found["metrics.test/recall/fear"]) == {1.0}


def test_a_run_holds_its_configuration_data_and_artifacts(store):
    run = run_of(store, 2)
    params = run.data.params
    assert Config.from_json(artifact(store, 2, "config.json").read_text()).architecture == "resnet18"
    for name, value in {"architecture": "resnet18", "channels": "3", "epochs": "8", "seed": "0"}.items():
        assert params[name] == value
    assert int(params["parameters"]) > 2_500_000
    assert {"torch", "moodify", "git_commit", "device_used", "test_fingerprint"} <= set(params)
    assert {item.path for item in store.client().list_artifacts(run.info.run_id, "evaluation")} == {
        f"evaluation/{name}"
        for name in (
            "worst_images.parquet",
            "conditions.parquet",
            "confusion_test.json",
            "confusion_test.png",
            "confusion_test_public.json",
            "confusion_test_public.png",
            "learning_curves.png",
            "predictions.parquet",
            "robustness.parquet",
            "worst_mistakes.png",
        )
    }
    inputs = {item.tags[0].value: item.dataset for item in run.inputs.dataset_inputs}
    assert set(inputs) == {"train", "validation", "test"}
    assert json.loads(inputs["test"].profile)["class_counts"] == dict.fromkeys(NAMES, 8)
    assert inputs["test"].digest == params["test_fingerprint"]


def test_the_answers_to_worse_images_are_kept_and_their_score_is_logged(store):
    found = Robustness.from_table(pd.read_parquet(artifact(store, 1, "evaluation/robustness.parquet")))
    assert found.kinds == tuple(CORRUPTIONS)
    metrics = run_of(store, 1).data.metrics
    assert metrics[ROBUSTNESS] == pytest.approx(relative(found).value)
    assert metrics["robustness/brightness"] == pytest.approx(by_kind(found)["brightness"])
    # The classes are levels of grey: shifting an image leaves them, changing its brightness does not.
    assert metrics["robustness/brightness"] < 0.8 < metrics["robustness/shift"]


def test_predictions_cover_validation_and_test(store):
    table = pd.read_parquet(artifact(store, 1, "evaluation/predictions.parquet"))
    assert table["part"].value_counts().to_dict() == {
        "test": 40,
        UNCALIBRATED: 40,
        "validation": 12,
    }
    assert list(table.columns) == ["part", "sample_id", "label", *(f"p_{name}" for name in NAMES), "loss"]
    assert not table.duplicated(["part", "sample_id"]).any()
    before, after = (
        table[table["part"] == part].set_index("sample_id")["loss"] for part in (UNCALIBRATED, "test")
    )
    metrics = run_of(store, 1).data.metrics
    assert before.index.equals(after.index)
    assert before.mean() == pytest.approx(metrics["test_uncalibrated/log_loss"], abs=1e-5)
    assert metrics["calibration/temperature"] != 1
    # The label of a sample is the folder that its file lies in.
    assert all(row.sample_id.split("/")[1] == row.label for row in table.itertuples())


def test_a_version_says_what_it_is(store):
    version = find_version(store, "fer2013-emotion/2")
    assert version.tags[Tag.ARCHITECTURE] == "resnet18"
    assert version.tags[Tag.MODE] == "full"
    assert version.tags[Tag.DATASET] == "fer2013"
    assert float(version.tags[Tag.TEST_ACCURACY]) == 1.0
    info = mlflow.models.get_model_info(version.uri)
    assert info.signature.inputs.inputs[0].shape == (-1, 1, 48, 48)
    assert info.signature.outputs.inputs[0].shape == (-1, len(NAMES))
    assert info.metadata["class_names"] == NAMES
    assert info.saved_input_example_info


def test_the_first_version_is_the_champion_and_later_ones_wait(store):
    aliases = {version.version: version.aliases for version in all_versions(store)}
    assert aliases == {1: ("champion",), 2: ()}


def test_where_the_champion_was_taken_away_later_versions_wait_all_the_same(store):
    remove_alias(store, "fer2013-emotion", "champion")
    assert not crown_first(store, "fer2013-emotion", 2)
    assert crown_first(store, "fer2013-emotion", 1)


def test_evaluate_repeats_the_figures_of_the_run(trained, store, capsys):
    assert main(["evaluate", "fer2013-emotion/1", "--data-dir", str(trained.data_dir), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    run = run_of(store, 1)
    for name in SUMMARY_METRICS:
        assert found["test"][name] == pytest.approx(run.data.metrics[f"test/{name}"], abs=1e-5)
    assert found["test_fingerprint"] == run.data.params["test_fingerprint"]


@pytest.mark.slow
def test_a_new_dataset_and_a_new_architecture_are_one_file_and_one_line_each(stocked, monkeypatch, capsys):
    monkeypatch.setitem(DATASETS, "levels", "tests.extra.levels_dataset")
    monkeypatch.setitem(ARCHITECTURES, "tiny", Listing("tests.extra.tiny_architecture", options=("hidden",)))
    flags = ["--dataset", "levels", "--architecture", "tiny", "--epochs", "30", "--augmentation", "0"]
    assert main(["train", *flags, "--batch-size", "16", "--learning-rate", "0.05", "--hidden", "8"]) == 0
    assert main(["evaluate", "levels-emotion@champion", "--dataset", "levels", "--json"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["test"]["class_names"] == ["dawn", "flash", "night", "noon"]
    assert found["test"]["accuracy"] > 0.9


@pytest.fixture
def student(trained_once: Trained, stocked, monkeypatch) -> tuple[Store, Path]:
    """A model that learned from another one, in a store of its own; and the other one's folder."""
    teacher = next(trained_once.root.glob("mlruns/artifacts/models/*/artifacts/extra_files"))
    flags = [
        "--data-dir",
        str(trained_once.data_dir),
        "--teacher",
        str(teacher),
        "--blocks",
        "4 8",
        "--epochs",
        "2",
    ]
    settings = ["--averaging", "ten", "--half", "True", "--progressive", "32:0.5", "--drop-twins", "True"]
    assert main(["train", *flags, *settings, "--batch-size", "16"]) == 0
    return open_store(create=False), teacher


def test_a_model_can_learn_from_another_average_views_and_be_half_the_size(
    student, trained_once, workplace, capsys
):
    store, teacher = student
    version = find_version(store, "fer2013-emotion@champion")
    run = store.client().get_run(version.run_id)
    assert run.data.params["teacher"] == str(teacher)
    folder = stored_files(version)
    weights = load_file(folder / "weights.safetensors")
    assert {value.dtype for value in weights.values()} == {torch.float16, torch.int64}
    predictor = Predictor.load(folder)
    assert predictor.spec.averaging == "ten"
    # What is logged is what the stored model answers: averaged, and with rounded weights.
    path = store.client().download_artifacts(version.run_id, "evaluation/predictions.parquet")
    table = pd.read_parquet(path).query("part == 'test'").set_index("sample_id")
    test = SOURCE.load(trained_once.data_dir, ("test",)).parts["test"]
    expected = table.loc[list(test.sample_ids), [f"p_{name}" for name in NAMES]].to_numpy()
    np.testing.assert_allclose(predictor(test.images), expected, atol=1e-5)
    assert run.data.metrics["cost/latency_one_view_ms"] > 0


def test_an_alias_among_teachers_is_replaced_by_the_version_that_it_points_to(store):
    champion = find_version(store, "fer2013-emotion@champion").version
    asked = Config(teacher="., fer2013-emotion@champion")
    # A folder by its whole path: the run may be gone on with from another one.
    assert naming_models(asked, store).teacher == f"{Path.cwd()},fer2013-emotion/{champion}"
    assert naming_models(Config(teacher="fer2013-emotion/1, ."), store).teacher == (
        f"fer2013-emotion/1,{Path.cwd()}"
    )
    with pytest.raises(StoreError, match="there is no registered model 'a'"):
        naming_models(Config(teacher="a/2"), store)


def test_a_teacher_answers_at_a_temperature_of_one_view(store, trained, tmp_path):
    """That of the mean over ten, which is stored with it, would make it too sure of itself."""
    classifier, spec = read(stored_files(find_version(store, "fer2013-emotion/1")))
    config = Config(data_dir=str(trained.data_dir), device="cpu", precision="32")
    splits = configured_splits(config)
    answers = []
    for temperature in (0.2, 5.0):
        (other := tmp_path / str(temperature)).mkdir()
        write(other, dataclasses.replace(spec, temperature=temperature), classifier.state_dict())
        asked = dataclasses.replace(config, teacher=str(other))
        training = Training(make_classifier(config, len(NAMES), 0.5, 0.25)[0], config, make_fabric(config))
        answers.append(teach(asked, store, splits, training.fabric.device))
    assert torch.equal(*answers)


@pytest.mark.slow
def test_a_teacher_that_may_have_seen_the_validation_is_refused_before_a_run_begins(
    student, trained_once, capsys
):
    store, teacher = student
    flags = ["--data-dir", str(trained_once.data_dir), "--blocks", "4 8", "--epochs", "1"]
    before = len(store.client().search_runs([store.experiment_id("fer2013")]))
    assert main(["train", *flags, "--teacher", str(teacher), "--validation-seed", "1"]) == 2
    assert "was not trained on the same part of train" in capsys.readouterr().err
    assert main(["train", *flags, "--teacher", "fer2013-emotion/9"]) == 2
    assert "'fer2013-emotion/9': fer2013-emotion has versions 1" in capsys.readouterr().err
    assert len(store.client().search_runs([store.experiment_id("fer2013")])) == before
