"""Calibration: the temperature at which probabilities mean what they say."""

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp, softmax

LOWEST, HIGHEST = 0.1, 10.0
"""Temperatures between which one is looked for."""
PRIOR_WEIGHT = 2.0
"""Of the squared logarithm of the temperature, against the summed cross-entropy: that of a normal prior around 1 whose
deviation is a factor of e^0.5. It decides where validation is small: without a mistake among some ten images the
cross-entropy alone asks for a temperature as low as there is, and probabilities of 1. Among 1,000 it says nothing."""


def fit_temperature(logits: np.ndarray, target: np.ndarray) -> float:
    """The temperature at which the mean of the views' probabilities has the least cross-entropy, but for a weak prior.

    Guo et al., arXiv 1706.04599, for answers that are averaged over views: the temperature acts before the mean, as
    in `trainer.models.base.Probabilities`. With one view the order of the answers stays as it is.

    Args:
        logits: float (V, N, K), of V views of N images. target: int (N,).

    Without images the temperature is 1.
    """
    if not len(target):
        return 1.0
    logits = logits.astype(np.float64)
    bounds = np.log([LOWEST, HIGHEST])

    def cost(log_temperature: float) -> float:
        prior = PRIOR_WEIGHT * log_temperature**2 / len(target)
        return cross_entropy(logits, target, float(np.exp(log_temperature))) + prior

    found = minimize_scalar(
        cost,
        bounds=(bounds[0], bounds[1]),
        method="bounded",
        options={"xatol": 1e-4},
    )
    return float(np.exp(found.x))


def averaged(logits: np.ndarray, temperature: float) -> np.ndarray:
    """Mean of the views' probabilities at a temperature, float32 (N, K), of logits (V, N, K)."""
    return softmax(logits.astype(np.float64) / temperature, axis=2).mean(axis=0).astype(np.float32)


def cross_entropy(logits: np.ndarray, target: np.ndarray, temperature: float) -> float:
    """Of the mean of the views' probabilities at a temperature, in nats; arguments as above."""
    scaled = logits / temperature
    of_truth = scaled[:, np.arange(len(target)), target] - logsumexp(scaled, axis=2)  # (V, N)
    return float(np.log(len(logits)) - logsumexp(of_truth, axis=0).mean())
