"""Says plainly that memory has run out, and what to do."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from trainer.config import Config

# How PyTorch's allocators on the CPU say it, in a plain RuntimeError.
_ON_CPU = ("not enough memory", "can't allocate memory", "Cannot allocate memory")


@contextmanager
def telling_out_of_memory(config: Config, advice: str = "lower --batch-size") -> Iterator[None]:
    """Memory that runs out inside, on the CPU or a GPU, raises MemoryError with one line that ends with `advice`."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            where = "on the GPU"
        elif isinstance(error, MemoryError) or any(words in str(error) for words in _ON_CPU):
            where = "of this machine"
        else:
            raise
        raise MemoryError(
            f"the memory {where} is not enough for batches of {config.batch_size} images of {config.image_size} px: "
            f"{advice}"
        ) from error
