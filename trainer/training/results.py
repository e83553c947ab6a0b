"""What a run tells of its model once it is trained: metrics, answers, and the files that explain them."""

import json
import logging
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from trainer.contract import (
    ATTENTION_FILE,
    CALIBRATION_METRICS,
    CONDITIONS_FILE,
    CONFUSION_FILE,
    CONFUSION_PICTURE,
    IMAGES_WITHOUT_TWINS,
    MISTAKES_PICTURE,
    PREDICTIONS_FILE,
    RANDOM_SIMILARITY,
    ROBUSTNESS,
    ROBUSTNESS_FILE,
    ROBUSTNESS_OF_KIND,
    SLICE_DECIDED,
    SLICE_DIFFERENCE,
    TEMPERATURE_METRIC,
    UNCALIBRATED,
    WORST_IMAGES_FILE,
    metric_key,
)
from trainer.data.base import Split
from trainer.data.pictures import image_table
from trainer.data.splits import Splits
from trainer.evaluation.calibration import averaged
from trainer.evaluation.metrics import Evaluation, answered, evaluate, prediction_table, sample_loss
from trainer.evaluation.pictures import confusion_figure, mistakes_sheet, save
from trainer.evaluation.robustness import Robustness, by_kind, relative
from trainer.evaluation.slices import by_condition, slice_table
from trainer.inference.attention import attention
from trainer.inference.bundle import ModelSpec
from trainer.inference.conditions import conditions
from trainer.models.base import Classifier, Probabilities
from trainer.store.writer import RunWriter
from trainer.training.allocator import return_memory
from trainer.training.prediction import predict_views
from trainer.training.stress import stress

WORST_IMAGES = 256
"""Test images of highest loss that a run keeps, for galleries where the dataset is not at hand."""

log = logging.getLogger(__name__)


def view_logits(model: Probabilities, split: Split, device: torch.device) -> np.ndarray:
    """Logits of each view that the model averages, float32 (V, N, K)."""
    logits = predict_views(model, split.images, device).cpu().numpy()
    return_memory()
    return logits


def log_validation(writer: RunWriter, splits: Splits, logits: np.ndarray, temperature: float) -> pd.DataFrame:
    """Metrics of the validation images, as the registered model answers them; returns its part of the predictions.

    Args:
        logits: Of each view, float32 (V, N, K).
    """
    validation, names = splits.validation, splits.class_names
    probabilities, target = averaged(logits, temperature), validation.target.numpy()
    # The summary per epoch is logged already; `validation/loss` stays that curve.
    writer.log_evaluation("validation_best", evaluate(target, probabilities, names))
    return prediction_table("validation", validation.sample_ids, target, probabilities, names)


def log_test(
    writer: RunWriter,
    folder: Path,
    splits: Splits,
    classifier: Classifier,
    spec: ModelSpec,
    device: torch.device,
    validation: pd.DataFrame,
) -> Evaluation:
    """All that is measured on the test images; metrics are logged, files written below `folder`.

    They are of the answers that the registered model gives: calibrated, and averaged over views.

    Args:
        classifier: The network, on `device`, with the weights that are registered.
        validation: The predictions of validation, which stand in the same file.
    """
    test, names = splits.test, splits.class_names
    target, temperature = test.target.numpy(), spec.temperature
    logits = view_logits(spec.answering(classifier), test, device)
    probabilities, uncalibrated = averaged(logits, temperature), averaged(logits, 1.0)
    (folder / PREDICTIONS_FILE).parent.mkdir(parents=True, exist_ok=True)
    tables = [validation, prediction_table("test", test.sample_ids, target, probabilities, names)]
    tables.append(prediction_table(UNCALIBRATED, test.sample_ids, target, uncalibrated, names))
    pd.concat(tables, ignore_index=True).to_parquet(folder / PREDICTIONS_FILE, index=False)
    evaluation = log_evaluations(writer, folder, splits, probabilities)
    summary = evaluate(target, uncalibrated, names).summary
    writer.log_metrics(
        {TEMPERATURE_METRIC: temperature}
        | {metric_key(UNCALIBRATED, name): summary[name] for name in CALIBRATION_METRICS}
    )
    loss = sample_loss(target, probabilities)
    sheet = mistakes_sheet(test.images.numpy(), target, probabilities, names, loss)
    sheet.save(folder / MISTAKES_PICTURE)
    worst = image_table(test.images.numpy(), test.sample_ids, loss, WORST_IMAGES)
    worst.to_parquet(folder / WORST_IMAGES_FILE, index=False)
    log_robustness(writer, folder, splits, classifier, device)
    log_weaknesses(writer, folder, splits, classifier, answered(target, probabilities))
    return evaluation


def log_evaluations(writer: RunWriter, folder: Path, splits: Splits, probabilities: np.ndarray) -> Evaluation:
    """Of test, of its official subsets and of the images without twins, with matrices below `folder`; returns test's.

    Args:
        probabilities: float32 (N, K).
    """
    names, target = splits.class_names, splits.test.target.numpy()
    evaluations = {"test": evaluate(target, probabilities, names)}
    for group, index in splits.test_groups.items():
        evaluations[f"test_{group}"] = evaluate(target[index], probabilities[index], names)
    for part, evaluation in evaluations.items():
        writer.log_evaluation(part, evaluation)
        matrix = {"class_names": names, "rows": "truth", "columns": "prediction"}
        matrix["counts"] = evaluation.confusion.tolist()
        (folder / CONFUSION_FILE.format(part=part)).write_text(json.dumps(matrix))
        title = f"Accuracy {evaluation.summary['accuracy']:.3f} on {evaluation.size:,} images of {part}"
        save(confusion_figure(evaluation, title), folder / CONFUSION_PICTURE.format(part=part))
    index = splits.test_without_twins()
    writer.log_metrics({IMAGES_WITHOUT_TWINS: len(index)})
    if len(index):
        writer.log_evaluation("test_without_twins", evaluate(target[index], probabilities[index], names))
    elif len(target):
        log.warning(
            "Every test image has a near-duplicate in train or validation: what is measured on them does not tell how "
            "the model answers to others."
        )
    return evaluations["test"]


def log_robustness(
    writer: RunWriter, folder: Path, splits: Splits, classifier: Classifier, device: torch.device
) -> None:
    """The answers to corrupted test images, into `folder`, and what follows from them as metrics."""
    answers = stress(classifier, splits.test, splits.class_names, device)
    return_memory()
    answers.to_parquet(folder / ROBUSTNESS_FILE, index=False)
    found = Robustness.from_table(answers)
    writer.log_metrics(
        {ROBUSTNESS: relative(found).value}
        | {ROBUSTNESS_OF_KIND.format(kind=kind): accuracy for kind, accuracy in by_kind(found).items()}
    )


def log_weaknesses(
    writer: RunWriter, folder: Path, splits: Splits, classifier: Classifier, preds: np.ndarray
) -> None:
    """What the test images are like, in which slices of them the model is weak, and what it looks at.

    Args:
        preds: int64 (N,), what it answered to the test images.
    """
    test, names = splits.test, splits.class_names
    target = test.target.numpy()
    measured = conditions(test.images.numpy(), test.sample_ids, test.fingerprint(names))
    return_memory()
    measured.to_parquet(folder / CONDITIONS_FILE, index=False)
    table = slice_table(target, preds == target, by_condition(measured, test.sample_ids))
    writer.log_metrics(
        {
            key.format(grouping=row.grouping, slice=row.slice): value
            for row in table.itertuples()
            if row.difference == row.difference
            for key, value in ((SLICE_DIFFERENCE, row.difference), (SLICE_DECIDED, row.decided))
        }
    )
    looks = attention(classifier, test.images, target, preds, measured, names)
    return_memory()
    if looks is not None:
        looks.save(folder / ATTENTION_FILE)
        writer.log_metrics({RANDOM_SIMILARITY: looks.random_similarity})
