"""What a training says while it goes on."""

import io
import logging
import signal

import pytest
from rich.console import Console

from trainer.commands.progress import Lines, LiveBar, stoppable
from trainer.config import Config
from trainer.store.location import StoreError
from trainer.training.loop import Epoch, Step

CONFIG = Config(epochs=10, image_size=40, progressive="20:0.4")


def epoch(number: int, seconds: float) -> Epoch:
    return Epoch(
        number=number, train_loss=1.0, train_accuracy=0.5, validation_loss=1.0, validation_accuracy=0.5,
        validation_macro_recall=0.5, learning_rate=0.1, images_per_second=100.0, seconds=seconds, best=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("first", "seconds", "left"),
    # Four epochs at 20 px, then six at 40 px, which take four times as long.
    [(1, [60], "27 min 0 s"), (1, [60, 60, 60, 60], "24 min 0 s"), (4, [60, 240], "20 min 0 s")],
)
def test_the_time_that_is_left_is_told_by_the_size_of_the_images_to_come(caplog, first, seconds, left):
    """Also after a resume, which has seen the later epochs alone."""
    lines = Lines()
    lines.started("0" * 32, CONFIG)
    with caplog.at_level(logging.INFO):
        for number, one in enumerate(seconds, first):
            lines.epoch(epoch(number, one))
    assert f"  {left} left" in caplog.messages[-1]


def test_the_time_that_is_left_of_a_run_is_not_told_by_the_run_before_it(caplog):
    """As of the second training of `make train`, and of every trial of a sweep but the first."""
    lines = Lines()
    with caplog.at_level(logging.INFO):
        for run_id, seconds in (("0" * 32, 600), ("1" * 32, 60)):
            lines.started(run_id, CONFIG)
            lines.epoch(epoch(1, seconds))
    assert "  27 min 0 s left" in caplog.messages[-1]


@pytest.mark.parametrize("epochs", [0, 1])
def test_whoever_stops_a_run_is_told_of_best_weights_only_where_it_has_some(monkeypatch, capsys, epochs):
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    lines = Lines()
    lines.started("0" * 32, CONFIG)
    for number in range(epochs):
        lines.epoch(epoch(number + 1, 60))
    with pytest.raises(KeyboardInterrupt), stoppable(lines):
        raise KeyboardInterrupt
    said = capsys.readouterr().err
    assert f"Go on with:\n  python -m trainer train --resume {'0' * 32}" in said
    assert ("best weights are kept" in said) == bool(epochs)


@pytest.mark.parametrize("error", [OSError, StoreError, MemoryError, FloatingPointError])
def test_who_loses_a_run_to_what_can_be_mended_is_told_how_to_resume_it(monkeypatch, capsys, error):
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    with pytest.raises(error, match="full"), stoppable(Lines()):  # nothing was begun
        raise error("full")
    assert not capsys.readouterr().err
    lines = Lines()
    lines.started("0" * 32, CONFIG)
    with pytest.raises(error, match="full"), stoppable(lines):
        raise error("full")
    can_be_mended = error not in (MemoryError, FloatingPointError)  # the same again would end alike
    assert (f"--resume {'0' * 32}" in capsys.readouterr().err) == can_be_mended


def test_so_it_is_within_the_first_epoch(monkeypatch):
    monkeypatch.setattr(
        "trainer.commands.progress._log_to_current_stderr", lambda: None
    )  # that is pytest's here
    bar = LiveBar(Console(file=io.StringIO(), width=200))
    try:
        bar.started("0" * 32, CONFIG)
        bar.step(Step(epoch=1, images=500, of_images=1000, loss=1.0, accuracy=0.5, images_per_second=50.0))
        [task] = bar._bar.tasks
        assert (
            "9 min 10 s left" in task.fields["detail"]
        )  # half an epoch, three more, and six of four each, at 20 s
    finally:
        bar.close()
