"""`evaluate`: a registered model on the test part of a dataset."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import tyro

if TYPE_CHECKING:
    from trainer.evaluation.metrics import Evaluation


def main(arguments: list[str]) -> int:
    return tyro.cli(evaluate, args=arguments, prog="python -m trainer evaluate")


def evaluate(
    model: Annotated[str, tyro.conf.Positional],
    /,
    *,
    dataset: str = "fer2013",
    data_dir: Path | None = None,
    json: bool = False,
) -> int:
    """Measure a model on a test set. Nothing is logged.

    Args:
        model: NAME@ALIAS, NAME/VERSION, models:/…, runs:/RUN_ID, or a folder of the model format. Several, with
            commas between them, are measured as an ensemble: by the mean of their probabilities.
        dataset: Whose test part is taken.
        data_dir: Folder or archive of the dataset; only its test part is needed.
        json: Print one JSON object instead of tables.
    """
    from trainer.commands.models import load_predictor
    from trainer.commands.report import evaluation_table
    from trainer.data import dataset_source
    from trainer.data.splits import group_positions
    from trainer.evaluation.metrics import evaluate as measure

    members = [load_predictor(reference.strip()) for reference in model.split(",")]
    names, name = members[0][0].class_names, " + ".join(name for _, name in members)
    source = dataset_source(dataset)
    data = source.load(data_dir, ("test",))
    test = data.parts["test"]
    target = output_index(names, data.class_names)[test.target.numpy()]
    # The columns of every member in the order of the first one's names.
    probabilities = np.mean(
        [member(test.images)[:, output_index(member.class_names, names)] for member, _ in members], axis=0
    )
    evaluations = {"test": measure(target, probabilities, names)}
    for group, index in group_positions(test, source).items():
        evaluations[f"test_{group}"] = measure(target[index], probabilities[index], names)
    if json:
        found = {"model": name, "source": data.source, "test_fingerprint": test.fingerprint(data.class_names)}
        print_json(found | {part: as_json(evaluation) for part, evaluation in evaluations.items()})
        return 0
    for part, evaluation in evaluations.items():
        if part == "test" or evaluation.size < evaluations["test"].size:
            evaluation_table(f"{name} on {part.replace('_', ' ')} of {data.source}", evaluation)
    return 0


def output_index(model_classes: Sequence[str], data_classes: Sequence[str]) -> np.ndarray:
    """int64 (number of data classes,): the model's output for each class of the data, by name.

    Raises ValueError where the model has no output for one.
    """
    if unknown := [name for name in data_classes if name not in model_classes]:
        raise ValueError(
            f"the data have the class {', '.join(unknown)}, which the model does not know; "
            f"it knows {', '.join(model_classes)}"
        )
    return np.array([model_classes.index(name) for name in data_classes], dtype=np.int64)


def as_json(evaluation: "Evaluation") -> dict[str, Any]:
    """Everything of an evaluation, with null where a metric has no value."""
    return {
        "images": evaluation.size,
        **{name: _or_none(value) for name, value in evaluation.summary.items()},
        "class_names": list(evaluation.class_names),
        **{name: [_or_none(value) for value in values] for name, values in evaluation.per_class.items()},
        "confusion": evaluation.confusion.tolist(),
    }


def print_json(value: object) -> None:
    print(json.dumps(value, ensure_ascii=False, allow_nan=False))


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
