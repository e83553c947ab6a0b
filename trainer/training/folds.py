"""Answers for every image from networks that have not seen it: K folds, each answered by one trained on the others."""

import dataclasses
from collections.abc import Callable

import numpy as np
import torch
from lightning_fabric import seed_everything
from sklearn.model_selection import StratifiedKFold

from trainer.config import Config, recipe_defaults
from trainer.data.base import Split
from trainer.training.allocator import keep_memory
from trainer.training.environment import make_fabric
from trainer.training.loop import Epoch, Training, fit
from trainer.training.memory import telling_out_of_memory
from trainer.training.prediction import predict
from trainer.training.pretrained import make_classifier


def fold_config(epochs: int, seed: int) -> Config:
    """A small network on small images: judging labels needs no champion, and every image is learned K − 1 times."""
    return dataclasses.replace(
        recipe_defaults("fast", "cnn"), blocks="32 64 128 256", image_size=32, progressive=None, averaging="none",
        epochs=epochs, seed=seed,
    )  # fmt: skip


def fold_numbers(target: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """The fold of each image, int64 (N,), each fold with the class shares of `target` (int64 (N,)).

    Raises ValueError where a class has fewer images than there are folds.
    """
    counts = np.bincount(target)
    if (rarest := counts[counts > 0].min()) < folds:
        raise ValueError(f"--folds {folds}: a class has only {rarest} images, and each fold needs one")
    numbers = np.empty(len(target), dtype=np.int64)
    division = StratifiedKFold(folds, shuffle=True, random_state=seed).split(target[:, None], target)
    for number, (_, held_out) in enumerate(division):
        numbers[held_out] = number
    return numbers


def learned_index(numbers: np.ndarray, fold: int, twins: np.ndarray) -> np.ndarray:
    """Positions that the network of a fold learns: those of other folds that have no twin in it.

    numbers: int64 (N,), the fold of each image. twins: int64 (P, 2), positions.
    """
    held_out = numbers == fold
    across = held_out[twins[:, 0]] != held_out[twins[:, 1]]
    return np.setdiff1d(np.flatnonzero(~held_out), twins[across])


def out_of_fold(
    data: Split,
    twins: np.ndarray,
    num_classes: int,
    config: Config,
    folds: int,
    on_epoch: Callable[[int, Epoch], None] = lambda fold, epoch: None,
) -> np.ndarray:
    """Probabilities for every image, float32 (N, K), each from a network that saw neither it nor a twin of it.

    The last epoch answers, not the best one: the held-out images choose nothing. The same seed gives the same answers
    on a CPU.

    Args:
        twins: int64 (P, 2), positions in `data`.
        on_epoch: Called with the number of the fold (from 0) after each of its epochs.

    Raises ValueError where a class has fewer images than there are folds or a network would have none to learn, and
    MemoryError, with a message for the user, where the memory is not enough.
    """
    keep_memory()
    numbers = fold_numbers(data.target.numpy(), folds, config.seed)
    if not all(learned_index(numbers, fold, twins).size for fold in range(folds)):
        raise ValueError(
            f"--folds {folds}: nothing is left to learn, since nearly all images are twins of each other"
        )
    answers = np.empty((len(data), num_classes), dtype=np.float32)
    for fold in range(folds):
        learned, held_out = learned_index(numbers, fold, twins), np.flatnonzero(numbers == fold)
        train = data.select(learned)
        seed_everything(config.seed, verbose=False)
        classifier, _ = make_classifier(config, num_classes, *train.brightness())
        with telling_out_of_memory(config, "end other programs first"):
            training = Training(classifier, config, make_fabric(config))
            for epoch in fit(training, train, data.select(held_out), num_classes):
                on_epoch(fold, epoch)
            logits = predict(training.evaluated, data.images[held_out], training.fabric.device)
        answers[held_out] = torch.softmax(logits, dim=1).cpu().numpy()
    return answers
