"""A loss that is no number, gradients that explode, and memory that runs out."""

import resource

from tests.faults.disk import clear
from tests.faults.scene import apart, place, train, whole

AHEAD_BYTES = 400 * 1024**2


def little_memory() -> None:
    """This process may take only so much more than it has."""
    with open("/proc/self/statm") as file:  # noqa: PTH123
        held = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + AHEAD_BYTES, held + AHEAD_BYTES))


def _ended(*flags: str, before=None) -> str:
    with place(images=200):
        victim = train("--epochs", "3", *flags, before=before)
        assert victim.finish() == 2, victim.said()
        told = clear(victim.said())
        seen = apart(whole)
        row = seen["runs"][victim.run_id]
        assert row["status"] == "failed", row
        assert row["reason"]
        assert not seen["versions"]
        return f"{told} | status {row['status']}, reason: {row['reason'][:120]}"


def nan_loss() -> list[str]:
    """A learning rate that no weights survive; with SGD it explodes, with Adam it ends in numbers that are none."""
    sgd = _ended("--optimizer", "sgd", "--learning-rate", "10", "--weight-decay", "10")
    return [f"exploding gradients: {sgd}"]


def out_of_memory() -> list[str]:
    wide = ("--blocks", "256x2 256x2", "--batch-size", "1000")
    return [f"CPU: {_ended(*wide, before=little_memory)}"]
