"""Shows a run while it goes on: one live bar per epoch on a terminal, plain lines elsewhere."""

import logging
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from trainer import torchrun
from trainer.sides import Sides
from trainer.wording import duration

if TYPE_CHECKING:
    from trainer.config import Config
    from trainer.training.loop import Epoch, Step

log = logging.getLogger(__name__)


class Lines:
    """One readable line per epoch, for logs."""

    def __init__(self) -> None:
        self.run_id: str | None = None
        self._sides = Sides(0, 1)
        self._seconds = self._passes = 0.0

    def __enter__(self) -> "Lines":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Leave the screen as it is; nothing is shown afterwards."""

    def started(self, run_id: str, config: "Config") -> None:
        self.run_id, self._sides = run_id, config.sides
        self._seconds = self._passes = 0.0  # another run before it has had a pace of its own
        self.say(f"Run {run_id}: {config.architecture}, mode {config.mode}, at most {config.epochs} epochs.")

    def doing(self, what: str) -> None:
        self.say(f"{what} …")

    def step(self, step: "Step") -> None:
        """Shown by a live bar only."""

    def epoch(self, epoch: "Epoch") -> None:
        self._seconds += epoch.seconds
        self._passes += self._sides.passes(epoch.number - 1) - self._sides.passes(epoch.number)
        self.say(
            f"epoch {epoch.number:>3}/{self._sides.epochs}  "
            f"train {epoch.train_loss:.3f} {epoch.train_accuracy:.3f}  "
            f"validation {epoch.validation_loss:.3f} {epoch.validation_accuracy:.3f}  "
            f"macro recall {epoch.validation_macro_recall:.3f}  "
            f"{epoch.images_per_second:,.0f} images/s  {epoch.seconds:.1f} s  "
            f"{duration(self._remaining(epoch.number))} left" + ("  best" if epoch.best else "")
        )

    @property
    def has_seen_an_epoch(self) -> bool:
        """Whether one of the run has ended here."""
        return self._passes > 0

    def _remaining(self, done: float) -> float:
        """Seconds to the end of the last epoch, by those that were seen and the size of their images."""
        if not self.has_seen_an_epoch:
            return float("nan")
        return self._sides.passes(done) * self._seconds / self._passes

    def say(self, line: str) -> None:
        """One line that stays."""
        log.info(line)


class LiveBar(Lines):
    """A bar that fills while an epoch goes on, with the lines of the finished ones above it."""

    def __init__(self, console: Console):
        super().__init__()
        self._console = console
        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(bar_width=30), TextColumn("{task.fields[detail]}"),
            console=console, transient=True,
        )  # fmt: skip
        self._task: TaskID | None = None
        self._bar.start()
        _log_to_current_stderr()  # above the bar, which has put itself before standard error

    def close(self) -> None:
        self._bar.stop()
        _log_to_current_stderr()

    def step(self, step: "Step") -> None:
        share = step.images / step.of_images
        done = step.epoch - 1 + share
        left = self._remaining(done) if self.has_seen_an_epoch else self._first(step, done)
        detail = (
            f"loss {step.loss:.3f}  accuracy {step.accuracy:.3f}  "
            f"{step.images_per_second:,.0f} images/s  {duration(left)} left"
        )
        label = f"epoch {step.epoch}/{self._sides.epochs}"
        if self._task is None:
            self._task = self._bar.add_task(label, total=1.0, detail=detail)
        self._bar.update(self._task, description=label, completed=share, detail=detail)

    def epoch(self, epoch: "Epoch") -> None:
        self._clear()
        super().epoch(epoch)

    def doing(self, what: str) -> None:
        self._clear()
        self._task = self._bar.add_task(f"{what} …", total=None, detail="")

    def started(self, run_id: str, config: "Config") -> None:
        self._clear()
        super().started(run_id, config)

    def _clear(self) -> None:
        if self._task is not None:
            self._bar.remove_task(self._task)
            self._task = None

    def _first(self, step: "Step", done: float) -> float:
        this = self._sides.passes(step.epoch - 1) - self._sides.passes(step.epoch)
        return self._sides.passes(done) / this * step.of_images / step.images_per_second

    def say(self, line: str) -> None:
        self._console.print(line, highlight=False, markup=False)


class Silent(Lines):
    """Shows nothing: for the processes of a training beside the first."""

    def say(self, line: str) -> None:
        pass


def make_progress() -> Lines:
    """A live bar where standard error is a terminal, else lines."""
    if torchrun.rank() > 0:
        return Silent()
    console = Console(stderr=True)
    return LiveBar(console) if sys.stderr.isatty() else Lines()


@contextmanager
def stoppable(progress: Lines, advice: str = "") -> Iterator[None]:
    """Ctrl-C and SIGTERM end what goes on inside in the same way, and the user is told how to go on: by `advice`, or
    how to resume the run that was begun. So is who loses it to a full disk, or a store that fails.

    SIGINT is set too: a shell starts background jobs with it ignored.
    """
    if torchrun.launched():
        torchrun.listen()
    else:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.default_int_handler)
    try:
        yield
    except (KeyboardInterrupt, OSError, ValueError) as end:
        progress.close()
        by_user = isinstance(end, KeyboardInterrupt)
        if isinstance(end, ConnectionError) and torchrun.launched():  # which may go on with it by itself
            raise
        if advice and by_user:
            print(advice, file=sys.stderr)
        elif not advice and progress.run_id is not None:
            start = "torchrun …" if torchrun.launched() else "python"
            kept = " The best weights are kept in the run." if by_user and progress.has_seen_an_epoch else ""
            print(
                f"Stopped.{kept} Go on with:\n  {start} -m trainer train --resume {progress.run_id}",
                file=sys.stderr,
            )
        raise


def _log_to_current_stderr() -> None:
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.StreamHandler):
            handler.setStream(sys.stderr)
