"""Where MLflow's own interface shows the same thing."""

import os
from urllib.parse import quote

from trainer.store.location import Store, redacted

LOCAL_UI = "http://127.0.0.1:5000"


def mlflow_version_url(store: Store, model: str, version: int) -> str:
    """On the server that is the store; for an embedded store where `make mlflow` (or MOODIFY_MLFLOW_URL) is.

    A link holds no password, also where the store's address does.
    """
    base = os.environ.get("MOODIFY_MLFLOW_URL") or (
        redacted(store.uri) if store.uri.startswith("http") else LOCAL_UI
    )
    return f"{base.rstrip('/')}/#/models/{quote(model, safe='')}/versions/{version}"
