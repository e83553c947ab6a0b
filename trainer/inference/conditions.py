"""What can be measured of a dataset's images without a label: what slices are cut from."""

import contextlib
import logging
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from trainer.data.cache_file import cache_folder
from trainer.inference.faces import SIDE_PER_BOX_WIDTH, face_in_crop
from trainer.inference.quality import sharpness, turned_away
from trainer.inference.watermarks import watermark

log = logging.getLogger(__name__)

FORMAT = 2
"""Raised when anything is measured in another way; older files are then not found any more."""


def conditions(images: np.ndarray, sample_ids: Sequence[str], fingerprint: str) -> pd.DataFrame:
    """`measure`, kept below the cache folder: the detector takes some 6 ms an image, and test sets stay the same.

    fingerprint: of the images, as `Split.fingerprint` gives it.
    """
    path = cache_folder() / f"conditions-{FORMAT}-{fingerprint}.parquet"
    unfinished = Path(f"{path}.{os.getpid()}")
    try:
        return pd.read_parquet(path)
    except (OSError, ValueError):
        table = measure(images, sample_ids)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        table.to_parquet(unfinished, index=False)
        unfinished.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            unfinished.unlink()
        log.warning("the conditions of the images could not be kept, they are measured each time: %s", error)
    return table


def measure(images: np.ndarray, sample_ids: Sequence[str]) -> pd.DataFrame:
    """One row an image, in their order.

    Columns sample_id; brightness (mean) and contrast (standard deviation), both of the range from 0 to 1; sharpness
    (`quality.sharpness`); face size (width of the detector's box, of the image's side) and turned away
    (`quality.turned_away`); watermark (`watermarks.watermark`); face x, face y, face side (of the region that `faces`
    would crop, of the image's side) and face angle (degrees, clockwise). Those of the face are NaN where no upright one
    is found.

    Args:
        images: uint8 (N, 1, S, S).
    """
    grey, side = images[:, 0], images.shape[-1]
    faces = [face_in_crop(image) for image in grey]
    regions = [
        (face.region.x / side, face.region.y / side, face.region.side / side, face.region.angle)
        if face
        else (np.nan,) * 4
        for face in faces
    ]
    x, y, sides, angles = np.array(regions).reshape(-1, 4).T
    return pd.DataFrame(
        {
            "sample_id": list(sample_ids),
            "brightness": grey.mean(axis=(1, 2)) / 255,
            "contrast": [image.std() / 255 for image in grey],  # all at once, they would be copied as floats
            "sharpness": [sharpness(image) for image in grey],
            "face size": sides / SIDE_PER_BOX_WIDTH,
            "turned away": [
                turned_away(face.landmarks) if face and face.landmarks is not None else np.nan
                for face in faces
            ],
            "watermark": watermark(images),
            "face x": x,
            "face y": y,
            "face side": sides,
            "face angle": angles,
        }
    )
