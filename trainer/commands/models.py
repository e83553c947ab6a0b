"""From what a user types to a model that answers."""

from pathlib import Path

from trainer.contract import BEST_FOLDER
from trainer.inference.predictor import Predictor


def load_predictor(reference: str) -> tuple[Predictor, str]:
    """The model, and its full name.

    `reference` is NAME@ALIAS, NAME/VERSION, either with `models:/` before it, `runs:/RUN_ID` (the best
    weights of an interrupted run), or a folder with the two files of the model format.

    Raises ValueError, with a message for the user, where there is no such model.
    """
    if Path(reference).is_dir():
        return Predictor.load(Path(reference)), reference
    from trainer.store.location import open_store
    from trainer.store.registry import bundle_folder, find_version, run_bundle_folder

    store = open_store(create=False)
    if reference.startswith("runs:/"):
        folder = run_bundle_folder(store, reference.removeprefix("runs:/").strip("/"), BEST_FOLDER)
        return Predictor.load(folder), reference
    version = find_version(store, reference)
    return Predictor.load(bundle_folder(store, version)), version.uri
