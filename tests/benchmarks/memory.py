"""What a training takes in memory, in a process of its own."""

import dataclasses
import resource
import sys

from tests.benchmarks.images import Source
from trainer.config import Config

_UNIT = 1024 if sys.platform.startswith("linux") else 1
STEPS = 12


def peak_memory(config: Config, source: Source) -> tuple[float, float]:
    """(MiB after importing torch, MiB beyond that at most), of `STEPS` steps on the whole training set.

    As a run does it: allocator settings, data, network, the largest images of the recipe, validation on a tenth of
    the images.
    """
    import torch

    before = _peak_mib()
    from tests.benchmarks.images import train_split
    from tests.benchmarks.pipelines import NUM_CLASSES
    from trainer.training.allocator import keep_memory
    from trainer.training.environment import make_fabric
    from trainer.training.loop import Training, fit
    from trainer.training.pretrained import make_classifier

    keep_memory()
    train = train_split(source)
    config = dataclasses.replace(config, epochs=1, progressive=None, device="cpu")
    classifier, config = make_classifier(config, NUM_CLASSES, 0.5, 0.25)
    training = Training(classifier, config, make_fabric(config))
    some = train.select(torch.arange(min(len(train), STEPS * config.batch_size)))
    list(fit(training, some, train.select(torch.arange(len(train) // 10)), NUM_CLASSES))
    return before, _peak_mib() - before


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _UNIT / 2**20
