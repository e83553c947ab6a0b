"""`python -m tests.benchmarks.beginning`: few images, learned by random weights or by the model in the box.

Images that the box has not learned: drawn faces, and where FER-2013 is at hand its PublicTest, of which a part is
learned and the rest judges. The recipe is `fast`, with the box's own network on both sides.
"""

import dataclasses
import statistics
from collections.abc import Iterator
from pathlib import Path

import torch
import tyro
from rich.console import Console

from trainer.config import Config, recipe_defaults
from trainer.data import dataset_source
from trainer.data.base import Split
from trainer.data.splits import stratified_index
from trainer.evaluation.calibration import averaged
from trainer.evaluation.metrics import evaluate
from trainer.inference.predictor import Predictor
from trainer.models.base import Probabilities
from trainer.store.bundled import FOLDER
from trainer.training.allocator import keep_memory
from trainer.training.beginning import by_class, network_of
from trainer.training.environment import make_fabric
from trainer.training.loop import Training, fit
from trainer.training.prediction import predict_views
from trainer.training.pretrained import make_classifier

VALIDATION_FRACTION = 0.1


def beginning(*, sizes: tuple[int, ...] = (250, 1000), seeds: int = 3, data_dir: Path | None = None) -> None:
    """Print accuracy / macro recall on test, one line for each number of images that are learned.

    Args:
        sizes: Numbers of images, validation among them; drawn anew by each seed.
        seeds: Trainings of each kind; the mean and the standard deviation are shown.
        data_dir: Folder, archive or CSV of FER-2013.
    """
    keep_memory()
    box = Predictor.load(FOLDER)
    lines = [
        "| images | learned | random weights | begun with the box | the box as it is |",
        "|---|---|---|---|---|",
    ]
    for title, pool, names in pools(data_dir):
        known = box(pool.images)
        for size in sizes:
            found: dict[str, list[dict[str, float]]] = {"random": [], "box": [], "as it is": []}
            for seed in range(seeds):
                rest, learned = stratified_index(pool.target.numpy(), size / len(pool), seed)
                target = pool.target[rest].numpy()
                for kind in ("random", "box"):
                    model = train(pool.select(learned), names, box, kind == "box", seed)
                    logits = predict_views(model, pool.images[rest], torch.device("cpu")).numpy()
                    found[kind].append(evaluate(target, averaged(logits, 1.0), names).summary)
                found["as it is"].append(evaluate(target, known[rest], names).summary)
            cells = " | ".join(map(spread, found.values()))
            lines.append(f"| {title} | {size:,} | {cells} |")
            Console(stderr=True).print(lines[-1], markup=False, highlight=False)
    Console(width=200).print("\n".join(lines), markup=False, highlight=False)


def pools(data_dir: Path | None) -> Iterator[tuple[str, Split, tuple[str, ...]]]:
    """Title, images and class names, which are those of the box."""
    drawn = dataset_source("sketch").load(None, ("test",))
    yield "drawn faces", drawn.parts["test"], drawn.class_names
    source = dataset_source("fer2013")
    try:
        real = source.load(data_dir, ("test",))
    except FileNotFoundError as error:
        Console(stderr=True).print(str(error).splitlines()[0], markup=False)
        return
    test = real.parts["test"]
    public = torch.tensor([i for i, name in enumerate(test.sample_ids) if source.group(name) == "public"])
    yield "PublicTest", test.select(public), real.class_names


def train(images: Split, names: tuple[str, ...], box: Predictor, begins: bool, seed: int) -> Probabilities:
    """The best validation epoch of the box's network, which `begins` with the box's weights or with random ones."""
    config: Config = dataclasses.replace(
        recipe_defaults("fast", "cnn"), **network_of(box), device="cpu", seed=seed
    )
    kept, held_out = stratified_index(images.target.numpy(), VALIDATION_FRACTION, seed)
    part, validation = images.select(kept), images.select(held_out)
    torch.manual_seed(seed)
    classifier, config = make_classifier(config, len(names), *part.brightness())
    if begins:
        weights = box.network.classifier.state_dict()
        classifier.load_state_dict(by_class(weights, box.class_names, classifier, names))
    training = Training(classifier, config, make_fabric(config))
    for _ in fit(training, part, validation, len(names)):
        pass
    training.evaluated.load_state_dict(training.best_weights)
    return Probabilities(training.evaluated, 1.0, config.averaging).eval()


def spread(found: list[dict[str, float]]) -> str:
    """`0.705 ± 0.004 / 0.664 ± 0.006`: accuracy and macro recall."""
    columns = [[summary[name] for summary in found] for name in ("accuracy", "macro_recall")]
    return " / ".join(
        f"{statistics.mean(values):.3f}" + (f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else "")
        for values in columns
    )


if __name__ == "__main__":
    tyro.cli(beginning, prog="python -m tests.benchmarks.beginning")
