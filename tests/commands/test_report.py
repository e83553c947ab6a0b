"""What a training says at its end: which model is there to be tried."""

from types import SimpleNamespace

import numpy as np
import pytest

from trainer.commands.report import outcome_table
from trainer.config import Config
from trainer.evaluation.metrics import evaluate


def outcome(version: int, is_champion: bool) -> SimpleNamespace:
    return SimpleNamespace(
        config=Config(), model_name="faces-emotion", version=version, is_champion=is_champion,
        test=evaluate(np.array([0, 1]), np.eye(2), ["happy", "sad"]), best_epoch=SimpleNamespace(number=1), epochs=1,
        training_seconds=1.0, images_per_second=2.0,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("champions", "named"),
    [([True, False], "@champion"), ([False, True], "@champion"), ([False, False], "/2")],
)
def test_the_model_to_try_is_one_that_was_trained_now(champions, named, capsys):
    outcome_table([outcome(number, champion) for number, champion in enumerate(champions, 1)])
    assert f"python -m trainer predict faces-emotion{named} IMAGE" in capsys.readouterr().out
