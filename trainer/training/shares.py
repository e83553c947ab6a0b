"""A global batch that several processes share, so that their number does not change what is learned."""

from typing import Any, cast

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

Norm = nn.BatchNorm1d | nn.BatchNorm2d


class Share:
    """The part of the present batch that is this process's; the whole batch where there is one process."""

    def __init__(self, rank: int = 0, processes: int = 1):
        self.rank = rank
        self.processes = processes
        self.whole = 0
        """Images of the batch, of all processes together."""
        self.part = slice(None)
        """Of the batch; empty where it has fewer images than there are processes."""

    def take(self, whole: int) -> slice:
        """From now on the share of a batch, or of a split, of `whole` images.

        >>> [Share(rank, 3).take(8) for rank in range(3)]
        [slice(0, 2, None), slice(2, 5, None), slice(5, 8, None)]
        """
        self.whole = whole
        self.part = slice(whole * self.rank // self.processes, whole * (self.rank + 1) // self.processes)
        return self.part

    def mean(self, losses: Tensor) -> Tensor:
        """The mean over the share, float32 (), scaled so that the mean over the processes is that of the whole batch.

        Args:
            losses: Of each image of the share, float32 (B,).
        """
        if self.processes == 1:
            return losses.mean()
        return losses.sum() * (self.processes / self.whole)


class _Sum(torch.autograd.Function):
    """Over all processes; so is the gradient."""

    @staticmethod
    def forward(context: Any, values: Tensor) -> Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].contiguous().clone()
        dist.all_reduce(total)
        return total


def _summed_with_gradient(values: Tensor) -> Tensor:
    return cast(Tensor, _Sum.apply(values))


class SharedBatchNorm(_BatchNorm):
    """Normalises by the whole batch, as torch's SyncBatchNorm, which is for CUDA only, with torch's `all_reduce`."""

    def _check_input_dim(self, input: Tensor) -> None:  # noqa: A002 torch's name
        """Any is taken."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 torch's name
        if not self.training:
            return super().forward(input)
        axes = [axis for axis in range(input.ndim) if axis != 1]
        values = input.float()
        count = values.new_tensor([values.numel() / max(1, values.shape[1])])
        sums = _summed_with_gradient(torch.cat([values.sum(axes), count]))
        total = sums[-1]
        mean = sums[:-1] / total
        centred = values - mean.view(1, -1, *[1] * (input.ndim - 2))
        variance = _summed_with_gradient((centred * centred).sum(axes)) / total
        self._follow(mean.detach(), (variance * total / (total - 1)).detach())
        factor = self.weight * torch.rsqrt(variance + self.eps)
        shape = (1, -1, *[1] * (input.ndim - 2))
        return (centred * factor.view(shape) + self.bias.view(shape)).to(input.dtype)

    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        """Move the running statistics."""
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)


class SharedDropout(nn.Dropout):
    """Draws for the whole batch and applies its share: an image loses the same features in any number of parts."""

    def __init__(self, dropout: nn.Dropout, share: Share):
        super().__init__(dropout.p)
        self.share = share

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 torch's name
        if not self.training or self.p == 0:
            return input
        ones = torch.ones(self.share.whole, *input.shape[1:], dtype=input.dtype, device=input.device)
        return input * functional.dropout(ones, self.p)[self.share.part]


def share_layers(module: nn.Module, share: Share) -> None:
    """Replace the layers of `module` that see more than one image at a time, or draw at random; names stay.

    Frozen ones stay as they are: they neither draw nor look at the batch.
    """
    for name, child in module.named_children():
        if isinstance(child, Norm) and any(parameter.requires_grad for parameter in child.parameters()):
            setattr(module, name, _shared_norm(child))
        elif type(child) is nn.Dropout:
            setattr(module, name, SharedDropout(child, share))
        else:
            share_layers(child, share)


def _shared_norm(norm: Norm) -> _BatchNorm:
    kind = nn.SyncBatchNorm if norm.weight.is_cuda else SharedBatchNorm
    shared = kind(norm.num_features, norm.eps, norm.momentum or 0.1)
    shared.weight, shared.bias = norm.weight, norm.bias
    for name, buffer in norm.named_buffers():
        shared.register_buffer(name, buffer)
    return shared


def summed(fabric: Fabric, values: Tensor) -> Tensor:
    """The sum over all processes, on each of them."""
    if fabric.world_size == 1:
        return values
    return cast(Tensor, fabric.all_reduce(values, reduce_op="sum"))


def gathered(fabric: Fabric, value: Any) -> list[Any]:
    """What each process says, by rank, on each of them."""
    if not dist.is_initialized():
        return [value]
    answers: list[Any] = [None] * fabric.world_size
    dist.all_gather_object(answers, value)
    return answers


def is_loss_of_a_process(error: RuntimeError) -> bool:
    """Whether an error says that another process has gone, or cannot be reached, rather than that this one is wrong."""
    text = str(error).lower()
    return dist.is_initialized() and (
        isinstance(error, dist.DistError) or "gloo" in text or "connection closed by peer" in text
    )
