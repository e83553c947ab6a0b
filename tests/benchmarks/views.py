"""`python -m tests.benchmarks.views MODEL...`: what averaging views and adjusting for class frequencies change.

On the validation images of FER-2013 as a run with default flags divides them; the test set is not looked at.
"""

import dataclasses
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from trainer.commands.models import load_predictor
from trainer.data.splits import load_splits
from trainer.evaluation.metrics import evaluate
from trainer.inference.predictor import Predictor
from trainer.models.base import VIEWS

SHARES = (0.25, 0.5, 1.0)
"""Of the logarithm of the class frequencies, subtracted from that of the answers (arXiv 2007.07314)."""


def views(
    models: Annotated[tuple[str, ...], tyro.conf.Positional], /, *, data_dir: Path | None = None
) -> None:
    """Print accuracy / macro recall of each model, NAME/VERSION or a folder, one line a way of averaging.

    Args:
        models: Trained on the default part of train; others are refused.
        data_dir: Folder, archive or CSV of FER-2013.
    """
    splits = load_splits("fer2013", str(data_dir) if data_dir else None)
    names, target = splits.class_names, splits.validation.target.numpy()
    frequency = np.array(splits.train.class_counts(len(names))) / len(splits.train)
    lines = [
        "| model | views | as they are | " + " | ".join(f"adjusted by {share:g}" for share in SHARES) + " |"
    ]
    lines.append("|---|---|---|" + "---|" * len(SHARES))
    for reference in models:
        predictor, _ = load_predictor(reference)
        if predictor.spec.train_fingerprint != splits.train.fingerprint(names):
            raise SystemExit(f"error: {reference} was not trained on the default part of train")
        for averaging, count in VIEWS.items():
            spec = dataclasses.replace(predictor.spec, averaging=averaging, temperature=1.0)
            answers = Predictor(predictor.network.classifier, spec)(splits.validation.images)
            cells = []
            for share in (0.0, *SHARES):
                adjusted = answers * frequency**-share
                found = evaluate(target, adjusted / adjusted.sum(1, keepdims=True), names).summary
                cells.append(f"{found['accuracy']:.3f} / {found['macro_recall']:.3f}")
            lines.append(f"| {reference} | {count} | {' | '.join(cells)} |")
    print("\n".join(lines))  # noqa: T201


if __name__ == "__main__":
    tyro.cli(views, prog="python -m tests.benchmarks.views")
