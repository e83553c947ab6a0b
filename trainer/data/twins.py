"""Near-duplicates: images that are the same photograph, brightness, border and compression apart."""

import numpy as np
import torch
from torch import Tensor

LEAST_CORRELATION = 0.985
LARGEST_DIFFERENCE = 8.0
"""Mean absolute difference, in grey levels of 256."""
_ROWS = 256
_BLOCK = 4
_ROUNDING = 1e-4


def twin_pairs(first: Tensor, second: Tensor | None = None) -> np.ndarray:
    """Positions of images that are twins, int64 (P, 2): one of `first`, one of `second`, in order of `first`.

    Twins correlate above LEAST_CORRELATION and differ by less than LARGEST_DIFFERENCE. With these limits FER-2013's
    PublicTest has 293 images with a twin in train. Blank images have no twins: nothing correlates with them.

    Args:
        first, second: uint8 (N, 1, S, S) and (M, 1, S, S). Without `second`, pairs inside of `first`, each once
            and the earlier image first.
    """
    within = second is None
    others = first if second is None else second
    if not len(first) or not len(others):
        return np.empty((0, 2), np.int64)
    bounds, bounds_of_others = _bounding(first), _bounding(others).T
    found = []
    for start in range(0, len(first), _ROWS):
        close = bounds[start : start + _ROWS] @ bounds_of_others > LEAST_CORRELATION - _ROUNDING
        if within:  # of the pairs (i, j), those with i < j
            close = torch.triu(close, diagonal=start + 1)
        pairs = close.nonzero()
        pairs[:, 0] += start
        found += [_twins(part, first, others) for part in pairs.split(_ROWS)]
    return torch.cat(found).numpy()


def _twins(pairs: Tensor, first: Tensor, others: Tensor) -> Tensor:
    """Those of `pairs`, int64 (P, 2), that are twins."""
    ours, theirs = first[pairs[:, 0]], others[pairs[:, 1]]
    correlations = (_directions(ours) * _directions(theirs)).sum(dim=(1, 2, 3))
    differences = (ours.float() - theirs.float()).abs().mean(dim=(1, 2, 3))
    return pairs[(correlations > LEAST_CORRELATION) & (differences < LARGEST_DIFFERENCE)]


def _directions(images: Tensor) -> Tensor:
    """float32 (N, 1, S, S): each image about its mean, of length 1, so that products are correlations; blank ones 0."""
    flat = images.flatten(1).float()
    flat = flat - flat.mean(dim=1, keepdim=True)
    return torch.nn.functional.normalize(flat, dim=1, eps=1e-3).view(images.shape)


def _bounding(images: Tensor) -> Tensor:
    """float32 (N, D): vectors whose products are no smaller than the correlations, with D far below S².

    They are the direction's part P in the space of block means, and the length of the rest Q: a·b is Pa·Pb + Qa·Qb and
    so at most Pa·Pb + |Qa| |Qb|. Faces are smooth, the rest is small, and few pairs remain to be looked at. Directions
    take 16 times the memory, so only some are held at a time.
    """
    return torch.cat([_bounding_of(_directions(part)) for part in images.split(_ROWS)])


def _bounding_of(directions: Tensor) -> Tensor:
    block = _BLOCK if directions.shape[-1] % _BLOCK == 0 else 1
    coarse = torch.nn.functional.avg_pool2d(directions, block).flatten(1) * block
    length = directions.flatten(1).norm(dim=1)
    rest = (length.square() - coarse.square().sum(dim=1)).clamp_min(0).sqrt()
    return torch.cat([coarse, rest[:, None]], dim=1)
