"""What a network looked at: where something speaks for the class, and nowhere else."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.inference.test_predictor import FACES, make_classifier, make_spec
from trainer.inference.annotate import overlay
from trainer.inference.predictor import Predictor
from trainer.inference.saliency import BATCH_SIZE, LEAST_MAP, layer_cam
from trainer.models import ARCHITECTURES
from trainer.models.base import Classifier

SIDE = 48


class Corners(nn.Module):
    """Class k is how bright quadrant k of the image is, seen through a map of 12×12."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(4)

    def forward(self, images: Tensor) -> Tensor:
        features = self.pool(images)
        half = features.shape[-1] // 2
        return torch.stack(
            [features[:, 0, y : y + half, x : x + half].mean((1, 2)) for y in (0, half) for x in (0, half)],
            dim=1,
        )


@pytest.mark.parametrize("quadrant", range(4))
def test_the_map_lies_where_the_class_comes_from(quadrant):
    classifier = Classifier(Corners(), image_size=SIDE, mean=(0,), std=(1,)).eval()
    found = layer_cam(classifier, torch.full((1, 1, SIDE, SIDE), 0.7), [quadrant])[0]
    y, x = divmod(quadrant, 2)
    inside = found[y * 24 + 4 : y * 24 + 20, x * 24 + 4 : x * 24 + 20]
    assert inside.min() > 0.75
    inside_sum = found[y * 24 : y * 24 + 24, x * 24 : x * 24 + 24].sum()
    assert inside_sum / found.sum() > 0.9


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_each_image_has_a_map_of_its_own_size_from_0_to_1(architecture):
    predictor = Predictor(make_classifier(architecture), make_spec(architecture))
    found = predictor.saliency(FACES[:5], [0, 1, 2, 3, 0])
    assert found.shape == (5, 24, 24)
    assert found.dtype == np.float32
    assert found.min() >= 0
    assert np.isin(found.max((1, 2)).round(5), (0, 1)).all()


def test_many_images_are_taken_in_batches_and_their_maps_are_those_of_each_alone():
    """All features of a pass are held until its gradient is there: 11 GB for 1,000 faces and the ResNet18 of `best`."""
    predictor = Predictor(make_classifier(), make_spec("cnn"))
    classes = [index % 4 for index in range(len(FACES))]
    alone = [predictor.saliency(FACES[[index]], [classes[index]])[0] for index in (0, BATCH_SIZE, -1)]
    sizes = []
    predictor.network.classifier.register_forward_pre_hook(lambda _, given: sizes.append(len(given[0])))
    found = predictor.saliency(FACES, classes)
    assert sum(sizes) == len(found) == len(FACES) > max(sizes) == BATCH_SIZE
    np.testing.assert_allclose(found[[0, BATCH_SIZE, -1]], alone, atol=1e-5)


def test_classes_differ_and_random_weights_change_the_map():
    """The sanity check of Adebayo et al. (2018): a map that weights do not change explains nothing."""
    predictor = Predictor(make_classifier(), make_spec("cnn"))
    torch.manual_seed(5)
    other = Predictor(make_spec("cnn").build().eval(), make_spec("cnn"))
    first, second = predictor.saliency(FACES[:4], [0] * 4), predictor.saliency(FACES[:4], [1] * 4)
    random = other.saliency(FACES[:4], [0] * 4)
    assert np.abs(first - second).mean() > 0.02
    assert np.abs(first - random).mean() > 0.02


def test_explaining_changes_nothing_about_the_answers():
    predictor = Predictor(make_classifier(), make_spec("cnn"))
    before = predictor(FACES[:6])
    predictor.saliency(FACES[:6], [0] * 6)
    assert np.array_equal(predictor(FACES[:6]), before)
    assert all(parameter.grad is None for parameter in predictor.network.parameters())


def test_an_answer_that_is_given_meanwhile_has_no_part_in_it():
    """A predictor is shared by the sessions of a dashboard; here another asks as soon as the network has answered."""
    predictor = Predictor(make_classifier(), make_spec("cnn"))
    alone = predictor.saliency(FACES[:3], [0, 1, 2])
    asked = []

    def ask(*_: object) -> None:
        if not asked:
            asked.append(True)
            predictor(FACES[3:6])

    predictor.network.classifier.register_forward_hook(ask)
    assert np.array_equal(predictor.saliency(FACES[:3], [0, 1, 2]), alone)
    assert asked


def test_a_network_without_a_fine_map_cannot_tell():
    network = nn.Sequential(nn.Flatten(), nn.Linear(SIDE * SIDE, 4))
    classifier = Classifier(network, image_size=SIDE, mean=(0,), std=(1,))
    with pytest.raises(ValueError, match=f"no map of {LEAST_MAP} px"):
        layer_cam(classifier, torch.rand(1, 1, SIDE, SIDE), [0])


def test_the_overlay_is_grey_where_nothing_spoke_and_orange_where_much_did():
    face = np.full((1, 48, 48), 128, np.uint8)
    map_ = np.zeros((48, 48), np.float32)
    map_[:, 24:] = 1
    found = np.asarray(overlay(face, map_, 96)).astype(int)
    assert np.ptp(found[48, 10]) == 0
    assert found[48, 85, 0] - found[48, 85, 2] > 100
