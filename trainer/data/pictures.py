"""The pictures behind sample ids, from the decoded datasets on this machine (no torch)."""

import json
from collections.abc import Sequence
from io import BytesIO

import numpy as np
import pandas as pd
from PIL import Image
from safetensors import SafetensorError, safe_open

from trainer.data.cache_file import METADATA_KEY, array_key, cache_files, fingerprint


def find_pictures(
    dataset: str, sample_ids: Sequence[str], labels: Sequence[str], class_names: Sequence[str], wanted: str
) -> np.ndarray | None:
    """uint8 (N, H, W) of the samples, in their order; None where this machine has not decoded these data.

    Found means the same to the bit: ids, labels and images must have the fingerprint `wanted`, the one
    that the run was tested with.
    """
    position = {name: index for index, name in enumerate(class_names)}
    target = np.array([position[label] for label in labels], dtype=np.int64)
    for path in cache_files(dataset):
        try:
            with safe_open(path, framework="numpy") as file:
                facts = json.loads(file.metadata()[METADATA_KEY])
                for part, ids in facts["sample_ids"].items():
                    rows = {sample_id: row for row, sample_id in enumerate(ids)}
                    if any(sample_id not in rows for sample_id in sample_ids):
                        continue
                    images = file.get_tensor(array_key(part, "images"))
                    images = images[[rows[sample_id] for sample_id in sample_ids]]
                    if fingerprint(class_names, images, target, sample_ids) == wanted:
                        return images[:, 0]
        except (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError):
            continue  # a damaged or foreign file holds no pictures; training builds it again
    return None


def image_table(images: np.ndarray, sample_ids: Sequence[str], loss: np.ndarray, count: int) -> pd.DataFrame:
    """The `count` images of highest loss, worst first: columns sample_id and png (the file's bytes).

    images: uint8 (N, 1, H, W). loss: float (N,).
    """
    worst = np.argsort(-loss, kind="stable")[:count]
    return pd.DataFrame(
        {"sample_id": [sample_ids[i] for i in worst], "png": [png(images[i, 0]) for i in worst]}
    )


def png(image: np.ndarray) -> bytes:
    """A PNG file of uint8 (H, W)."""
    stream = BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(stream, "PNG")
    return stream.getvalue()
