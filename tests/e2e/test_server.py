"""A store behind a server says the same as its tables."""

import pytest

from tests.e2e.conftest import Place
from tests.extra.same_store import assert_same
from trainer.contract import EPOCH_METRICS
from trainer.store.location import Store
from trainer.store.reader import Reader

pytestmark = pytest.mark.xdist_group("browser")  # the server that the browser tests have


def test_a_server_says_the_same_as_the_tables(place: Place, mlflow_ui: str):
    served = Reader(Store(mlflow_ui, None))
    assert_same(Reader(place.store), served)
    history = served.histories(list(place.runs.values()), EPOCH_METRICS)
    assert len(history) == len(place.runs) * 8 * len(EPOCH_METRICS)
    assert served.predictions(place.runs["cnn"]) is not None
