"""Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon): momentum whose updates are made orthogonal."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic iteration; from Jordan's own."""
_ITERATIONS = {torch.float32: (5,), torch.bfloat16: (2, 3)}
"""Type of the products → iterations on one Gram matrix, and on the next. Rounded to bfloat16, a Gram matrix may have
negative eigenvalues, which grow: after five iterations on one, a matrix of low rank comes out a thousand times too
large."""
_ADAM_UPDATE = 0.2
"""Root mean square of AdamW's updates, about, as a share of the learning rate (arXiv 2502.16982)."""


def suits(parameter: Tensor) -> bool:
    """Whether Muon is meant for a parameter: filters over features, but not over an image, and no head."""
    return parameter.ndim == 4 and parameter.shape[1] > 3


class Muon(Optimizer):
    """For filters; a filter bank (O, I, H, W) is taken as the matrix (O, I·H·W).

    Updates are scaled to the size of AdamW's (arXiv 2502.16982), so that both take the same learning rate and
    weight decay. They are made orthogonal in `dtype`, float32 or bfloat16; all else is in that of the parameters.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter] | Iterable[dict[str, Any]],
        lr: float = 1e-3,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        dtype: torch.dtype = torch.float32,
    ):
        self.dtype = dtype
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            if not parameters:
                continue
            momentum, rate = group["momentum"], group["lr"]
            gradients = [parameter.grad for parameter in parameters]
            averages = [self._average(parameter) for parameter in parameters]
            torch._foreach_lerp_(averages, gradients, 1 - momentum)
            ahead = torch._foreach_lerp(gradients, averages, momentum)  # Nesterov's
            updates = orthogonal([each.flatten(1) for each in ahead], self.dtype)
            torch._foreach_mul_(
                updates, [rate * _ADAM_UPDATE * max(update.shape) ** 0.5 for update in updates]
            )
            torch._foreach_mul_(parameters, 1 - rate * group["weight_decay"])
            torch._foreach_sub_(parameters, [u.view_as(p) for u, p in zip(updates, parameters, strict=True)])
        return loss

    def _average(self, parameter: Tensor) -> Tensor:
        """The momentum of a parameter, of its shape; zero at first."""
        state = self.state[parameter]
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        return state["momentum"]


def orthogonal(matrices: Sequence[Tensor], dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """About U·Vᵀ of the singular value decomposition U·S·Vᵀ of each float32 matrix (M, N); singular values near 1.

    A Newton-Schulz iteration, in `dtype`. All of it but the first and the last product is done on the smaller Gram
    matrix, which costs less than half for filters; Gram matrices of one size go through it together, which saves a GPU
    most of its launches.
    """
    wide = [matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T for matrix in matrices]
    wide = [(each / (each.norm() + 1e-7)).to(dtype) for each in wide]
    of_size: dict[int, list[int]] = {}
    for index, each in enumerate(wide):
        of_size.setdefault(len(each), []).append(index)
    for iterations in _ITERATIONS[dtype]:
        for members in of_size.values():
            products = _iterate(torch.stack([wide[index] @ wide[index].T for index in members]), iterations)
            for index, product in zip(members, products.unbind(), strict=True):
                wide[index] = product @ wide[index]
    wide = [each.float() for each in wide]
    return [w if m.shape[0] <= m.shape[1] else w.T for w, m in zip(wide, matrices, strict=True)]


def _iterate(gram: Tensor, iterations: int) -> Tensor:
    """What each matrix is multiplied by, (B, M, M), of the Gram matrices (B, M, M)."""
    factor = product = _factor(gram)
    for _ in range(iterations - 1):
        gram = torch.bmm(torch.bmm(factor, gram), factor)  # `@` would make five views for each product
        factor = _factor(gram)
        product = torch.bmm(factor, product)
    return product


def _factor(gram: Tensor) -> Tensor:
    """a·I + b·G + c·G² of each Gram matrix G."""
    first, second, third = _COEFFICIENTS
    factor = torch.baddbmm(gram, gram, gram, beta=second, alpha=third)
    factor.diagonal(dim1=1, dim2=2).add_(first)
    return factor
