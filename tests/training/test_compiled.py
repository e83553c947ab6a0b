"""Compiled training: the same numbers, one graph a side, and in every training of a process."""

import dataclasses
from collections.abc import Iterator

import pytest
import torch

from trainer.config import Config, recipe_defaults
from trainer.data.base import Split
from trainer.training import loop
from trainer.training.environment import make_fabric
from trainer.training.loop import Training, fit, warm_up
from trainer.training.pretrained import make_classifier


@pytest.fixture
def compiled_sides(monkeypatch) -> Iterator[list[int]]:
    """Sides of the images that graphs are compiled for, in order; torch traces them, and no C++ compiler is asked."""
    sides: list[int] = []
    really = torch.compile

    def backend(graph, inputs):
        sides.extend(each.shape[-1] for each in inputs if each.ndim == 4 and each.shape[-1] > 3)
        return graph.forward

    monkeypatch.setattr(
        torch, "compile", lambda model, **options: really(model, **options | {"backend": backend})
    )
    yield sides
    torch.compiler.reset()


def train(blocks: str, **changes: object) -> list[tuple[float, float]]:
    """(Loss on train, loss on validation) of each epoch, over 16 images of noise in batches of 8."""
    wanted = {
        "blocks": blocks, "hidden": 0, "dropout": 0.0, "image_size": 36, "progressive": "32:0.5", "epochs": 4,
        "batch_size": 8, "precision": "32", "device": "cpu",
    }  # fmt: skip
    config: Config = dataclasses.replace(recipe_defaults("fast", "cnn"), **wanted | changes)
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (16, 1, 36, 36), generator=generator, dtype=torch.uint8)
    data = Split(images, torch.arange(16) % 3, tuple(map(str, range(16))))
    torch.manual_seed(0)
    classifier, config = make_classifier(config, 3, 0.5, 0.25)
    training = Training(classifier, config, make_fabric(config))
    return [(epoch.train_loss, epoch.validation_loss) for epoch in fit(training, data, data, 3)]


@pytest.mark.parametrize(("precision", "tolerance"), [("32", 1e-4), ("bf16", 2e-2)])
def test_a_compiled_training_has_the_numbers_of_one_that_is_not(compiled_sides, precision, tolerance):
    plain = train("4 8", precision=precision)
    assert compiled_sides == []
    together = train("4 8", precision=precision, compile=True)
    assert compiled_sides == [32, 36]
    torch.testing.assert_close(torch.tensor(together), torch.tensor(plain), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("changes", [{"clean_end": 0.5}, {"rotation": 0.0, "zoom": 0.0, "shift": 0.0}])
def test_what_is_compiled_first_is_what_is_trained(compiled_sides, monkeypatch, changes):
    first = []
    monkeypatch.setattr(loop, "warm_up", lambda *given: (warm_up(*given), first.extend(compiled_sides))[0])
    train("4 8", compile=True, **changes)
    assert first == compiled_sides != []


@pytest.mark.slow
def test_each_side_is_compiled_once_in_every_training_of_a_process(compiled_sides):
    for width in range(4, 10):  # twelve graphs: torch would compile eight of them
        compiled_sides.clear()
        train(f"{width} 8", compile=True)
        assert compiled_sides == [32, 36]
