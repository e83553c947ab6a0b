"""A model that a training begins with, in place of random weights: for few images of one's own."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from shlex import quote
from typing import Any

from torch import Tensor, nn

from trainer.config import Config
from trainer.data.splits import Splits
from trainer.inference.predictor import Predictor
from trainer.models import listing
from trainer.models.base import Classifier
from trainer.store.location import Store, open_store
from trainer.store.models import load_bundle
from trainer.store.registry import find_version

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


def first_weights(config: Config, store: Store, splits: Splits, classifier: Classifier) -> dict[str, Tensor]:
    """A state dict for `classifier`: the weights of the model that `config` begins with.

    In the last layer each class has the weights that the model has for the class of that name; one that it does not
    know keeps those of `classifier`.

    Raises ValueError where the network is another one, or where the model learned other images of the same dataset:
    those of our validation, perhaps, which would then choose nothing.
    """
    assert config.start_from is not None
    model = find_model(config.start_from, store)
    wanted = network_of(model)
    if other := [name for name, value in wanted.items() if getattr(config, name) != value]:
        flags = " ".join(f"--{name.replace('_', '-')} {quote(str(wanted[name]))}" for name in other)
        raise ValueError(f"--start-from {config.start_from} is another network: its own has {flags}")
    spec = model.spec
    if spec.dataset == splits.dataset and spec.train_fingerprint != splits.train.fingerprint(
        splits.class_names
    ):
        raise ValueError(
            f"--start-from {config.start_from} was not trained on the same part of {spec.dataset}'s train"
        )
    return by_class(model.network.classifier.state_dict(), spec.class_names, classifier, splits.class_names)


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
