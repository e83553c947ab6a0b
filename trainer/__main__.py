"""`python -m trainer COMMAND`: the list of commands; imports none of them until it is chosen."""

import importlib
import io
import logging
import os
import re
import signal
import sys

from trainer import torchrun

COMMANDS = {
    "quickstart": "train the CNN, then ResNet18, and compare them (this is what `make train` runs)",
    "train": "train one model, log it and register it; or go on with an interrupted run",
    "sweep": "search for better settings, by many trials on one or many machines",
    "audit": "look for near-duplicates, blank images, non-faces and suspect labels in a dataset",
    "evaluate": "measure a registered model on a test set",
    "compare": "say whether one run is really better than another",
    "export": "write a model as ONNX files, checked against itself",
    "predict": "name the emotion on images",
    "promote": "point an alias such as champion at a version",
    "runs": "list the runs of the store; mark those whose process is gone",
    "deliver": "send to the tracking server what runs kept here while it was down",
    "backup": "copy the embedded store into one file, also while trainings run, and check the copy",
    "restore": "make an embedded store from such a file",
    "ui": "open the MLflow UI on the store (this is what `make mlflow` runs)",
    "server": "start a tracking server for a team, on PostgreSQL (this is what `make server` runs)",
    "user": "let a person or a program into the server, or change what it may do there",
    "migrate": "copy runs and models from one store to another, and check the copy",
    "bundled": "begin an empty store with the model that comes with the program",
    "data": "find or download a dataset, decode it once and show what is in it",
}
MAY_BE_EMPTY = ("--reason", "--progressive")


def main(arguments: list[str]) -> int:
    """Run one command; returns its exit code: 2 for a mistake of the user's, 130 for Ctrl-C."""
    name, *rest = arguments or ["--help"]
    if name in ("-h", "--help"):
        print(usage())
        return 0
    if name not in COMMANDS:
        print(f"error: there is no command '{name}'\n\n{usage()}", file=sys.stderr)
        return 2
    if torchrun.world_size() > 1 and name not in ("train", "predict"):
        if torchrun.rank() == 0:
            print(
                f"error: {name} is one process: torchrun is for train, and for predict into a folder",
                file=sys.stderr,
            )
        return 2
    if (flag := empty_argument(rest)) is not None:
        if torchrun.rank() == 0:
            print(f"error: nothing is given {flag}", file=sys.stderr)
        return 2
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # letters that a terminal's encoding lacks
    if not torchrun.launched():  # which has ways of its own to end its processes
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # else half-written files would stay
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for chatty in ("mlflow", "alembic", "lightning_fabric", "lightning_utilities", "httpx", "torch"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    if not os.environ.get(
        "MOODIFY_DEBUG"
    ):  # MLflow logs the traceback of what is raised as well, and told in a line
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    try:
        code = importlib.import_module(f"trainer.commands.{name}").main(rest)
        if sys.stdout is not None:  # it is closed, or its reader has gone
            sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # who reads the answer has seen enough of it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more at its end
        return 1
    except (ValueError, OSError, FloatingPointError, MemoryError) as error:
        if os.environ.get("MOODIFY_DEBUG"):
            raise
        print(f"error: {str(error) or type(error).__name__}", file=sys.stderr)
        return 2
    except Exception as error:
        if os.environ.get("MOODIFY_DEBUG") or (line := store_refusal(error)) is None:
            raise
        print(f"error: {line}", file=sys.stderr)
        return 2


def empty_argument(arguments: list[str]) -> str | None:
    """Where an empty text stands, as a script has it whose variable is not set: a path, it would be this folder."""
    before = "as the first argument"
    for argument in arguments:
        if argument.removesuffix("=") in MAY_BE_EMPTY:
            before = ""
        elif not argument and before:
            return before
        elif re.fullmatch(r"--[\w-]+=", argument):
            return f"to {argument[:-1]}"
        else:
            before = f"to {argument}" if argument.startswith("--") else f"after '{argument}'"
    return None


def store_refusal(error: Exception) -> str | None:
    """What it means that a tracking store refused something, or failed; None where it was nothing of the kind."""
    location = sys.modules.get("trainer.store.location")  # not imported: then no store was asked
    if location is None:
        return None
    if (refused := location.refusal(error)) is not None or not isinstance(error, location.MlflowException):
        return refused
    return location.redacted(f"the tracking store failed: {location.reason(error)}")


def usage() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {what}" for name, what in COMMANDS.items()]
    return "\n".join(
        [
            "usage: python -m trainer COMMAND [--help]",
            "",
            *lines,
            "",
            "MOODIFY_DEBUG=1 shows the traceback of an error.",
        ]
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
