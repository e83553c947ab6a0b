"""From what a user types to a model that answers."""

from pathlib import Path
from typing import TYPE_CHECKING

from trainer.contract import BEST_FOLDER

if TYPE_CHECKING:
    from trainer.inference.model import Model
from trainer.inference.predictor import Predictor


def load_predictor(reference: str) -> "tuple[Predictor, str]":
    """The model of our format, and its full name.

    `reference` is NAME@ALIAS, NAME/VERSION, either with `models:/` before it, `runs:/RUN_ID` (the best
    weights of an interrupted run), or a folder with the two files of the model format.

    Raises ValueError, with a message for the user, where there is no such model.
    """
    from trainer.inference.predictor import Predictor

    if Path(reference).is_dir():
        return Predictor.load(Path(reference)), str(Path(reference))  # with a slash at its end or without
    from trainer.store.location import open_store
    from trainer.store.models import load_bundle
    from trainer.store.registry import find_version, run_bundle_folder

    store = open_store(create=False)
    if reference.startswith("runs:/"):
        folder = run_bundle_folder(store, reference.removeprefix("runs:/").strip("/"), BEST_FOLDER)
        return Predictor.load(folder), reference
    version = find_version(store, reference)
    return load_bundle(store, version), version.uri


def load_any(reference: str) -> "tuple[Model, str]":
    """The same, and registered models of foreign formats where the registry is trusted."""
    if Path(reference).is_dir() or reference.startswith("runs:/"):
        return load_predictor(reference)
    from trainer.store.location import open_store
    from trainer.store.models import load_model
    from trainer.store.registry import find_version

    store = open_store(create=False)
    version = find_version(store, reference)
    return load_model(store, version), version.uri


def load_all(references: str) -> "dict[str, Model]":
    """Name → model, of several with commas between them. Raises ValueError where none is named."""
    models = {}
    for reference in filter(None, references.split(",")):
        found, name = load_any(reference)
        models[name.removeprefix("models:/")] = found
    if not models:
        raise ValueError("name a model: NAME@champion, NAME/3 or a folder")
    return models
