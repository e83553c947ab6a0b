"""Which images are trained on, which choose, and which are looked at once: the validation protocol."""

import functools
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from sklearn.model_selection import train_test_split

from trainer.data import dataset_source
from trainer.data.base import DatasetSource, Split
from trainer.data.exclusion import Exclusion, exclude
from trainer.data.twins import twin_pairs

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Splits:
    """A dataset, divided.

    test_groups: official subset of test ("public", "private") → int64 positions in test, also where it is the whole;
    empty where the names tell of none, or PublicTest is validation.
    """

    dataset: str
    class_names: tuple[str, ...]
    train: Split
    validation: Split
    test: Split
    test_groups: Mapping[str, np.ndarray]
    source: str
    skipped: tuple[str, ...]
    exclusion: Exclusion | None = None
    """What a list took out of train; None where there was none."""

    def parts(self) -> dict[str, Split]:
        return {"train": self.train, "validation": self.validation, "test": self.test}

    def fingerprints(self) -> dict[str, str]:
        return {name: part.fingerprint(self.class_names) for name, part in self.parts().items()}

    def test_without_twins(self) -> np.ndarray:
        """int64 positions of the test images that have no twin in train or validation (seconds for FER-2013)."""
        learned = torch.cat([self.train.images, self.validation.images])
        return np.setdiff1d(np.arange(len(self.test)), twin_pairs(self.test.images, learned)[:, 0])


def load_splits(
    name: str,
    data_dir: str | None = None,
    *,
    protocol: str = "stratified",
    fraction: float = 0.1,
    seed: int = 0,
    drop_twins: bool = False,
    exclude_list: str | None = None,
) -> Splits:
    """Load the dataset `name` and divide it by a validation protocol.

    Args:
        protocol: `stratified` keeps `fraction` of train, drawn with `seed`; `public` takes the
            official PublicTest for validation and PrivateTest for test.
        drop_twins: Leave out of train what has a twin in validation, so that a choice made on validation
            is not flattered by images that were learned by heart.
        exclude_list: Path of a list of sample ids that leave train, after it was divided: validation and test are
            those of a training without a list.

    Raises ValueError or FileNotFoundError, with a message for the user, as the dataset does.
    """
    source = dataset_source(name)
    dataset = source.load(Path(data_dir) if data_dir else None, ("train", "test"))
    train, test = dataset.parts["train"], dataset.parts["test"]
    groups = group_positions(test, source)
    if protocol == "public":
        if set(groups) != {"public", "private"}:
            found = ", ".join(groups) or "none"
            raise ValueError(
                "--validation public needs test images named PublicTest_… and PrivateTest_…; "
                f"of these, {dataset.source} has: {found}. Take --validation stratified."
            )
        if left_out := len(test) - sum(map(len, groups.values())):
            logger.warning(
                f"{dataset.source}: {left_out:,} test images are neither PublicTest's nor PrivateTest's, and left out"
            )
        validation, test, groups = test.select(groups["public"]), test.select(groups["private"]), {}
    else:
        num_classes = len(dataset.class_names)
        rare = np.flatnonzero(np.array(train.class_counts(num_classes)) < 2)
        if names := ", ".join(dataset.class_names[k] for k in rare):
            raise ValueError(
                f"only one training image of {names}: a stratified validation needs two or more of each class"
            )
        kept, held_out = stratified_index(train.target.numpy(), fraction, seed)
        _tell_share(len(held_out) / len(train), fraction, num_classes, dataset.source)
        train, validation = train.select(kept), train.select(held_out)
    exclusion = None
    if exclude_list is not None:
        others = {*validation.sample_ids, *dataset.parts["test"].sample_ids}
        train, exclusion = exclude(Path(exclude_list), train, dataset.class_names, others, dataset.name)
    if drop_twins:
        twins = twin_pairs(train.images, validation.images)[:, 0]
        train = train.select(np.setdiff1d(np.arange(len(train)), twins))
        counts = zip(dataset.class_names, train.class_counts(len(dataset.class_names)), strict=True)
        if empty := [name for name, count in counts if not count]:
            raise ValueError(f"--drop-twins leaves no training image of {', '.join(empty)}")
    return Splits(
        dataset=dataset.name,
        class_names=dataset.class_names,
        train=train,
        validation=validation,
        test=test,
        test_groups=groups,
        source=dataset.source,
        skipped=dataset.skipped,
        exclusion=exclusion,
    )


def stratified_index(target: np.ndarray, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Sorted positions of train and validation, each with the class shares of `target` (int64 (N,)).

    Each class needs two or more; one that is too rare for its share gives one to validation all the same.
    """
    num_classes = len(np.unique(target))
    wanted = max(round(len(target) * fraction), num_classes)
    train, validation = train_test_split(
        np.arange(len(target)), test_size=wanted, stratify=target, random_state=seed
    )
    generator = np.random.default_rng(seed)
    absent = np.setdiff1d(target, target[validation])
    added = [generator.choice(np.flatnonzero(target == k)) for k in absent]
    return np.setdiff1d(train, added), np.union1d(validation, added).astype(np.int64)


@functools.cache  # a command may divide its data more than once
def _tell_share(share: float, fraction: float, num_classes: int, source: str) -> None:
    if share > 1.5 * fraction:
        logger.warning(
            f"{source}: validation is {share:.0%} of train instead of {fraction:.0%}, "
            f"to have an image of each of the {num_classes} classes"
        )


def group_positions(test: Split, source: DatasetSource) -> dict[str, np.ndarray]:
    """Positions in `test` of each official subset that `source` knows."""
    names = np.array([source.group(sample_id) or "" for sample_id in test.sample_ids])
    return {str(name): np.flatnonzero(names == name) for name in np.unique(names) if name}
