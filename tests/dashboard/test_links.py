"""Links to MLflow's own interface."""

import pytest

from dashboard.links import mlflow_version_url
from trainer.store.location import Store


@pytest.mark.parametrize(
    ("uri", "elsewhere", "link"),
    [
        ("sqlite:////a/mlruns/mlflow.db", None, "http://127.0.0.1:5000/#/models/a%2Fb%20c/versions/3"),
        ("sqlite:////a/mlruns/mlflow.db", "http://h:1/", "http://h:1/#/models/a%2Fb%20c/versions/3"),
        ("https://ann:s3cret@h/mlflow", None, "https://h/mlflow/#/models/a%2Fb%20c/versions/3"),
    ],
)
def test_a_version_is_linked_where_it_can_be_seen_and_without_a_password(monkeypatch, uri, elsewhere, link):
    if elsewhere:
        monkeypatch.setenv("MOODIFY_MLFLOW_URL", elsewhere)
    else:
        monkeypatch.delenv("MOODIFY_MLFLOW_URL", raising=False)
    assert mlflow_version_url(Store(uri, None), "a/b c", 3) == link
