"""Whether a training has been done already."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

from mlflow.exceptions import MlflowException

from trainer.config import Config
from trainer.contract import Tag
from trainer.store.location import Store
from trainer.store.writer import FINISHED

_ELSEWHERE = {"data_dir", "device", "exclude"}
"""Fields that say where, not what: the data are known by their fingerprints."""


@dataclass(frozen=True)
class Repeat:
    """A finished run, by its id and name."""

    run_id: str
    name: str


def trained_before(store: Store, config: Config, fingerprints: Mapping[str, str]) -> Repeat | None:
    """The latest finished run of this configuration, seed included, on the same images.

    None where there is none, or the store does not answer: a training does not fail for this.
    """
    wanted = {
        name: "" if value is None else str(value)
        for name, value in dataclasses.asdict(config).items()
        if name not in _ELSEWHERE
    }
    try:
        found = store.client().search_runs(
            [store.experiment_id(config.dataset)],
            filter_string=(
                f"attributes.status = '{FINISHED}' and params.seed = '{config.seed}' "
                f"and tags.{Tag.TRAIN_FINGERPRINT} = '{fingerprints['train']}' "
                f"and tags.{Tag.TEST_FINGERPRINT} = '{fingerprints['test']}'"
            ),
            max_results=100,
        )
    except MlflowException:
        return None
    for run in found:
        if all(run.data.params.get(name, "") == value for name, value in wanted.items()):
            return Repeat(run.info.run_id, run.info.run_name or run.info.run_id[:8])
    return None
