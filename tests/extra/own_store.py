"""The trained store once more, for a test that changes it."""

from pathlib import Path

from tests.extra.grey_faces import Trained
from trainer.store.backup import back_up, restore
from trainer.store.location import SQLITE_PREFIX, Store, embedded_uri, open_store


def own_store(trained: Trained) -> Store:
    """A copy in the working directory, as SQLite makes it.

    The database is open in this process, and who reads its file closes it again: with that go all locks on it.
    """
    back_up(open_store(uri=f"{SQLITE_PREFIX}{trained.root}/mlruns/mlflow.db"), file := Path("trained.tar"))
    restore(file, Path("mlruns/mlflow.db").absolute())
    file.unlink()
    return open_store(uri=embedded_uri())
