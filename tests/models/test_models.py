"""Every architecture of the registry, and the classifier around it."""

import pytest
import torch
from torch import nn
from torch.nn import functional
from torchvision.models import resnet18

from trainer.models import ARCHITECTURES, listing
from trainer.models.base import VIEWS, Classifier, Probabilities, build_network, to_unit_range
from trainer.models.cnn import parse_blocks
from trainer.models.resnet import load_pretrained

SMALL = {"blocks": "4 8", "hidden": 8}


def small_options(architecture: str, **more: object) -> dict:
    """What keeps a network small, as far as the architecture takes it."""
    options = SMALL | more
    return {name: value for name, value in options.items() if name in ARCHITECTURES[architecture].options}


def make(architecture: str, *, channels: int = 1, image_size: int = 32, num_classes: int = 3, **options):
    torch.manual_seed(0)
    network = build_network(
        architecture, num_classes=num_classes, channels=channels, image_size=image_size, options=options
    )
    return Classifier(network, image_size=image_size, mean=(0.5,) * channels, std=(0.25,) * channels)


def torchvision_state(seed: int = 0) -> dict[str, torch.Tensor]:
    """A ResNet18 of torchvision as if it had been trained: nothing in it is 0 or 1 throughout."""
    torch.manual_seed(seed)
    network = resnet18()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                tensor.data = torch.rand_like(tensor) / 2 + 0.5
    return network.state_dict()


@pytest.mark.parametrize("image_size", [48, 96, 224])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_network_answers_the_same_faces_whatever_it_sees_itself(architecture, channels, image_size):
    classifier = make(
        architecture, channels=channels, image_size=image_size, num_classes=7, **small_options(architecture)
    )
    seen = []
    classifier.network.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].shape))
    with torch.inference_mode():
        logits = classifier.eval()(torch.rand(2, 1, 48, 48))
    assert seen == [(2, channels, image_size, image_size)]
    assert logits.shape == (2, 7)
    assert logits.dtype == torch.float32
    assert logits.isfinite().all()
    assert not torch.equal(logits[0], logits[1])


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_network_can_be_built_from_its_own_defaults(architecture):
    classifier = make(architecture)
    assert classifier.eval()(torch.rand(2, 1, 32, 32)).shape == (2, 3)


@pytest.mark.parametrize("hidden", [0, 8])
@pytest.mark.parametrize(
    "architecture", [name for name, entry in ARCHITECTURES.items() if "hidden" in entry.options]
)
def test_a_hidden_layer_of_width_0_is_none(architecture, hidden):
    network = make(architecture, **small_options(architecture, hidden=hidden)).network
    widths = [module.out_features for module in network.modules() if isinstance(module, nn.Linear)]
    assert widths == ([hidden, 3] if hidden else [3])


@pytest.mark.parametrize(
    "architecture", [name for name, entry in ARCHITECTURES.items() if "dropout" in entry.options]
)
def test_the_dropout_rate_is_the_one_that_was_asked_for(architecture):
    network = make(architecture, **small_options(architecture, dropout=0.25)).network
    assert {module.p for module in network.modules() if isinstance(module, nn.Dropout)} == {0.25}


@pytest.mark.parametrize(("stem", "side"), [("imagenet", 12), ("small", 24), ("pooled", 24), ("full", 48)])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_small_stem_keeps_twice_the_detail_and_the_full_one_all(stem, side, channels):
    classifier = make("resnet18", stem=stem, channels=channels, image_size=48)
    seen = []
    classifier.network.layer1.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].shape))
    assert classifier.eval()(torch.rand(2, 1, 48, 48)).shape == (2, 3)
    assert seen == [(2, 64, side, side)]


@pytest.mark.parametrize("stem", ["imagenet", "pooled"])
def test_a_narrower_resnet18_is_torchvisions_with_fewer_channels(stem):
    wide, narrow = (make("resnet18", stem=stem, width=width, channels=1).network for width in (64, 16))
    assert list(narrow.state_dict()) == list(wide.state_dict())
    ratios = [
        len(theirs) / len(ours) for ours, theirs in zip(narrow.parameters(), wide.parameters(), strict=True)
    ]
    assert ratios == [4] * (len(ratios) - 2) + [1, 1]  # the head has the classes
    spreads = [network.layer3[0].conv1.weight.std() for network in (wide, narrow)]
    assert 0.9 < 2 * spreads[0] / spreads[1] < 1.1  # both begin with He's rule for what goes out


def test_the_colour_network_without_options_is_torchvisions_but_for_the_head():
    ours = make("resnet18", channels=3, num_classes=1000).network.state_dict()
    theirs = resnet18().state_dict()
    body = {name: tensor.shape for name, tensor in theirs.items() if not name.startswith("fc.")}
    assert {name: tensor.shape for name, tensor in ours.items() if not name.startswith("fc.")} == body


def test_blocks_give_the_widths_and_depths_of_the_convolutions():
    network = make("cnn", blocks="4 8x2").network
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    assert [module.out_channels for module in convolutions] == [4, 8, 8]
    assert sum(isinstance(module, nn.MaxPool2d) for module in network.modules()) == 2


def test_the_cnn_of_the_report_has_the_reports_parameters():
    counts = make("cnn", blocks="32 64 128", hidden=512, image_size=48, num_classes=7).parameter_counts()
    convolutions = 9 * (1 * 32 + 32 * 64 + 64 * 128) + 2 * (32 + 64 + 128)
    head = 128 * 6 * 6 * 512 + 2 * 512 + 512 * 7 + 7
    assert counts == {"parameters": convolutions + head, "trainable_parameters": convolutions + head}


def test_blocks_are_read_word_by_word():
    assert parse_blocks(" 32  64x3 ") == [(32, 1), (64, 3)]


@pytest.mark.parametrize(
    "blocks", ["", " ", "0", "-8", "8,16", "8x", "x2", "8x0", "8x10", "8.5", "12345", "8 wide"]
)
def test_blocks_that_cannot_be_read_are_refused(blocks):
    with pytest.raises(ValueError, match=f"^blocks '{blocks}' is not a list of widths"):
        parse_blocks(blocks)


def test_blocks_that_pool_the_image_away_are_refused():
    make("cnn", blocks="2 2 2 2 2", image_size=32)
    with pytest.raises(ValueError, match="6 blocks halve a 32 px image to nothing"):
        make("cnn", blocks="2 2 2 2 2 2", image_size=32)


def test_what_an_architecture_does_not_take_is_refused():
    with pytest.raises(
        ValueError, match="cnn takes no depth, stem; it takes blocks, layout, hidden, dropout"
    ):
        make("cnn", stem="small", depth=3)
    with pytest.raises(
        ValueError, match="there is no stem 'tiny'; choose one of imagenet, small, pooled, full"
    ):
        make("resnet18", stem="tiny")
    with pytest.raises(ValueError, match="there is no layout 'wide'; choose one of plain, residual"):
        make("cnn", layout="wide")
    with pytest.raises(ValueError, match="no architecture 'vgg'; choose one of cnn, resnet18"):
        listing("vgg")


def test_a_grey_network_answers_as_the_colour_network_does_to_a_grey_image():
    colour, grey = make("resnet18", channels=3), make("resnet18", channels=1)
    state = torchvision_state()
    for classifier in (colour, grey):
        load_pretrained(classifier.network, state, "test")
    grey.network.fc.load_state_dict(colour.network.fc.state_dict())
    image = torch.randn(4, 1, 32, 32)
    with torch.inference_mode():
        colour.eval(), grey.eval()
        torch.testing.assert_close(
            grey.network(image), colour.network(image.repeat(1, 3, 1, 1)), rtol=1e-4, atol=1e-4
        )
        # And not because the network answers everything alike.
        assert grey.network(image).std(dim=0).min() > 1e-3


def test_each_channel_is_normalised_by_its_own_mean_and_deviation():
    classifier = Classifier(nn.Identity(), image_size=4, mean=(0.5, 0.25, 0.0), std=(0.5, 0.25, 1.0))
    found = classifier(torch.full((2, 1, 4, 4), 0.75))
    assert found.shape == (2, 3, 4, 4)
    for channel, value in enumerate((0.5, 2.0, 0.75)):
        assert (found[:, channel] == value).all()


def test_images_of_the_right_size_are_not_resampled_and_others_keep_their_layout():
    classifier = Classifier(nn.Identity(), image_size=8, mean=(0.0,), std=(1.0,))
    image = torch.rand(1, 1, 8, 8)
    assert torch.equal(classifier(image), image)
    halves = functional.pad(torch.ones(1, 1, 16, 8), (0, 8))  # white left half, black right half
    found = classifier(halves)
    assert (found[..., :4] == 1).all()
    assert (found[..., 4:] == 0).all()


def test_the_normalisation_is_no_part_of_the_weights():
    classifier = make("cnn", **SMALL)
    assert set(classifier.state_dict()) == {f"network.{name}" for name in classifier.network.state_dict()}


@pytest.mark.parametrize(
    ("architecture", "mode", "names"),
    [(name, mode, names) for name, entry in ARCHITECTURES.items() for mode, names in entry.modes.items()],
)
def test_a_mode_trains_its_submodules_and_no_other(architecture, mode, names):
    classifier = make(architecture, **small_options(architecture))
    classifier.freeze_except(names)
    prefixes = tuple(f"network.{name}." for name in names) or ("",)
    trained = {name for name, value in classifier.named_parameters() if value.requires_grad}
    assert trained == {name for name, _ in classifier.named_parameters() if name.startswith(prefixes)}
    assert trained
    counts = classifier.parameter_counts()
    assert counts["trainable_parameters"] == sum(
        value.numel() for name, value in classifier.named_parameters() if name in trained
    )
    for training in (True, False, True):
        classifier.train(training)
        for name, module in classifier.named_modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.Dropout):
                assert module.training == (training and name.startswith(prefixes)), name


def test_probabilities_are_the_softmax_of_the_logits_over_the_temperature():
    classifier = make("cnn", **SMALL).eval()
    images = torch.rand(5, 1, 32, 32)
    with torch.inference_mode():
        plain, flat = Probabilities(classifier)(images), Probabilities(classifier, 4.0)(images)
        logits = classifier(images)
    torch.testing.assert_close(plain, torch.exp(logits) / torch.exp(logits).sum(1, keepdim=True))
    torch.testing.assert_close(flat, torch.exp(logits / 4) / torch.exp(logits / 4).sum(1, keepdim=True))
    assert (flat.max(1).values < plain.max(1).values).all()


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_averaging_is_the_mean_of_the_probabilities_of_the_views(temperature):
    classifier = make("cnn", **SMALL).eval()
    images = torch.rand(3, 1, 36, 36)  # a twelfth of the side: 3 px

    def shifted(down: int, across: int) -> torch.Tensor:
        """Each pixel is the one that lies so far below and right of it, or the nearest at the border."""
        rows, columns = (torch.arange(36) + by for by in (down, across))
        return images[:, :, rows.clamp(0, 35)][:, :, :, columns.clamp(0, 35)]

    shifts = [shifted(down, across) for down, across in ((0, 0), (-3, -3), (-3, 3), (3, -3), (3, 3))]
    views = {"none": shifts[:1], "flip": [images, images.flip(3)]}
    views["ten"] = [mirrored for view in shifts for mirrored in (view, view.flip(3))]
    assert {name: len(found) for name, found in views.items()} == dict(VIEWS)
    with torch.inference_mode():
        for averaging, expected in views.items():
            alone = [Probabilities(classifier, temperature)(view) for view in expected]
            found = Probabilities(classifier, temperature, averaging)(images)
            torch.testing.assert_close(found, torch.stack(alone).mean(0))
        mirrored = Probabilities(classifier, temperature, "ten")(images.flip(3))
    torch.testing.assert_close(mirrored, found)  # a face and its mirror image get one answer


def test_an_unknown_averaging_is_refused():
    with pytest.raises(ValueError, match="there is no averaging 'all'; choose one of none, flip, ten"):
        Probabilities(make("cnn", **SMALL), 1.0, "all")


def test_the_unit_range_runs_from_black_to_white_and_leaves_the_pixels_alone():
    pixels = torch.tensor([0, 51, 255], dtype=torch.uint8)
    assert to_unit_range(pixels).tolist() == pytest.approx([0.0, 0.2, 1.0])
    assert pixels.tolist() == [0, 51, 255]
