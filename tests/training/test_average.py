"""The average of weights is torch's, and asks a GPU nothing."""

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel
from torch.utils._python_dispatch import TorchDispatchMode

from trainer.training.average import WeightAverage


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 3), nn.BatchNorm2d(2))


def test_it_is_torchs_own_but_for_the_batches_counted_and_a_shorter_memory_at_first():
    model = network()
    ours = WeightAverage(model, 0.8)
    theirs = AveragedModel(model, avg_fn=moving, use_buffers=True)
    for _ in range(60):  # from 40 on the decay is what was asked for
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
            assert value == 60
        else:
            torch.testing.assert_close(value, expected[name])


def moving(average: torch.Tensor, current: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
    if not average.is_floating_point():
        return current
    return torch.lerp(average, current, 1 - min(0.8, float(steps / (steps + 10))))


def test_little_is_left_of_the_first_step_where_there_are_few():
    """As many as 1,000 images make in 80 epochs of `best`: with its decay alone, 45% of the weights."""
    model = nn.Linear(1, 1)
    average = WeightAverage(model, 0.99)
    nn.init.constant_(model.weight, 1.0)
    for step in range(80):
        average.update_parameters(model)
        if step == 0:
            nn.init.constant_(model.weight, 0.0)
    assert average.module.weight.item() < 1e-6


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
