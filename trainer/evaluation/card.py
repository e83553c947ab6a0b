"""A model card in the Hugging Face format (YAML metadata, then Markdown), from what a run logged."""

import json
import math
import re
import textwrap
from collections.abc import Mapping, Sequence

from trainer.contract import (
    ELSEWHERE,
    ENERGY_FACTOR,
    IMAGES_WITHOUT_TWINS,
    ROBUSTNESS,
    ROBUSTNESS_OF_KIND,
    SLICE_DECIDED,
    SLICE_DIFFERENCE,
    metric_key,
)
from trainer.evaluation.statistics import wilson

INTENDED = """\
To learn from, to compare with, and to try on photos of your own or of people who agreed to it.

A classifier of expressions names the look of a face; it does not know what anybody feels. Do not use it for decisions
about people: not in hiring, policing, schools, insurance, medicine, or to watch anyone."""

_LIMITS = (
    "- **Labels.** {labels}",
    "- **People.** {people} No accuracy for any group of people follows from these figures, and differences between "
    "groups are to be expected.",
    "- **Privacy.** A photograph of a face is personal data, and what is guessed about a feeling may be protected by "
    "law.",
    "- **Photos.** {photos}",
)
_OF_DATASET: Mapping[str, Mapping[str, str]] = {
    "fer2013": {
        "labels": "People agree on about 65% of FER-2013's images; part of what counts as an error is the label's.",
        "people": "Nothing is known about who is in FER-2013's images, which come from a web search.",
        "photos": "It was trained on grey crops of faces that mostly look into the camera.",
    },
    "sketch": {
        "labels": "They are exact, since the faces were drawn after them; those of photographs are not.",
        "people": "Nobody is in the images.",
        "photos": "It was trained on drawn faces, and is no measure of what it answers to photographs.",
    },
}
_OF_ANY = {
    "labels": "Part of what counts as an error may be the label's.",
    "people": "Nothing is told here about who is in the images.",
    "photos": "It was trained on grey crops of faces.",
}


_PRECISIONS: Mapping[str, str] = {"32": "float32", "bf16": "bfloat16 with float32 weights"}


def card(
    name: str, params: Mapping[str, str], metrics: Mapping[str, float], class_names: Sequence[str]
) -> str:
    """Markdown. `metrics` holds the last value of each; what was not logged is left out."""
    size = round(sum(_get(metrics, metric_key("test", "support", label), 0.0) for label in class_names))
    accuracy, recall = (_get(metrics, f"test/{key}") for key in ("accuracy", "macro_recall"))
    # JSON's texts are YAML's too, whatever is in them.
    source = _source(params, metrics)
    label, dataset = json.dumps(name), json.dumps(source)
    front = [
        "---",
        "license: mit",
        "pipeline_tag: image-classification",
        "tags: [facial-expression-recognition, moodify]",
        f"datasets: [{dataset}]",
        "model-index:",
        f"- name: {label}",
        "  results:",
        "  - task: {type: image-classification}",
        f"    dataset: {{name: {dataset}, type: {dataset}, split: test}}",
        "    metrics:",
        f"    - {{type: accuracy, value: {accuracy:.4f}}}",
        f"    - {{type: recall, name: macro recall, value: {recall:.4f}}}",
        "---",
    ]
    sections = {
        f"# {name}": _summary(source, params, metrics),
        "## How good it is": _results(metrics, class_names, size),
        "## How it was trained": _training(params, metrics),
        "## What it is for": INTENDED,
        "## What it cannot do": _limits(source),
    }
    return "\n".join(front) + "".join(f"\n\n{title}\n\n{text}" for title, text in sections.items()) + "\n"


def _limits(source: str) -> str:
    words = _OF_DATASET.get(source, _OF_ANY)
    return "\n".join(textwrap.fill(line.format(**words), 120, subsequent_indent="  ") for line in _LIMITS)


def body(text: str) -> str:
    """A card without its metadata."""
    return text.partition("\n---\n")[2].strip()


def _source(params: Mapping[str, str], metrics: Mapping[str, float]) -> str:
    """What it was trained on: own images in FER-2013's layout are not FER-2013, which has PublicTest or PrivateTest."""
    dataset = params.get("dataset", "")
    official = any(key.startswith(("test_public/", "test_private/")) for key in metrics)
    return "own images" if dataset == "fer2013" and not official else dataset


def _summary(source: str, params: Mapping[str, str], metrics: Mapping[str, float]) -> str:
    parameters = int(params.get("parameters") or 0)
    text = (
        f"Tells the expression of a face: {params.get('architecture', '?')} with {parameters:,} parameters, trained on "
        f"{source or '?'}."
    )
    latency = _get(metrics, "cost/latency_ms")
    if not math.isnan(latency):
        size = _get(metrics, "cost/size_bytes", 0.0) / 1e6
        text += f" {size:.1f} MB; {latency:.1f} ms for a face on the CPU that it was trained on."
    return text


def _results(metrics: Mapping[str, float], class_names: Sequence[str], size: int) -> str:
    if not size:
        return "It was not measured."
    accuracy = _get(metrics, "test/accuracy")
    low, high = wilson(round(accuracy * size), size)
    lines = [
        f"On {size:,} test images, which chose nothing: accuracy {accuracy:.3f} "
        f"(95% interval {low:.3f} to {high:.3f}), "
        f"macro recall {_get(metrics, 'test/macro_recall'):.3f}, expected calibration error "
        f"{_get(metrics, 'test/ece'):.3f}.",
    ]
    alone = _get(metrics, "test_without_twins/accuracy")
    if not math.isnan(alone):
        lines[0] += (
            f" Without the test images that have a near-duplicate in train or validation: {alone:.3f}."
        )
    elif metrics.get(IMAGES_WITHOUT_TWINS) == 0:
        lines[0] += " All of them have a near-duplicate in train or validation: of others this says nothing."
    lines += ["", "| class | recall | 95% interval | precision | images |", "|---|---|---|---|---|"]
    for label in class_names:
        support = round(_get(metrics, metric_key("test", "support", label), 0.0))
        recall, precision = (_get(metrics, metric_key("test", key, label)) for key in ("recall", "precision"))
        if not support or math.isnan(recall):
            continue
        low, high = wilson(round(recall * support), support)
        shown = "–" if math.isnan(precision) else f"{precision:.3f}"
        name = " ".join(label.split()).replace("|", "\\|")
        lines.append(f"| {name} | {recall:.3f} | {low:.3f} to {high:.3f} | {shown} | {support} |")
    return "\n".join([*lines, *_slices(metrics), *_robustness(metrics)])


def _slices(metrics: Mapping[str, float]) -> list[str]:
    """The three slices that lie farthest below the other images, of those where that is more than chance."""
    differences, decided = (_starting(metrics, key) for key in (SLICE_DIFFERENCE, SLICE_DECIDED))
    if not differences:
        return []
    below = {
        name: value for name, value in differences.items() if value < 0 and (decided.get(name) or not decided)
    }
    listed = ", ".join(
        f"{name.partition('/')[2]} ({name.partition('/')[0]}) {100 * below[name]:+.1f}".replace("-", "−")
        for name in sorted(below, key=lambda name: below[name])[:3]
    )
    text = f"Weakest slices, in points of accuracy from other images of the same classes: {listed}."
    if not decided:  # of an older run
        text += " They may be chance: whether they are more was not logged."
    if not below:
        text = "In no slice of the test images is it worse by more than chance."
    return ["", text]


def _starting(metrics: Mapping[str, float], key: str) -> dict[str, float]:
    """`grouping/slice` → value, of one key of slices."""
    start = key.partition("{")[0]
    found = {name.removeprefix(start): value for name, value in metrics.items() if name.startswith(start)}
    return {name: value for name, value in found.items() if not math.isnan(value)}


def _robustness(metrics: Mapping[str, float]) -> list[str]:
    score, start = _get(metrics, ROBUSTNESS), ROBUSTNESS_OF_KIND.format(kind="")
    kinds = {
        key.removeprefix(start): value
        for key, value in metrics.items()
        if key.startswith(start) and key != ROBUSTNESS and not math.isnan(value)
    }
    if math.isnan(score) or not kinds:
        return []
    worst = sorted(kinds, key=lambda kind: kinds[kind])
    listed = ", ".join(f"{kind} {kinds[kind]:.3f}" for kind in worst)
    return [
        "",
        f"When images are made worse, in {len(kinds)} ways and five strengths each, it keeps {100 * score:.0f}% of its "
        f"accuracy (of one view). Accuracy for each: {listed}.",
    ]


def _training(params: Mapping[str, str], metrics: Mapping[str, float]) -> str:
    images = [
        f"{int(params[f'{part}_images']):,} for {part}"
        for part in ("train", "validation")
        if f"{part}_images" in params
    ]
    precision = _PRECISIONS.get(params.get("precision_used", "32"), "")
    epochs = params.get("epochs", "?")
    if params.get("early_stopping", "0") != "0":
        epochs = f"at most {epochs}"
    lines = [
        f"Images: {', '.join(images)}. The epoch was chosen on validation.",
        f"Recipe `{params.get('recipe', '?')}`, {epochs} epochs, seed {params.get('seed', '?')}, "
        f"on {params.get('device_used', '?').partition(':')[0]}, {precision}.",
    ]
    if params.get("excluded_images"):
        lines.insert(
            1,
            f"Trained without {int(params['excluded_images']):,} images of {params.get('excluded_list')} (digest "
            f"{params.get('excluded_digest')}).",
        )
    if begun := params.get("start_from"):
        name = begun.removeprefix(ELSEWHERE)
        is_version = re.fullmatch(r"[^/]+/\d+", name)  # and no path of somebody's machine
        lines.insert(1, f"It began with the weights of {name if is_version else 'another model'}.")
    if params.get("teacher"):
        lines.append(
            f"It also learned from the answers of other models (weight {params.get('teacher_weight')})."
        )
    seconds, energy, carbon = (
        _get(metrics, key) for key in ("training_seconds", "energy/estimated_kwh", "energy/estimated_co2_kg")
    )
    if not math.isnan(seconds):
        lines.append(f"Training took {_time(seconds)}.")
    if not math.isnan(energy):
        factor = _get(metrics, ENERGY_FACTOR)
        between = "" if math.isnan(factor) else f" ({energy / factor:.3f} to {energy * factor:.3f})"
        lines.append(f"Energy, estimated: {energy:.3f} kWh{between}, {carbon * 1000:.0f} g of CO2.")
    return " ".join(lines)


def _time(seconds: float) -> str:
    return f"{seconds:.0f} seconds" if seconds < 100 else f"{seconds / 60:,.0f} minutes"


def _get(metrics: Mapping[str, float], key: str, default: float = math.nan) -> float:
    return metrics.get(key, default)
