"""What is logged of the test set at the end of a training."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from trainer.contract import CONDITIONS_FILE
from trainer.data.base import Split
from trainer.evaluation.slices import CONDITIONS
from trainer.training import results


def test_of_each_slice_it_is_logged_how_far_off_it_is_and_whether_by_more_than_chance(monkeypatch, tmp_path):
    index, ids = np.arange(300), tuple(map(str, range(300)))
    target = index % 2
    measured = pd.DataFrame({"sample_id": ids, "brightness": index, "contrast": 113 * index % 300})
    monkeypatch.setattr(results, "conditions", lambda *_: measured)
    monkeypatch.setattr(results, "attention", lambda *_: None)
    test = Split(torch.zeros(300, 1, 8, 8, dtype=torch.uint8), torch.tensor(target), ids)
    splits, logged = SimpleNamespace(test=test, class_names=("a", "b")), {}
    (tmp_path / CONDITIONS_FILE).parent.mkdir()
    preds = np.where(index < 60, 1 - target, target)  # only of the darkest third some are wrong
    results.log_weaknesses(SimpleNamespace(log_metrics=logged.update), tmp_path, splits, None, preds)
    darkest, medium, _ = CONDITIONS["brightness"]
    assert logged[f"slices/brightness/{darkest}"] == pytest.approx(-0.6)
    assert logged[f"slices_decided/brightness/{darkest}"] == 1
    assert logged[f"slices_decided/brightness/{medium}"] == 1
    assert [logged[f"slices_decided/contrast/{third}"] for third in CONDITIONS["contrast"]] == [0, 0, 0]
    assert len(logged) == 12
