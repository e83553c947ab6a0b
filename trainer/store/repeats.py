"""Whether a training has been done already."""

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from trainer.config import PLACES, Config
from trainer.contract import Tag
from trainer.store.location import Store
from trainer.store.rows import PAGE
from trainer.store.writer import FINISHED


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
        if name not in PLACES
    }
    try:
        for run in _alike(store, config, fingerprints):
            if all(run.data.params.get(name, "") == value for name, value in wanted.items()):
                return Repeat(run.info.run_id, run.info.run_name or run.info.run_id[:8])
    except MlflowException:
        pass
    return None


def _alike(store: Store, config: Config, fingerprints: Mapping[str, str]) -> Iterator[Run]:
    """Finished runs, the latest first, that have the images and some settings in common. Raises MlflowException."""
    client, experiment = store.client(), store.experiment_id(config.dataset)
    same = {name: getattr(config, name) for name in ("seed", "architecture", "recipe", "epochs")}
    wanted = [f"params.{name} = '{value}'" for name, value in same.items()]
    token: str | None = ""
    while token is not None:
        page = client.search_runs(
            [experiment],
            " and ".join(
                [
                    f"attributes.status = '{FINISHED}'",
                    f"tags.{Tag.TRAIN_FINGERPRINT} = '{fingerprints['train']}'",
                    f"tags.{Tag.TEST_FINGERPRINT} = '{fingerprints['test']}'",
                    *wanted,
                ]
            ),
            max_results=PAGE,
            page_token=token or None,
        )
        yield from page
        token = page.token or None
