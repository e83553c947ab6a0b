"""What a model costs to serve, against what can be reckoned by hand."""

import pytest

from trainer.contract import COST_METRICS
from trainer.inference.bundle import ModelSpec, write
from trainer.inference.cost import serving_cost
from trainer.models.base import VIEWS


@pytest.mark.parametrize("averaging", VIEWS)
def test_size_multiply_adds_and_latency_are_measured_of_all_views(tmp_path, averaging):
    spec = ModelSpec(
        architecture="cnn", options={"blocks": "8", "hidden": 0, "dropout": 0.0}, class_names=("a", "b"),
        source_size=32, image_size=32, channels=1, mean=(0.5,), std=(0.5,), dataset="x", train_fingerprint="",
        averaging=averaging,
    )  # fmt: skip
    write(tmp_path, spec, spec.build().state_dict())
    cost = serving_cost(tmp_path)
    assert set(cost) == {name for name in COST_METRICS if name.startswith("cost/")}
    # A 3×3 convolution from 1 to 8 channels on 32×32, then 8 → 2 after pooling.
    assert cost["cost/gmacs"] * 1e9 == pytest.approx(VIEWS[averaging] * (32 * 32 * 9 * 8 + 8 * 2))
    assert cost["cost/size_bytes"] == (tmp_path / "weights.safetensors").stat().st_size
    assert 0 < cost["cost/latency_ms"] < cost["cost/latency_32_ms"]
