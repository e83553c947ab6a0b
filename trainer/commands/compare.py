"""`compare`: whether one run is really better than another, as the dashboard's Compare page says it."""

from typing import Annotated

import tyro


def main(arguments: list[str]) -> int:
    return tyro.cli(compare, args=arguments, prog="python -m trainer compare")


def compare(
    a: Annotated[str, tyro.conf.Positional],
    b: Annotated[str, tyro.conf.Positional],
    /,
    *,
    json: bool = False,
) -> int:
    """Compare run B with run A on their common test set, image by image.

    Args:
        a: Run: its id, the beginning of it, its name, or NAME@ALIAS or NAME/VERSION of a registered model.
        b: The run that is compared with it.
        json: Print one JSON object instead of tables.
    """
    from trainer.evaluation.comparison import Predictions, verdict
    from trainer.evaluation.comparison import compare as measure
    from trainer.store.location import open_store
    from trainer.store.reader import FEW, Reader

    reader = Reader(open_store(create=False), newest=FEW)
    found = []
    for reference in (a, b):
        snapshot, run_id = reader.find(reference)
        table = reader.predictions(run_id)
        if table is None:
            raise ValueError(
                f"run {reference} logged no predictions: only finished runs of Moodify can be compared"
            )
        run = snapshot.runs.loc[run_id]
        found.append((run["name"] or run_id[:8], run["test_fingerprint"], Predictions.from_table(table)))
    (name_a, images_a, first), (name_b, images_b, second) = found
    if images_a != images_b:  # where both have no fingerprint, the same ids with the same labels have to do
        raise ValueError(
            f"{name_b} was tested on other data than {name_a} (the fingerprints of the test sets differ)"
        )
    result = measure(first, second)
    sentence = verdict(result, name_a, name_b)
    if json:
        from trainer.commands.evaluate import print_json, records

        print_json(
            {
                "a": name_a,
                "b": name_b,
                "verdict": sentence,
                "images": result.size,
                "p": result.p,
                "both_right": result.both_right,
                "only_a": result.only_a,
                "only_b": result.only_b,
                "both_wrong": result.both_wrong,
                "metrics": records(result.metrics),
                "classes": records(result.classes),
            }
        )
        return 0
    from rich.console import Console

    from trainer.commands.report import comparison_tables

    Console().print(sentence, highlight=False, soft_wrap=True, markup=False)
    comparison_tables(result, name_a, name_b)
    return 0
