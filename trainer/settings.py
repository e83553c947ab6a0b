"""A configuration as flags of the command line, and back from the parameters that a run logged."""

import contextlib
import dataclasses
from collections.abc import Mapping
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from trainer.config import Config, recipe_defaults
from trainer.contract import ELSEWHERE
from trainer.models import listing


def flags(config: Config) -> list[str]:
    """The shortest arguments of `train` that mean `config`: what differs from its recipe's defaults."""
    values, plain = dataclasses.asdict(config), dataclasses.asdict(Config())
    given = [name for name in ("recipe", "architecture", "mode") if values[name] != plain[name]]
    if config.pretrained != recipe_defaults(config.recipe, config.architecture, config.mode).pretrained:
        given.append("pretrained")
    defaults = dataclasses.asdict(defaults_of(config))
    given += [name for name in values if values[name] != defaults[name]]
    # One word each, so that a value may begin with a dash.
    return [f"--{name.replace('_', '-')}={values[name]}" for name in given]


def defaults_of(config: Config) -> Config:
    """What the recipe of `config` sets for its architecture, mode and initial weights."""
    return recipe_defaults(config.recipe, config.architecture, config.mode, config.pretrained)


def configuration(params: Mapping[str, str]) -> Config:
    """The configuration among the parameters that a run logged; others are passed over.

    What the run did not log, because its version had no such setting, is the recipe's default; of its network, the
    architecture's own, which it had by then.
    Raises ValueError where it logged no recipe, or a value that cannot be read.
    """
    kinds = get_type_hints(Config)
    values = {name: parse_value(name, params[name], kind) for name, kind in kinds.items() if name in params}
    if "recipe" not in values or "architecture" not in values:
        raise ValueError("the run logged no configuration of Moodify's")
    values = dict.fromkeys(listing(values["architecture"]).options) | values
    mode, pretrained = values.get("mode", "full"), values.get("pretrained")
    return dataclasses.replace(
        recipe_defaults(values["recipe"], values["architecture"], mode, pretrained), **values
    )


def repeatable(params: Mapping[str, str]) -> Config:
    """The same, to train it again. Raises ValueError where it learned from models of another store, too."""
    config = configuration(params)
    if any((name or "").startswith(ELSEWHERE) for name in (config.teacher, config.start_from)):
        raise ValueError("it learned from models that are not in this store")
    return config


def parse_value(name: str, text: str, kind: Any) -> Any:
    """A logged parameter as a value of its field's type; MLflow keeps None as an empty text. Raises ValueError."""
    is_union = get_origin(kind) not in (None, Literal)
    options = get_args(kind) if is_union else (kind,)
    if text == "" and NoneType in options:
        return None
    for option in options:
        if get_origin(option) is Literal:
            for value in get_args(option):
                if str(value) == text:
                    return value
        elif option is bool:
            if text in ("True", "False"):
                return text == "True"
        elif option in (int, float, str):
            with contextlib.suppress(ValueError):
                return option(text)
        else:
            assert option is NoneType, f"a field of a new kind: {name}"
    raise ValueError(f"the parameter {name} of the run is '{text}', which cannot be read")
