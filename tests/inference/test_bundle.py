"""The model format: what is written is read again, and nothing else is."""

import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from trainer.contract import LARGEST_FILES, SPEC_FILE, WEIGHTS_FILE
from trainer.inference.bundle import (
    FORMAT_VERSION,
    MAX_CLASSES,
    BundleError,
    ModelSpec,
    read,
    read_spec,
    write,
)
from trainer.models import ARCHITECTURES

SMALL = {"blocks": "4 8", "hidden": 8, "dropout": 0.25}


def make_spec(architecture: str = "cnn", **changes: object) -> ModelSpec:
    names = ARCHITECTURES[architecture].options
    values = {
        "architecture": architecture,
        "options": {name: value for name, value in SMALL.items() if name in names},
        "class_names": ("angry", "glücklich", "sad"),
        "source_size": 24,
        "image_size": 32,
        "channels": 1,
        "mean": (0.4,),
        "std": (0.2,),
        "dataset": "faces",
        "train_fingerprint": "0123abcd",
    }
    return ModelSpec(**(values | changes))


def trained(spec: ModelSpec):
    """A classifier whose batch norms have seen something."""
    torch.manual_seed(0)
    classifier = spec.build().train()
    for _ in range(2):
        classifier(torch.rand(4, 1, spec.source_size, spec.source_size))
    return classifier.eval()


@pytest.fixture(scope="module")
def cnn():
    return trained(make_spec())


@pytest.fixture
def folder(tmp_path, cnn) -> Path:
    """A good model."""
    write(tmp_path, make_spec(), cnn.state_dict())
    return tmp_path


def edit(folder: Path, **changes: object) -> None:
    values = json.loads((folder / SPEC_FILE).read_text()) | changes
    (folder / SPEC_FILE).write_text(json.dumps(values))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_model_that_is_read_again_answers_the_same_to_the_bit(tmp_path, architecture, channels):
    spec = make_spec(
        architecture, channels=channels, mean=(0.4,) * channels, std=(0.2,) * channels, temperature=1.7
    )
    classifier = trained(spec)
    write(tmp_path, spec, classifier.state_dict())
    again, spec_again = read(tmp_path)
    assert spec_again == spec
    assert not any(module.training for module in again.modules())
    images = torch.rand(5, 1, 24, 24)
    with torch.inference_mode():
        assert torch.equal(again(images), classifier(images))
        assert classifier(images).std(dim=0).min() > 0


def test_weights_may_come_in_any_memory_format_and_carry_gradients(tmp_path, cnn):
    weights = {name: value.clone() for name, value in cnn.state_dict().items()}
    turned = {
        name: value.to(memory_format=torch.channels_last).requires_grad_() if value.ndim == 4 else value
        for name, value in weights.items()
    }
    write(tmp_path, make_spec(), turned)
    assert all(torch.equal(value, weights[name]) for name, value in read(tmp_path)[0].state_dict().items())


def test_a_model_is_two_files(folder):
    assert {path.name for path in folder.iterdir()} == {"model.json", "weights.safetensors"}
    assert json.loads((folder / SPEC_FILE).read_text())["format_version"] == FORMAT_VERSION


@pytest.mark.parametrize("name", [SPEC_FILE, WEIGHTS_FILE])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(BundleError, match=f"there is no {name} in {folder}"):
        read(folder)


@pytest.mark.parametrize("name", list(json.loads(make_spec().to_json())))
def test_every_field_must_be_there(folder, name):
    values = json.loads((folder / SPEC_FILE).read_text())
    del values[name]
    (folder / SPEC_FILE).write_text(json.dumps(values))
    reason = "format version None" if name == "format_version" else f"differs from the format in: {name}$"
    with pytest.raises(BundleError, match=reason):
        read(folder)


def test_an_unknown_field_is_refused(folder):
    edit(folder, loader_module="os")
    with pytest.raises(BundleError, match=r"differs from the format in: loader_module$"):
        read(folder)


@pytest.mark.parametrize("version", [0, 3, "1", None, [1], True])
def test_another_version_is_refused(folder, version):
    edit(folder, format_version=version)
    with pytest.raises(BundleError, match=r"has format version .*; this program reads 1, 2"):
        read(folder)


def test_a_model_of_the_first_version_averages_nothing(folder):
    values = json.loads((folder / SPEC_FILE).read_text())
    del values["averaging"]
    (folder / SPEC_FILE).write_text(json.dumps(values | {"format_version": 1}))
    assert read_spec(folder / SPEC_FILE) == make_spec(averaging="none")
    (folder / SPEC_FILE).write_text(json.dumps(values | {"format_version": 1, "averaging": "flip"}))
    with pytest.raises(BundleError, match=r"differs from the format in: averaging$"):
        read(folder)


HUGE = 10**400  # JSON has integers that no float can hold

MALFORMED = [
    ("architecture", 5, "architecture, dataset and train_fingerprint must be texts"),
    ("architecture", ["cnn"], "architecture, dataset and train_fingerprint must be texts"),
    ("architecture", "vgg", "there is no architecture 'vgg'"),
    ("architecture", "os.system", "there is no architecture"),
    ("dataset", None, "architecture, dataset and train_fingerprint must be texts"),
    ("train_fingerprint", 7, "architecture, dataset and train_fingerprint must be texts"),
    ("options", None, "options must be an object"),
    ("options", ["blocks"], "options must be an object"),
    ("options", {"blocks": ["4", "8"]}, "options must be an object of texts and numbers"),
    ("options", {"blocks": None}, "options must be an object of texts and numbers"),
    ("options", {"depth": 3}, "cnn takes no depth"),
    ("options", {"num_classes": 3}, "cnn takes no num_classes"),
    ("options", {"blocks": "4 wide"}, "is not a list of widths"),
    ("options", {"blocks": "2 2 2 2 2 2"}, "halve a 32 px image to nothing"),
    ("options", {"blocks": 4}, "."),
    ("options", {"hidden": "wide"}, "."),
    ("options", {"hidden": 8.5}, "."),
    ("options", {"hidden": -1}, "."),
    ("options", {"hidden": 10**14}, "."),  # three petabytes of weights
    ("options", {"hidden": 10**30}, "."),
    ("options", {"dropout": 2.0}, "dropout"),
    ("options", {"dropout": "much"}, "."),
    ("class_names", "abc", "class_names is not a list"),
    ("class_names", [], "class_names must be 2 to 1000 different names"),
    ("class_names", ["angry"], "class_names must be 2 to 1000 different names"),
    ("class_names", ["angry", "sad", "sad"], "class_names must be 2 to 1000 different names"),
    ("class_names", [str(i) for i in range(MAX_CLASSES + 1)], "class_names must be 2 to 1000"),
    ("class_names", ["angry", "", "sad"], "class_names must be texts of 1 to 200 characters"),
    ("class_names", ["angry", "a" * 201, "sad"], "class_names must be texts of 1 to 200 characters"),
    ("class_names", ["angry", 1, "sad"], "class_names must be texts of 1 to 200 characters"),
    ("class_names", [["angry"], ["fear"], ["sad"]], "class_names must be"),
    ("source_size", 0, "source_size must be a whole number from 1 to 1024"),
    ("source_size", 1025, "source_size must be a whole number from 1 to 1024"),
    ("source_size", 48.0, "source_size must be a whole number from 1 to 1024"),
    ("image_size", "48", "image_size must be a whole number from 1 to 1024"),
    ("image_size", True, "image_size must be a whole number from 1 to 1024"),
    ("channels", 4, "channels must be a whole number from 1 to 3"),
    ("channels", 0, "channels must be a whole number from 1 to 3"),
    ("mean", 0.5, "mean is not a list"),
    ("mean", [0.1, 0.2, 0.3], "mean must hold one number for each channel"),
    ("mean", ["0.5"], "mean must hold one number for each channel"),
    ("mean", [float("nan")], "mean must hold one number for each channel"),
    ("mean", [HUGE], "mean must hold one number for each channel"),
    ("std", [], "std must hold one number for each channel"),
    ("std", [0.0], "std must be positive"),
    ("std", [-0.2], "std must be positive"),
    ("std", [float("inf")], "std must hold one number for each channel"),
    ("temperature", 0, "temperature must be a positive number"),
    ("temperature", -1.0, "temperature must be a positive number"),
    ("temperature", float("nan"), "temperature must be a positive number"),
    ("temperature", float("inf"), "temperature must be a positive number"),
    ("temperature", True, "temperature must be a positive number"),
    ("temperature", "1", "temperature must be a positive number"),
    ("averaging", "all", "averaging must be one of none, flip, ten"),
    ("averaging", 2, "averaging must be one of none, flip, ten"),
    ("averaging", ["flip"], "averaging must be one of none, flip, ten"),
    ("temperature", HUGE, "temperature must be a positive number"),
]


@pytest.mark.parametrize(
    ("name", "value", "reason"), MALFORMED, ids=[f"{n}-{str(v)[:20]}" for n, v, _ in MALFORMED]
)
def test_a_malformed_field_is_refused_with_the_reason(folder, name, value, reason):
    edit(folder, **{name: value})
    with pytest.raises(BundleError, match=reason) as caught:
        read(folder)
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is not JSON"),
        (b"{", "is not JSON"),
        (b"\xff\xfe{}", "is not JSON"),
        (b"[]", "is not a JSON object"),
        (b"null", "is not a JSON object"),
        (b"1e999", "is not a JSON object"),
        (b"{}", "format version None"),
        (b"[" * 30_000, "is not JSON"),
    ],
    ids=["empty", "half", "binary", "list", "null", "number", "no_field", "deep"],
)
def test_a_description_that_is_none_is_refused(folder, content, reason):
    (folder / SPEC_FILE).write_bytes(content)
    with pytest.raises(BundleError, match=reason):
        read_spec(folder / SPEC_FILE)


def test_a_description_may_be_as_long_as_the_limit_and_no_longer(folder):
    path = folder / SPEC_FILE
    path.write_text(path.read_text().ljust(LARGEST_FILES[SPEC_FILE]))
    assert read_spec(path) == make_spec()
    path.write_text(path.read_text() + " ")
    with pytest.raises(BundleError, match="has 65,537 bytes; at most 65,536 are read"):
        read(folder)


def test_weights_over_the_limit_are_not_read(folder):
    with (folder / WEIGHTS_FILE).open("r+b") as file:
        file.truncate(LARGEST_FILES[WEIGHTS_FILE] + 1)  # a hole: it takes no room on the disk
    with pytest.raises(BundleError, match="has 1,073,741,825 bytes; at most 1,073,741,824 are read"):
        read(folder)


def change_weights(folder: Path, change) -> None:
    weights = load_file(folder / WEIGHTS_FILE)
    change(weights)
    save_file(weights, folder / WEIGHTS_FILE)


def test_a_missing_tensor_is_named(folder):
    change_weights(folder, lambda weights: weights.pop("network.0.0.weight"))
    with pytest.raises(BundleError, match=r"differ in network\.0\.0\.weight \(1 in all\)"):
        read(folder)


def test_an_unknown_tensor_is_named(folder):
    change_weights(folder, lambda weights: weights.update(extra=torch.zeros(1)))
    with pytest.raises(BundleError, match=r"differ in extra \(1 in all\)"):
        read(folder)


def test_a_tensor_of_another_shape_is_named(folder):
    change_weights(folder, lambda weights: weights.update({"network.0.0.weight": torch.zeros(4, 3, 3, 3)}))
    with pytest.raises(BundleError, match=r"network\.0\.0\.weight is \(4, 3, 3, 3\), not \(4, 1, 3, 3\)"):
        read(folder)


def test_weights_that_are_no_numbers_are_refused(folder):
    change_weights(folder, lambda weights: weights["network.0.0.weight"].view(-1)[3:4].fill_(torch.nan))
    with pytest.raises(BundleError, match=r"network\.0\.0\.weight holds values that are not finite"):
        read(folder)


def test_weights_of_another_number_of_classes_are_refused(folder):
    edit(folder, class_names=["angry", "sad"])
    with pytest.raises(BundleError, match=r"is \(3,.*\), not \(2,.*\)"):
        read(folder)


def test_weights_of_another_architecture_are_refused(folder):
    edit(folder, architecture="resnet18", options={})
    with pytest.raises(BundleError, match="weights and architecture differ in"):
        read(folder)


def test_damaged_weights_are_refused(folder):
    path = folder / WEIGHTS_FILE
    content = path.read_bytes()
    for damaged in (b"", content[:100], content[:-10], b"\xff" * 8 + content[8:]):
        path.write_bytes(damaged)
        with pytest.raises(BundleError, match=str(folder)):
            read(folder)


class Bomb:
    """A pickle of it creates a file when it is loaded."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", [WEIGHTS_FILE, SPEC_FILE])
@pytest.mark.parametrize("kind", ["pickle", "torch"])
def test_nothing_is_unpickled(folder, tmp_path_factory, name, kind):
    trace = tmp_path_factory.mktemp("trace") / "ran"
    if kind == "torch":
        torch.save({"network.0.0.weight": Bomb(trace)}, folder / name)
    else:
        (folder / name).write_bytes(pickle.dumps(Bomb(trace)))
    with pytest.raises(BundleError, match=str(folder)):
        read(folder)
    assert not trace.exists()
    # The bomb is a real one.
    pickle.loads(pickle.dumps(Bomb(trace)))
    assert trace.exists()


def test_a_refusal_is_a_mistake_of_the_users():
    assert issubclass(BundleError, ValueError)
