"""Memory that runs out ends with one line."""

import dataclasses

import numpy as np
import pytest
import torch

from tests.extra.levels_dataset import CLASS_NAMES, SOURCE
from trainer.config import Config
from trainer.training.estimate import images_per_second
from trainer.training.folds import fold_config, out_of_fold
from trainer.training.memory import telling_out_of_memory


def test_memory_that_is_not_there_is_told_with_what_to_do():
    with (
        pytest.raises(
            MemoryError, match=r"of this machine is not enough for batches of 64 .* lower --batch-size"
        ),
        telling_out_of_memory(Config(batch_size=64)),
    ):
        torch.empty(2**55, dtype=torch.uint8)


def test_memory_of_a_gpu_is_told_as_such():
    with pytest.raises(MemoryError, match="on the GPU"), telling_out_of_memory(Config()):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")


def test_other_errors_stay_what_they_are():
    with pytest.raises(RuntimeError, match="mat1"), telling_out_of_memory(Config()):
        torch.ones(2, 3) @ torch.ones(2, 3)


@pytest.mark.parametrize("module", ["estimate", "folds"])
def test_so_it_is_where_a_training_is_estimated_or_labels_are_judged_which_have_no_flag_for_it(
    monkeypatch, module
):
    monkeypatch.setattr(f"trainer.training.{module}.fit", lambda *_: torch.empty(2**55, dtype=torch.uint8))
    data = SOURCE.load(None, ("train",)).parts["train"]
    config = dataclasses.replace(fold_config(epochs=1, seed=0), blocks="4")
    no_twins, classes = np.empty((0, 2), dtype=np.int64), len(CLASS_NAMES)
    begin = {
        "estimate": lambda: images_per_second(config, data, classes),
        "folds": lambda: out_of_fold(data, no_twins, classes, config, 2),
    }[module]
    with pytest.raises(MemoryError, match=r"of this machine is not enough .* px: end other programs first"):
        begin()
