"""What the Calibration page says: a sentence and a table, as pure functions of what was read."""

from collections.abc import Mapping, Sequence

import pandas as pd

from dashboard.selection import Chosen
from dashboard.text import DASH, number, percent, plain
from trainer.evaluation.reliability import Reliability, Surest, surer_than, surest
from trainer.inference.answers import SURE

COVERAGE = 0.8
"""The share of the images of which the page tells what it gains to answer only the surest."""


def opening(label: str, found: Reliability, before: Reliability | None) -> str:
    """How far the probabilities are off, whether chance explains it, and what the surest answers gain; Markdown."""
    if pd.isna(found.error):
        return f"How far the probabilities of {plain(label)} are off cannot be told: some are no numbers."
    answered, every = surest(found.curve, COVERAGE), surest(found.curve, 1.0)
    chance = "more" if found.error > found.at_most else "no more"
    digits = 2 if _points(found.error) == _points(found.at_most) else 1
    text = (
        f"The probabilities of {plain(label)} are {_points(found.error, digits)} points off on average, {chance} than "
        f"chance explains (up to {_points(found.at_most, digits)} on {every.size:,} images)"
    )
    if before is not None:
        text += f", and were {_points(before.error)} off before calibration"
    return (
        f"{text}. Answering only the surest {percent(answered.coverage)}, it is right in {percent(answered.accuracy)} "
        f"of cases instead of {percent(every.accuracy)}."
    )


def calibration_table(
    chosen: Sequence[Chosen],
    calibrated: Mapping[str, Reliability],
    before: Mapping[str, Reliability],
    temperatures: Mapping[str, float],
) -> pd.DataFrame:
    """Text, one row a run, and one above it for what it answered before calibration; run_id → each."""
    rows = []
    for run in chosen:
        if run.run_id in before:
            rows.append({"run": f"{run.label}, before"} | _figures(before[run.run_id], 1.0))
        rows.append({"run": run.label} | _figures(calibrated[run.run_id], temperatures[run.run_id]))
    return pd.DataFrame(rows)


def _figures(found: Reliability, temperature: float) -> dict[str, str]:
    few, sure = surest(found.curve, COVERAGE), surer_than(found.curve, SURE)
    return {
        "temperature": number(temperature, 2),
        "ECE": number(found.error),
        "by chance": f"{number(found.by_chance)} (≤ {number(found.at_most)})",
        "Brier score": number(found.brier_score),
        **{name: number(value) for name, value in found.brier.items()},
        f"right in the surest {COVERAGE:.0%}": _accuracy(few),
        "from": number(few.threshold, 2),
        f"sure ({SURE:.2f} or more)": percent(sure.coverage),
        "right where sure": _accuracy(sure),
    }


def _accuracy(answers: Surest) -> str:
    """`74% (73 to 76)`."""
    if not answers.images:
        return DASH
    low, high = (percent(end).removesuffix("%") for end in answers.interval)
    return f"{percent(answers.accuracy)} ({low} to {high})"


def _points(share: float, digits: int = 1) -> str:
    return number(100 * share, digits)
