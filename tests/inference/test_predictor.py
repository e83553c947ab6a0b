"""A model that answers: what it takes, and that its answers do not depend on how it is asked."""

import dataclasses

import numpy as np
import pytest
import torch

from trainer.inference.bundle import BundleError, ModelSpec, write
from trainer.inference.predictor import BATCH_SIZE, Predictor
from trainer.models import ARCHITECTURES
from trainer.models.base import VIEWS

SIDE = 24
SMALL = {"blocks": "4 8", "hidden": 8, "dropout": 0.5}
FACES = np.random.default_rng(0).integers(0, 256, (70, 1, SIDE, SIDE), dtype=np.uint8)


def make_spec(architecture: str, temperature: float = 1.0) -> ModelSpec:
    names = ARCHITECTURES[architecture].options
    return ModelSpec(
        architecture=architecture,
        options={name: value for name, value in SMALL.items() if name in names},
        class_names=("angry", "fear", "happy", "sad"),
        source_size=SIDE,
        image_size=32,
        channels=1,
        mean=(0.5,),
        std=(0.25,),
        dataset="faces",
        train_fingerprint="0123abcd",
        temperature=temperature,
    )


def make_classifier(architecture: str = "cnn"):
    """As it comes from training: in training mode, its batch norms having seen something."""
    torch.manual_seed(0)
    classifier = make_spec(architecture).build().train()
    classifier(torch.rand(8, 1, SIDE, SIDE))
    return classifier


@pytest.fixture(scope="module", params=ARCHITECTURES)
def predictor(request) -> Predictor:
    return Predictor(make_classifier(request.param), make_spec(request.param))


@pytest.mark.parametrize("count", [1, 3, BATCH_SIZE, BATCH_SIZE + 1])
def test_an_answer_does_not_depend_on_the_batch_it_is_asked_in(predictor, count):
    single = np.concatenate([predictor(FACES[index : index + 1]) for index in (0, count - 1)])
    found = predictor(FACES[:count])
    assert found.shape == (count, 4)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-5)
    np.testing.assert_allclose(found[[0, count - 1]], single, atol=1e-5)


def test_no_images_get_no_answers(predictor):
    found = predictor(FACES[:0])
    assert found.shape == (0, 4)
    assert found.dtype == np.float32


def test_different_faces_get_different_answers(predictor):
    assert predictor(FACES[:8]).std(0).max() > 1e-4


def test_arrays_and_tensors_get_the_same_answers_every_time(predictor):
    first = predictor(FACES[:5])
    assert np.array_equal(predictor(torch.from_numpy(FACES[:5].copy())), first)
    assert np.array_equal(predictor(FACES[:5]), first)


def test_the_answers_are_the_softmax_of_the_logits_over_the_temperature():
    classifier = make_classifier().eval()
    with torch.no_grad():
        logits = classifier(torch.from_numpy(FACES[:6]).float() / 255).double().numpy()
    for temperature in (0.5, 1.0, 3.0):
        expected = np.exp(logits / temperature) / np.exp(logits / temperature).sum(1, keepdims=True)
        found = Predictor(classifier, make_spec("cnn", temperature))(FACES[:6])
        np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize(
    "shape", [(2, 1, SIDE, SIDE + 1), (2, 1, 32, 32), (2, 3, SIDE, SIDE), (2, SIDE, SIDE), (SIDE, SIDE), ()]
)
def test_images_of_another_shape_are_refused(predictor, shape):
    with pytest.raises(ValueError, match=r"expected uint8 images \(N, 1, 24, 24\), got torch\.uint8 \("):
        predictor(np.zeros(shape, np.uint8))


@pytest.mark.parametrize("dtype", [np.float32, np.int64, np.bool_])
def test_images_of_another_type_are_refused(predictor, dtype):
    with pytest.raises(ValueError, match=r"expected uint8 images .* got torch\.(float32|int64|bool)"):
        predictor(FACES[:2].astype(dtype))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_stored_model_answers_as_the_one_that_was_stored(tmp_path, architecture):
    classifier, spec = make_classifier(architecture), make_spec(architecture, temperature=1.5)
    write(tmp_path, spec, classifier.state_dict())
    loaded = Predictor.load(tmp_path)
    assert loaded.spec == spec
    assert np.array_equal(loaded(FACES[:4]), Predictor(classifier, spec)(FACES[:4]))


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(BundleError, match="this is not a model of Moodify's format"):
        Predictor.load(tmp_path)


@pytest.mark.parametrize("averaging", VIEWS)
def test_no_more_views_than_pay_go_through_the_network_at_once(averaging):
    spec = dataclasses.replace(make_spec("cnn"), averaging=averaging)
    predictor = Predictor(make_classifier(), spec)
    sizes = []
    predictor.network.classifier.register_forward_hook(lambda _, inputs, __: sizes.append(len(inputs[0])))
    found = predictor(FACES)
    assert max(sizes) <= BATCH_SIZE
    assert sum(sizes) == len(FACES) * VIEWS[averaging]
    with torch.inference_mode():
        at_once = predictor.network(torch.from_numpy(FACES) / 255).numpy()
    np.testing.assert_allclose(found, at_once, atol=1e-5)
