"""The list of datasets; a new one is one module with a `SOURCE` and one line here."""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trainer.data.base import DatasetSource

# Text, not imports: listing the names must cost nothing.
DATASETS: dict[str, str] = {
    "fer2013": "trainer.data.fer2013",
    "sketch": "trainer.data.sketch",
}


def dataset_source(name: str) -> "DatasetSource":
    """The source registered as `name`; ValueError where there is none."""
    if name not in DATASETS:
        raise ValueError(f"there is no dataset '{name}'; choose one of {', '.join(DATASETS)}")
    return importlib.import_module(DATASETS[name]).SOURCE
