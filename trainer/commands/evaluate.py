"""`evaluate`: a registered model on the test part of a dataset."""

import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import tyro

if TYPE_CHECKING:
    import pandas as pd

    from trainer.evaluation.metrics import Evaluation


def main(arguments: list[str]) -> int:
    return tyro.cli(evaluate, args=arguments, prog="python -m trainer evaluate")


def evaluate(
    model: Annotated[str, tyro.conf.Positional],
    /,
    *,
    dataset: str | None = None,
    data_dir: Path | None = None,
    slices: bool = False,
    groups: Path | None = None,
    log: bool = False,
    json: bool = False,
) -> int:
    """Measure a model on a test set. Nothing is logged, unless --log says so.

    Args:
        model: NAME@ALIAS, NAME/VERSION, models:/…, runs:/RUN_ID, or a folder of the model format. Several, with
            commas between them, are measured as an ensemble: by the mean of their probabilities.
        dataset: Whose test part is taken; without it the dataset that the model was trained on.
        data_dir: Folder or archive of the dataset; only its test part is needed. Without it where the model's run
            found it, else where it usually is.
        slices: Also in slices of the test set: brightness, contrast, sharpness, watermark, size and pose of the face.
        groups: Also in groups of your own: a CSV file with the column sample_id and one column for each grouping.
        log: Measure all that a training measures at its end, and log it to the version's run, which then counts as
            tested on these images: for runs older than a measure, and where a test set has grown. Takes minutes.
        json: Print one JSON object instead of tables.
    """
    from trainer.commands.models import chosen_by_test, data_meant, load_predictor, other_images
    from trainer.commands.report import evaluation_table
    from trainer.commands.report import slice_table as print_slices
    from trainer.data import dataset_source
    from trainer.data.splits import group_positions
    from trainer.evaluation.metrics import answered
    from trainer.evaluation.metrics import evaluate as measure
    from trainer.evaluation.slices import by_condition, read_groups, slice_table
    from trainer.inference.conditions import conditions

    if log:
        if slices or groups:
            raise ValueError("--log logs the slices anyway, and no groups: leave out --slices and --groups")
        return evaluate_and_log(model, dataset, data_dir, json)
    brought_text = read_text(groups) if groups is not None else ""
    references = [reference for part in model.split(",") if (reference := part.strip())]
    if not references:
        raise ValueError(f"'{model}' names no model: NAME@ALIAS, NAME/VERSION or a folder")
    members = [load_predictor(reference) for reference in references]
    names, name = members[0][0].class_names, " + ".join(name for _, name in members)
    dataset, data_dir = data_meant(members, dataset, data_dir)
    source = dataset_source(dataset)
    data = source.load(data_dir, ("test",))
    test = data.parts["test"]
    target = output_index(names, data.class_names)[test.target.numpy()]
    # The columns of every member in the order of the first one's names.
    probabilities = np.mean(
        [member(test.images)[:, output_index(member.class_names, names)] for member, _ in members], axis=0
    )
    right = answered(target, probabilities) == target
    evaluations = {"test": measure(target, probabilities, names)}
    groups_of = group_positions(test, source)
    for group, index in groups_of.items():
        evaluations[f"test_{group}"] = measure(target[index], probabilities[index], names)
    test_print = test.fingerprint(data.class_names)
    caveats = [chosen_by_test(*member, dataset, groups_of) for member in members]
    prints = {test_print, *(test.select(i).fingerprint(data.class_names) for i in groups_of.values())}
    caveats += [other_images(*member, dataset, prints) for member in members]
    cut, ignored = [], 0
    if groups is not None:
        brought = read_groups(brought_text, test.sample_ids)
        cut.append(slice_table(target, right, brought))
        ignored = brought.ignored
    if slices:
        measured = conditions(test.images.numpy(), test.sample_ids, test_print)
        cut.append(slice_table(target, right, by_condition(measured, test.sample_ids)))
    if json:
        found: dict[str, Any] = {"model": name, "source": data.source}
        found["test_fingerprint"] = test_print
        if any(caveats):
            found["caveats"] = list(filter(None, caveats))
        if cut:
            found["slices"] = [row for table in cut for row in records(table)]
        if groups is not None:
            found["ignored"] = ignored
        print_json(found | {part: as_json(evaluation) for part, evaluation in evaluations.items()})
        return 0
    for part, evaluation in evaluations.items():
        if part == "test" or evaluation.size < evaluations["test"].size:
            evaluation_table(f"{name} on {part.replace('_', ' ')} of {data.source}", evaluation)
    for table in cut:
        print_slices(table)
    if ignored:
        print(f"Rows of {groups} that name no test image and are left out: {ignored:,}")
    for caveat in filter(None, caveats):
        print(caveat)
    return 0


def evaluate_and_log(reference: str, dataset: str | None, data_dir: Path | None, json: bool) -> int:
    """Raises ValueError where the model is none, or several, of the registry, or is of another dataset."""
    from trainer.commands.report import evaluation_table
    from trainer.contract import model_name
    from trainer.store.location import open_store
    from trainer.store.registry import find_version
    from trainer.training.retest import retest

    store = open_store(create=False)
    version = find_version(store, reference)
    if dataset is not None and version.name != model_name(dataset):
        raise ValueError(f"--log is for a model's own dataset: {version.name} is not one of {dataset}")
    found = retest(store, version, str(data_dir) if data_dir else None)
    if json:
        print_json({"model": version.uri, "test": as_json(found)})
    else:
        evaluation_table(f"{version.uri} on test, logged to its run", found)
    return 0


def read_text(path: Path) -> str:
    """Raises ValueError where the file cannot be read as UTF-8."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text in UTF-8"
        raise ValueError(f"--groups {path} cannot be read: {reason}") from error


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


def records(table: "pd.DataFrame") -> list[dict[str, Any]]:
    """Rows with null where there is no value."""
    return table.astype(object).where(table.notna(), None).to_dict("records")


def print_json(value: object) -> None:
    """With escapes where standard output cannot take every letter."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    readable = encoding.lower().replace("-", "") == "utf8"
    print(json.dumps(value, ensure_ascii=not readable, allow_nan=False))


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
