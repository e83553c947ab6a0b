"""A model folder with fresh weights, made in milliseconds: for tests of what happens around a network."""

from pathlib import Path

import torch

from trainer.inference.bundle import ModelSpec, write

CLASS_NAMES = ("angry", "happy", "sad")


def write_tiny_model(folder: Path, *, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    spec = ModelSpec(
        architecture="cnn", options={"blocks": "8 16", "hidden": 16, "dropout": 0.0}, class_names=CLASS_NAMES,
        source_size=48, image_size=48, channels=1, mean=(0.5,), std=(0.25,), dataset="faces", train_fingerprint="0",
    )  # fmt: skip
    folder.mkdir(exist_ok=True)
    write(folder, spec, spec.build().state_dict())
    return folder
