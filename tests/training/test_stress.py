"""Answers to worse images: the images are the same for everybody."""

import numpy as np
import pytest
import torch

from tests.training.test_loop import make_training, small_config, stripes
from trainer.training import stress


def test_worse_images_are_the_same_whatever_the_machine_computes_in(monkeypatch: pytest.MonkeyPatch) -> None:
    classifier = make_training(small_config()).classifier
    shown: dict[bool, list[torch.Tensor]] = {}
    for bf16 in (False, True):
        asked: list[torch.Tensor] = []

        def note(
            _model: object, images: torch.Tensor, _device: object, asked=asked, bf16=bf16
        ) -> torch.Tensor:
            assert torch.is_autocast_enabled("cpu") == bf16
            asked.append(images.clone())
            return torch.zeros(len(images), 3)

        monkeypatch.setattr(stress, "predict", note)
        monkeypatch.setattr(stress, "computes_bf16", lambda _, bf16=bf16: bf16)
        stress.stress(classifier, stripes(12), ("a", "b", "c"), torch.device("cpu"))
        shown[bf16] = asked
    assert len(shown[True]) == len(shown[False]) > 50
    for one, other in zip(shown[True], shown[False], strict=True):
        assert np.array_equal(one, other)
