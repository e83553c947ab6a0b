"""Exported files, run by ONNX Runtime and read by onnx itself."""

import json
import shutil

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from tests.extra.grey_faces import GREY_LEVELS, Trained, write_grey_folder
from tests.extra.tiny_model import write_tiny_model
from trainer.__main__ import main
from trainer.contract import WEIGHTS_FILE
from trainer.inference.bundle import ModelSpec, write
from trainer.inference.export import OnnxModel, write_int8, write_onnx
from trainer.inference.predictor import Predictor
from trainer.models import ARCHITECTURES
from trainer.models.base import VIEWS
from trainer.store.location import StoreError, open_store
from trainer.store.registry import find_version
from trainer.store.writer import RunWriter

SMALL = {"blocks": "4 8", "hidden": 0, "dropout": 0.2}
FACES = np.random.default_rng(0).integers(0, 256, (70, 1, 36, 36), dtype=np.uint8)


def make_predictor(architecture: str = "cnn", **changes: object) -> Predictor:
    options = {name: value for name, value in SMALL.items() if name in ARCHITECTURES[architecture].options}
    values = {
        "architecture": architecture, "options": options, "class_names": ("angry", "glücklich", "sad"),
        "source_size": 36, "image_size": 32, "channels": 1, "mean": (0.4,), "std": (0.2,), "dataset": "faces",
        "train_fingerprint": "0123abcd", "temperature": 1.4,
    }  # fmt: skip
    spec = ModelSpec(**(values | changes))
    torch.manual_seed(0)
    classifier = spec.build().train()
    for _ in range(3):  # batch norms that have seen something
        classifier(torch.rand(8, 1, 36, 36))
    return Predictor(classifier.eval(), spec)


@pytest.mark.parametrize(
    ("architecture", "averaging"),
    [
        ("cnn", "ten"),
        *[pytest.param("cnn", name, marks=pytest.mark.slow) for name in VIEWS if name != "ten"],
        pytest.param("resnet18", "flip", marks=pytest.mark.slow),
    ],
)
def test_onnx_runtime_gives_the_same_probabilities_for_any_number_of_images(
    tmp_path, architecture, averaging
):
    predictor = make_predictor(architecture, averaging=averaging)
    write_onnx(predictor, tmp_path / "model.onnx")
    exported = OnnxModel(tmp_path / "model.onnx")
    for count in (1, 2, 70):
        np.testing.assert_allclose(exported(FACES[:count]), predictor(FACES[:count]), atol=1e-5)


def test_the_file_names_its_classes_and_its_input(tmp_path):
    write_onnx(make_predictor(), tmp_path / "model.onnx")
    write_int8(tmp_path / "model.onnx", tmp_path / "int8.onnx", FACES)
    for name in ("model.onnx", "int8.onnx"):
        model = onnx.load(tmp_path / name)
        facts = {prop.key: prop.value for prop in model.metadata_props}
        assert json.loads(facts["class_names"]) == ["angry", "glücklich", "sad"]
        assert (facts["source_size"], facts["dataset"]) == ("36", "faces")
        [images], [probabilities] = model.graph.input, model.graph.output
        assert (images.name, probabilities.name) == ("images", "probabilities")
        assert [side.dim_value for side in images.type.tensor_type.shape.dim][1:] == [1, 36, 36]


@pytest.mark.parametrize(
    ("architecture", "options"),
    [
        ("cnn", {"blocks": "32 64x2", "layout": "plain"}),
        pytest.param("cnn", {"blocks": "32 64x2", "layout": "residual"}, marks=pytest.mark.slow),
        pytest.param("resnet18", {"width": 16, "stem": "pooled"}, marks=pytest.mark.slow),
    ],
)
def test_eight_bits_are_near_and_a_quarter_of_the_size(tmp_path, architecture, options):
    predictor = make_predictor(architecture, options=options | {"hidden": 0, "dropout": 0.0})
    write_onnx(predictor, tmp_path / "model.onnx")
    write_int8(tmp_path / "model.onnx", tmp_path / "int8.onnx", FACES)
    weights = {
        init.data_type for init in onnx.load(tmp_path / "int8.onnx").graph.initializer if len(init.dims) == 4
    }
    assert weights == {onnx.TensorProto.INT8}
    assert (tmp_path / "int8.onnx").stat().st_size < 0.4 * (tmp_path / "model.onnx").stat().st_size
    difference = np.abs(OnnxModel(tmp_path / "int8.onnx")(FACES) - predictor(FACES))
    assert 1e-6 < difference.max() < 0.05


def test_the_command_writes_both_files_measures_them_and_logs_what_it_found(
    trained: Trained, capsys, tmp_path
):
    reference, folder = "fer2013-emotion/1", tmp_path / "out"
    command = ["export", reference, "--output", str(folder), "--data-dir", str(trained.data_dir)]
    assert main([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {path.name for path in folder.iterdir()} == {
        "fer2013-emotion-1.onnx",
        "fer2013-emotion-1.int8.onnx",
    }
    assert found["onnx"]["max_difference"] < 1e-4
    assert found["torch"]["test_images"] == 8 * len(GREY_LEVELS)
    for runtime in ("torch", "onnx", "int8"):
        assert found[runtime]["test_accuracy"] == 1.0
        assert found[runtime]["latency_ms"] > 0
    store = open_store(create=False)
    metrics = store.client().get_run(find_version(store, reference).run_id).data.metrics
    assert metrics["export/int8_accuracy_loss"] == 0.0
    assert metrics["export/int8_bytes"] == (folder / "fer2013-emotion-1.int8.onnx").stat().st_size
    assert metrics["export/onnx_max_difference"] == pytest.approx(found["onnx"]["max_difference"])
    assert main(command) == 0
    shown = capsys.readouterr().out
    assert "40 test images" in shown
    names = ("fer2013-emotion-1.onnx", "fer2013-emotion-1.int8.onnx")
    assert f"\nWritten: {', '.join(str(folder / name) for name in names)}\n" in shown


@pytest.mark.slow
def test_what_was_measured_on_other_images_is_not_logged_with_the_run(
    trained: Trained, caplog, tmp_path, monkeypatch
):
    logged = []
    monkeypatch.setattr(RunWriter, "log_metrics", lambda writer, metrics: logged.append(metrics))
    command = ["export", "fer2013-emotion/1", "--output", str(tmp_path / "out"), "--data-dir"]
    other = shutil.copytree(trained.data_dir, tmp_path / "other")
    next((other / "test" / "angry").iterdir()).unlink()
    assert main([*command, str(other)]) == 0
    assert "was tested on other images" in caplog.text
    assert not logged
    assert main([*command, str(trained.data_dir)]) == 0
    assert len(logged) == 1


@pytest.mark.slow
def test_who_may_only_read_the_store_has_the_files_and_the_table(
    trained: Trained, capsys, caplog, tmp_path, monkeypatch
):
    def refuse(*_: object) -> None:
        raise StoreError("permission denied")

    monkeypatch.setattr(RunWriter, "log_metrics", refuse)
    command = ["export", "fer2013-emotion/1", "--output", str(tmp_path), "--data-dir", str(trained.data_dir)]
    assert main(command) == 0
    assert "int8" in capsys.readouterr().out
    assert "Nothing of this is logged: permission denied" in caplog.text


@pytest.mark.slow
def test_an_export_of_a_model_that_answers_with_no_number_leaves_no_file(tmp_path, capsys):
    folder = write_tiny_model(tmp_path / "model")
    weights = load_file(folder / WEIGHTS_FILE)
    broken = {name: value * 1e30 for name, value in weights.items() if value.is_floating_point()}
    save_file(weights | broken, folder / WEIGHTS_FILE)
    assert main(["export", str(folder), "--output", str(tmp_path / "out")]) == 2
    assert "differed from the model by nan" in capsys.readouterr().err
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.slow
def test_an_export_that_differs_leaves_no_file(trained: Trained, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr("trainer.commands.export.MOST_DIFFERENT", -1.0)
    command = ["export", "fer2013-emotion/1", "--output", str(tmp_path), "--data-dir", str(trained.data_dir)]
    assert main(command) == 2
    assert "differed from the model" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_without_the_data_there_is_no_eight_bit_file_and_the_reason_is_told(
    trained: Trained, capsys, tmp_path, monkeypatch
):
    (tmp_path / "fer2013-emotion-1.int8.onnx").write_bytes(b"of an earlier model by this name")
    assert main(["export", "fer2013-emotion/1", "--output", str(tmp_path)]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["fer2013-emotion-1.onnx"]
    assert "No 8-bit file: its scales come from training images" in capsys.readouterr().out
    assert main(["export", "fer2013-emotion/1", "--output", str(tmp_path), "--data-dir", "nowhere"]) == 2
    for name in ("happy", "strange"):  # what lies where data are looked for is of other classes
        for part in ("train", "test"):
            (folder := tmp_path / "others" / part / name).mkdir(parents=True)
            for number in range(4):
                Image.fromarray(np.full((48, 48), 20 * number, np.uint8)).save(folder / f"{number}.png")
    monkeypatch.setenv("MOODIFY_FER2013", str(tmp_path / "others"))
    capsys.readouterr()
    assert main(["export", "fer2013-emotion/1", "--output", str(tmp_path / "out")]) == 0
    assert "which the model does not know" in (said := capsys.readouterr().out)
    assert said.strip().endswith("give --data-dir")


def test_data_with_a_class_that_the_model_does_not_know_are_refused_before_a_file_is_written(
    trained: Trained, tmp_path, capsys
):
    faces = write_grey_folder(tmp_path / "faces", train=1, test=1)
    for part in ("train", "test"):
        (faces / part / "sad").rename(faces / part / "bored")
    flags = ["--dataset", "faces", "--data-dir", str(faces), "--output", str(tmp_path / "out")]
    assert main(["export", "fer2013-emotion/1", *flags]) == 2
    assert "which the model does not know" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_data_of_another_size_are_refused_before_a_file_is_written(trained: Trained, tmp_path, capsys):
    predictor = make_predictor(class_names=tuple(GREY_LEVELS), dataset="fer2013")
    write(tmp_path, predictor.spec, predictor.network.classifier.state_dict())
    command = [
        "export",
        str(tmp_path),
        "--data-dir",
        str(trained.data_dir),
        "--output",
        str(tmp_path / "out"),
    ]
    assert main(command) == 2
    assert "the model takes images of 36 px, and those of fer2013 have 48" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
