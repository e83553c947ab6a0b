"""Where an embedded store keeps what a version is made of."""

from pathlib import Path

import mlflow

from trainer.contract import EXTRA_FILES
from trainer.store.registry import Version


def stored_files(version: Version) -> Path:
    """The folder with its weights and spec."""
    return Path(mlflow.artifacts.download_artifacts(f"{version.uri}/{EXTRA_FILES}"))
