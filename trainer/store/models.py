"""From a registered version, or a run, to a model that answers, whatever its format."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from trainer.contract import BEST_FOLDER
from trainer.inference.bundle import BundleError
from trainer.inference.model import Model
from trainer.inference.predictor import Predictor
from trainer.inference.predictor import share_cores as share_cores  # for a screen that may not know torch
from trainer.store.foreign import ForeignModel, trusted
from trainer.store.location import Store, StoreError
from trainer.store.registry import Version, bundle_folder, has_bundle, run_bundle_folder


def load_model(version: Version) -> Model:
    """Of our format, rebuilt from tensors and JSON; of a foreign one, only where the operator trusts the registry.

    Raises StoreError or BundleError, with a message for the user.
    """
    if has_bundle(version):
        return load_bundle(version)
    if not trusted():
        raise StoreError(
            f"{version.reference} is not of Moodify's format, and loading it runs code that comes with "
            "it: whoever runs this program and trusts everyone who can register models sets MOODIFY_TRUST_REGISTRY=1"
        )
    return ForeignModel.load(version)


def load_bundle(version: Version) -> Predictor:
    """Raises StoreError or BundleError where the version is not of our format."""
    with _scratch() as scratch:
        folder = bundle_folder(version, scratch)
        try:
            return Predictor.load(folder)
        except BundleError as error:  # with the version's name in the message, not a path of this machine
            raise BundleError(f"{version.reference}: {str(error).replace(f'{folder}/', '')}") from error


def load_best(store: Store, run_id: str) -> Predictor:
    """The best weights so far that a run has logged, which may have been interrupted.

    Raises StoreError or BundleError where there are none.
    """
    with _scratch() as scratch:
        return Predictor.load(run_bundle_folder(store, run_id, BEST_FOLDER, scratch))


@contextlib.contextmanager
def _scratch() -> Iterator[Path]:
    """Where files are fetched to while they are read. Raises StoreError where there is no room for it.

    Of an embedded store, too: without a place that is named, MLflow fetches some to one that it leaves behind.
    """
    try:
        folder = tempfile.TemporaryDirectory(prefix="moodify-", ignore_cleanup_errors=True)
    except OSError as error:
        raise StoreError(f"files of the store cannot be fetched: {error}") from error
    with folder as name:
        yield Path(name)
