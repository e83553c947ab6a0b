"""What models say of a face: their answers in words, and as rows of a table (no torch)."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from trainer.inference.faces import Face

SURE = 0.5
"""A model that gives its best class less than even odds is not sure."""


@dataclass(frozen=True, eq=False)
class Answer:
    """One model's answer about one face.

    model: its name as it was asked for, such as `fer2013-emotion/3`. probabilities: float (K,), in the order of
    class_names.
    """

    model: str
    class_names: tuple[str, ...]
    probabilities: np.ndarray

    @property
    def order(self) -> list[int]:
        """Classes, the most probable first."""
        return np.argsort(-self.probabilities, kind="stable").tolist()

    @property
    def best(self) -> str:
        return self.class_names[self.order[0]]

    @property
    def probability(self) -> float:
        return float(self.probabilities.max())

    @property
    def sure(self) -> bool:
        return self.probability >= SURE

    def words(self) -> str:
        """`happy (0.93)`, or `not sure: fear or surprise`."""
        if self.sure:
            return f"{self.best} ({self.probability:.2f})"
        return f"not sure: {' or '.join(self.class_names[index] for index in self.order[:2])}"


def agreement(answers: Sequence[Answer]) -> str:
    """Whether several models say the same: `both models agree`, `the models disagree`; empty for one."""
    if len(answers) < 2:
        return ""
    if len({answer.best for answer in answers}) > 1:
        return "the models disagree"
    those = "both models" if len(answers) == 2 else f"all {len(answers)} models"
    if unsure := sum(not answer.sure for answer in answers) % len(answers):
        return f"{those} name {answers[0].best} first, {unsure} of them not sure"
    return f"{those} agree"


def rows(
    photo: str, number: int, face: Face, flags: Sequence[str], answers: Sequence[Answer]
) -> list[dict[str, Any]]:
    """One row an answer, ready for JSON; positions in px of the upright photo: the square's centre, side and turn.

    number: of the face on its photo, from 1, left to right.
    """
    region = face.region
    return [
        {
            "photo": photo,
            "face": number,
            "x": round(region.x, 1),
            "y": round(region.y, 1),
            "side": round(region.side, 1),
            "angle": round(region.angle, 1),
            "detection_score": None if face.score is None else round(face.score, 3),
            "flags": list(flags),
            "model": answer.model,
            "answer": answer.best,
            "probability": round(answer.probability, 6),
            "sure": answer.sure,
            "probabilities": {
                name: round(float(value), 6)
                for name, value in zip(answer.class_names, answer.probabilities, strict=True)
            },
        }
        for answer in answers
    ]


def flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row with one column a class and flags as one text, as CSV and Parquet take it."""
    return (
        {name: value for name, value in row.items() if name != "probabilities"}
        | {"flags": "; ".join(row["flags"])}
        | {f"probability/{name}": value for name, value in row["probabilities"].items()}
    )


def table(found: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """All rows, as CSV and Parquet take them."""
    return pd.DataFrame(map(flat, found), columns=None if found else ["photo", "face", "model", "answer"])


def csv_text(found: Sequence[Mapping[str, Any]]) -> str:
    """CSV in which no text is taken for a formula: spreadsheets run what begins with one of `=+-@`."""
    frame = table(found)
    for name in ("photo", "flags", "model", "answer"):
        if name in frame:
            frame[name] = [
                f"'{text}" if text[:1] in tuple("=+-@\t\r") and text else text for text in frame[name]
            ]
    return frame.to_csv(index=False)


def json_text(models: Sequence[str], found: Sequence[Mapping[str, Any]], failed: Mapping[str, str]) -> str:
    """`as_object` for a file, in UTF-8."""
    return json.dumps(as_object(models, found, failed), ensure_ascii=False, allow_nan=False)


def as_object(
    models: Sequence[str], found: Sequence[Mapping[str, Any]], failed: Mapping[str, str]
) -> dict[str, Any]:
    """models, predictions (the rows) and failed (photo → why)."""
    return {"models": list(models), "predictions": list(found), "failed": dict(failed)}
