"""An exponential moving average of a network's weights and statistics."""

from itertools import chain

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel


class WeightAverage(AveragedModel):
    """torch's, moved in a few operations that wait for nothing.

    torch's own asks how many were averaged on the device of the weights: twice in a step, a GPU was waited for. Integer
    buffers, the batches that batch norms have counted, are copied.

    After n steps it moves by 1 - min(decay, n / (n + 10)): else where few images make few steps, most of what is judged
    would be the network of the first one.
    """

    def __init__(self, model: nn.Module, decay: float):
        super().__init__(model, use_buffers=True)
        self.decay = decay

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        pairs = list(zip(_tensors(self.module), _tensors(model), strict=True))
        numbers = [(own, new) for own, new in pairs if own.is_floating_point()]
        counts = [(own, new) for own, new in pairs if not own.is_floating_point()]
        steps = int(self.n_averaged)  # it lies on the CPU
        if steps == 0:
            counts, numbers = pairs, []
        if counts:
            torch._foreach_copy_([own for own, _ in counts], [new for _, new in counts])
        if numbers:
            decay = min(self.decay, steps / (steps + 10))
            torch._foreach_lerp_([own for own, _ in numbers], [new for _, new in numbers], 1 - decay)
        self.n_averaged += 1


def _tensors(model: nn.Module) -> list[torch.Tensor]:
    return list(chain(model.parameters(), model.buffers()))
