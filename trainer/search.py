"""What a sweep searches: the settings that vary, in what range, and which of them mattered."""

import dataclasses
import json
import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin, get_type_hints

from trainer.config import LEAST_ALPHA, Config, check
from trainer.models import listing
from trainer.settings import defaults_of, parse_value

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

Value = str | int | float | bool

LEAST_FOR_IMPORTANCE = 10
"""Finished trials below which an importance would be noise."""
_FIXED = {
    **dict.fromkeys(("recipe", "architecture", "mode"), "it decides the defaults of the others: give it as a flag"),
    **dict.fromkeys(
        ("dataset", "data_dir", "validation", "validation_fraction", "validation_seed", "drop_twins"),
        "trials that are judged on different images cannot be compared",
    ),
    "exclude": "it is one list of images: give it as a flag",
    **dict.fromkeys(("teacher", "teacher_weight"), "trials learn from the labels alone: take `train`"),
    "start_from": "trials begin with random weights or ImageNet's: take `train`",
    "seed": "the best of several seeds is the luckiest, not a better setting",
    "device": "it says where to train, not what",
    **dict.fromkeys(("averaging", "half"), "it has no say before the test, which a sweep does not look at"),
}  # fmt: skip


@dataclass(frozen=True)
class Dimension:
    """One setting of a search: a range of numbers, or choices.

    low, high: the ends, both allowed; None where there are `choices`. log: whether 0.001 to 0.01 is as far as 0.01
    to 0.1. whole: whether only whole numbers are meant.
    """

    name: str
    choices: tuple[Value, ...] = ()
    low: float | None = None
    high: float | None = None
    log: bool = False
    whole: bool = False

    def __str__(self) -> str:
        """As it is typed after `--search`."""
        if self.choices:
            return f"{self.name}={','.join(map(str, self.choices))}"
        return f"{self.name}={self.low:g}:{self.high:g}{':log' if self.log else ''}"

    def holds(self, value: object) -> bool:
        if self.choices:
            return value in self.choices
        assert self.low is not None
        assert self.high is not None
        return isinstance(value, int | float) and self.low <= value <= self.high

    def ends(self) -> tuple[Value, ...]:
        """What must be allowed for the whole dimension to be."""
        if self.choices:
            return self.choices
        return tuple(int(end) if self.whole else end for end in (self.low, self.high) if end is not None)

    def distribution(self) -> "BaseDistribution":
        """The same for Optuna."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        if self.choices:
            return CategoricalDistribution(self.choices)
        assert self.low is not None
        assert self.high is not None
        if self.whole:
            return IntDistribution(int(self.low), int(self.high), log=self.log)
        return FloatDistribution(self.low, self.high, log=self.log)


def parse_space(texts: Sequence[str], base: Config) -> tuple[Dimension, ...]:
    """The dimensions that `texts` name, such as `learning_rate=1e-4:1e-2:log` and `optimizer=sgd,muon`.

    Raises ValueError, with one line, for what is no setting, an empty range, or a value that cannot be trained.
    """
    space = tuple(_parse(text) for text in texts)
    names = [dimension.name for dimension in space]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"--search {name}: it is given twice")
    for dimension in space:
        if (
            dimension.name in ("mixup", "cutmix")
            and dimension.low is not None
            and dimension.low < LEAST_ALPHA
        ):
            raise ValueError(
                f"--search {dimension}: between 0 and {LEAST_ALPHA} nothing can be trained; begin there, or name "
                f"choices such as {dimension.name}=0,0.1,0.2"
            )
        for value in dimension.ends():
            try:
                check(applied(base, {dimension.name: value}))
            except ValueError as error:
                raise ValueError(f"--search {dimension}: {str(error).splitlines()[0]}") from error
    return space


def default_space(base: Config) -> tuple[Dimension, ...]:
    """Around what the recipe sets: the learning rate by a factor of 5, regularisation from none to much."""
    rate = base.learning_rate
    space = [Dimension("learning_rate", low=_round(rate / 5), high=_round(min(rate * 5, 10)), log=True)]
    if "dropout" in listing(base.architecture).options:
        space.append(Dimension("dropout", low=0.0, high=0.6))
    space.append(Dimension("label_smoothing", low=0.0, high=0.2))
    if base.augmentation > 0:
        space.append(Dimension("augmentation", low=0.0, high=1.5))
    return tuple(space)


def applied(base: Config, values: Mapping[str, Value]) -> Config:
    """The configuration of one trial."""
    changes: dict[str, Any] = dict(values)
    return dataclasses.replace(base, **changes)


def in_full(config: Config, space: Iterable[Dimension]) -> Config:
    """The configuration of a trial for a training of its own: for as many epochs as its recipe has, if that is more."""
    if any(dimension.name == "epochs" for dimension in space):
        return config
    return dataclasses.replace(config, epochs=max(config.epochs, defaults_of(config).epochs))


def write_space(space: Iterable[Dimension]) -> str:
    """JSON, for the store."""
    return json.dumps([dataclasses.asdict(dimension) for dimension in space])


def read_space(text: str) -> tuple[Dimension, ...]:
    """What `write_space` wrote; empty where it is something else."""
    try:
        rows = json.loads(text)
        return tuple(Dimension(**{**row, "choices": tuple(row["choices"])}) for row in rows)
    except (ValueError, TypeError, KeyError):
        return ()


def read_values(space: Iterable[Dimension], params: Mapping[str, str]) -> dict[str, Value] | None:
    """What a trial tried, from the parameters that its run logged; None where they do not fit."""
    kinds = get_type_hints(Config)
    try:
        found = {one.name: parse_value(one.name, params[one.name], kinds[one.name]) for one in space}
    except (ValueError, KeyError):
        return None
    return found


def importances(
    space: Sequence[Dimension], trials: Iterable[tuple[Mapping[str, Value], float]]
) -> dict[str, float]:
    """Share of the differences between trials that each setting accounts for, largest first; adds up to 1.

    By fANOVA (Hutter et al. 2014, Optuna's) in a study that is built in memory. Empty where there are fewer than
    LEAST_FOR_IMPORTANCE trials, fewer than two settings, or no differences.

    Args:
        trials: The values of a finished trial, and its accuracy.
    """
    names = {dimension.name for dimension in space}
    usable = [
        (values, accuracy)
        for values, accuracy in trials
        if names == set(values) and all(one.holds(values[one.name]) for one in space)
    ]
    if len(usable) < LEAST_FOR_IMPORTANCE or len(space) < 2 or len({accuracy for _, accuracy in usable}) < 2:
        return {}
    import optuna
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    distributions = {dimension.name: dimension.distribution() for dimension in space}
    study = optuna.create_study(direction="maximize")
    for values, accuracy in usable:
        study.add_trial(optuna.create_trial(params=dict(values), distributions=distributions, value=accuracy))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return dict(get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0)))


def _parse(text: str) -> Dimension:
    name, equals, rest = text.partition("=")
    name = name.strip().replace("-", "_")
    kinds = get_type_hints(Config)
    if not equals or not rest:
        raise ValueError(f"--search {text}: write NAME=LOW:HIGH, NAME=LOW:HIGH:log or NAME=ONE,ANOTHER")
    if name not in kinds:
        raise ValueError(
            f"--search {text}: there is no setting '{name}'; `python -m trainer train --help` has them"
        )
    if name in _FIXED:
        raise ValueError(f"--search {text}: {name} is not searched: {_FIXED[name]}")
    kind = kinds[name]
    options = [one for one in (get_args(kind) or (kind,)) if one in (int, float)]
    if options and get_origin(kind) is not Literal and ":" in rest:
        return _range(text, name, rest, whole=options[0] is int)
    try:
        choices = tuple(parse_value(name, word.strip(), kind) for word in rest.split(","))
    except ValueError as error:
        raise ValueError(f"--search {text}: {name} takes no such value") from error
    if len(set(choices)) < 2:
        raise ValueError(
            f"--search {text}: there is nothing to choose between; give --{name.replace('_', '-')} instead"
        )
    return Dimension(name, choices=tuple(dict.fromkeys(choices)))


def _range(text: str, name: str, rest: str, *, whole: bool) -> Dimension:
    low_text, high_text, *more = rest.split(":")
    kind = int if whole else float
    try:
        low, high = kind(low_text), kind(high_text)
    except ValueError as error:
        raise ValueError(
            f"--search {text}: '{rest}' is no range of {'whole ' if whole else ''}numbers"
        ) from error
    if more not in ([], ["log"]):
        raise ValueError(f"--search {text}: after the range only :log may follow")
    if not (math.isfinite(low) and math.isfinite(high)) or low >= high:
        raise ValueError(f"--search {text}: the range is empty: the first number must be below the second")
    if more and low <= 0:
        raise ValueError(f"--search {text}: a logarithmic range must begin above 0")
    return Dimension(name, low=low, high=high, log=bool(more), whole=whole)


def _round(value: float) -> float:
    return float(f"{value:.3g}")
