"""`audit`: what is wrong with the images and labels of a dataset, as a report with pictures."""

from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated

import tyro

from trainer.contract import AUDIT_FACTS, AUDIT_LIST, AUDIT_REPORT, AUDIT_TABLE, Reason
from trainer.data import absolute, name_mistake

if TYPE_CHECKING:
    import pandas as pd

    from trainer.store.location import Store

MOST_FOLDS = 20


def main(arguments: list[str]) -> int:
    return tyro.cli(audit, args=arguments, prog="python -m trainer audit")


def audit(
    *,
    dataset: str = "fer2013",
    data_dir: Path | None = None,
    folds: int = 0,
    epochs: int = 8,
    seed: int = 0,
    model: str | None = None,
    faces: int | None = None,
    drop: tuple[Reason, ...] = ("blank", "no-face", "conflict"),
    output: Path = Path("build/audit"),
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
) -> int:
    """Look for near-duplicates, blank images, images without a face and suspect labels in all parts of a dataset.

    Writes a report with pictures, the findings as CSV and JSON, and a list for `train --exclude`; all of it is also
    kept in the store, where the dashboard's page Data audit shows it. The data themselves are not changed.

    Args:
        dataset: fer2013, sketch, or any name for images of your own, with --data-dir.
        data_dir: Folder, archive or CSV of the dataset, where it is not in its usual place.
        folds: Judge labels by so many small networks, each trained without the images that it judges and their twins;
            0 for none, 4 is a good number. How long that takes is said beforehand.
        epochs: Of each of these networks.
        seed: Of the folds and of these networks.
        model: Judge labels by what a run answered to its validation and test images, which costs nothing: its id, its
            name, NAME@ALIAS or NAME/VERSION. Of several, with commas between them, the mean answer counts.
        faces: Look for a face on so many images only, evenly drawn; 0 for none. Without it on all of them.
        drop: What the list holds: blank, no-face (nothing like one), conflict (a twin in train has another label),
            duplicate (an earlier twin has the same label), leak (a twin is in test), label (suspected).
        output: Folder for the report and the other files.
        json: Print the facts as one JSON object instead of a table.
    """
    if mistake := name_mistake(dataset, data_dir):
        raise ValueError(mistake)
    if data_dir is not None and not Path(absolute(data_dir)).exists():
        raise FileNotFoundError(f"there are no images of {dataset} at {data_dir}: the path does not exist")
    _check(folds, epochs, seed, model, faces)
    output.mkdir(parents=True, exist_ok=True)  # not after minutes of work
    from trainer.commands.progress import make_progress, stoppable
    from trainer.commands.report import audit_tables
    from trainer.data import dataset_source

    source = dataset_source(dataset)
    with make_progress() as progress, stoppable(progress):
        progress.doing("Starting")
        from trainer.evaluation.audit import excludable, sentence
        from trainer.inspection import Folds, inspect
        from trainer.store.audits import log_audit, write_audit
        from trainer.store.bundled import install
        from trainer.store.location import open_store

        progress.doing(f"Loading {dataset}")
        data = source.load(data_dir, ("train", "test"))
        store = open_store()  # not before: a slip in a path leaves nothing behind
        if install(store):
            progress.say("A new store: the model that comes with the program is its first champion.")
        answers = logged_answers(store, model, dataset) if model is not None else None
        judge = Folds(folds, epochs, seed) if folds else answers
        result = inspect(data, judge=judge, judge_name=model or "", faces=faces, say=progress.doing)
        if data_dir is not None:
            result = replace(result, facts={**result.facts, "data_dir": absolute(data_dir)})
        progress.doing("Writing and logging")
        reasons = excludable(result)
        chosen = [reason for reason in reasons if reason in drop]
        unwritten = None
        try:
            write_audit(output, result, chosen)
        except OSError as error:  # the store may have room
            unwritten = error
        params = {"dataset": dataset, "data_dir": data_dir, "folds": folds, "model": model, "faces": faces}
        if folds:
            params |= {"epochs": epochs, "seed": seed}
        run_id = log_audit(store, result, chosen, params)
    if unwritten:
        raise OSError(f"{unwritten}: the report is only in the store, as run {run_id}") from unwritten
    if json:
        from trainer.commands.evaluate import print_json

        print_json({"sentence": sentence(result), **result.facts})
        return 0
    print(sentence(result))
    audit_tables(result)
    size = len({sample_id for reason in chosen for sample_id in reasons[reason]})
    print(
        f"\nThe report:          {output / AUDIT_REPORT}\n"
        f"All findings:        {output / AUDIT_TABLE}, {output / AUDIT_FACTS}\n"
        f"On the screen:       make dashboard, page Data audit"
    )
    if size:
        listed = ", ".join(reason for reason in chosen if reasons[reason])
        print(
            f"Train without them:  python -m trainer train --dataset {dataset}"
            f"{f' --data-dir {quote(str(data_dir))}' if data_dir else ''} --exclude {quote(str(output / AUDIT_LIST))}\n"
            f"                     (lists {size:,} images: {listed}; those that validation takes stay)"
        )
    if not result.facts["labels_judged"]:
        print(
            "Labels were not judged: --folds 4 trains networks for it, --model takes what a run has answered."
        )
    return 0


def _check(folds: int, epochs: int, seed: int, model: str | None, faces: int | None) -> None:
    """Raises ValueError, before anything heavy is imported."""
    if folds and not 2 <= folds <= MOST_FOLDS:
        raise ValueError(f"--folds {folds}: must be 0, or lie between 2 and {MOST_FOLDS}")
    if folds and model is not None:
        raise ValueError("--folds and --model both judge the labels: give one of them")
    if epochs < 1:
        raise ValueError(f"--epochs {epochs}: must be 1 or more")
    if not 0 <= seed < 2**31:
        raise ValueError(f"--seed {seed}: must lie between 0 and {2**31 - 1}")
    if faces is not None and faces < 0:
        raise ValueError(f"--faces {faces}: must be 0 or more")


def logged_answers(store: "Store", references: str, dataset: str) -> "pd.DataFrame":
    """The predictions of one or more runs, below each other, with the fingerprints of their parts.

    Raises ValueError where one has none, or is of another dataset: its images may be called the same.
    """
    import pandas as pd

    from trainer.store.reader import FEW, Reader

    reader = Reader(store, newest=FEW)
    tables = []
    for reference in map(str.strip, references.split(",")):
        snapshot, run_id = reader.find(reference)
        table = reader.predictions(run_id)
        if (of := snapshot.runs.loc[run_id, "dataset"]) != dataset:
            raise ValueError(f"--model {reference}: the run answered images of {of}, not of {dataset}")
        if table is None:
            raise ValueError(f"--model {reference}: the run logged no predictions")
        prints = {
            "validation": snapshot.params[run_id].get("validation_fingerprint", ""),
            "test": snapshot.runs.loc[run_id, "test_fingerprint"],
        }
        tables.append(table.assign(fingerprint=table["part"].map(prints)))
    return pd.concat(tables, ignore_index=True)
