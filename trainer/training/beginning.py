"""A model that a training begins with, in place of random weights: for few images of one's own."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any

from torch import Tensor, nn

from trainer.config import Config
from trainer.contract import Tag
from trainer.data.splits import Splits
from trainer.inference.predictor import Predictor
from trainer.models import listing
from trainer.models.base import Classifier
from trainer.store.location import Store, open_store
from trainer.store.models import load_bundle
from trainer.store.registry import find_version

log = logging.getLogger(__name__)

_NO_WEIGHTS = "dropout"
"""The one option of a network that its weights do not depend on."""


def find_model(reference: str, store: Store | None = None) -> Predictor:
    """A version of the store, or a folder of the model format, for which there need be no store.

    Raises ValueError where there is no such model.
    """
    if (folder := Path(reference)).is_dir():
        return Predictor.load(folder)
    return load_bundle(find_version(store or open_store(create=False), reference))


def network_of(model: Predictor) -> dict[str, Any]:
    """The settings of a configuration by which it has the same network."""
    spec = model.spec
    names = [name for name in listing(spec.architecture).options if name != _NO_WEIGHTS]
    options = {name: spec.options.get(name) for name in names}
    return {
        "architecture": spec.architecture,
        "channels": spec.channels,
        "image_size": spec.image_size,
        **options,
    }


@dataclass(frozen=True)
class Beginning:
    """weights: a state dict. learned: the dataset and the fingerprint of train of all that the model has learned."""

    weights: dict[str, Tensor]
    learned: tuple[tuple[str, str], ...]

    def tags(self) -> dict[str, str]:
        return {Tag.LEARNED: json.dumps(self.learned, ensure_ascii=False)}


def begin(config: Config, store: Store, splits: Splits, classifier: Classifier) -> Beginning:
    """What `classifier` starts as: with the weights of the model that `config` begins with.

    In the last layer each class has the weights that the model has for the class of that name; one that it does not
    know keeps those of `classifier`. Images are normalised by their own brightness, as in every training.

    Raises ValueError where the network is another one, or where the model, or one that it began with, learned other
    images of the same dataset: those of our validation, perhaps, which would then choose nothing.
    """
    assert config.start_from is not None
    model = find_model(config.start_from, store)
    wanted, spec = network_of(model), model.spec
    if other := [name for name, value in wanted.items() if getattr(config, name) != value]:
        flags = " ".join(f"--{name.replace('_', '-')} {quote(str(wanted[name]))}" for name in other)
        raise ValueError(f"--start-from {config.start_from} is another network: its own has {flags}")
    learned = ((spec.dataset, spec.train_fingerprint), *learned_before(config.start_from, store))
    own = splits.train.fingerprint(splits.class_names)
    if any(dataset == splits.dataset and fingerprint != own for dataset, fingerprint in learned):
        raise ValueError(
            f"--start-from {config.start_from} was not trained on the same part of {splits.dataset}'s train"
        )
    new = [name for name in splits.class_names if name not in spec.class_names]
    if new:
        level = logging.WARNING if len(new) == len(splits.class_names) else logging.INFO
        log.log(level, "%s knows no class %s: these begin anew.", config.start_from, ", ".join(new))
    weights = by_class(
        model.network.classifier.state_dict(), spec.class_names, classifier, splits.class_names
    )
    return Beginning(weights, learned)


def learned_before(reference: str, store: Store) -> list[tuple[str, str]]:
    """What a version had learned when it began with another model; nothing is known of a folder."""
    if Path(reference).is_dir():
        return []
    text = find_version(store, reference).tags.get(Tag.LEARNED, "[]")
    try:
        return [(str(dataset), str(fingerprint)) for dataset, fingerprint in json.loads(text)]
    except (ValueError, TypeError) as error:
        raise ValueError(f"the tag {Tag.LEARNED} of {reference} cannot be read: {text[:100]}") from error


def by_class(
    weights: Mapping[str, Tensor], known: Sequence[str], classifier: Classifier, wanted: Sequence[str]
) -> dict[str, Tensor]:
    """`weights`, of a network for the classes `known`, for that of `classifier`, which has the classes `wanted`."""
    name, last = [item for item in classifier.named_modules() if isinstance(item[1], nn.Linear)][-1]
    found = dict(weights)
    for key, own in last.state_dict(prefix=f"{name}.").items():
        rows = own.clone()
        for index, label in enumerate(wanted):
            if label in known:
                rows[index] = weights[key][known.index(label)]
        found[key] = rows
    return found
