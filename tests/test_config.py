"""What decides a run: the recipes, the checks, and the file that a run is resumed from."""

import dataclasses
import math
import re
from typing import get_args, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.config import Config, Recipe, check, recipe_defaults
from trainer.models import ARCHITECTURES

RECIPES = get_args(Recipe)
MODES = sorted({mode for entry in ARCHITECTURES.values() for mode in entry.modes})
HINTS = get_type_hints(Config)
NUMBERS = [
    name for name, hint in HINTS.items() if {int, float} & {hint, *get_args(hint)} and name != "channels"
]


def strategy(hint: object) -> st.SearchStrategy:
    """Values of one field; NaN is left out, as it equals nothing."""
    if hint is float:
        return st.floats(allow_nan=False)
    if hint == float | None:
        return st.none() | st.floats(allow_nan=False)
    return st.from_type(hint)


def flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def changed(name: str, value: float) -> Config:
    # Without augmentation, so that a value is refused for its range and not for its product with another.
    owner = next((key for key, entry in ARCHITECTURES.items() if name in entry.options), "cnn")
    return dataclasses.replace(
        recipe_defaults("fast", owner), **{"augmentation": 0.0, "zoom": 0.0, name: value}
    )


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("mode", MODES)
def test_the_defaults_can_be_trained_in_every_mode_that_the_architecture_has(recipe, architecture, mode):
    config = recipe_defaults(recipe, architecture, mode)
    assert (config.recipe, config.architecture, config.mode) == (recipe, architecture, mode)
    if mode in ARCHITECTURES[architecture].modes:
        check(config)
    else:
        with pytest.raises(ValueError, match=f"^--mode {mode}: {architecture} is trained in mode full"):
            check(config)


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize(("architecture", "entry"), ARCHITECTURES.items())
def test_weights_that_nobody_published_are_refused_and_those_of_imagenet_are_not(recipe, architecture, entry):
    for pretrained in ("imagenet", "auto", "some/file.pt"):
        for mode in entry.modes:
            config = recipe_defaults(recipe, architecture, mode, pretrained)
            assert config.pretrained == pretrained
            if entry.imagenet:
                check(config)
            else:
                with pytest.raises(ValueError, match=f"--pretrained {pretrained}: there are no pretrained"):
                    check(config)


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize(("architecture", "entry"), ARCHITECTURES.items())
def test_random_weights_are_never_frozen(recipe, architecture, entry):
    for mode, trained in entry.modes.items():
        config = recipe_defaults(recipe, architecture, mode, "none")
        if trained:
            with pytest.raises(ValueError, match=f"--mode {mode} with --pretrained none"):
                check(config)
        else:
            check(config)


def test_the_report_recipe_of_the_cnn_is_the_reports_own():
    found = dataclasses.asdict(recipe_defaults("report", "cnn"))
    expected = {
        "blocks": "32 64 128", "hidden": 512, "dropout": 0.4, "image_size": 48, "channels": 1,
        "optimizer": "adam", "learning_rate": 1e-3, "schedule": "constant", "weight_decay": 0.0,
        "batch_size": 64, "epochs": 20, "early_stopping": 0,
        "augmentation": 1.0, "rotation": 10.0, "flip": True, "zoom": 0.0, "shift": 0.0, "erase": 0.0, "clean_end": 0.0,
        "label_smoothing": 0.0, "mixup": 0.0, "cutmix": 0.0, "class_weighting": "none", "ema_decay": 0.0,
        "mode": "full", "pretrained": "none",
    }  # fmt: skip
    assert {name: found[name] for name in expected} == expected


@pytest.mark.parametrize(("mode", "learning_rate"), [("fc", 1e-3), ("layer4", 1e-4), ("full", 1e-5)])
def test_the_report_recipe_of_resnet18_is_the_reports_own(mode, learning_rate):
    found = dataclasses.asdict(recipe_defaults("report", "resnet18", mode))
    expected = {
        "hidden": 256, "dropout": 0.5, "image_size": 224, "channels": 3, "stem": None, "pretrained": "auto",
        "optimizer": "adam", "learning_rate": learning_rate, "schedule": "constant", "weight_decay": 0.0,
        "batch_size": 64, "epochs": 20, "early_stopping": 0,
        "augmentation": 1.0, "rotation": 10.0, "flip": True, "zoom": 0.0, "shift": 0.0, "erase": 0.0, "clean_end": 0.0,
        "label_smoothing": 0.0, "mixup": 0.0, "cutmix": 0.0, "class_weighting": "none", "ema_decay": 0.0,
        "mode": mode,
    }  # fmt: skip
    assert {name: found[name] for name in expected} == expected


def test_the_report_recipe_trains_resnet18_from_scratch_at_a_rate_that_can():
    assert recipe_defaults("report", "resnet18", "full", "none").learning_rate == 1e-3


@pytest.mark.parametrize("recipe", ["fast", "best"])
def test_our_own_recipes_train_resnet18_from_scratch_and_take_imagenets_stem_with_its_weights(recipe):
    scratch = recipe_defaults(recipe, "resnet18")
    assert scratch.pretrained == "none"
    assert scratch.stem != "imagenet"
    assert scratch.mixup > 0
    for mode, pretrained in (
        ("full", "auto"),
        ("full", "imagenet"),
        ("full", "w.pt"),
        ("fc", None),
        ("layer4", None),
    ):
        tuned = recipe_defaults(recipe, "resnet18", mode, pretrained)
        assert (tuned.stem, tuned.width, tuned.progressive) == ("imagenet", 64, None)
        assert tuned.pretrained == (pretrained or "auto")


def test_the_best_recipes_are_fast_ones_for_a_gpu():
    for architecture in ARCHITECTURES:
        best, fast = (recipe_defaults(recipe, architecture) for recipe in ("best", "fast"))
        assert (best.precision, best.compile, best.averaging) == ("bf16", True, "ten")
        assert best.epochs > fast.epochs
        assert best.optimizer == fast.optimizer


def test_an_architecture_that_the_recipes_do_not_know_trains_by_their_protocol(monkeypatch):
    monkeypatch.setitem(ARCHITECTURES, "tiny", dataclasses.replace(ARCHITECTURES["cnn"], options=("hidden",)))
    for recipe in RECIPES:
        tiny, cnn = recipe_defaults(recipe, "tiny"), recipe_defaults(recipe, "cnn")
        check(tiny)
        assert tiny.options() == {}
        own = ("architecture", "blocks", "layout", "hidden", "dropout", "epochs", "image_size", "progressive")
        assert dataclasses.replace(tiny, **{name: getattr(cnn, name) for name in own}) == cnn


@pytest.mark.parametrize(
    ("architecture", "changes", "message"),
    [
        (
            "cnn",
            {"dataset": "fer"},
            "--dataset: there is no dataset 'fer': choose one of fer2013, sketch, or give",
        ),
        ("cnn", {"dataset": "sketch", "data_dir": "faces"}, "--data-dir: sketch"),
        ("cnn", {"dataset": "sketch", "validation": "public"}, "--validation public: only fer2013"),
        ("cnn", {"architecture": "vgg"}, "--architecture vgg: choose one of cnn, resnet18"),
        ("cnn", {"mode": "fc"}, "--mode fc: cnn is trained in mode full"),
        ("cnn", {"pretrained": "imagenet"}, "--pretrained imagenet: there are no pretrained weights for cnn"),
        ("resnet18", {"layout": "residual"}, "--layout: resnet18 takes no such option"),
        ("cnn", {"stem": "small"}, "--stem: cnn takes no such option"),
        ("resnet18", {"blocks": "4 8"}, "--blocks: resnet18 takes no such option"),
        ("resnet18", {"mode": "fc", "pretrained": "none"}, "--mode fc with --pretrained none"),
        (
            "resnet18",
            {"stem": "small", "width": 64, "pretrained": "imagenet"},
            "--stem small has no ImageNet weights",
        ),
        (
            "resnet18",
            {"stem": "small", "width": 64, "pretrained": "a.pt"},
            "--stem small has no ImageNet weights",
        ),
        ("resnet18", {"width": 48, "stem": None, "pretrained": "a.pt"}, "--width 48 has no ImageNet weights"),
        ("cnn", {"width": 48}, "--width: cnn takes no such option"),
        (
            "resnet18",
            {"stem": "full", "width": 64, "pretrained": "auto", "mode": "fc"},
            "--stem full has no ImageNet weights",
        ),
        (
            "cnn",
            {"progressive": "16:0.5", "blocks": "8 8 8 8 8"},
            "--progressive: 5 blocks halve a 16 px image to nothing",
        ),
        (
            "cnn",
            {"progressive": "32"},
            "--progressive: '32' is not a side and a share of the epochs such as 32:0.5",
        ),
        ("cnn", {"progressive": "4:0.5"}, "--progressive: '4:0.5' is not a side and a share"),
        ("cnn", {"progressive": "32:0"}, "--progressive: '32:0' is not a side and a share"),
        ("cnn", {"progressive": "half:0.5"}, "--progressive: 'half:0.5' is not a side and a share"),
        (
            "cnn",
            {"progressive": "32:0.5 40:0.6"},
            "--progressive: the shares in '32:0.5 40:0.6' add up to more than 1",
        ),
        ("cnn", {"zoom": 0.5, "augmentation": 2.0}, "--zoom 0.5 × --augmentation 2.0: must stay below 1"),
        ("cnn", {"teacher": ""}, "--teacher '': give one model, or several"),
        ("cnn", {"teacher": " , "}, "--teacher ' , ': give one model, or several"),
        ("cnn", {"teacher": "a/1,"}, "--teacher 'a/1,': give one model, or several"),
        ("cnn", {"teacher_weight": 0.5}, "--teacher-weight 0.5: says nothing without --teacher"),
        ("cnn", {"start_from": " "}, "--start-from: name a model"),
        (
            "resnet18",
            {"start_from": "a/1", "pretrained": "auto"},
            "--start-from a/1 with --pretrained auto: give one",
        ),
        (
            "cnn",
            {"validation": "public", "validation_seed": 3},
            "--validation-seed: says nothing with --validation",
        ),
        ("cnn", {"mixup": 0.01}, "--mixup 0.01: must be 0, or 0.05 or more"),
        ("cnn", {"mixup": 0.2, "cutmix": 1.0}, "--mixup 0.2 with --cutmix 1.0: give one of them"),
        (
            "cnn",
            {"jitter": 0.6, "augmentation": 2.0},
            "--jitter 0.6 × --augmentation 2.0: must be 1 at most",
        ),
    ],
)
def test_what_cannot_be_trained_is_refused_in_one_line_that_names_the_flag(architecture, changes, message):
    config = recipe_defaults("fast", architecture)
    check(config)
    with pytest.raises(ValueError, match=f"^{re.escape(message)}.*$") as caught:
        check(dataclasses.replace(config, **changes))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("blocks", ["8 wide", "", "0", "8x0", "8 8 8 8 8 8"])
def test_blocks_that_cannot_be_built_are_refused_before_the_data_are_loaded(blocks):
    with pytest.raises(ValueError, match=r"^--blocks"):  # six blocks halve 48 px to nothing
        check(dataclasses.replace(recipe_defaults("fast", "cnn"), blocks=blocks))


def test_each_mistake_has_a_line_of_its_own():
    config = dataclasses.replace(recipe_defaults("fast", "cnn"), mode="fc", epochs=0, dropout=2.0)
    with pytest.raises(ValueError, match="--epochs 0") as caught:
        check(config)
    lines = str(caught.value).splitlines()
    assert [line.split()[0] for line in lines] == ["--mode", "--dropout", "--epochs"]


def test_a_small_stem_may_be_combined_with_auto_or_no_weights():
    for pretrained in ("auto", "none"):
        check(dataclasses.replace(recipe_defaults("fast", "resnet18", "full", pretrained), stem="small"))


def test_the_list_of_numeric_fields_is_not_empty():
    assert {"epochs", "learning_rate", "hidden", "dropout", "seed", "validation_seed"} <= set(NUMBERS)


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", [-1, 1e12, math.nan, math.inf])
def test_every_number_has_a_range_and_a_message_that_names_its_flag(name, value):
    with pytest.raises(ValueError, match=f"^{flag(name)} {value}: must lie"):
        check(changed(name, value))


@pytest.mark.parametrize(
    ("name", "value"),
    [("epochs", 1), ("batch_size", 2), ("image_size", 32), ("dropout", 0.0), ("mixup", 0.0), ("seed", 0),
     ("validation_fraction", 0.5), ("erase", 1.0), ("rotation", 180.0), ("learning_rate", 10.0)],
)  # fmt: skip
def test_the_ends_of_a_range_belong_to_it(name, value):
    check(changed(name, value))


@pytest.mark.parametrize(
    ("name", "value"),
    [("epochs", 0), ("batch_size", 1), ("image_size", 31), ("learning_rate", 0.0), ("ema_decay", 1.0),
     ("validation_fraction", 0.0), ("erase", 1.01), ("rotation", 181.0), ("dropout", 1.0)],
)  # fmt: skip
def test_just_outside_of_a_range_is_refused(name, value):
    with pytest.raises(ValueError, match=f"^{flag(name)} {value}: must lie"):
        check(changed(name, value))


def test_the_network_gets_only_the_options_that_are_set():
    assert recipe_defaults("report", "cnn").options() == {
        "blocks": "32 64 128",
        "layout": "plain",
        "hidden": 512,
        "dropout": 0.4,
    }
    assert recipe_defaults("report", "resnet18").options() == {"hidden": 256, "dropout": 0.5}
    # 0 is a value, None is not.
    assert recipe_defaults("fast", "cnn").options()["hidden"] == 0


@settings(max_examples=50, deadline=None)
@given(st.builds(Config, **{name: strategy(hint) for name, hint in HINTS.items()}))
def test_a_configuration_survives_json(config):
    assert Config.from_json(config.to_json()) == config


def test_a_configuration_of_another_version_is_refused_by_the_names_that_differ():
    text = Config(epochs=77).to_json()
    with pytest.raises(ValueError, match=r"another version \(it differs in: epochs\)"):
        Config.from_json(text.replace('"epochs": 77,', ""))
    with pytest.raises(ValueError, match=r"another version \(it differs in: momentum, seed\)"):
        Config.from_json(text.replace('"seed"', '"momentum"'))


def test_a_configuration_that_is_not_json_is_refused():
    with pytest.raises(ValueError, match="Expecting"):
        Config.from_json("epochs: 77")


def test_a_configuration_cannot_be_changed_after_it_was_checked():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().epochs = 3
