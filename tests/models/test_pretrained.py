"""Where weights start: from a file, from torch's hub cache, or, with no network, at random."""

import dataclasses
import logging
import pickle
import urllib.request
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision.models import resnet18

from trainer.config import Config, check, recipe_defaults
from trainer.models import ARCHITECTURES
from trainer.models.base import IMAGENET_MEAN, IMAGENET_STD
from trainer.training.pretrained import make_classifier, settled
from trainer.training.schedule import make_optimizers

MODES = tuple(ARCHITECTURES["resnet18"].modes)
HUB_FILE = Path("hub", "checkpoints", "resnet18-f37072fd.pth")
COUNT = "num_batches_tracked"


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    """A ResNet18 of torchvision as if it had been trained: nothing in it is 0 or 1 throughout.

    As in torchvision's file, which is of 2017, its batch norms have no `num_batches_tracked`.
    """
    torch.manual_seed(7)
    network = resnet18()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                tensor.data = torch.rand_like(tensor) / 2 + 0.5
    return {name: value for name, value in network.state_dict().items() if name.split(".")[-1] != COUNT}


@pytest.fixture(scope="module")
def hollow(state) -> dict[str, torch.Tensor]:
    """The same names and shapes, every tensor one stored number: a small file."""
    return {name: torch.zeros((), dtype=value.dtype).expand(value.shape) for name, value in state.items()}


@pytest.fixture(scope="module")
def files(state, tmp_path_factory) -> dict[str, Path]:
    """The same state in both formats that are read."""
    folder = tmp_path_factory.mktemp("weights")
    torch.save(state, folder / "resnet18.pt")
    save_file(state, folder / "resnet18.safetensors")
    return {"torch": folder / "resnet18.pt", "safetensors": folder / "resnet18.safetensors"}


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Path:
    """Where torch looks for the ImageNet weights; empty, and nothing can be downloaded."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for name in ("https_proxy", "HTTPS_PROXY", "http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nobody listens on "discard"
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(urllib.request, "_opener", None)  # it remembers the proxies of its first use
    (tmp_path / HUB_FILE).parent.mkdir(parents=True)
    return tmp_path / HUB_FILE


def resnet(pretrained: object, mode: str = "full", **changes: object) -> Config:
    config = recipe_defaults("fast", "resnet18", mode, str(pretrained))
    return dataclasses.replace(config, **({"image_size": 32} | changes))


def make(config: Config):
    check(config)
    return make_classifier(config, 3, 0.4, 0.2)


def body(classifier) -> dict[str, torch.Tensor]:
    return {
        name: value for name, value in classifier.network.state_dict().items() if not name.startswith("fc.")
    }


def assert_body_is(classifier, state) -> None:
    for name, value in body(classifier).items():
        if name.endswith(COUNT):
            continue
        expected = state[name]
        if value.shape[1:2] == (1,) and name == "conv1.weight":
            expected = expected.sum(1, keepdim=True)
        assert torch.equal(value, expected), name


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("image_size", [48, 96, 224])
@pytest.mark.parametrize(("channels", "kind"), [(1, "torch"), (3, "safetensors")])
def test_a_file_of_torchvisions_weights_fits_in_every_mode_size_and_colour(
    files, state, channels, kind, image_size, mode
):
    config = resnet(files[kind], mode, channels=channels, image_size=image_size)
    classifier, made = make(config)
    assert made == config
    assert_body_is(classifier, state)
    trained = {name.split(".")[0] for name, p in classifier.network.named_parameters() if p.requires_grad}
    assert (
        trained
        == {
            "full": {"conv1", "bn1", "layer1", "layer2", "layer3", "layer4", "fc"},
            "layer4": {"layer4", "fc"},
            "fc": {"fc"},
        }[mode]
    )
    with torch.inference_mode():
        assert classifier.eval()(torch.rand(1, 1, 48, 48)).isfinite().all()


def test_both_file_formats_give_the_same_network(files):
    first, second = (body(make(resnet(path))[0]) for path in files.values())
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("mode", MODES)
def test_what_is_frozen_does_not_move_by_a_bit_and_what_is_trained_moves(files, mode):
    config = resnet(files["torch"], mode, weight_decay=0.1, hidden=8)
    classifier, _ = make(config)
    before = {name: value.clone() for name, value in classifier.network.state_dict().items()}
    optimizers = make_optimizers(classifier, config)
    generator = torch.Generator().manual_seed(0)
    classifier.train()
    for _ in range(3):
        images = torch.rand(4, 1, 32, 32, generator=generator)
        loss = nn.functional.cross_entropy(classifier(images), torch.tensor([0, 1, 2, 0]))
        classifier.zero_grad()
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
    moved = {
        name
        for name, value in classifier.network.state_dict().items()
        if not torch.equal(value, before[name])
    }
    trained = {"full": ("",), "layer4": ("layer4.", "fc."), "fc": ("fc.",)}[mode]
    assert moved == {name for name in before if name.startswith(trained)}
    assert any("running_mean" in name for name in moved) == (mode != "fc")


@pytest.mark.parametrize(
    ("channels", "mean", "std"),
    [(3, IMAGENET_MEAN, IMAGENET_STD), (1, (0.449,), (0.226,))],
)
def test_pretrained_weights_bring_their_normalisation_along(files, channels, mean, std):
    classifier, _ = make(resnet(files["torch"], channels=channels))
    assert classifier.mean.flatten().tolist() == pytest.approx(mean)
    assert classifier.std.flatten().tolist() == pytest.approx(std)


def test_who_loads_other_weights_needs_no_file_and_keeps_the_normalisation():
    classifier, config = make_classifier(resnet("gone.pth"), 7, 0.4, 0.2, blank=True)
    assert config.pretrained == "gone.pth"
    assert classifier.mean.flatten().tolist() == pytest.approx((sum(IMAGENET_MEAN) / 3,))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("channels", [1, 3])
def test_without_pretrained_weights_the_datasets_own_normalisation_is_taken(architecture, channels):
    config = recipe_defaults("fast", architecture, pretrained="none")
    classifier, made = make(dataclasses.replace(config, channels=channels))
    assert made.pretrained == "none"
    assert classifier.mean.flatten().tolist() == pytest.approx([0.4] * channels)
    assert classifier.std.flatten().tolist() == pytest.approx([0.2] * channels)


def refusal(pretrained: object, **changes: object) -> str:
    """The one line with which weights are refused."""
    with pytest.raises(ValueError, match=r".") as caught:
        make(resnet(pretrained, **changes))
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_missing_file_is_named(tmp_path):
    assert (
        refusal(tmp_path / "lost.pt")
        == f"there is no file {tmp_path / 'lost.pt'} to take pretrained weights from"
    )
    assert "there is no file" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("suffix", "content"),
    [("pt", b""), ("pt", b"<html>" * 50), ("pt", b"PK\x03\x04" + bytes(100)), ("safetensors", b"hello")],
)
def test_a_file_that_holds_no_weights_is_refused(tmp_path, suffix, content):
    path = tmp_path / f"weights.{suffix}"
    path.write_bytes(content)
    assert refusal(path).startswith(f"{path} holds no weights that can be read")


def test_half_a_file_is_refused(files, tmp_path):
    for path in files.values():
        content = path.read_bytes()
        half = tmp_path / path.name
        half.write_bytes(content[: len(content) // 2])
        assert refusal(half).startswith(f"{half} holds no weights that can be read")


class Bomb:
    """A pickle of it creates a file when it is loaded."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_code_in_a_file_is_not_run(tmp_path):
    for index, save in enumerate(
        (torch.save, lambda value, path: path.write_bytes(pickle.dumps(value, protocol=2)))
    ):
        path, trace = tmp_path / f"{index}.pt", tmp_path / "trace"
        save({"conv1.weight": Bomb(trace)}, path)
        assert refusal(path).startswith(f"{path} holds no weights that can be read")
        assert not trace.exists()


@pytest.mark.parametrize(
    "content",
    [{}, {"state_dict": {"conv1.weight": torch.zeros(64, 3, 7, 7)}}, [1, 2], "text", torch.zeros(3), 5, None],
    ids=["empty", "nested", "list", "text", "tensor", "number", "none"],
)
def test_a_file_that_holds_something_else_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "weights.pt")
    assert str(tmp_path / "weights.pt") in refusal(tmp_path / "weights.pt")


def test_a_missing_name_is_given_with_the_number_of_all(hollow, tmp_path):
    partial = {name: value for name, value in hollow.items() if not name.startswith("layer3.0.bn1.")}
    torch.save(partial, tmp_path / "weights.pt")
    assert refusal(tmp_path / "weights.pt").endswith(
        "is no ResNet18 of torchvision: it lacks layer3.0.bn1.weight (4 in all)"
    )


@pytest.mark.parametrize(
    ("channels", "name", "value"),
    [
        (1, "layer1.0.conv1.weight", torch.zeros(64, 64, 1, 1)),
        (1, "bn1.running_mean", torch.zeros(32)),
        (1, "conv1.weight", torch.zeros(64, 2, 7, 7)),
        (3, "conv1.weight", torch.zeros(64, 1, 7, 7)),
        (1, "conv1.weight", torch.zeros(64, 3, 3, 3)),
        (3, "conv1.weight", torch.zeros(64, 3, 3, 3)),
        (1, "conv1.weight", torch.zeros(64)),
        (1, "conv1.weight", torch.tensor(1.0)),
        (1, "bn1.weight", "text"),
    ],
    ids=["filter", "statistics", "channels", "grey", "stem", "colour_stem", "flat", "scalar", "text"],
)
def test_a_wrong_shape_is_named(hollow, tmp_path, channels, name, value):
    torch.save({**hollow, name: value}, tmp_path / "weights.pt")
    assert name in refusal(tmp_path / "weights.pt", channels=channels)


def test_a_file_of_the_right_names_and_shapes_is_taken(hollow, tmp_path):
    torch.save(hollow, tmp_path / "weights.pt")
    assert_body_is(make(resnet(tmp_path / "weights.pt"))[0], hollow)


def test_a_file_that_todays_torchvision_writes_is_taken(tmp_path):
    network = resnet18()
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    assert_body_is(make(resnet(tmp_path / "weights.pt"))[0], network.state_dict())


def test_imagenet_is_taken_from_torchs_hub_cache(hub, state):
    torch.save(state, hub)
    classifier, made = make(resnet("imagenet", "layer4", channels=3))
    assert made.pretrained == "imagenet"
    assert made.mode == "layer4"
    assert_body_is(classifier, state)


def test_auto_takes_imagenet_where_the_hub_cache_has_it(hub, state, caplog):
    torch.save(state, hub)
    config = resnet("auto", "fc", channels=3)
    classifier, made = make(config)
    assert made == dataclasses.replace(config, pretrained="imagenet")
    assert_body_is(classifier, state)
    assert not caplog.records


def test_imagenet_that_can_be_had_nowhere_is_refused_in_one_line_that_says_what_to_do(hub):
    message = refusal("imagenet")
    assert message.startswith("--pretrained imagenet: the weights are neither in torch's hub cache nor")
    assert "--pretrained PATH" in message
    assert "--pretrained none" in message
    assert not hub.exists()


@pytest.mark.parametrize("mode", MODES)
def test_auto_without_imagenet_warns_and_trains_everything_at_the_rate_for_that(hub, caplog, mode):
    asked = recipe_defaults("report", "resnet18", mode)
    assert asked.pretrained == "auto"
    with caplog.at_level(logging.WARNING):
        classifier, made = make(dataclasses.replace(asked, image_size=32))
    assert (made.pretrained, made.mode, made.learning_rate) == ("none", "full", 1e-3)
    check(made)
    counts = classifier.parameter_counts()
    assert counts["trainable_parameters"] == counts["parameters"]
    assert classifier.mean.flatten().tolist() == pytest.approx([0.4] * 3)
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert "NO IMAGENET WEIGHTS" in record.getMessage()
    assert "from scratch" in record.getMessage()
    assert ("learning_rate 0.001" in record.getMessage()) == (asked.learning_rate != 1e-3)


def test_auto_without_imagenet_has_the_recipes_own_values_for_that_but_the_users_where_there_are_any(hub):
    asked = recipe_defaults("fast", "resnet18", "layer4", "auto")
    _, made = make(dataclasses.replace(asked, epochs=3))
    scratch = recipe_defaults("fast", "resnet18", "full", "none")
    assert (asked.stem, asked.optimizer, asked.epochs) != (scratch.stem, scratch.optimizer, scratch.epochs)
    assert made == dataclasses.replace(scratch, epochs=3)


def test_auto_without_imagenet_keeps_a_rate_of_the_users_own(hub):
    config = dataclasses.replace(recipe_defaults("report", "resnet18"), image_size=32, learning_rate=3e-4)
    assert make(config)[1].learning_rate == 3e-4


@pytest.mark.parametrize("change", [{"stem": "small"}, {"width": 48}])
def test_other_stems_and_widths_have_no_imagenet_weights_and_train_from_scratch_at_the_rate_for_that(change):
    config = dataclasses.replace(recipe_defaults("report", "resnet18"), image_size=32, **change)
    _, made = make(config)
    assert (made.pretrained, made.mode) == ("none", "full")
    assert made.learning_rate == recipe_defaults("report", "resnet18", "full", "none").learning_rate == 1e-3


@pytest.mark.parametrize("content", [b"", b"<html>an error page</html>", b"PK\x03\x04" + bytes(100)])
def test_a_damaged_hub_cache_is_refused_and_auto_does_without_it(hub, caplog, content):
    hub.write_bytes(content)
    assert refusal("imagenet").startswith("--pretrained imagenet: ")
    with caplog.at_level(logging.WARNING):
        assert make(resnet("auto"))[1].pretrained == "none"
    assert "NO IMAGENET WEIGHTS" in caplog.text


def test_code_in_the_hub_cache_is_not_run(hub, tmp_path):
    torch.save({"conv1.weight": Bomb(tmp_path / "trace")}, hub)
    refusal("imagenet")
    assert not (tmp_path / "trace").exists()


def test_auto_without_imagenet_mixes_in_one_way_alone(hub):
    config = dataclasses.replace(
        recipe_defaults("fast", "resnet18", pretrained="auto"), image_size=32, cutmix=1.0
    )
    check(config)
    made = settled(config)
    check(made)
    assert (made.cutmix, made.mixup) == (1.0, 0.0)
