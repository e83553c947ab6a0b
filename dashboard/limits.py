"""What stands beside a model's answer: what it was trained on, how good it is, where it is weak."""

from dashboard.models import Candidate
from dashboard.text import percent, plain
from trainer.evaluation.comparison import Predictions
from trainer.evaluation.statistics import wilson
from trainer.inference.answers import SURE
from trainer.inference.model import Model
from trainer.store.snapshot import Snapshot

ETHICS = (
    "A model names the look of a face, not what somebody feels: people themselves agree on only about 65% of such "
    "images. Nothing is known of how good it is for any group of people. **Do not use it for decisions about people.**"
)


def brief(snapshot: Snapshot, candidate: Candidate) -> str:
    """One line, as plain text: `fer2013, test accuracy 0.642; found least: disgust 0.27, fear 0.35`."""
    row = _run(snapshot, candidate)
    if row is None:
        return "nothing is known of its training"
    parts = [str(row["dataset"] or "unknown data")]
    if row["test_accuracy"] == row["test_accuracy"]:
        parts.append(f"test accuracy {row['test_accuracy']:.3f}")
    recalls = {name: value for name, value in row["recalls"].items() if value == value}
    weakest = sorted(recalls, key=recalls.__getitem__)[:2]
    weak = f"; found least: {', '.join(f'{name} {recalls[name]:.2f}' for name in weakest)}" if weakest else ""
    return ", ".join(parts) + weak


def about(
    snapshot: Snapshot, candidate: Candidate, model: Model, predictions: Predictions | str | None
) -> list[str]:
    """Sentences in Markdown: data, accuracy with its interval, weakest classes, calibration, what was assumed."""
    row = _run(snapshot, candidate)
    lines = []
    if row is None:
        lines.append("No run in this store says how it was trained, so nothing is known of its accuracy.")
    else:
        data = plain(row["dataset"] or "unknown data")
        images = snapshot.params.get(row.name, {}).get("train_images", "")
        lines.append(f"Trained on {f'{int(images):,} images of ' if images.isdigit() else ''}{data}.")
        if row["dataset"] == "sketch":
            lines.append(
                "These are drawn faces: it knows no photographs, and its answers about them mean nothing."
            )
        size, accuracy = row["test_images"], row["test_accuracy"]
        if accuracy == accuracy and size == size:
            low, high = (percent(float(end)) for end in wilson(round(accuracy * size), int(size)))
            lines.append(f"Right on {percent(accuracy)} of {int(size):,} test images ({low} to {high}).")
        recalls = {name: value for name, value in row["recalls"].items() if value == value}
        weakest = sorted(recalls, key=recalls.__getitem__)[:3]
        if weakest:
            found = ", ".join(f"{plain(name)} in {percent(recalls[name])}" for name in weakest)
            lines.append(f"Least often found: {found} of the cases.")
        whole, alone = row["latency_ms"], row["latency_one_view_ms"]
        if whole == whole:
            without = f" ({alone:.1f} ms for one view alone)" if alone == alone and model.notes else ""
            lines.append(f"An answer took {whole:.1f} ms on the CPU that it was trained on{without}.")
    lines.append(_certainty(model, predictions))
    return lines + [plain(note) for note in model.notes]


def _certainty(model: Model, predictions: Predictions | str | None) -> str:
    """What the threshold of "not sure" means for this model, on its own test set."""
    calibrated = (
        f"Its probabilities are calibrated (temperature {model.temperature:.2f})."
        if model.temperature != 1
        else "Its probabilities are not calibrated: 0.90 does not promise nine right answers in ten."
    )
    rule = f"Below {SURE:.2f} it counts as not sure"
    if not isinstance(predictions, Predictions):
        return f"{calibrated} {rule}."
    sure = predictions.probabilities.max(1) >= SURE
    right = predictions.preds == predictions.target
    if not sure.any() or sure.all():
        return f"{calibrated} {rule}; on its test set it was {'always' if sure.all() else 'never'} sure."
    return (
        f"{calibrated} {rule}: on its test set it was sure of {percent(float(sure.mean()))} of the images and right on "
        f"{percent(float(right[sure].mean()))} of these, and on {percent(float(right[~sure].mean()))} of the others."
    )


def _run(snapshot: Snapshot, candidate: Candidate):  # type: ignore[no-untyped-def]
    run_id = candidate.version.run_id
    return snapshot.runs.loc[run_id] if run_id in snapshot.runs.index else None
