"""Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon): momentum whose updates are made orthogonal."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic iteration; from Jordan's own."""
_ITERATIONS = 5
_ADAM_UPDATE = 0.2
"""Root mean square of AdamW's updates, about, as a share of the learning rate (arXiv 2502.16982)."""


def suits(parameter: Tensor) -> bool:
    """Whether Muon is meant for a parameter: filters over features, but not over an image, and no head."""
    return parameter.ndim == 4 and parameter.shape[1] > 3


class Muon(Optimizer):
    """For filters; a filter bank (O, I, H, W) is taken as the matrix (O, I·H·W).

    Updates are scaled to the size of AdamW's (arXiv 2502.16982), so that both take the same learning rate and
    weight decay.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter] | Iterable[dict[str, Any]],
        lr: float = 1e-3,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
    ):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            momentum, rate = group["momentum"], group["lr"]
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["momentum"] = torch.zeros_like(parameter)
                average = state["momentum"].lerp_(parameter.grad, 1 - momentum)
                update = orthogonal(parameter.grad.lerp(average, momentum).flatten(1))  # Nesterov's
                scale = _ADAM_UPDATE * max(update.shape) ** 0.5
                # A schedule may hand the rate over as a tensor on the device, so that nothing waits for it.
                parameter.mul_(1 - rate * group["weight_decay"])
                parameter.sub_(update.view_as(parameter) * (rate * scale))
        return loss


def orthogonal(matrix: Tensor) -> Tensor:
    """About U·Vᵀ of the singular value decomposition U·S·Vᵀ of a float32 matrix (M, N); singular values near 1.

    A Newton-Schulz iteration. All of it but the first and the last product is done on the smaller Gram matrix, which
    costs less than half for filters.
    """
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    wide = wide / (wide.norm() + 1e-7)
    gram = wide @ wide.T
    first, second, third = _COEFFICIENTS
    product = None
    for iteration in range(_ITERATIONS):
        factor = torch.addmm(gram, gram, gram, beta=second, alpha=third)
        factor.diagonal().add_(first)
        product = factor if product is None else factor @ product
        if iteration < _ITERATIONS - 1:
            gram = factor @ gram @ factor
    assert product is not None
    wide = product @ wide
    return wide if matrix.shape[0] <= matrix.shape[1] else wide.T
