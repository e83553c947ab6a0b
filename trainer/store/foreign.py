"""Registered models of other formats: what they take and give is read from their signature, or tried.

Loading one runs code that comes with it, so it is done only where the operator says so.
"""

import contextlib
import itertools
import math
import os
import tempfile
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import mlflow.artifacts
import mlflow.models
import mlflow.pyfunc
import mlflow.pytorch
import numpy as np
import pandas as pd
import torch

from trainer.store.location import StoreError
from trainer.store.registry import Version

TRUST = "MOODIFY_TRUST_REGISTRY"
BATCH_SIZE = 64
TRIED = ((1, 48), (3, 48), (1, 64), (3, 64), (3, 96), (3, 112), (3, 128), (3, 160), (3, 224), (1, 224))
"""Channels and side in px of what is given to a model that does not say what it takes, until one is answered."""
CLASS_NAMES = "class_names"


def trusted() -> bool:
    """Whether the operator lets registered models run code of their own."""
    return os.environ.get(TRUST) == "1"


@dataclass(frozen=True)
class Layout:
    """How a model takes a batch of images.

    axes: `NCHW`, `NHWC`, `NHW` (grey) or `NP` (grey, one row of pixels an image). channels: 1 or 3. size: in px.
    dtype: float32 and float64 are given values in [0, 1], uint8 those from 0 to 255.
    """

    axes: str
    channels: int
    size: int
    dtype: np.dtype

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Of uint8 (N, channels, size, size)."""
        values = images.astype(self.dtype)  # a copy: whoever gets it may write to it
        if self.dtype != np.uint8:
            values /= self.dtype.type(255)
        if self.axes == "NHWC":
            return np.ascontiguousarray(np.moveaxis(values, 1, 3))
        if self.axes == "NCHW":
            return values
        return values[:, 0] if self.axes == "NHW" else values.reshape(len(values), -1)


class ForeignModel:
    """A model that was registered by other means; as `trainer.inference.model.Model`.

    Its calls are made one at a time: nobody says that they may be made at once.
    """

    temperature = 1.0

    def __init__(
        self, ask: Callable[[np.ndarray], Any], layouts: Sequence[Layout], names: Sequence[str] | None,
        size_bytes: int, notes: Sequence[str],
    ):  # fmt: skip
        """Tries the layouts in turn. Raises StoreError where none is answered with one number a class."""
        self._model = ask
        self._one_by_one = False
        self._lock = threading.Lock()
        self.size_bytes = size_bytes
        layout, answers, columns = self._first_answer(layouts)
        self._layout = layout
        self.channels, self.size = layout.channels, layout.size
        found = list(notes)
        if len(layouts) > 1:
            kind = "grey" if layout.channels == 1 else "RGB"
            found.append(
                f"It does not say what it takes; {kind} images of {layout.size} px are what it was found to take."
            )
        self._scale, told = scale_of(answers)
        found += told
        if names is None or (columns is not None and sorted(columns) == sorted(names)):
            names = columns  # they name the numbers themselves: their order is the right one
        if names is None or len(names) != answers.shape[1] or len(set(names)) < len(names):
            if names is not None:
                same = " (some by the same name)" if len(set(names)) < len(names) else ""
                found.append(f"It names {len(names)} classes{same} and answers with {answers.shape[1]}.")
            found.append("Its classes have no names, so they are numbered in the order of its answers.")
            names = [f"class {index}" for index in range(answers.shape[1])]
        self.class_names = tuple(names)
        self.notes = tuple(found)

    @classmethod
    def load(cls, version: Version) -> "ForeignModel":
        """Runs code of the model's. Raises StoreError where it cannot be loaded or understood.

        The copy of its files stays as long as the model, which may read them later.
        """
        with contextlib.ExitStack() as files:
            try:
                folder = tempfile.TemporaryDirectory(prefix="moodify-", ignore_cleanup_errors=True)
                model = cls._read(version, files.enter_context(folder))
            except StoreError as error:
                raise StoreError(f"{version.reference}: {error}") from error
            except Exception as error:  # a stranger's code raises anything
                raise StoreError(f"{version.reference} cannot be loaded: {_one_line(error)}") from error
            weakref.finalize(model, files.pop_all().close)
        return model

    @classmethod
    def _read(cls, version: Version, into: str) -> "ForeignModel":
        folder = mlflow.artifacts.download_artifacts(version.uri, dst_path=into)
        info = mlflow.models.Model.load(folder)
        if "pytorch" in info.flavors:
            ask = _torch_caller(mlflow.pytorch.load_model(folder, map_location="cpu"))
        elif "python_function" in info.flavors:
            ask = mlflow.pyfunc.load_model(folder).predict
        else:
            kinds = ", ".join(info.flavors) or "none"
            raise StoreError(f"it has the flavours {kinds}; pytorch or python_function is needed")
        size_bytes = int(info.model_size_bytes or 256 * 1024**2)
        return cls(ask, _layouts(info.signature), _class_names(info, version), size_bytes, ())

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """As Model."""
        parts = [images[start : start + BATCH_SIZE] for start in range(0, len(images), BATCH_SIZE)]
        if not parts:
            return np.empty((0, len(self.class_names)), np.float32)
        try:
            with self._lock:
                answers = np.concatenate([self._ask(self._layout(part))[0] for part in parts])
        except Exception as error:  # as in load
            raise StoreError(f"the model failed: {_one_line(error)}") from error
        if answers.shape != (len(images), len(self.class_names)) or not np.isfinite(answers).all():
            raise StoreError("the model did not answer with one finite number a class")
        scaled = self._scale(answers)
        if scaled.min() < -1e-3 or scaled.max() > 1 + 1e-3:
            raise StoreError("the model answers these images with other numbers than those it was tried with")
        return scaled.clip(0, 1).astype(np.float32)

    def saliency(self, images: np.ndarray, classes: Sequence[int]) -> np.ndarray | None:
        """It cannot tell: a stranger's network is not looked into."""
        return None

    def _ask(self, images: np.ndarray) -> tuple[np.ndarray, list[str] | None]:
        """As _table, of images in the model's layout."""
        if not self._one_by_one:
            return _table(self._model(images))
        answers = [_table(self._model(images[index : index + 1])) for index in range(len(images))]
        return np.concatenate([table for table, _ in answers]), answers[0][1]

    def _first_answer(self, layouts: Sequence[Layout]) -> tuple[Layout, np.ndarray, list[str] | None]:
        reason = ""
        refused = set()
        # What was exported with one image as its example takes one image at a time.
        for self._one_by_one, layout in itertools.product((False, True), layouts):
            if self._one_by_one and layout not in refused:
                continue
            probe = np.random.default_rng(0).integers(
                0, 256, (4, layout.channels, layout.size, layout.size), np.uint8
            )
            try:
                answers, columns = self._ask(layout(probe))
            except Exception as error:  # as in load
                reason = reason or _one_line(error)
                refused.add(layout)
                continue
            if answers.ndim != 2 or len(answers) != 4 or answers.shape[1] < 2:
                reason = (
                    f"it answers 4 images with an array of shape {answers.shape}, not with one number a class"
                )
            elif not np.isfinite(answers).all():
                reason = "it answers with numbers that are not finite"
            else:
                return layout, answers, columns
        raise StoreError(f"no images that were tried are answered: {reason}")


def scale_of(answers: np.ndarray) -> tuple[Callable[[np.ndarray], np.ndarray], list[str]]:
    """What makes probabilities of a model's answers (N, K), and what to say of it."""
    sums = answers.sum(1)
    if (answers >= 0).all() and np.allclose(sums, 1, atol=1e-3):
        return lambda values: values, []
    if (answers >= 0).all() and (answers <= 1).all():
        note = "Its scores do not add up to 1; they are divided by their sum."
        return lambda values: values / np.maximum(values.sum(1, keepdims=True), 1e-12), [note]
    return _softmax, ["It answers with logits; their softmax is shown."]


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def _torch_caller(module: torch.nn.Module) -> Callable[[np.ndarray], np.ndarray]:
    if isinstance(module, torch.nn.Module):
        with contextlib.suppress(NotImplementedError):  # an exported program has one mode only
            module.eval()

    def ask(values: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return module(torch.from_numpy(values)).float().numpy()

    return ask


def _layouts(signature: Any) -> list[Layout]:
    """What the signature allows; without one, what is worth a try. Raises StoreError for anything but one image."""
    float32 = np.dtype(np.float32)
    tried = [Layout("NCHW", channels, size, float32) for channels, size in TRIED]
    if signature is None or signature.inputs is None:
        return tried
    inputs = signature.inputs.inputs
    if len(inputs) != 1 or not hasattr(inputs[0], "shape"):
        raise StoreError(f"its signature wants {signature.inputs}, not a batch of images")
    shape, dtype = tuple(inputs[0].shape), np.dtype(inputs[0].type)
    if dtype not in (np.dtype(np.float32), np.dtype(np.float64), np.dtype(np.uint8)):
        raise StoreError(f"its signature wants {dtype} values; float32, float64 and uint8 are understood")
    if len(shape) == 2 and shape[1] > 0:
        side = math.isqrt(shape[1])
        if side**2 == shape[1] and 8 <= side <= 1024:
            return [Layout("NP", 1, side, dtype)]
    for axes, channel, sides in (("NCHW", 1, (2, 3)), ("NHWC", 3, (1, 2)), ("NHW", None, (1, 2))):
        if len(shape) != len(axes) or (channel is not None and shape[channel] not in (1, 3)):
            continue
        channels = 1 if channel is None else shape[channel]
        height, width = (shape[axis] for axis in sides)
        if height == width and 8 <= height <= 1024:
            return [Layout(axes, channels, height, dtype)]
        if height == width == -1:
            return [Layout(axes, channels, size, dtype) for grey, size in TRIED if grey == channels]
    raise StoreError(f"its signature wants the shape {shape}, not square images of 1 or 3 channels")


def _class_names(info: Any, version: Version) -> list[str] | None:
    """From the model's metadata, else from the names of its signature's outputs; never guessed."""
    metadata: Mapping[str, Any] = info.metadata or {}
    names = metadata.get(CLASS_NAMES)
    if names is None and CLASS_NAMES in version.tags:
        names = [name.strip() for name in version.tags[CLASS_NAMES].split(",")]
    outputs = info.signature.outputs if info.signature is not None else None
    if names is None and outputs is not None and outputs.has_input_names() and len(outputs.input_names()) > 1:
        names = outputs.input_names()
    if isinstance(names, Sequence) and not isinstance(names, str) and all(isinstance(n, str) for n in names):
        return list(names)
    return None


def _table(answers: Any) -> tuple[np.ndarray, list[str] | None]:
    """float64 (N, K), and the names of its columns where it has any."""
    if isinstance(answers, pd.DataFrame):
        names = [str(name) for name in answers.columns]
        named = names != [str(index) for index in range(len(names))]
        return answers.to_numpy(np.float64), names if named else None
    if isinstance(answers, dict) and len(answers) == 1:
        answers = next(iter(answers.values()))
    return np.asarray(answers, dtype=np.float64), None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
