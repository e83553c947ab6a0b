"""Models that a training learns from, beside the labels."""

import dataclasses
from pathlib import Path

import torch

from trainer.config import Config
from trainer.data.splits import Splits
from trainer.evaluation.calibration import fit_temperature
from trainer.store.location import Store
from trainer.store.registry import find_version
from trainer.training.beginning import find_model
from trainer.training.prediction import predict


def naming_models(config: Config, store: Store) -> Config:
    """With the versions that aliases in it point to now: a run that is resumed learns from the same.

    Raises ValueError where there is no such model.
    """

    def named(reference: str) -> str:
        if Path(reference).is_dir():
            whole = str(Path(reference).absolute())
            return reference if "," in whole else whole  # commas stand between teachers
        version = find_version(store, reference)
        return version.reference if "@" in reference else reference

    if config.teacher is not None:
        teachers = map(str.strip, config.teacher.split(","))
        config = dataclasses.replace(config, teacher=",".join(map(named, teachers)))
    if config.start_from is not None:
        folder = Path(config.start_from)
        name = str(folder.absolute()) if folder.is_dir() else find_version(store, config.start_from).reference
        config = dataclasses.replace(config, start_from=name)
    return config


def teach(config: Config, store: Store, splits: Splits, device: torch.device) -> torch.Tensor:
    """Mean probabilities of the teachers for the images of train, float32 (N, K), on `device`.

    Raises ValueError where a teacher knows other classes, or learned from other images: from those of our validation,
    perhaps, which would then choose nothing.
    """
    assert config.teacher is not None
    answers = []
    for reference in map(str.strip, config.teacher.split(",")):
        teacher = find_model(reference, store)
        spec = teacher.spec
        if set(spec.class_names) != set(splits.class_names):
            raise ValueError(
                f"--teacher {reference} knows the classes {', '.join(spec.class_names)}, not the data's"
            )
        if spec.train_fingerprint != splits.train.fingerprint(splits.class_names):
            raise ValueError(f"--teacher {reference} was not trained on the same part of train")
        # Of one view: ten of every training image would take as long as several epochs. The temperature of its mean
        # over ten would make the answers of one too sure of themselves.
        classifier = teacher.network.classifier.to(device)
        order = [spec.class_names.index(name) for name in splits.class_names]
        validation = predict(classifier, splits.validation.images, device)[:, order]
        temperature = fit_temperature(validation[None].cpu().numpy(), splits.validation.target.numpy())
        logits = predict(classifier, splits.train.images, device)[:, order]
        answers.append(torch.softmax(logits / temperature, dim=1))
    return torch.stack(answers).mean(dim=0)
