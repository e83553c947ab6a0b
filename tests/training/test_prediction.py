"""What a network answers to many images."""

import torch

from trainer.models.base import Classifier, Probabilities
from trainer.models.cnn import build
from trainer.training.prediction import predict_views


def test_reported_figures_are_those_of_whole_floats_and_a_training_keeps_its_precision():
    torch.manual_seed(0)
    network = build(num_classes=3, channels=1, image_size=16, blocks="4")
    classifier = Classifier(network, image_size=16, mean=(0.5,), std=(0.25,))
    seen = []
    classifier.register_forward_hook(lambda *_: seen.append(torch.backends.cudnn.conv.fp32_precision))
    before = torch.backends.cudnn.conv.fp32_precision
    images = torch.randint(0, 256, (70, 1, 16, 16), dtype=torch.uint8)
    found = predict_views(Probabilities(classifier, averaging="ten"), images, torch.device("cpu"))
    assert found.shape == (10, 70, 3)
    assert set(seen) == {"ieee"}
    assert torch.backends.cudnn.conv.fp32_precision == before != "ieee"
    assert torch.backends.cudnn.allow_tf32
