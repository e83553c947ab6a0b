"""`predict`: the emotion on images, each taken as one face."""

import json
import sys
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro


def main(arguments: list[str]) -> int:
    return tyro.cli(predict, args=arguments, prog="python -m trainer predict")


def predict(
    model: Annotated[str, tyro.conf.Positional],
    images: Annotated[tuple[Path, ...], tyro.conf.Positional],
    /,
    *,
    json: bool = False,
) -> int:
    """Name the emotion on images; each whole image is taken as one face.

    Ends with exit code 1 where an image could not be read.

    Args:
        model: NAME@ALIAS, NAME/VERSION, models:/…, runs:/RUN_ID, or a folder of the model format.
        images: Files in any format that Pillow reads.
        json: Print one JSON object instead of a table.
    """
    from rich.console import Console
    from rich.table import Table

    from trainer.commands.models import load_predictor
    from trainer.data.images import read_grey

    if not images:
        raise ValueError("name at least one image after the model")
    predictor, name = load_predictor(model)
    names, size = predictor.spec.class_names, predictor.spec.source_size
    faces, read, failed = [], [], {}
    for path in images:
        try:
            faces.append(read_grey(path, size))
            read.append(path)
        except ValueError as error:
            failed[str(path)] = str(error)
    answers = predictor(np.stack(faces)[:, None]) if faces else np.empty((0, len(names)), np.float32)
    if json:
        print_answers(name, names, [str(path) for path in read], answers, failed)
    elif faces:
        table = Table(show_edge=False)
        for column in ("image", "answer", *names):
            table.add_column(column, justify="left" if column in ("image", "answer") else "right")
        for path, row in zip(read, answers, strict=True):
            table.add_row(str(path), names[int(row.argmax())], *(f"{value:.3f}" for value in row))
        Console().print(table)
    for name, reason in failed.items():
        print(f"error: {name}: {reason}", file=sys.stderr)
    return 1 if failed else 0


def print_answers(
    model: str, names: tuple[str, ...], paths: list[str], answers: np.ndarray, failed: dict[str, str]
) -> None:
    predictions = [
        {
            "image": path,
            "answer": names[int(row.argmax())],
            "probabilities": {name: round(float(value), 6) for name, value in zip(names, row, strict=True)},
        }
        for path, row in zip(paths, answers, strict=True)
    ]
    print(json.dumps({"model": model, "predictions": predictions, "failed": failed}, ensure_ascii=False))
