"""The images of a training, as its configuration asks for them."""

from trainer.config import Config
from trainer.data.splits import Splits, load_splits


def configured_splits(config: Config) -> Splits:
    """The dataset of a configuration, divided by its validation protocol; raises what `load_splits` raises."""
    return load_splits(
        config.dataset,
        config.data_dir,
        protocol=config.validation,
        fraction=config.validation_fraction,
        seed=config.validation_seed,
        drop_twins=config.drop_twins,
        exclude_list=config.exclude,
    )
