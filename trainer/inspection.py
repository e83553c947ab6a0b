"""The story of one audit, from a dataset to all that is found in it, top to bottom."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np
import pandas as pd
import torch

from trainer.contract import UNCALIBRATED
from trainer.data.base import Dataset, Split
from trainer.data.pictures import png
from trainer.data.twins import LARGEST_DIFFERENCE, LEAST_CORRELATION, twin_pairs
from trainer.evaluation.audit import (
    BLANK,
    NO_FACE,
    Audit,
    image_findings,
    label_findings,
    shown_ids,
    twin_findings,
)
from trainer.inference.faces import LEAST_SCORE, face_score
from trainer.training.estimate import estimate_fold_seconds
from trainer.training.folds import fold_config, fold_numbers, out_of_fold
from trainer.training.loop import Epoch

log = logging.getLogger(__name__)

BLANK_DEVIATION = 5.0
"""Standard deviation in grey levels of 256; below it nothing can be seen on an image."""
_FIRST, _PAUSE_SECONDS = 50, 30.0
"""How long the search for faces takes is told after so many images, and again each time that so long has passed."""

Say = Callable[[str], object]


@dataclass(frozen=True, eq=False)
class Judgement:
    """What models that have not seen the images answered to them.

    positions: int64 (M,), of the images. probabilities: float (M, K). by: who answered, in words.
    """

    positions: np.ndarray
    probabilities: np.ndarray
    by: str


@dataclass(frozen=True)
class Folds:
    """How labels are judged by networks that are trained for it."""

    folds: int
    epochs: int
    seed: int


def inspect(
    data: Dataset,
    *,
    judge: Folds | pd.DataFrame | None,
    judge_name: str = "",
    faces: int | None = None,
    say: Say,
) -> Audit:
    """Everything that an audit finds in all parts of a dataset.

    Args:
        judge: Who judges the labels: networks that are trained for it, or predictions as runs log them
            (`prediction_table`, with `fingerprint`, that of the part), called `judge_name`; None leaves labels alone.
        faces: Look for a face on so many images only, evenly drawn; None for all.
        say: Told what is being done.

    Raises ValueError where the predictions are not of these data, or a class is too small for the folds.
    """
    names, everything = data.class_names, _together(list(data.parts.values()))
    images = everything.images[:, 0].numpy()
    samples = pd.DataFrame(
        {
            "part": np.repeat(list(data.parts), [len(part) for part in data.parts.values()]),
            "sample_id": everything.sample_ids,
            "label": np.array(names, dtype=object)[everything.target.numpy()],
        }
    )
    judgement = None
    if isinstance(judge, pd.DataFrame):
        judgement = match(judge, samples, names, judge_name)
        if not is_unchanged(judge, everything, names):
            log.warning(
                "Some of the images that %s has answered have changed since then, or are not here: its answers are "
                "taken for the images of the same names.",
                judge_name,
            )
            note = "matched by name, since some of these have changed since then or are not here"
            judgement = replace(judgement, by=f"{judgement.by}, {note}")
    elif judge is not None:
        fold_numbers(
            everything.target.numpy(), judge.folds, judge.seed
        )  # what cannot be done is told at once
    say(f"Comparing {len(samples):,} images with each other")
    pairs = twin_pairs(everything.images)
    differences = [float(np.abs(images[i].astype(np.int16) - images[j]).mean()) for i, j in pairs]
    deviations = images.reshape(len(images), -1).std(axis=1)
    blank = np.flatnonzero(deviations < BLANK_DEVIATION)
    looked_at = evenly(len(images), faces)
    scores = face_scores(images[looked_at], say)
    faceless = scores < LEAST_SCORE
    found = [
        twin_findings(samples, pairs, np.array(differences)),
        image_findings(NO_FACE, samples, looked_at[faceless], scores[faceless]),
        image_findings(BLANK, samples, blank, deviations[blank]),
    ]
    if isinstance(judge, Folds):
        judgement = judge_by_folds(everything, pairs, len(names), judge, say)
    if judgement is not None:
        found.append(label_findings(samples, judgement.positions, judgement.probabilities, names))
    facts = {
        "dataset": data.name,
        "source": data.source,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "class_names": list(names),
        "counts": {
            name: dict(zip(names, part.class_counts(len(names)), strict=True))
            for name, part in data.parts.items()
        },
        "fingerprints": {name: part.fingerprint(names) for name, part in data.parts.items()},
        "skipped": len(data.skipped),
        "faces_looked_at": len(looked_at),
        "labels_judged": len(judgement.positions) if judgement else 0,
        "labels_by": judgement.by if judgement else "",
        "limits": {
            "twin_correlation": LEAST_CORRELATION,
            "twin_difference": LARGEST_DIFFERENCE,
            "blank_deviation": BLANK_DEVIATION,
        },
    }
    audit = Audit(facts, pd.concat(found, ignore_index=True))
    position = {sample_id: index for index, sample_id in enumerate(everything.sample_ids)}
    return Audit(facts, audit.findings, {one: png(images[position[one]]) for one in shown_ids(audit)})


def _together(parts: Sequence[Split]) -> Split:
    return Split(
        torch.cat([part.images for part in parts]),
        torch.cat([part.target for part in parts]),
        tuple(sample_id for part in parts for sample_id in part.sample_ids),
    )


def evenly(size: int, wanted: int | None) -> np.ndarray:
    """int64 positions of `wanted` of `size` images, with even gaps: of every class its share, as they lie in order."""
    if wanted is None or wanted >= size:
        return np.arange(size)
    return np.arange(wanted) * size // max(wanted, 1)


def face_scores(images: np.ndarray, say: Say) -> np.ndarray:
    """The score of each image (`face_score`), float64 (N,). images: uint8 (N, S, S)."""
    scores = np.empty(len(images))
    started = told = time.perf_counter()
    for index, image in enumerate(images):
        now = time.perf_counter()
        if index == _FIRST or now - told > _PAUSE_SECONDS:
            told, left = now, (now - started) / index * (len(images) - index)
            say(f"Looking for a face: {index:,} of {len(images):,} images, about {_minutes(left)} left")
        scores[index] = face_score(image)
    return scores


def match(table: pd.DataFrame, samples: pd.DataFrame, class_names: Sequence[str], name: str) -> Judgement:
    """Logged predictions, with the images of the same names; where several runs answered, their mean counts.

    Raises ValueError where they are of other classes or labels, or of none of these names.
    """
    table = table[table["part"] != UNCALIBRATED]  # the same images, answered before calibration
    columns = [f"p_{class_name}" for class_name in class_names]
    there = [column for column in table if column.startswith("p_")]
    if set(columns) != set(there):
        raise ValueError(
            f"--model {name} knows other classes than the data: {', '.join(c[2:] for c in there)}"
        )
    answers = table.groupby("sample_id")[columns].mean()
    known = samples[samples["sample_id"].isin(answers.index)]
    if known.empty:
        raise ValueError(f"--model {name} was validated and tested on none of these images")
    both = table[["sample_id", "label"]].merge(known[["sample_id", "label"]], on="sample_id")
    if (both["label_x"] != both["label_y"]).any():
        raise ValueError(f"--model {name} was tested on images of these names with other labels")
    by = f"{name}, of which these are validation and test images"
    return Judgement(known.index.to_numpy(), answers.loc[known["sample_id"]].to_numpy(), by)


def is_unchanged(table: pd.DataFrame, data: Split, class_names: Sequence[str]) -> bool:
    """Whether all images and labels that were answered are in the data, by the fingerprints of their parts."""
    position = {sample_id: index for index, sample_id in enumerate(data.sample_ids)}
    for fingerprint, rows in table[table["part"] != UNCALIBRATED].groupby("fingerprint", dropna=False):
        ids = rows["sample_id"].drop_duplicates()  # several runs may have answered the same part
        index = ids.map(position)
        if (
            index.isna().any()
            or data.select(index.to_numpy(int, copy=True)).fingerprint(class_names) != fingerprint
        ):
            return False
    return True


def judge_by_folds(data: Split, pairs: np.ndarray, num_classes: int, how: Folds, say: Say) -> Judgement:
    """Train the networks and let each judge the images that it has not seen; says beforehand how long that takes."""
    config = fold_config(how.epochs, how.seed)
    seconds = estimate_fold_seconds(config, data, num_classes, how.folds)
    say(
        f"Training {how.folds} networks of {how.epochs} epochs to judge the labels: about {_minutes(seconds)}"
    )
    started = time.perf_counter()

    def on_epoch(fold: int, epoch: Epoch) -> None:
        done = fold * how.epochs + epoch.number
        left = (time.perf_counter() - started) / done * (how.folds * how.epochs - done)
        say(
            f"Network {fold + 1} of {how.folds}, epoch {epoch.number} of {how.epochs}: right on "
            f"{epoch.validation_accuracy:.3f} of its images, about {_minutes(left)} left"
        )

    probabilities = out_of_fold(data, pairs, num_classes, config, how.folds, on_epoch)
    right = float((probabilities.argmax(1) == data.target.numpy()).mean())
    by = (
        f"{how.folds} small networks of {how.epochs} epochs, each trained without the images that it judges and their "
        f"twins (they agree with {100 * right:.0f}% of the labels)"
    )
    return Judgement(np.arange(len(data)), probabilities, by)


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} minutes"
