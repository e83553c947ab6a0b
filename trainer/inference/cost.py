"""What a model costs to serve: its size, its multiply-adds, and how long this machine's CPU takes for an answer."""

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from trainer.contract import WEIGHTS_FILE
from trainer.inference.predictor import Predictor
from trainer.models.base import to_unit_range

WARM_UPS = 3
REPEATS = {1: 20, 32: 5}
"""Batch size → measured calls."""


def serving_cost(folder: Path) -> dict[str, float]:
    """Of the model in `folder`, in 32-bit floats on the CPU, as the median of REPEATS.

    `cost/size_bytes` of the weights, `cost/gmacs` (10⁹ multiply-adds for one image), `cost/latency_ms` for one
    image and `cost/latency_32_ms` for a batch of 32: of whole answers, with all views that are averaged;
    `cost/latency_one_view_ms` is what one image would take without averaging.

    Raises BundleError where there is no usable model.
    """
    model = Predictor.load(folder)
    images = torch.randint(256, (max(REPEATS), 1, model.size, model.size), dtype=torch.uint8)
    one = to_unit_range(images[:1])
    with torch.inference_mode():
        latencies = {
            batch: _milliseconds(model, images[:batch], repeats) for batch, repeats in REPEATS.items()
        }
        one_view = _milliseconds(model.network.classifier, one, REPEATS[1])
        with FlopCounterMode(display=False) as counter:
            model.network(one)
    return {
        "cost/size_bytes": float((folder / WEIGHTS_FILE).stat().st_size),
        "cost/gmacs": counter.get_total_flops() / 2e9,
        "cost/latency_ms": latencies[1],
        "cost/latency_32_ms": latencies[32],
        "cost/latency_one_view_ms": one_view,
    }


def _milliseconds(model: Callable[[torch.Tensor], object], images: torch.Tensor, repeats: int) -> float:
    times = []
    for index in range(WARM_UPS + repeats):
        started = time.perf_counter()
        model(images)
        if index >= WARM_UPS:
            times.append((time.perf_counter() - started) * 1000)
    return statistics.median(times)
