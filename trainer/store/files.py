"""One file of a run, wherever the store keeps it."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.utils.rest_utils import http_request

from trainer.store.location import Store, StoreError, reason

T = TypeVar("T")


def read_file(store: Store, run_id: str, path: str, read: Callable[[Path], T]) -> T | None:
    """What `read` makes of a file of a run; None where the run has no such file.

    Args:
        path: Below the run's artifacts.

    Raises StoreError where the file cannot be fetched, or `read` raises OSError or ValueError.
    """
    # The id is whatever stands in the store, and may not lead out of the folder.
    root = store.artifact_root if run_id.isalnum() else None
    if root is not None and (file := root / run_id / "artifacts" / path).is_file():
        # Where MLflow keeps it; asking MLflow costs ten times as much.
        return _reading(read, file, run_id, path)
    client = store.client()
    folder, _, name = path.rpartition("/")
    try:
        with tempfile.TemporaryDirectory() as scratch:
            if (content := _ask_server(client, run_id, path)) is not None:
                file = Path(scratch, name)
                file.write_bytes(content)
                return _reading(read, file, run_id, path)
            if name not in {item.path.rpartition("/")[2] for item in client.list_artifacts(run_id, folder)}:
                return None
            return _reading(read, Path(client.download_artifacts(run_id, path, scratch)), run_id, path)
    except (MlflowException, OSError) as error:
        raise StoreError(f"{path} of run {run_id[:8]} cannot be fetched: {reason(error)}") from error


def _ask_server(client: MlflowClient, run_id: str, path: str) -> bytes | None:
    """The file, in one request instead of the client's nine; None where the store is no server, or gives none.

    It is the request of MLflow's own interface. Of a file that is not there servers say so with various errors, 500
    among them, so nothing is repeated: whoever gets None asks the client, which does.
    """
    credentials = getattr(client._tracking_client.store, "get_host_creds", None)
    if credentials is None:
        return None
    try:
        answer = http_request(
            credentials(), "/get-artifact", "GET", max_retries=0, raise_on_status=False,
            params={"run_uuid": run_id, "path": path},
        )  # fmt: skip
    except MlflowException:
        return None
    is_file = answer.status_code == 200 and "attachment" in answer.headers.get("Content-Disposition", "")
    return answer.content if is_file else None


def _reading(read: Callable[[Path], T], file: Path, run_id: str, path: str) -> T:
    try:
        return read(file)
    except (OSError, ValueError) as error:
        raise StoreError(f"{path} of run {run_id[:8]} cannot be read: {reason(error)}") from error
