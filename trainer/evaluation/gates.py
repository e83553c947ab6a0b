"""Promotion gates: what a version must fulfil before it becomes champion, read from a file and judged."""

import dataclasses
import math
import os
import sys
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.evaluation.comparison import Comparison, signed

GATES_FILE = "gates.toml"
PYPROJECT_FILE = "pyproject.toml"
COMPARING = ("same test set", "accuracy against the champion", "recalls against the champion")
"""The gates that compare with the champion."""
_HIGHEST_SHARES = {
    "minimum_accuracy": 1,
    "minimum_macro_recall": 1,
    "minimum_class_recall": 1,
    "maximum_ece": 1,
    "minimum_robustness": 2,
}
"""A limit above was meant in percent. On worse images a model may be a little better than on those as they are."""


@dataclass(frozen=True, kw_only=True)
class Gates:
    """Figures are of the test set, as the dashboard shows them; None sets no limit."""

    same_test_set: bool = True
    """The candidate was tested on the champion's images; without it the two comparisons below cannot be made."""
    accuracy_not_worse: bool = True
    """Its accuracy is not significantly below the champion's (exact McNemar, 5%)."""
    class_recall_not_worse: bool = True
    """No class's recall is significantly below the champion's (the same, after Holm for the number of classes)."""
    minimum_accuracy: float | None = None
    minimum_macro_recall: float | None = None
    minimum_class_recall: float | None = None
    """Of every class."""
    maximum_ece: float | None = None
    """Expected calibration error."""
    minimum_robustness: float | None = None
    """Share of its accuracy that it keeps when images are made worse (`robustness/relative`)."""
    maximum_latency_ms: float | None = None
    """For one face, on the CPU that the model was trained on."""
    maximum_size_mb: float | None = None
    """Of the weights."""


@dataclass(frozen=True)
class Verdict:
    """Of one gate. `passed` is None where it cannot be told, which counts as not passed."""

    gate: str
    passed: bool | None
    text: str


def read_gates(folder: Path) -> Gates:
    """From the file that MOODIFY_GATES names, or `gates.toml` in `folder`, or `[tool.moodify.gates]` in its
    pyproject.toml; the defaults where there is none of them.

    Raises ValueError, naming the file, where it cannot be read or holds something else than gates.
    """
    named = os.environ.get("MOODIFY_GATES")
    own, shared = Path(named) if named else folder / GATES_FILE, folder / PYPROJECT_FILE
    if named or own.is_file():
        return _gates(own, _toml(own))
    if shared.is_file():
        table = _toml(shared)
        for key in ("tool", "moodify", "gates"):
            table = table.get(key, {})
            if not isinstance(table, dict):
                raise ValueError(
                    f"{shared}: {key} = {table!r} is no table; gates stand below [tool.moodify.gates]"
                )
        return _gates(shared, table)
    return Gates()


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error


def _gates(path: Path, values: Mapping[str, object]) -> Gates:
    fields = {field.name: field.type for field in dataclasses.fields(Gates)}
    for name, value in values.items():
        if name not in fields:
            raise ValueError(f"{path}: there is no gate '{name}'; there are {', '.join(fields)}")
        if fields[name] is bool:
            wanted, right = "true or false", isinstance(value, bool)
        elif most := _HIGHEST_SHARES.get(name):
            wanted, right = f"a share above 0 and at most {most}", _is_positive(value, most)
        else:
            wanted, right = "a positive number", _is_positive(value)
        if not right:
            raise ValueError(f"{path}: {name} = {value!r} is not {wanted}")
    return Gates(**values)  # type: ignore[arg-type]


def _is_positive(value: object, most: float = sys.float_info.max) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= most


def judge(
    gates: Gates,
    candidate: Mapping[str, Any],
    champion: Mapping[str, Any] | None,
    comparison: Callable[[], Comparison],
) -> list[Verdict]:
    """The verdict of every gate that is set.

    Args:
        candidate, champion: test_fingerprint, test_accuracy, test_macro_recall, test_ece, robustness, latency_ms,
            size_bytes and recalls (class → recall), as in a row of `trainer.store.snapshot.Snapshot.runs`. None: nobody
            is champion.
        comparison: The candidate against the champion; ValueError where the two cannot be compared.
    """
    verdicts = [
        _limit(gate, candidate.get(column, math.nan) / scale, limit, sign, unit)
        for gate, limit, column, scale, sign, unit in (
            ("accuracy", gates.minimum_accuracy, "test_accuracy", 1, 1, ""),
            ("macro recall", gates.minimum_macro_recall, "test_macro_recall", 1, 1, ""),
            ("calibration error", gates.maximum_ece, "test_ece", 1, -1, ""),
            ("robustness", gates.minimum_robustness, "robustness", 1, 1, ""),
            ("latency", gates.maximum_latency_ms, "latency_ms", 1, -1, " ms"),
            ("size", gates.maximum_size_mb, "size_bytes", 1e6, -1, " MB"),
        )
        if limit is not None
    ]
    if gates.minimum_class_recall is not None:
        verdicts.append(_weakest(candidate.get("recalls") or {}, gates.minimum_class_recall))
    return verdicts + _against(gates, candidate, champion, comparison)


def _limit(gate: str, value: float, limit: float, sign: int, unit: str) -> Verdict:
    asked = f"{'at least' if sign > 0 else 'at most'} {limit:.12g}{unit} is asked for"
    if math.isnan(value):
        return Verdict(gate, None, f"it was not measured; {asked}")
    told = _rounded(value, limit, sign, 1 if unit else 3)
    return Verdict(gate, sign * value >= sign * limit, f"{told}{unit}; {asked}")


def _rounded(value: float, limit: float, sign: int, digits: int = 3) -> str:
    """With that many digits, or as many more as it takes to stay on the value's side of the limit."""
    text = f"{value:.{digits}f}"
    while (sign * float(text) >= sign * limit) != (sign * value >= sign * limit):
        digits += 1
        text = f"{value:.{digits}f}"
    return text


def _weakest(recalls: Mapping[str, float], limit: float) -> Verdict:
    known = {name: recall for name, recall in recalls.items() if not math.isnan(recall)}
    asked = f"at least {limit:.12g} is asked for"
    if not known:
        return Verdict("recall of every class", None, f"it was not measured; {asked}")
    name = min(known, key=lambda name: known[name])
    text = f"{_rounded(known[name], limit, 1)} for {name}, the lowest; {asked}"
    passed: bool | None = known[name] >= limit
    if unknown := [name for name in recalls if name not in known]:
        text = f"{text}; that of {', '.join(unknown)} was not measured"
        passed = None if passed else False
    return Verdict("recall of every class", passed, text)


def _against(
    gates: Gates,
    candidate: Mapping[str, Any],
    champion: Mapping[str, Any] | None,
    comparison: Callable[[], Comparison],
) -> list[Verdict]:
    """Of the gates that compare with the champion."""
    are_asked = (gates.same_test_set, gates.accuracy_not_worse, gates.class_recall_not_worse)
    asked = [name for name, is_asked in zip(COMPARING, are_asked, strict=True) if is_asked]
    if champion is None:
        return [Verdict(name, True, "there is no champion to compare with") for name in asked]
    fingerprints = {candidate.get("test_fingerprint"), champion.get("test_fingerprint")}
    same = len(fingerprints) == 1 and not fingerprints & {"", None}
    found: Comparison | str
    try:
        found = comparison() if same else "the two were tested on different images, or on none"
    except ValueError as error:
        found = str(error)
    verdicts = {}
    if isinstance(found, str):
        verdicts = {name: Verdict(name, None, found) for name in asked}
        verdicts["same test set"] = Verdict("same test set", same, "the same images" if same else found)
    else:
        verdicts["same test set"] = Verdict("same test set", True, f"the same {found.size:,} images")
        verdicts["accuracy against the champion"] = _accuracy(found)
        verdicts["recalls against the champion"] = _recalls(found)
    return [verdicts[name] for name in asked]


def _accuracy(found: Comparison) -> Verdict:
    worse = found.decided and found.accuracy.value < 0
    words = (
        "significantly lower" if worse else "higher" if found.decided else "no difference that can be shown"
    )
    return Verdict("accuracy against the champion", not worse, f"{words}: {signed(found.accuracy)} points")


def _recalls(found: Comparison) -> Verdict:
    lost = found.classes[found.classes["decided"] & (found.classes["difference"] < 0)]
    unknown = list(found.classes.loc[found.classes["support"] == 0, "class"])
    if lost.empty and unknown:
        return Verdict("recalls against the champion", None, f"no test image shows {', '.join(unknown)}")
    if lost.empty:
        return Verdict("recalls against the champion", True, "no class is significantly lower")
    listed = ", ".join(f"{row['class']} {100 * row['difference']:+.1f}" for _, row in lost.iterrows())
    text = f"significantly lower, in points: {listed.replace('-', '−')}"
    return Verdict("recalls against the champion", False, text)


def failed(verdicts: list[Verdict]) -> list[str]:
    """Names of the gates that are not passed."""
    return [verdict.gate for verdict in verdicts if not verdict.passed]
