"""A configuration becomes flags, and what its run logged becomes the same configuration again."""

from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.commands.train import parse
from trainer.config import Config, Recipe, recipe_defaults
from trainer.models import ARCHITECTURES
from trainer.settings import configuration, flags, repeatable


def values(name: str, kind: Any) -> st.SearchStrategy:
    """Whatever a field of this type may hold, within reason or not."""
    if get_origin(kind) is Literal:
        return st.sampled_from(get_args(kind))
    if options := get_args(kind):
        return st.one_of(values(name, option) for option in options)
    return {
        NoneType: st.none(),
        bool: st.booleans(),
        int: st.integers(-(2**31), 2**31),
        float: st.floats(allow_nan=False, allow_infinity=False),
        # MLflow keeps None as an empty text, and on a command line it is the word None.
        str: st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12).filter("None".__ne__),
    }[kind]


@st.composite
def configs(draw: st.DrawFn) -> Config:
    """A recipe's defaults for an architecture and mode, with some settings changed at random."""
    recipe = draw(st.sampled_from(get_args(Recipe)))
    architecture = draw(st.sampled_from(list(ARCHITECTURES)))
    mode = draw(st.sampled_from(list(ARCHITECTURES[architecture].modes)))
    pretrained = draw(st.sampled_from([None, "none", "auto", "imagenet", "-weights_1.pt"]))
    defaults = recipe_defaults(recipe, architecture, mode, pretrained)
    kinds = get_type_hints(Config)
    # A model to start from must be there, and decides the network: tests/training/test_beginning.py.
    names = sorted(kinds.keys() - {"recipe", "architecture", "mode", "start_from"})
    changed = draw(st.sets(st.sampled_from(names)))
    own = {name: draw(values(name, kinds[name]), label=name) for name in sorted(changed)}
    return Config(**(vars(defaults) | own))


@settings(deadline=None, max_examples=60)
@given(configs())
def test_the_flags_of_a_configuration_mean_that_configuration(config):
    assert parse(flags(config)) == (config, None)


@pytest.mark.parametrize("recipe", get_args(Recipe))
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_only_what_differs_from_the_recipe_is_given(recipe, architecture):
    config = recipe_defaults(recipe, architecture)
    names = {flag.partition("=")[0] for flag in flags(config)}
    assert names <= {"--recipe", "--architecture"}
    assert flags(Config(**(vars(config) | {"epochs": 3})))[-1] == "--epochs=3"


@settings(deadline=None, max_examples=60)
@given(configs())
def test_a_configuration_is_read_back_from_what_its_run_logged(config):
    logged = {name: "" if value is None else str(value) for name, value in vars(config).items()}
    assert configuration(logged | {"torch": "2.15.0", "parameters": "1000"}) == config


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({}, "the run logged no configuration"),
        ({"recipe": "fast", "architecture": "cnn", "epochs": "many"}, "epochs of the run is 'many'"),
        ({"recipe": "slow", "architecture": "cnn"}, "recipe of the run is 'slow'"),
    ],
)
def test_parameters_that_are_no_configuration_are_refused(params, message):
    with pytest.raises(ValueError, match=message):
        configuration(params)


@pytest.mark.parametrize("name", ["teacher", "start_from"])
def test_a_run_that_learned_from_models_of_another_store_can_be_read_and_not_repeated(name):
    params = {"recipe": "fast", "architecture": "cnn", name: "elsewhere: faces/1"}
    assert configuration(params).recipe == "fast"
    with pytest.raises(ValueError, match="learned from models that are not in this store"):
        repeatable(params)
    assert repeatable(params | {name: "faces/1"}) == configuration(params | {name: "faces/1"})


def test_settings_that_a_run_did_not_know_are_the_recipes():
    params = {"recipe": "report", "architecture": "resnet18", "mode": "layer4", "seed": "7"}
    usual = recipe_defaults("report", "resnet18", "layer4")
    assert configuration(params | {"hidden": "256", "dropout": "0.5"}) == Config(
        **(vars(usual) | {"seed": 7})
    )


def test_a_run_from_before_a_network_had_a_setting_is_trained_again_as_the_network_that_it_was():
    then = recipe_defaults("fast", "resnet18")
    logged = {name: "" if value is None else str(value) for name, value in vars(then).items()}
    assert then.width == 48
    again = configuration({name: value for name, value in logged.items() if name != "width"})
    assert again.width is None
    assert "width" not in again.options()
    assert parse(flags(again)) == (again, None)
