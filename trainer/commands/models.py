"""From what a user types to a model that answers."""

from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.data import at_hand

if TYPE_CHECKING:
    from trainer.inference.model import Model
    from trainer.inference.predictor import Predictor

_IN_STORE = ("models:/", "runs:/")


def load_predictor(reference: str) -> "tuple[Predictor, str]":
    """The model of our format, and its full name.

    `reference` is NAME@ALIAS, NAME/VERSION, either with `models:/` before it, `runs:/RUN_ID` (the best
    weights of an interrupted run), or a folder with the two files of the model format.

    Raises ValueError, with a message for the user, where there is no such model.
    """
    from trainer.inference.predictor import Predictor

    if Path(reference).is_dir():
        return Predictor.load(Path(reference)), str(Path(reference))  # with a slash at its end or without
    from trainer.store.location import open_store
    from trainer.store.models import load_best, load_bundle
    from trainer.store.registry import find_version

    store = open_store(create=False)
    if reference.startswith("runs:/"):
        return load_best(store, reference.removeprefix("runs:/").strip("/")), reference
    version = find_version(store, reference)
    return load_bundle(version), version.uri


def chosen_by_test(predictor: "Predictor", name: str, dataset: str, groups: Container[str]) -> str:
    """What to say of figures on test images that chose the model's epoch (--validation public); else empty.

    Args:
        predictor, name: Of `load_predictor`.
        dataset, groups: The test set's, and the official subsets in it.
    """
    if predictor.spec.dataset != dataset or "public" not in groups:
        return ""
    if logged_params(name).get("validation") != "public":
        return ""
    return (
        f"The images of PublicTest chose the epoch of {name} and fitted its temperature: only figures of PrivateTest "
        "are of a test."
    )


def data_meant(
    members: "Sequence[tuple[Predictor, str]]", dataset: str | None, data_dir: Path | None
) -> tuple[str, Path | None]:
    """The dataset and the path to its images: what is given, else the models' own, where a run of theirs found it.

    Args:
        members: Of `load_predictor`.

    Raises ValueError where nothing is given and the models are of several datasets.
    """
    own = {predictor.spec.dataset for predictor, _ in members}
    if dataset is None and len(own) > 1:
        raise ValueError(f"these models are of {', '.join(sorted(own))}: name one with --dataset")
    name = dataset or own.pop()
    if data_dir is None:
        found = (
            at_hand(logged_params(model).get("data_dir")) for p, model in members if p.spec.dataset == name
        )
        data_dir = next((Path(path) for path in found if path), None)
    return name, data_dir


def logged_params(name: str) -> Mapping[str, str]:
    """The parameters of the run behind a name that `load_predictor` gave; none for a folder, or where it is gone."""
    if not name.startswith(_IN_STORE):
        return {}
    from trainer.store.location import open_store
    from trainer.store.registry import find_version, run_params

    store = open_store(create=False)
    of_run = name.startswith("runs:/")
    run_id = name.removeprefix("runs:/").strip("/") if of_run else find_version(store, name).run_id
    return run_params(store, run_id or "")


def load_any(reference: str) -> "tuple[Model, str]":
    """The same, and registered models of foreign formats where the registry is trusted."""
    if Path(reference).is_dir() or reference.startswith("runs:/"):
        return load_predictor(reference)
    from trainer.store.location import open_store
    from trainer.store.models import load_model
    from trainer.store.registry import find_version

    store = open_store(create=False)
    version = find_version(store, reference)
    return load_model(version), version.uri


def load_all(references: str) -> "dict[str, Model]":
    """Name → model, of several with commas between them. Raises ValueError where none is named."""
    models = {}
    for reference in filter(None, map(str.strip, references.split(","))):
        found, name = load_any(reference)
        models[name.removeprefix("models:/")] = found
    if not models:
        raise ValueError("name a model: NAME@champion, NAME/3 or a folder")
    return models
