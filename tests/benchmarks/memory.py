"""What a whole run takes in memory: the command that a user types, from the data to the registered model."""

from collections.abc import Mapping
from pathlib import Path

from tests.benchmarks.alone import run_alone
from tests.benchmarks.images import Source
from tests.benchmarks.throughput import Say

RUNS = {
    "report's CNN": ("cnn", "report"),
    "fast CNN": ("cnn", "fast"),
    "fast ResNet18": ("resnet18", "fast"),
}


def measure_memory(
    source: Source, scratch: Path, cache: Mapping[str, str], say: Say
) -> tuple[float, dict[str, float]]:
    """(MiB of `import torch`, network → MiB beyond that at most) of runs of two epochs, one at each side of the recipe.

    cache: variables of the environment that name folders, filled by `measure_loading`.
    """
    environment = {"MLFLOW_TRACKING_URI": f"sqlite:///{scratch.absolute()}/memory/mlflow.db", **cache}
    torch = run_alone(["-c", "import torch"]).peak_mib
    beyond = {}
    for label, (architecture, recipe) in RUNS.items():
        say(f"{label}: a run of two epochs on {source.dataset}, for its memory")
        flags = {
            "--dataset": source.dataset,
            "--architecture": architecture,
            "--recipe": recipe,
            "--epochs": "2",
            "--device": "cpu",
        }
        if source.data_dir is not None:
            flags["--data-dir"] = str(source.data_dir)
        command = ["-m", "trainer", "train", *(word for flag in flags.items() for word in flag)]
        beyond[label] = run_alone(command, environment=environment).peak_mib - torch
    return torch, beyond
