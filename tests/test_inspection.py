"""Who judges labels and which images are looked at; the whole story is told in tests/commands/test_audit.py."""

import numpy as np
import pandas as pd
import pytest
import torch

from tests.extra.audits import HOSTILE, SAMPLES
from trainer.contract import UNCALIBRATED
from trainer.data.base import Split
from trainer.evaluation.metrics import prediction_table
from trainer.inspection import evenly, is_unchanged, match

NAMES = ("happy", "sad", HOSTILE)
TARGET = SAMPLES["label"].map({name: index for index, name in enumerate(NAMES)}).to_numpy()


def answers(positions: list[int], value: float, part: str = "test") -> pd.DataFrame:
    """A run's predictions for some of the samples: `value` for the label, the rest for the class after it."""
    probabilities = np.zeros((len(positions), 3))
    rows = np.arange(len(positions))
    probabilities[rows, TARGET[positions]] = value
    probabilities[rows, (TARGET[positions] + 1) % 3] = 1 - value
    return prediction_table(
        part, SAMPLES["sample_id"].iloc[positions], TARGET[positions], probabilities, NAMES
    )


def test_the_answers_of_several_runs_are_averaged_where_both_have_one():
    table = pd.concat([answers([6, 7], 0.2), answers([7, 1], 0.6, "validation")])
    found = match(table, SAMPLES, NAMES, "a,b")
    assert found.positions.tolist() == [1, 6, 7]
    own = found.probabilities[np.arange(3), TARGET[found.positions]]
    np.testing.assert_allclose(own, [0.6, 0.2, 0.4], rtol=1e-6)
    assert found.by.startswith("a,b,")


def test_answers_before_calibration_do_not_count():
    table = pd.concat([answers([6], 0.2), answers([6], 0.6, "test_uncalibrated")])
    [own] = match(table, SAMPLES, NAMES, "m").probabilities[:, TARGET[6]]
    assert own == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (answers([6], 0.5).rename(columns={"p_sad": "p_cat"}), "--model m knows other classes than the data: happy"),
        (answers([6], 0.5).assign(sample_id="other"), "--model m was validated and tested on none of these images"),
        (answers([6], 0.5).assign(label="sad"), "images of these names with other labels"),
    ],
)  # fmt: skip
def test_answers_to_other_data_judge_nothing(table, message):
    with pytest.raises(ValueError, match=message):
        match(table, SAMPLES, NAMES, "m")


def test_every_run_is_held_to_the_labels_and_not_the_first_alone():
    table = pd.concat([answers([6], 0.5), answers([6], 0.5).assign(label="sad")])
    with pytest.raises(ValueError, match="images of these names with other labels"):
        match(table, SAMPLES, NAMES, "a,b")


def test_images_that_were_replaced_or_removed_since_they_were_answered_are_not_taken_for_the_same():
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (len(SAMPLES), 1, 4, 4), dtype=torch.uint8, generator=generator)
    data = Split(images, torch.from_numpy(TARGET), tuple(SAMPLES["sample_id"]))
    parts = {"validation": [1, 4], "test": [6, 7]}
    tables = [
        answers(where, 0.5, part).assign(fingerprint=data.select(np.array(where)).fingerprint(NAMES))
        for part, where in parts.items()
    ]
    table = pd.concat([*tables, tables[1], answers([6, 7], 0.4, UNCALIBRATED)])
    assert is_unchanged(table, data, NAMES)
    changed = Split(images.clone(), data.target, data.sample_ids)
    changed.images[4] = 0
    assert not is_unchanged(table, changed, NAMES)
    assert not is_unchanged(table, data.select(np.arange(7)), NAMES)
    changed.images[4], changed.images[0] = images[4], 0  # which was not answered
    assert is_unchanged(table, changed, NAMES)


@pytest.mark.parametrize(("size", "wanted"), [(10, 0), (10, 3), (10, 10), (10, 50), (32298, 300)])
def test_some_images_are_taken_with_even_gaps_and_each_once(size, wanted):
    found = evenly(size, wanted)
    assert len(found) == min(size, wanted)
    assert set(np.diff(found)) <= {size // max(wanted, 1), size // max(wanted, 1) + 1, 1}
    assert len(np.unique(found)) == len(found)
    assert len(evenly(size, None)) == size
