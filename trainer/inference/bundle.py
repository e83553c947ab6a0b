"""The model format: `weights.safetensors` and `model.json` in one folder; written and read here only."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from trainer.contract import LARGEST_FILES, SPEC_FILE, WEIGHTS_FILE
from trainer.models.base import VIEWS, Averaging, Classifier, Probabilities, build_network

FORMAT_VERSION = 2
_ADDED: Mapping[int, Mapping[str, object]] = {1: {"averaging": "none"}, 2: {}}
"""Format version that is read → what its files lack, and what that means."""
MAX_CLASSES = 1000


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """All that is needed, beside the weights, to rebuild a classifier and to name its answers."""

    architecture: str
    options: Mapping[str, str | int | float]
    """Arguments of the architecture."""
    class_names: tuple[str, ...]
    """In the order of the outputs."""
    source_size: int
    """Side in px of the grey image that goes in: the dataset's own."""
    image_size: int
    """Side in px that the network sees; the classifier resizes."""
    channels: int
    mean: tuple[float, ...]
    """Of each channel the network sees, for values in [0, 1]."""
    std: tuple[float, ...]
    dataset: str
    train_fingerprint: str
    temperature: float = 1.0
    """Logits are divided by it before the softmax."""
    averaging: Averaging = "none"
    """The views of an image whose probabilities are averaged; see `trainer.models.base.Probabilities`."""
    format_version: int = field(default=FORMAT_VERSION)

    def build(self) -> Classifier:
        """The classifier with fresh weights. Raises ValueError where the spec cannot be built."""
        network = build_network(
            self.architecture,
            num_classes=len(self.class_names),
            channels=self.channels,
            image_size=self.image_size,
            options=self.options,
        )
        return Classifier(network, image_size=self.image_size, mean=self.mean, std=self.std)

    def answering(self, classifier: Classifier) -> Probabilities:
        """`classifier` as this spec lets it answer, in evaluation mode."""
        return Probabilities(classifier, self.temperature, self.averaging).eval()

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=2)


class BundleError(ValueError):
    """A model's files cannot be used; the message says which and why."""


def write(folder: Path, spec: ModelSpec, weights: Mapping[str, Tensor]) -> None:
    """Write both files into `folder`, which exists."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    save_file(tensors, folder / WEIGHTS_FILE)
    (folder / SPEC_FILE).write_text(spec.to_json())


def read(folder: Path) -> tuple[Classifier, ModelSpec]:
    """The classifier in evaluation mode on the CPU, and its spec. Nothing is unpickled or executed.

    Raises BundleError for files that are missing, too large, of another version, or do not fit together.
    """
    spec = read_spec(folder / SPEC_FILE)
    path = folder / WEIGHTS_FILE
    _check_size(path)
    try:
        weights = load_file(path)
    except (ValueError, SafetensorError) as error:
        raise BundleError(f"{path} cannot be read: {error}") from error
    try:
        with torch.device("meta"):  # shapes without memory: a spec may ask for any size
            wanted = spec.build().state_dict()
    except (ValueError, TypeError, AttributeError, RuntimeError, OverflowError) as error:
        raise BundleError(
            f"{path.parent / SPEC_FILE} describes no network: {error}".splitlines()[0]
        ) from error
    if difference := sorted(set(weights) ^ set(wanted)):
        raise BundleError(
            f"{path}: weights and architecture differ in {difference[0]} ({len(difference)} in all)"
        )
    for name, tensor in weights.items():
        if tensor.shape != wanted[name].shape:
            raise BundleError(f"{path}: {name} is {tuple(tensor.shape)}, not {tuple(wanted[name].shape)}")
        if not tensor.isfinite().all():
            raise BundleError(f"{path}: {name} holds values that are not finite")
    classifier = spec.build()
    classifier.load_state_dict(weights)
    return classifier.eval(), spec


def read_spec(path: Path) -> ModelSpec:
    """Raises BundleError where the file is not a spec of this version in every field."""
    _check_size(path)
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{path} is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise BundleError(f"{path} is not a JSON object")
    found = values.get("format_version")
    if type(found) is not int or found not in _ADDED:
        raise BundleError(
            f"{path} has format version {found!r}; this program reads {', '.join(map(str, _ADDED))}"
        )
    names = {field.name for field in dataclasses.fields(ModelSpec)} - _ADDED[found].keys()
    if set(values) != names:
        raise BundleError(f"{path} differs from the format in: {', '.join(sorted(set(values) ^ names))}")
    values |= {**_ADDED[found], "format_version": FORMAT_VERSION}
    for name in ("class_names", "mean", "std"):
        if not isinstance(values[name], list):
            raise BundleError(f"{path}: {name} is not a list")
        values[name] = tuple(values[name])
    if problem := _problem(values):
        raise BundleError(f"{path}: {problem}")
    return ModelSpec(**values)


def _problem(values: dict[str, Any]) -> str | None:
    """What is wrong with the values of a spec, or None."""
    names, options = values["class_names"], values["options"]
    if not all(isinstance(name, str) and 0 < len(name) <= 200 for name in names):
        return "class_names must be texts of 1 to 200 characters"
    if not 2 <= len(names) <= MAX_CLASSES or len(set(names)) < len(names):
        return f"class_names must be 2 to {MAX_CLASSES} different names"
    if not isinstance(options, dict) or not all(isinstance(v, str | int | float) for v in options.values()):
        return "options must be an object of texts and numbers"
    if not all(isinstance(values[name], str) for name in ("architecture", "dataset", "train_fingerprint")):
        return "architecture, dataset and train_fingerprint must be texts"
    for name, limit in (("source_size", 1024), ("image_size", 1024), ("channels", 3)):
        if type(values[name]) is not int or not 1 <= values[name] <= limit:
            return f"{name} must be a whole number from 1 to {limit}"
    for name in ("mean", "std"):
        if len(values[name]) != values["channels"] or not all(map(_is_number, values[name])):
            return f"{name} must hold one number for each channel"
    if not all(value > 0 for value in values["std"]):
        return "std must be positive"
    if not _is_number(values["temperature"]) or values["temperature"] <= 0:
        return "temperature must be a positive number"
    if values["averaging"] not in list(VIEWS):  # whatever JSON holds can be compared, not everything hashed
        return f"averaging must be one of {', '.join(VIEWS)}"
    return None


def _is_number(value: object) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return abs(value) < 1e6  # also false for NaN; an int of any length compares


def _check_size(path: Path) -> None:
    limit = LARGEST_FILES[path.name]
    if not path.is_file():
        raise BundleError(
            f"there is no {path.name} in {path.parent}: this is not a model of Moodify's format"
        )
    if path.stat().st_size > limit:
        raise BundleError(f"{path} has {path.stat().st_size:,} bytes; at most {limit:,} are read")
