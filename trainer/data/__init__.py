"""The datasets that come with the program, and images of the user's own under any other name.

A new one is one module with a `SOURCE` and one line here.
"""

import importlib
import os
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.contract import audit_experiment, sweep_experiment

if TYPE_CHECKING:
    from trainer.data.base import DatasetSource

# Text, not imports: listing the names must cost nothing.
DATASETS: dict[str, str] = {
    "fer2013": "trainer.data.fer2013",
    "sketch": "trainer.data.sketch",
}
LONGEST_NAME = 40


def dataset_source(name: str) -> "DatasetSource":
    """The source registered as `name`, or of the user's own images under it; ValueError where it cannot be a name."""
    if name in DATASETS:
        return importlib.import_module(DATASETS[name]).SOURCE
    if mistake := name_mistake(name, ""):
        raise ValueError(mistake)
    from trainer.data.own import source

    return source(name)


def name_mistake(name: str, data_dir: Path | str | None) -> str | None:
    """What is wrong with the name of a dataset whose images are at `data_dir`; None for nothing."""
    if name in DATASETS:
        return None
    if name.casefold() in DATASETS:
        return f"there is no dataset '{name}': write {name.casefold()}"
    if not name[:1].isalnum() or len(name) > LONGEST_NAME or not all(map(_may_be_in_a_name, name)):
        return f"'{name}' cannot name a dataset: take letters, digits, - and _, {LONGEST_NAME} at most"
    for ending in (audit_experiment(""), sweep_experiment("")):
        if name.endswith(ending):
            return f"'{name}' cannot name a dataset: experiments of other ones end with {ending}"
    if data_dir is None:
        return (
            f"there is no dataset '{name}': choose one of {', '.join(DATASETS)}, or give --data-dir with the images of "
            "your own that have this name"
        )
    return None


def _may_be_in_a_name(character: str) -> bool:
    """In those of models and experiments as well; vowel signs and accents are part of letters."""
    return character.isalnum() or character in "-_" or unicodedata.category(character).startswith("M")


def absolute(data_dir: Path | str) -> str:
    """The path from the root, where `~` is the home folder of whoever asks, for whoever looks from another folder."""
    return str(Path(os.path.expanduser(data_dir)).absolute())  # noqa: PTH111  (no error for a user who is not there)


def still_at(name: str, data_dir: str | None) -> str | None:
    """`data_dir`, where a run found the images of the dataset `name`, if they are there still; else their usual place,
    which is None.

    Raises FileNotFoundError where they are gone, and have no usual place.
    """
    if data_dir and os.path.exists(data_dir):  # noqa: PTH110  (pathlib fails on odd texts)
        return data_dir
    if data_dir and name not in DATASETS:
        raise FileNotFoundError(
            f"the images of {name} are not at {data_dir} any more: --data-dir says where they are"
        )
    return None
