"""Images of the user's own, under a name that they give."""

import os
from collections.abc import Sequence
from pathlib import Path

from trainer.data import name_mistake
from trainer.data.base import Dataset, DatasetSource
from trainer.data.loading import load_images


def source(name: str) -> DatasetSource:
    """Loads images in FER-2013's layout as the dataset `name`; they have no usual place."""

    def load(data_dir: Path | None, parts: Sequence[str]) -> Dataset:
        if mistake := name_mistake(name, data_dir):
            raise ValueError(mistake)
        path = Path(os.path.expanduser(data_dir or ""))  # noqa: PTH111  (no error for a user who is not there)
        if not path.exists():
            raise FileNotFoundError(
                f"there are no images of {name} at {path}: the path does not exist. --data-dir says where they are"
            )
        return load_images(name, path, parts)

    return DatasetSource(load)
