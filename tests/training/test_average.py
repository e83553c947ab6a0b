"""The average of weights is torch's, and asks a GPU nothing."""

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils._python_dispatch import TorchDispatchMode

from trainer.training.average import WeightAverage


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 3), nn.BatchNorm2d(2))


def test_it_is_torchs_own_but_for_the_batches_counted():
    model = network()
    ours = WeightAverage(model, 0.9)
    theirs = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
    for _ in range(4):
        model(torch.randn(3, 1, 8, 8))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter))
        ours.update_parameters(model)
        theirs.update_parameters(model)
    found, expected = ours.state_dict(), theirs.state_dict()
    assert found.keys() == expected.keys()
    for name, value in found.items():
        if name.endswith("num_batches_tracked"):
            assert value == 4
        else:
            torch.testing.assert_close(value, expected[name])


def test_it_takes_a_few_operations_however_many_layers_there_are():
    model = network()
    average = WeightAverage(model, 0.9)
    average.update_parameters(model)
    with Counting() as counting:
        average.update_parameters(model)
    assert counting.operations <= 5


class Counting(TorchDispatchMode):
    operations = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.operations += 1
        return func(*args, **(kwargs or {}))
