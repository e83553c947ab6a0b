"""From what a user types to a model that answers."""

from collections.abc import Container, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.contract import Tag
from trainer.data import still_at

if TYPE_CHECKING:
    from trainer.inference.model import Model
    from trainer.inference.predictor import Predictor
    from trainer.store.location import Store

_MODELS, _RUNS = "models:/", "runs:/"


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
    from trainer.store.registry import run_params

    run = _run_of(name)
    if run is None or run_params(*run).get("validation") != "public":
        return ""
    return (
        f"The images of PublicTest chose the epoch of {name} and fitted its temperature: only figures of PrivateTest "
        "are of a test."
    )


def data_meant(
    members: "Sequence[tuple[Predictor, str]]", dataset: str | None, data_dir: Path | None
) -> tuple[str, Path | None]:
    """The dataset and the path to its images: what is given, else the models' own, where their runs found it.

    Args:
        members: Of `load_predictor`.

    Raises ValueError where nothing is given and the models are of several datasets or places, and FileNotFoundError
    where images of one's own are gone.
    """
    own = {predictor.spec.dataset for predictor, _ in members}
    if dataset is None and len(own) > 1:
        raise ValueError(f"these models are of {', '.join(sorted(own))}: name one with --dataset")
    name = dataset or own.pop()
    if data_dir is not None:
        return name, data_dir
    from trainer.store.registry import place_of_images

    runs = (_run_of(model) for predictor, model in members if predictor.spec.dataset == name)
    places = {still_at(name, place_of_images(*run)) for run in runs if run}
    if len(places - {None}) > 1:
        found = ", ".join(sorted(filter(None, places)))
        raise ValueError(
            f"the runs of these models found {name} at several places ({found}): name one with --data-dir"
        )
    return name, next((Path(place) for place in places if place), None)


def other_images(predictor: "Predictor", name: str, dataset: str, fingerprints: Container[str]) -> str:
    """What to say where the test images are not those that the model's run was tested on; else empty.

    Args:
        predictor, name: Of `load_predictor`.
        dataset, fingerprints: The test set's, and those of the official subsets in it.
    """
    if predictor.spec.dataset != dataset or not name.startswith(_MODELS):
        return ""
    from trainer.store.location import open_store
    from trainer.store.registry import find_version

    tested_on = find_version(open_store(create=False), name).tags.get(Tag.TEST_FINGERPRINT)
    if tested_on is None or tested_on in fingerprints:
        return ""
    return f"The run of {name} was tested on other images: whether it has learned some of these is not known."


def _run_of(name: str) -> "tuple[Store, str] | None":
    """The store, and the id of the run behind a name that `load_predictor` gave; None for a folder."""
    if not name.startswith((_MODELS, _RUNS)):
        return None
    from trainer.store.location import open_store
    from trainer.store.registry import find_version

    store = open_store(create=False)
    if name.startswith(_RUNS):
        return store, name.removeprefix(_RUNS).strip("/")
    return store, find_version(store, name).run_id or ""


def load_any(reference: str) -> "tuple[Model, str]":
    """As `load_predictor`, and registered models of foreign formats where the registry is trusted."""
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
