"""The training loop: that it learns, repeats itself, goes on where it stopped, and stops where it should."""

import dataclasses
import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss, recall_score
from sklearn.utils.class_weight import compute_class_weight
from torch import nn

from trainer.config import Config, recipe_defaults
from trainer.data.base import Split
from trainer.models import ARCHITECTURES
from trainer.models.base import Probabilities
from trainer.training import loop
from trainer.training.environment import make_fabric
from trainer.training.loop import CompilationError, Epoch, Training, TrainSet, fit, training_step, validate
from trainer.training.muon import Muon
from trainer.training.prediction import evaluation_batch, predict
from trainer.training.pretrained import make_classifier
from trainer.training.schedule import class_weights, learning_rate, make_optimizers

SIDE = 32
SMALL = {"blocks": "4 8", "hidden": 8}
TIMINGS = ("images_per_second", "seconds")


def small_config(architecture: str = "cnn", **changes: object) -> Config:
    options = {name: value for name, value in SMALL.items() if name in ARCHITECTURES[architecture].options}
    defaults = {"image_size": SIDE, "batch_size": 8, "epochs": 4, "device": "cpu", "learning_rate": 0.01}
    defaults["precision"] = "32"  # the same numbers on every machine
    config = recipe_defaults("fast", architecture, pretrained="none")
    return dataclasses.replace(config, **(defaults | options | changes))


def make_training(config: Config, num_classes: int = 3, *, seed: int | None = None) -> Training:
    torch.manual_seed(config.seed if seed is None else seed)
    classifier, config = make_classifier(config, num_classes, 0.5, 0.25)
    return Training(classifier, config, make_fabric(config))


def noise_faces(count: int, num_classes: int = 3, seed: int = 0) -> Split:
    """Noise with labels by turns: nothing to generalise from, but it can be learnt by heart."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, 1, SIDE, SIDE), generator=generator, dtype=torch.uint8)
    return Split(images, torch.arange(count) % num_classes, tuple(map(str, range(count))))


def stripes(count: int, seed: int = 0) -> Split:
    """Three classes that are easy to tell apart: grey, lying stripes, standing stripes, each with noise."""
    generator = torch.Generator().manual_seed(seed)
    target = torch.arange(count) % 3
    wave = 128 + 60 * torch.sin(torch.arange(SIDE) * math.pi / 4)
    patterns = torch.stack([
        torch.full((SIDE, SIDE), 128.0), wave[:, None].expand(SIDE, SIDE), wave[None].expand(SIDE, SIDE)
    ])  # fmt: skip
    images = patterns[target] + 20 * torch.randn(count, SIDE, SIDE, generator=generator)
    return Split(images.clamp(0, 255).byte()[:, None], target, tuple(map(str, range(count))))


def train(training: Training, train_split: Split, validation: Split | None = None, num_classes: int = 3):
    return list(fit(training, train_split, validation or train_split, num_classes))


def numbers(history: list[Epoch]) -> list[dict]:
    """The history without what a clock decides."""
    return [{k: v for k, v in vars(epoch).items() if k not in TIMINGS} for epoch in history]


def assert_same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert set(first) == set(second)
    assert first
    for name in first:
        assert torch.equal(first[name], second[name]), name


def snapshot(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in state.items()}


@pytest.mark.parametrize(
    "architecture",
    [pytest.param(name, marks=pytest.mark.slow if name == "resnet18" else ()) for name in ARCHITECTURES],
)
def test_every_architecture_can_learn_one_batch_by_heart(architecture):
    config = small_config(
        architecture,
        epochs=60, learning_rate=0.01, optimizer="adam", schedule="constant", weight_decay=0.0,
        augmentation=0.0, label_smoothing=0.0, dropout=None,
    )  # fmt: skip
    if "dropout" in ARCHITECTURES[architecture].options:
        config = dataclasses.replace(config, dropout=0.0)
    training, faces = make_training(config), noise_faces(8)
    for epoch in fit(training, faces, faces, 3):
        if epoch.train_accuracy == 1 and epoch.train_loss < 0.1:
            break
    assert training.history[0].train_loss > 0.5
    assert len(training.history) < 60


def test_what_was_learnt_holds_for_images_that_were_not_seen():
    training = make_training(small_config(epochs=6, batch_size=16))
    history = train(training, stripes(96), stripes(48, seed=1))
    assert history[-1].validation_accuracy > 0.9
    assert history[-1].validation_macro_recall == pytest.approx(history[-1].validation_accuracy, abs=1e-6)
    assert [epoch.number for epoch in history] == [1, 2, 3, 4, 5, 6]


EVERYTHING = {
    "dropout": 0.3, "mixup": 0.4, "ema_decay": 0.9, "erase": 0.5, "augmentation": 1.0,
    "class_weighting": "balanced", "label_smoothing": 0.1, "jitter": 0.2,
}  # fmt: skip


def test_the_same_seed_gives_the_same_numbers_to_the_bit_and_another_seed_gives_others():
    trainings = []
    for seed in (0, 0, 1):
        training = make_training(small_config(epochs=3, seed=seed, **EVERYTHING))
        torch.rand(3 + len(trainings))  # what else drew random numbers does not matter
        train(training, stripes(41), stripes(20, seed=1))
        trainings.append(training)
    first, again, other = trainings
    assert numbers(first.history) == numbers(again.history)
    assert_same(first.classifier.state_dict(), again.classifier.state_dict())
    assert_same(first.best_weights, again.best_weights)
    assert numbers(first.history) != numbers(other.history)


@pytest.mark.parametrize(
    "changes",
    [
        EVERYTHING,
        {"optimizer": "sgd", "schedule": "cosine"},
        {"optimizer": "adam", "schedule": "constant"},
        {"progressive": "16:0.4 24:0.2"},
        {"cutmix": 1.0, "augmentation": 1.0, "clean_end": 0.4},
    ],
    ids=["everything", "sgd", "adam", "progressive", "cutmix"],
)
@pytest.mark.parametrize("done", [1, 3])
def test_a_resumed_training_equals_the_one_that_was_never_interrupted(tmp_path, changes, done):
    config = small_config(epochs=5, **changes)
    faces, validation = stripes(41), stripes(20, seed=1)
    whole = make_training(config)
    train(whole, faces, validation)

    interrupted = make_training(config)
    epochs = fit(interrupted, faces, validation, 3)
    for _ in range(done):
        next(epochs)
    torch.save(interrupted.state_dict(), tmp_path / "state.pt")

    resumed = make_training(config, seed=1234)
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert numbers(resumed.history) == numbers(whole.history[:done])
    train(resumed, faces, validation)
    assert numbers(resumed.history) == numbers(whole.history)
    assert resumed.best_epoch == resumed.history[whole.best_epoch.number - 1]
    assert_same(resumed.classifier.state_dict(), whole.classifier.state_dict())
    assert_same(resumed.evaluated.state_dict(), whole.evaluated.state_dict())
    assert_same(resumed.best_weights, whole.best_weights)


def test_a_network_that_cannot_be_compiled_here_is_told_in_one_line(monkeypatch):
    from torch._dynamo.exc import TorchDynamoException

    def no_compiler(*_: object) -> float:
        raise TorchDynamoException(
            "InvalidCxxCompiler: No working C++ compiler found\n\nSet TORCHDYNAMO_VERBOSE=1"
        )

    monkeypatch.setattr(loop, "warm_up", no_compiler)
    training = make_training(small_config())
    training.compiled = True
    with pytest.raises(
        CompilationError, match=r"cannot be compiled here \(.*compiler found\): give --compile False$"
    ):
        train(training, stripes(16))


def test_large_images_are_evaluated_fewer_at_a_time():
    for side, batch in ((40, 256), (48, 256), (96, 64), (224, 12)):
        classifier = make_training(small_config(image_size=side)).classifier
        assert evaluation_batch(classifier) == evaluation_batch(Probabilities(classifier)) == batch


def test_a_training_that_is_finished_does_not_go_on():
    training = make_training(small_config(epochs=2))
    assert len(train(training, stripes(16))) == 2
    assert training.finished
    assert train(training, stripes(16)) == []


def test_the_best_epoch_is_the_first_of_those_with_the_highest_validation_accuracy():
    training = make_training(small_config(epochs=12, batch_size=16, augmentation=0.0))
    kept = [snapshot(training.best_weights) for _ in fit(training, stripes(96), stripes(30, seed=1), 3)]
    accuracies = [epoch.validation_accuracy for epoch in training.history]
    best = int(np.argmax(accuracies))  # the first of equals
    assert accuracies.count(max(accuracies)) > 1
    assert training.best_epoch == training.history[best]
    assert [epoch.best for epoch in training.history] == [
        accuracy > max(accuracies[:index], default=-1) for index, accuracy in enumerate(accuracies)
    ]
    # Its weights are kept as they were, whatever is trained after it.
    assert_same(training.best_weights, kept[best])
    assert not torch.equal(
        training.best_weights["network.0.0.weight"], training.classifier.state_dict()["network.0.0.weight"]
    )
    assert all(value.device.type == "cpu" for value in training.best_weights.values())


@pytest.mark.parametrize("ema_decay", [0.0, 0.8])
def test_the_best_weights_give_the_best_accuracy_again(ema_decay):
    training = make_training(small_config(epochs=5, ema_decay=ema_decay))
    validation = stripes(30, seed=1)
    train(training, stripes(48), validation)
    classifier, _ = make_classifier(training.config, 3, 0.5, 0.25)
    classifier.load_state_dict(training.best_weights)
    logits = predict(classifier, validation.images, torch.device("cpu"))
    loss, accuracy, _ = validate(logits, validation.target, 3)
    assert accuracy == training.best_epoch.validation_accuracy
    assert loss == pytest.approx(training.best_epoch.validation_loss, abs=1e-5)


def make_epoch(number: int, *, best: bool) -> Epoch:
    values = dict.fromkeys((field.name for field in dataclasses.fields(Epoch)), 0.0)
    return Epoch(**(values | {"number": number, "best": best}))


@pytest.mark.parametrize(
    ("patience", "bests", "finished"),
    [(2, "", False), (2, "+", False), (2, "+-", False), (2, "+--", True), (2, "+-+-", False),
     (2, "+-+--", True), (0, "+-----", False), (0, "+" * 10, True), (2, "+" * 10, True)],
)  # fmt: skip
def test_patience_counts_the_epochs_since_the_best_one(patience, bests, finished):
    training = make_training(small_config(epochs=10, early_stopping=patience))
    training.history = [make_epoch(index + 1, best=sign == "+") for index, sign in enumerate(bests)]
    assert training.finished == finished


def test_a_run_without_progress_stops_early():
    training = make_training(small_config(epochs=30, batch_size=16, early_stopping=2, augmentation=0.0))
    history = train(training, stripes(96), stripes(30, seed=1))
    assert len(history) == training.best_epoch.number + 2 < 30


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_loss_that_is_no_number_ends_the_training_with_advice(architecture):
    config = small_config(architecture, learning_rate=1e30, schedule="constant", optimizer="sgd", epochs=20)
    training = make_training(config)
    with pytest.raises(
        FloatingPointError, match=r"loss became (nan|inf) in epoch \d+: lower --learning-rate"
    ):
        train(training, noise_faces(16))
    assert len(training.history) < 20
    assert all(math.isfinite(epoch.train_loss) for epoch in training.history)


@pytest.mark.parametrize("count", [9, 8])
def test_a_last_batch_of_one_image_is_left_out(count):
    # The hidden layer's batch norm refuses a single image.
    training = make_training(small_config(batch_size=4, epochs=1, ema_decay=0.5))
    [only] = train(training, noise_faces(count), noise_faces(4))
    steps = {int(state["step"]) for state in training.optimizers[-1].state.values()}
    assert steps == {2}
    assert int(training.average.n_averaged) == 2
    assert 0 <= only.train_accuracy <= 1


def test_a_last_batch_of_two_images_is_used():
    training = make_training(small_config(batch_size=4, epochs=1))
    train(training, noise_faces(10), noise_faces(4))
    assert {int(state["step"]) for state in training.optimizers[-1].state.values()} == {3}


def test_every_image_is_seen_once_an_epoch_in_an_order_that_changes():
    training = make_training(small_config(batch_size=4, epochs=2, augmentation=0.0))
    levels = torch.arange(12, dtype=torch.uint8) * 20
    faces = Split(
        levels[:, None, None, None].repeat(1, 1, SIDE, SIDE), torch.arange(12) % 3, tuple("abcdefghijkl")
    )
    seen: list[int] = []
    training.classifier.register_forward_pre_hook(
        lambda module, inputs: (
            seen.extend((inputs[0][:, 0, 0, 0] * 255).round().int().tolist()) if module.training else None
        )
    )
    train(training, faces)
    assert sorted(seen[:12]) == sorted(seen[12:]) == levels.tolist()
    assert seen[:12] != seen[12:]
    assert seen[:12] != levels.tolist()


@pytest.mark.parametrize("weighting", ["none", "balanced", "sqrt"])
def test_class_weights_are_those_of_scikit_learn_up_to_scale(weighting):
    counts = [3, 40, 12, 7]
    target = np.repeat(np.arange(4), counts)
    found = class_weights(torch.from_numpy(target), 4, weighting)
    if weighting == "none":
        assert found is None
        return
    expected = compute_class_weight("balanced", classes=np.arange(4), y=target)
    expected = np.sqrt(expected) if weighting == "sqrt" else expected
    assert (found / found[0]).tolist() == pytest.approx(expected / expected[0], rel=1e-5)
    assert found[torch.from_numpy(target)].mean().item() == pytest.approx(1.0)
    assert found.dtype == torch.float32


def test_a_class_without_images_weighs_nothing():
    found = class_weights(torch.tensor([0, 0, 2]), 4, "balanced")
    assert found.tolist() == pytest.approx([0.75, 0.0, 1.5, 0.0])


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weights", [None, torch.tensor([2.0, 1.0, 0.5])])
def test_a_step_minimises_the_weighted_and_smoothed_cross_entropy(smoothing, weights):
    training = make_training(small_config(label_smoothing=smoothing, dropout=0.0, learning_rate=0.0))
    images, target = torch.rand(6, 1, SIDE, SIDE), torch.tensor([0, 1, 2, 0, 1, 1])
    labels = nn.functional.one_hot(target, 3).float()
    loss, correct = training_step(training, images, labels, target, weights).tolist()
    training.classifier.train()
    logits = training.classifier(images)
    smoothed = labels * (1 - smoothing) + smoothing / 3
    weighed = smoothed if weights is None else smoothed * weights
    expected = -(weighed * logits.log_softmax(1)).sum(1)
    assert loss == pytest.approx(expected.sum().item(), rel=1e-4)
    assert correct == (logits.argmax(1) == target).sum()


@pytest.mark.parametrize(
    ("schedule", "shares"),
    [
        ("constant", {0: 1.0, 0.5: 1.0, 1: 1.0}),
        ("cosine", {0: 1.0, 0.5: 0.5, 1: 0.0}),
        ("onecycle", {0: 0.04, 0.25: 1.0, 0.625: 0.5, 1: 0.0}),
    ],
)
def test_a_schedule_goes_through_its_ends_and_its_middle(schedule, shares):
    config = Config(schedule=schedule, learning_rate=0.2)
    for progress, share in shares.items():
        assert learning_rate(config, progress) == pytest.approx(0.2 * share, abs=1e-12)


def test_onecycle_rises_for_a_quarter_and_falls_from_then_on():
    rates = [learning_rate(Config(schedule="onecycle"), step / 100) for step in range(101)]
    assert all(before < after for before, after in pairwise(rates[:26]))
    assert all(before > after for before, after in pairwise(rates[25:]))


def test_the_optimiser_runs_at_the_rate_of_the_schedule():
    training = make_training(small_config(epochs=2, batch_size=8, schedule="cosine"))
    history = train(training, noise_faces(32))
    # Four steps an epoch: the last ones are at 3/8 and 7/8 of the training.
    for found, progress in zip(history, (3 / 8, 7 / 8), strict=True):
        assert found.learning_rate == pytest.approx(0.01 * (1 + math.cos(math.pi * progress)) / 2)
    assert {group["lr"] for optimizer in training.optimizers for group in optimizer.param_groups} == {
        history[-1].learning_rate
    }


@pytest.mark.parametrize(
    ("name", "kind"), [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW), ("sgd", torch.optim.SGD)]
)
def test_matrices_and_filters_are_decayed_and_norms_and_biases_are_not(name, kind):
    config = small_config(optimizer=name, weight_decay=0.3)
    classifier, _ = make_classifier(config, 3, 0.5, 0.25)
    classifier.network[0].requires_grad_(False)
    [optimizer] = make_optimizers(classifier, config)
    assert type(optimizer) is kind
    decayed, plain = optimizer.param_groups
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.3, 0.0)
    head = dict(classifier.network[1].named_parameters())
    assert {id(p) for p in decayed["params"]} == {id(p) for p in head.values() if p.ndim > 1}
    assert {id(p) for p in plain["params"]} == {id(p) for p in head.values() if p.ndim == 1}


def test_muon_takes_the_filters_over_features_and_adamw_the_rest():
    config = small_config(optimizer="muon", weight_decay=0.3)
    classifier, _ = make_classifier(config, 3, 0.5, 0.25)
    muon, adamw = make_optimizers(classifier, config)
    assert (type(muon), type(adamw)) == (Muon, torch.optim.AdamW)
    names = {id(parameter): name for name, parameter in classifier.network.named_parameters()}
    assert [names[id(p)] for group in muon.param_groups for p in group["params"]] == ["0.4.weight"]
    rest = [names[id(p)] for group in adamw.param_groups for p in group["params"]]
    assert sorted([*rest, "0.4.weight"]) == sorted(names.values())


@pytest.mark.parametrize(("processes", "sizes"), [(1, [8, 8, 2]), (2, [8, 8, 2]), (3, [8, 8])])
def test_a_last_batch_that_has_no_image_for_each_process_is_left_out(processes, sizes):
    training = make_training(config := small_config())
    train_set = TrainSet.on_device(training, noise_faces(18), 3, None)
    batches = train_set.batches(config, torch.Generator(), processes)
    assert [len(batch) for batch in batches] == sizes


def test_where_no_filter_is_trained_muon_is_adamw():
    config = small_config("resnet18", optimizer="muon")
    classifier, _ = make_classifier(config, 3, 0.5, 0.25)
    classifier.freeze_except(["fc"])
    assert [type(optimizer) for optimizer in make_optimizers(classifier, config)] == [torch.optim.AdamW]


@pytest.mark.parametrize("augmentation", [0.0, 1.0])
def test_a_training_sees_small_images_first_and_is_judged_on_whole_ones(augmentation):
    config = small_config(
        epochs=2, progressive="16:0.5", batch_size=8, averaging="none", augmentation=augmentation
    )
    training, seen = make_training(config), []
    training.classifier.network.register_forward_pre_hook(
        lambda module, inputs: seen.append((module.training, inputs[0].shape[-1]))
    )
    train(training, noise_faces(16), noise_faces(8))
    epoch = [(True, 0)] * 2 + [(False, SIDE)]
    expected = [(mode, 16 if mode else side) for mode, side in epoch] + [(mode, SIDE) for mode, _ in epoch]
    assert seen == expected


@pytest.mark.parametrize("mixing", ["mixup", "cutmix"])
def test_the_last_epochs_are_clean_and_those_before_them_as_ever(mixing):
    strong = {"rotation": 10.0, "zoom": 0.1, "shift": 0.1, "erase": 0.5, "jitter": 0.2, mixing: 0.4}
    none = dict.fromkeys(strong, 0.0)
    settings = {"epochs": 4, "augmentation": 1.0, "averaging": "none"}
    augmented, half, clean, flips = (
        make_training(small_config(**settings, **values, clean_end=end))
        for values, end in ((strong, 0.0), (strong, 0.5), (strong, 1.0), (none, 0.0))
    )
    for training in (augmented, half, clean, flips):
        train(training, stripes(41))
    assert numbers(clean.history) == numbers(flips.history)
    assert numbers(half.history)[:2] == numbers(augmented.history)[:2]
    assert numbers(half.history)[2] != numbers(augmented.history)[2]
    assert half.history[-1].train_loss < augmented.history[-1].train_loss


def test_mixup_and_cutmix_are_not_one_training():
    trainings = [make_training(small_config(epochs=1, **{name: 0.4})) for name in ("mixup", "cutmix")]
    losses = [train(training, stripes(41))[0].train_loss for training in trainings]
    assert losses[0] != losses[1]


def test_a_teacher_is_learned_from_in_its_share():
    config = small_config(epochs=40, batch_size=16, augmentation=0.0, label_smoothing=0.0, teacher_weight=1.0)
    faces = stripes(48)
    soft_targets = torch.full((48, 3), 0.1)
    soft_targets[torch.arange(48), (faces.target + 1) % 3] = (
        0.8  # it is wrong, and nobody is asked but the teacher
    )
    training = make_training(config)
    *_, last = fit(training, faces, stripes(30, seed=1), 3, soft_targets=soft_targets)
    assert last.validation_accuracy < 0.2
    assert last.train_accuracy < 0.2  # of the true classes
    answers = predict(training.evaluated, stripes(30, seed=1).images, torch.device("cpu")).softmax(1)
    right = (stripes(30, seed=1).target + 1) % 3
    assert answers[torch.arange(30), right].median() == pytest.approx(0.8, abs=0.1)


def test_the_average_is_what_is_judged_and_moves_behind_weights_and_statistics():
    training = make_training(small_config(epochs=1, ema_decay=0.5, batch_size=8))
    assert training.evaluated is not training.classifier
    steps = []
    training.optimizers[-1].register_step_post_hook(
        lambda *_: steps.append(snapshot(training.classifier.state_dict()))
    )
    train(training, noise_faces(24))
    first, second, third = steps
    found = training.evaluated.state_dict()
    for name in ("network.1.1.weight", "network.0.2.running_mean"):
        expected = (
            first[name].lerp(second[name], 10 / 11).lerp(third[name], 10 / 12)
        )  # the decay grows to 0.5
        torch.testing.assert_close(found[name], expected)
        assert not torch.equal(found[name], third[name])


def test_predicting_takes_any_number_of_images_and_is_done_in_evaluation_mode():
    training = make_training(small_config(dropout=0.5))
    classifier = training.classifier.train()
    images = noise_faces(300).images
    found = predict(classifier, images, torch.device("cpu"))
    assert found.shape == (300, 3)
    assert not classifier.training
    single = torch.cat(
        [predict(classifier, images[i : i + 1], torch.device("cpu")) for i in (0, 255, 256, 299)]
    )
    torch.testing.assert_close(found[[0, 255, 256, 299]], single, atol=1e-5, rtol=1e-5)


def test_validation_agrees_with_scikit_learn_also_where_a_class_does_not_occur():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(50, 5, generator=generator)
    target = torch.randint(0, 4, (50,), generator=generator)
    loss, accuracy, recall = validate(logits, target, 5)
    preds = logits.argmax(1)
    assert loss == pytest.approx(log_loss(target, logits.double().softmax(1), labels=range(5)), abs=1e-5)
    assert accuracy == pytest.approx((preds == target).float().mean().item())
    assert (preds == 4).any()
    expected = recall_score(target, preds, labels=range(4), average="macro")
    assert recall == pytest.approx(expected, abs=1e-6)
