"""A model of our format as ONNX, in 32-bit floats or in 8-bit integers, and how far its answers are from ours."""

import contextlib
import io
import json
import logging
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from trainer.inference.predictor import Predictor

INPUT, OUTPUT = "images", "probabilities"
CALIBRATION_BATCH = 64


def write_onnx(predictor: Predictor, path: Path) -> None:
    """Write `path`: float32 images (B, 1, S, S) in [0, 1] → probabilities, float32 (B, K); averaging is part of it.

    Class names (as JSON), side and dataset are in the file's metadata.
    """
    side = predictor.size
    example = torch.rand(2, 1, side, side)
    with _quiet():
        program = torch.onnx.export(
            predictor.network,
            (example,),
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    spec = predictor.spec
    facts = {"class_names": json.dumps(spec.class_names), "source_size": str(side), "dataset": spec.dataset}
    onnx.helper.set_model_props(model, facts)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def write_int8(source: Path, path: Path, images: np.ndarray) -> None:
    """Write `path`: the float model in `source` with weights and activations of 8 bits, one scale a filter.

    Args:
        images: uint8 (N, 1, S, S), training images that decide the range of each activation.
    """
    with tempfile.TemporaryDirectory() as scratch, _quiet():
        prepared = Path(scratch, "prepared.onnx")
        quant_pre_process(source, prepared)  # folds batch norms into filters
        quantize_static(
            prepared,
            path,
            _Calibration(images),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
        )
    model = onnx.load(path)
    facts = {prop.key: prop.value for prop in onnx.load(source).metadata_props}
    onnx.helper.set_model_props(model, facts)
    onnx.save(model, path)


class OnnxModel:
    """An exported file in ONNX Runtime, on one thread of the CPU."""

    def __init__(self, path: Path):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Probabilities, float32 (N, K), of images, uint8 (N, 1, S, S)."""
        batches = np.split(images, range(CALIBRATION_BATCH, len(images), CALIBRATION_BATCH))
        return np.concatenate([self._session.run([OUTPUT], {INPUT: _floats(batch)})[0] for batch in batches])


class QuickModel(OnnxModel):
    """A model of our format that answers through ONNX Runtime; a `trainer.inference.model.Model`."""

    channels = Predictor.channels

    def __init__(self, predictor: Predictor):
        self.class_names = predictor.class_names
        self.size = predictor.size
        self.temperature = predictor.temperature
        self.notes = predictor.notes
        self.size_bytes = predictor.size_bytes
        self.saliency = predictor.saliency
        with tempfile.TemporaryDirectory(prefix="moodify-") as scratch:
            write_onnx(predictor, Path(scratch, "model.onnx"))
            super().__init__(Path(scratch, "model.onnx"))


class _Calibration(CalibrationDataReader):
    def __init__(self, images: np.ndarray):
        batches = np.split(images, range(CALIBRATION_BATCH, len(images), CALIBRATION_BATCH))
        self._batches: Iterator[np.ndarray] = iter(batches)

    def get_next(self) -> dict[str, np.ndarray] | None:
        batch = next(self._batches, None)
        return None if batch is None else {INPUT: _floats(batch)}


def _floats(images: np.ndarray) -> np.ndarray:
    return images.astype(np.float32) / 255


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporters print their progress and warn of what does not concern a user."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
