"""Memory that runs out ends with one line."""

import pytest
import torch

from trainer.config import Config
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
