"""From a registered version to a model that answers, whatever its format."""

import tempfile
from pathlib import Path

from trainer.inference.bundle import BundleError
from trainer.inference.model import Model
from trainer.inference.predictor import Predictor
from trainer.inference.predictor import share_cores as share_cores  # for a screen that may not know torch
from trainer.store.foreign import ForeignModel, trusted
from trainer.store.location import Store, StoreError
from trainer.store.registry import Version, bundle_folder, has_bundle


def load_model(store: Store, version: Version) -> Model:
    """Of our format, rebuilt from tensors and JSON; of a foreign one, only where the operator trusts the registry.

    Raises StoreError or BundleError, with a message for the user.
    """
    if has_bundle(version):
        return load_bundle(store, version)
    if not trusted():
        raise StoreError(
            f"{version.name}/{version.version} is not of Moodify's format, and loading it runs code that comes with "
            "it: whoever runs this program and trusts everyone who can register models sets MOODIFY_TRUST_REGISTRY=1"
        )
    return ForeignModel.load(version)


def load_bundle(store: Store, version: Version) -> Predictor:
    """Raises StoreError or BundleError where the version is not of our format."""
    if store.artifact_root is not None:
        return _load(bundle_folder(version), version)
    with tempfile.TemporaryDirectory(prefix="moodify-") as scratch:
        return _load(bundle_folder(version, Path(scratch)), version)


def _load(folder: Path, version: Version) -> Predictor:
    """With the version's name in the message, not a path of this machine."""
    try:
        return Predictor.load(folder)
    except BundleError as error:
        where = f"{version.name}/{version.version}"
        raise BundleError(f"{where}: {str(error).replace(f'{folder}/', '')}") from error
