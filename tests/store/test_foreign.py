"""Registered models are loaded whatever their format, and a stranger's only where the registry is trusted."""

import gc
import json
import pickle
import shutil
import zipfile
from pathlib import Path
from typing import NamedTuple

import mlflow
import numpy as np
import onnx
import pandas as pd
import pytest
import torch
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema, TensorSpec
from safetensors.torch import load_file, save_file
from torch import nn

from tests.extra.grey_faces import GREY_LEVELS, Trained
from tests.extra.stored_files import stored_files
from trainer.contract import BEST_FOLDER, EXTRA_FILES, LARGEST_FILES, SPEC_FILE, WEIGHTS_FILE
from trainer.inference.bundle import BundleError
from trainer.inference.predictor import Predictor
from trainer.store.foreign import BATCH_SIZE, TRUST, ForeignModel
from trainer.store.location import Store, StoreError, open_store
from trainer.store.models import load_best, load_bundle, load_model
from trainer.store.registry import Version, find_version

NUMBERED = "Its classes have no names, so they are numbered in the order of its answers."
TRIED = "It does not say what it takes; {} px are what it was found to take."
LOGITS = "It answers with logits; their softmax is shown."
SHARES = [0.2, 0.3, 0.5]
GENERATOR = np.random.default_rng(0)


def takes(dtype: str, *shape: int, outputs: Schema | None = None) -> ModelSignature:
    return ModelSignature(Schema([TensorSpec(np.dtype(dtype), shape)]), outputs)


GREY_48 = takes("float32", -1, 1, 48, 48)


@pytest.fixture(scope="module")
def strangers(tmp_path_factory) -> Path:
    """One working directory for all: to make a store takes longer than any of these tests."""
    return tmp_path_factory.mktemp("strangers")


@pytest.fixture
def store(stocked, strangers, monkeypatch) -> Store:
    """A store whose registry is trusted."""
    monkeypatch.chdir(strangers)
    monkeypatch.setenv(TRUST, "1")
    store = open_store()
    experiment = store.experiment_id("strangers")
    # As mlflow.set_experiment does, which would stay so for the tests after this.
    monkeypatch.setattr("mlflow.tracking.fluent._active_experiment_id", experiment)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", experiment)
    return store


def register(store: Store, flavour, model, **options: object) -> Version:
    named = {"onnx": "onnx_model", "pyfunc": "python_model", "pytorch": "pytorch_model"}
    argument = named[flavour.__name__.rpartition(".")[2]]
    common = {"name": "model", "registered_model_name": "strange", "pip_requirements": ["torch"]}
    info = flavour.log_model(**{argument: model}, **common, **options)
    return find_version(store, f"strange/{info.registered_model_version}")


def load_function(store: Store, answer, **options: object) -> ForeignModel:
    """Of a registered pyfunc that answers with `answer(values)`."""

    class Stranger(mlflow.pyfunc.PythonModel):
        def predict(self, context, model_input, params=None):
            return answer(model_input)

    return load_model(register(store, mlflow.pyfunc, Stranger(), **options))


def same_for_all(row):
    return lambda values: np.tile(np.array(row), (len(values), 1))


def some_images(model, count: int = BATCH_SIZE + 3) -> np.ndarray:
    return GENERATOR.integers(0, 256, (count, model.channels, model.size, model.size), np.uint8)


def make_network(channels: int, side: int, *more: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * side**2, 3), nn.Dropout(), *more).eval()


def probabilities_of(network: nn.Module, images: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return network(torch.from_numpy(images).float() / 255).numpy()


class Touch:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def _pickled_network(store: Store, marker: Path) -> Version:
    network = make_network(1, 48)
    network.payload = Touch(marker)
    return register(store, mlflow.pytorch, network, serialization_format="pickle")


def _pickled_function(store: Store, marker: Path) -> Version:
    class Stranger(mlflow.pyfunc.PythonModel):
        payload = Touch(marker)

        def predict(self, context, model_input, params=None):
            return np.tile(SHARES, (len(model_input), 1))

    return register(store, mlflow.pyfunc, Stranger())


def _code_file(store: Store, marker: Path) -> Version:
    path = marker.with_name("stranger.py")
    path.write_text(
        f"import pathlib, mlflow, numpy\npathlib.Path({str(marker)!r}).touch()\n"
        "mlflow.models.set_model(lambda values: numpy.full((len(values), 2), 0.5))\n"
    )
    return register(store, mlflow.pyfunc, str(path))


@pytest.mark.parametrize("make", [_pickled_network, _pickled_function, _code_file])
def test_a_strangers_model_is_refused_until_the_registry_is_trusted(store, stocked, monkeypatch, make):
    marker = stocked / "it ran"
    version = make(store, marker)
    marker.unlink(missing_ok=True)
    for value in (None, "", "0", "true"):
        monkeypatch.delenv(TRUST) if value is None else monkeypatch.setenv(TRUST, value)
        with pytest.raises(StoreError, match=rf"^strange/\d+ is not of Moodify's format, .* {TRUST}=1"):
            load_model(version)
    monkeypatch.setenv(TRUST, "1")
    with pytest.raises(StoreError, match="it is not of Moodify's format"):
        load_bundle(version)
    assert not marker.exists()
    assert isinstance(load_model(version), ForeignModel)
    assert marker.exists()


@pytest.mark.parametrize(("channels", "side"), [(1, 48), (3, 96), (3, 224)])
def test_a_pickled_network_without_a_signature_is_found_out_by_trial(store, channels, side):
    network = make_network(channels, side, nn.Softmax(1))
    version = register(store, mlflow.pytorch, network, serialization_format="pickle")
    model = load_model(version)
    assert (model.channels, model.size) == (channels, side)
    kind = "grey" if channels == 1 else "RGB"
    assert model.notes == (TRIED.format(f"{kind} images of {side}"), NUMBERED)
    images = some_images(model)
    np.testing.assert_allclose(model(images), probabilities_of(network, images), atol=1e-6)
    assert model(images).dtype == np.float32
    assert model(images[:0]).shape == (0, 3)
    assert model.temperature == 1
    assert model.saliency(images, [0] * len(images)) is None
    assert 0 < model.size_bytes - 4 * channels * side**2 * 3 < 50_000


def test_a_network_that_was_pickled_on_a_gpu_is_loaded_without_one(store):
    network = make_network(1, 48, nn.Softmax(1))
    version = register(store, mlflow.pytorch, network, serialization_format="pickle", signature=GREY_48)
    path = Path(mlflow.artifacts.download_artifacts(f"{version.uri}/data/model.pth"))
    assert path.is_relative_to(store.artifact_root)
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    (name,) = (name for name in entries if name.endswith("data.pkl"))
    assert b"X\x03\0\0\0cpu" in entries[name]
    entries[name] = entries[name].replace(b"X\x03\0\0\0cpu", b"X\x06\0\0\0cuda:0")
    with zipfile.ZipFile(path, "w") as archive:
        for entry, content in entries.items():
            archive.writestr(entry, content)
    model = load_model(version)
    images = some_images(model)
    np.testing.assert_allclose(model(images), probabilities_of(network, images), atol=1e-6)


@pytest.mark.parametrize("examples", [1, 2])
def test_an_exported_network_is_loaded_whatever_the_number_of_images(store, examples):
    """With one example the export has a fixed batch of one."""
    network = make_network(3, 32, nn.Softmax(1))
    example = np.zeros((examples, 3, 32, 32), np.float32)
    model = load_model(register(store, mlflow.pytorch, network, input_example=example))
    assert (model.channels, model.size, model.notes) == (3, 32, (NUMBERED,))
    images = some_images(model)
    for count in (1, 2, len(images)):
        expected = probabilities_of(network, images[:count])
        np.testing.assert_allclose(model(images[:count]), expected, atol=1e-6)


def test_an_onnx_model_is_loaded(store):
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    weights = GENERATOR.normal(0, 0.1, (144, 3)).astype(np.float32)
    nodes = [("Flatten", ["x"], ["flat"]), ("MatMul", ["flat", "w"], ["logits"])]
    graph = helper.make_graph(
        [helper.make_node(*node) for node in nodes],
        "stranger",
        [helper.make_tensor_value_info("x", kind, ["N", 1, 12, 12])],
        [helper.make_tensor_value_info("logits", kind, ["N", 3])],
        [onnx.numpy_helper.from_array(weights, "w")],
    )
    network = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    version = register(store, mlflow.onnx, network, signature=takes("float32", -1, 1, 12, 12))
    model = load_model(version)
    assert model.notes == (LOGITS, NUMBERED)
    images = some_images(model)
    logits = torch.from_numpy(images.reshape(len(images), -1) / 255 @ weights)
    np.testing.assert_allclose(model(images), logits.softmax(1), atol=1e-5)


@pytest.mark.parametrize(
    ("dtype", "shape", "channels", "size"),
    [
        ("float32", (-1, 1, 48, 48), 1, 48),
        ("float64", (-1, 3, 32, 32), 3, 32),
        ("uint8", (-1, 3, 20, 20), 3, 20),
        ("float32", (-1, 96, 96, 3), 3, 96),
        ("uint8", (-1, 64, 64, 1), 1, 64),
        ("uint8", (-1, 40, 40), 1, 40),
        ("float32", (-1, 48 * 48), 1, 48),
        ("uint8", (-1, 10 * 10), 1, 10),
    ],
)
def test_the_images_come_as_the_signature_wants_them(store, dtype, shape, channels, size):
    def two_pixels(values):
        """And nothing is left of its input."""
        if values.dtype != dtype or values.shape[1:] != shape[1:]:
            raise TypeError(f"{values.dtype} {values.shape}")
        unit = values / (255 if dtype == "uint8" else 1)
        if len(shape) == 2:
            unit = unit.reshape(-1, size, size)
        if len(shape) < 4:
            unit = unit[:, None]
        elif shape[3] == channels:
            unit = np.moveaxis(unit, 3, 1)
        first, last = unit[:, 0, 1, 2], unit[:, -1, 2, 1]
        values.fill(0)
        return np.stack([first / 2, last / 2, 1 - (first + last) / 2], 1)

    model = load_function(store, two_pixels, signature=takes(dtype, *shape))
    assert (model.channels, model.size, model.notes) == (channels, size, (NUMBERED,))
    images = some_images(model)
    before = images.copy()
    expected = np.stack([images[:, 0, 1, 2], images[:, -1, 2, 1]], 1) / 510
    np.testing.assert_allclose(model(images)[:, :2], expected, atol=1e-6)
    assert np.array_equal(images, before)


@pytest.mark.parametrize("shape", [(-1, 3, -1, -1), (-1, -1, -1, 3)])
def test_where_the_signature_leaves_the_size_open_sizes_are_tried(store, shape):
    def only_64(values):
        if 64 not in values.shape:
            raise ValueError("64 px or nothing")
        return np.tile(SHARES, (len(values), 1))

    model = load_function(store, only_64, signature=takes("float32", *shape))
    assert (model.channels, model.size) == (3, 64)
    assert model.notes[0] == TRIED.format("RGB images of 64")


NO_IMAGES, NO_SQUARE, NO_NUMBERS = "not a batch of images", "not square images", "float64 and uint8 are"
PAIR = [TensorSpec(np.dtype("float32"), (-1, 1, 48, 48), name) for name in ("left", "right")]


@pytest.mark.parametrize(
    ("signature", "reason"),
    [
        (ModelSignature(Schema([ColSpec("double", "x"), ColSpec("double", "y")])), NO_IMAGES),
        (ModelSignature(Schema([ColSpec("string")])), NO_IMAGES),
        (ModelSignature(Schema(PAIR)), NO_IMAGES),
        (takes("str", -1), NO_NUMBERS),
        (takes("int64", -1, 1, 48, 48), NO_NUMBERS),
        (takes("float32", -1, 1, 48, 64), NO_SQUARE),
        (takes("float32", -1, 2, 48, 48), NO_SQUARE),
        (takes("float32", -1, 1, 4, 4), NO_SQUARE),
        (takes("float32", -1, 3000), NO_SQUARE),
        (takes("float32", -1, 4), NO_SQUARE),  # a table
        (takes("uint8", -1, 10**12), NO_SQUARE),
    ],
)
def test_a_model_that_takes_something_else_is_refused_with_a_reason(store, signature, reason):
    with pytest.raises(StoreError, match=rf"^strange/\d+: its signature wants .*{reason}"):
        load_function(store, same_for_all(SHARES), signature=signature)


@pytest.mark.parametrize(
    ("answer", "expected", "note"),
    [
        (SHARES, SHARES, None),
        ([0, 0, 1], [0, 0, 1], None),
        (np.log(SHARES), SHARES, LOGITS),
        (np.log(SHARES) + 900, SHARES, LOGITS),
        (np.log(SHARES) - 900, SHARES, LOGITS),
        ([0.4, 0.6, 1.0], SHARES, "Its scores do not add up to 1; they are divided by their sum."),
    ],
)
def test_answers_become_probabilities_and_it_is_said_how(store, answer, expected, note):
    model = load_function(store, same_for_all(answer), signature=GREY_48)
    assert model.notes == ((note, NUMBERED) if note else (NUMBERED,))
    np.testing.assert_allclose(model(some_images(model, 2)), [expected] * 2, atol=1e-6)


def table(*columns: str):
    return lambda values: pd.DataFrame([SHARES] * len(values), columns=list(columns))


def outputs(*names: str) -> ModelSignature:
    return takes("float32", -1, 1, 48, 48, outputs=Schema([ColSpec("double", name) for name in names]))


@pytest.mark.parametrize(
    ("answer", "options", "names"),
    [
        (same_for_all(SHARES), {"metadata": {"class_names": ["sad", "happy", "fear"]}}, "sad happy fear"),
        (same_for_all(SHARES), {"signature": outputs("sad", "happy", "fear")}, "sad happy fear"),
        (table("sad", "happy", "fear"), {}, "sad happy fear"),
        # What stands over the numbers is surer than an order that is told elsewhere.
        (table("sad", "happy", "fear"), {"metadata": {"class_names": ["fear", "happy", "sad"]}}, "sad happy fear"),
        (table("sad", "happy", "fear"), {"signature": outputs("fear", "happy", "sad")}, "sad happy fear"),
        (table("p1", "p2", "p3"), {"metadata": {"class_names": ["fear", "happy", "sad"]}}, "fear happy sad"),
        (lambda values: {"scores": [SHARES] * len(values)}, {"signature": outputs("x", "y", "z")}, "x y z"),
    ],
)  # fmt: skip
def test_classes_have_the_names_that_come_with_the_model(store, answer, options, names):
    model = load_function(store, answer, **({"signature": GREY_48} | options))
    assert model.class_names == tuple(names.split())
    assert model.notes == ()
    np.testing.assert_allclose(model(some_images(model, 2)), [SHARES] * 2, atol=1e-6)


def test_classes_have_the_names_that_the_versions_tag_holds(store):
    load_function(store, same_for_all(SHARES), signature=outputs("x", "y", "z"))
    number = max(int(found.version) for found in store.client().search_model_versions("name = 'strange'"))
    store.client().set_model_version_tag("strange", str(number), "class_names", "sad, happy,fear")
    model = load_model(find_version(store, f"strange/{number}"))
    assert model.class_names == ("sad", "happy", "fear")
    assert model.notes == ()


@pytest.mark.parametrize(
    ("names", "notes"),
    [
        (None, ()),
        ("sad happy fear", ()),
        ([1, 2, 3], ()),
        (["sad", "happy"], ("It names 2 classes and answers with 3.",)),
        (["sad", "sad", "happy"], ("It names 3 classes (some by the same name) and answers with 3.",)),
    ],
)
def test_classes_are_numbered_where_their_names_are_not_certain(store, names, notes):
    options = {"metadata": {"class_names": names}} if names else {}
    model = load_function(store, same_for_all(SHARES), signature=GREY_48, **options)
    assert model.class_names == ("class 0", "class 1", "class 2")
    assert model.notes == (*notes, NUMBERED)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (lambda values: 1 / 0, "division by zero"),
        (same_for_all([0.5, np.nan]), "it answers with numbers that are not finite"),
        (lambda values: np.zeros(len(values), int), r"an array of shape \(4,\)"),
        (lambda values: np.zeros((len(values), 1)), r"an array of shape \(4, 1\)"),
        (lambda values: np.zeros((1, 3)), r"an array of shape \(1, 3\)"),
        (lambda values: ["happy"] * len(values), "could not convert string to float: 'happy'"),
        (lambda values: pd.DataFrame({"label": ["happy"] * len(values)}), "could not convert string"),
        (lambda values: None, r"an array of shape \(\)"),
    ],
)
def test_a_model_that_gives_no_scores_is_refused_with_a_reason(store, answer, reason):
    reason = rf"^strange/\d+: no images that were tried are answered: .*{reason}"
    with pytest.raises(StoreError, match=reason):
        load_function(store, answer)


@pytest.mark.parametrize(
    ("answer_to_black", "reason"),
    [
        (lambda values: 1 / 0, "^the model failed: division by zero$"),
        (same_for_all([0.5, np.inf]), "did not answer with one finite number a class"),
        (same_for_all(SHARES), "did not answer with one finite number a class"),
        (same_for_all([-0.5, -0.5]), "with other numbers than those it was tried with"),
        (same_for_all([1.5, -0.5]), "with other numbers than those it was tried with"),
    ],
)
@pytest.mark.parametrize("first", [[0.4, 0.6], [0.8, 0.9]])
def test_a_model_that_fails_later_is_stopped_with_a_reason(store, answer_to_black, reason, first):
    model = load_function(
        store, lambda values: same_for_all(first)(values) if values.any() else answer_to_black(values)
    )
    assert np.allclose(model(some_images(model)).sum(1), 1)
    with pytest.raises(StoreError, match=reason):
        model(np.zeros((2, 1, model.size, model.size), np.uint8))


class Copied(NamedTuple):
    """A copy of the trained store, and the folder in it that holds the bundle of version 1."""

    store: Store
    version: Version
    folder: Path


@pytest.fixture
def copied(trained_copy: Trained, tmp_path, monkeypatch) -> Copied:
    monkeypatch.setenv(TRUST, "1")
    store = open_store(create=False)
    version = find_version(store, "fer2013-emotion/1")
    folder = stored_files(version)
    assert folder.is_relative_to(tmp_path)
    return Copied(store, version, folder)


@pytest.mark.parametrize("trust", ["0", "1"])
@pytest.mark.parametrize("number", [1, 2])
def test_our_format_needs_no_trust_and_answers_as_its_files_do(trained, monkeypatch, number, trust):
    monkeypatch.setenv(TRUST, trust)
    store = open_store(create=False)
    version = find_version(store, f"fer2013-emotion/{number}")
    model, expected = load_model(version), Predictor.load(stored_files(version))
    assert isinstance(model, Predictor)
    assert model.class_names == tuple(GREY_LEVELS)
    images = some_images(model)
    assert np.array_equal(model(images), expected(images))


def test_without_its_files_our_export_is_a_strangers_and_answers_the_same(copied, monkeypatch):
    ours = load_model(copied.version)
    (copied.folder / WEIGHTS_FILE).unlink()
    model = load_model(copied.version)
    assert isinstance(model, ForeignModel)
    assert (model.class_names, model.size, model.notes) == (ours.class_names, ours.size, ())
    images = some_images(model)
    np.testing.assert_allclose(model(images), ours(images), atol=1e-5)
    monkeypatch.delenv(TRUST)
    with pytest.raises(StoreError, match=TRUST):
        load_model(copied.version)


@pytest.mark.slow
def test_a_version_that_points_into_its_run_is_loaded_and_leaves_no_copy(copied, tmp_path, monkeypatch):
    client = copied.store.client()
    run_id = client.create_run(copied.store.experiment_id("fer2013")).info.run_id
    client.log_artifacts(run_id, str(copied.folder), BEST_FOLDER)
    client.create_registered_model("again")
    for name in ("ours", "strange"):
        client.log_artifacts(run_id, str(copied.folder.parent), name)
        client.create_model_version("again", f"runs:/{run_id}/{name}", run_id)
    (copied.store.artifact_root / run_id / "artifacts/strange" / EXTRA_FILES / WEIGHTS_FILE).unlink()
    (scratch := tmp_path / "scratch").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    ours = load_bundle(copied.version)
    images = some_images(ours)
    again, strange = (load_model(find_version(copied.store, f"again/{number}")) for number in (1, 2))
    assert isinstance(again, Predictor)
    assert isinstance(strange, ForeignModel)
    for model in (again, load_best(copied.store, run_id)):
        np.testing.assert_array_equal(model(images), ours(images))
    np.testing.assert_allclose(strange(images), ours(images), atol=1e-5)
    del strange
    gc.collect()
    assert list(scratch.iterdir()) == []


def _cut(folder: Path) -> None:
    path = folder / WEIGHTS_FILE
    path.write_bytes(path.read_bytes()[:-100])


def _empty(folder: Path) -> None:
    (folder / WEIGHTS_FILE).write_bytes(b"")


def _pickle(folder: Path) -> None:
    (folder / WEIGHTS_FILE).write_bytes(pickle.dumps(Touch(folder / "it ran")))


def _widen(folder: Path) -> None:
    weights = load_file(folder / WEIGHTS_FILE)
    name = max(weights, key=lambda name: weights[name].ndim)
    save_file(weights | {name: torch.cat([weights[name]] * 2)}, folder / WEIGHTS_FILE)


def _add_field(folder: Path) -> None:
    values = json.loads((folder / SPEC_FILE).read_text())
    (folder / SPEC_FILE).write_text(json.dumps(values | {"loader_module": "os"}))


def _break_json(folder: Path) -> None:
    (folder / SPEC_FILE).write_bytes(b"\xff{")


@pytest.mark.parametrize(
    ("tamper", "reason"),
    [
        (_cut, f"{WEIGHTS_FILE} cannot be read"),
        (_empty, f"{WEIGHTS_FILE} cannot be read"),
        (_pickle, f"{WEIGHTS_FILE} cannot be read"),
        (_widen, rf"{WEIGHTS_FILE}: \S+ is \(\d.*\), not \(\d.*\)"),
        (_add_field, f"{SPEC_FILE} differs from the format in: loader_module"),
        (_break_json, f"{SPEC_FILE} is not JSON"),
    ],
)
def test_files_of_ours_that_were_tampered_with_are_not_a_strangers_model(copied, tmp_path, tamper, reason):
    tamper(copied.folder)
    with pytest.raises(BundleError, match=rf"^fer2013-emotion/1: {reason}") as caught:
        load_model(copied.version)
    assert str(tmp_path) not in str(caught.value)
    assert not (copied.folder / "it ran").exists()


@pytest.mark.parametrize("name", [SPEC_FILE, WEIGHTS_FILE])
def test_a_file_that_is_too_large_is_refused_unread(copied, name):
    with (copied.folder / name).open("r+b") as file:
        file.truncate(LARGEST_FILES[name] + 1)  # a hole: it takes no space
    reason = rf"^{name} of models:/fer2013-emotion/1 has {LARGEST_FILES[name] + 1:,} bytes"
    with pytest.raises(StoreError, match=reason):
        load_model(copied.version)


def test_a_version_whose_files_are_gone_says_so(copied):
    shutil.rmtree(copied.folder.parent)
    with pytest.raises(StoreError, match=r"^the files of models:/fer2013-emotion/1 are gone from the store$"):
        load_model(copied.version)


def test_a_version_that_was_deleted_is_not_found(copied):
    copied.store.client().delete_model_version("fer2013-emotion", "1")
    with pytest.raises(StoreError, match=r"'fer2013-emotion/1': fer2013-emotion has versions 2"):
        find_version(copied.store, "fer2013-emotion/1")
    with pytest.raises(StoreError, match="the files of models:/fer2013-emotion/1 cannot be listed"):
        load_model(copied.version)
