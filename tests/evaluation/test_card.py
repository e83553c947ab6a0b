"""The model card: valid metadata, and figures that are those that were logged."""

import math

import pytest
import yaml

from trainer.contract import IMAGES_WITHOUT_TWINS
from trainer.evaluation.card import body, card
from trainer.evaluation.statistics import wilson

NAMES = ["angry", "happy"]
PARAMS = {
    "architecture": "cnn", "parameters": "1148135", "dataset": "fer2013", "recipe": "fast", "epochs": "23", "seed": "4",
    "device_used": "cpu: x86_64", "precision_used": "bf16", "train_images": "25838", "validation_images": "2871",
}  # fmt: skip
METRICS = {
    "test_public/accuracy": 0.75,
    "test/accuracy": 0.75, "test/macro_recall": 0.7, "test/ece": 0.02, "test_without_twins/accuracy": 0.65,
    "test/support/angry": 40.0, "test/support/happy": 60.0, "test/recall/angry": 0.6, "test/recall/happy": 0.85,
    "test/precision/angry": 0.5, "test/precision/happy": math.nan, "training_seconds": 840.0,
    "energy/estimated_kwh": 0.0123, "energy/estimated_co2_kg": 0.004,
    "energy/uncertainty_factor": 2.0, "cost/size_bytes": 2.3e6, "cost/latency_ms": 3.21,
}  # fmt: skip


def test_the_metadata_are_those_of_the_hugging_face_format():
    front = yaml.safe_load(card("emotion, cnn-fast", PARAMS, METRICS, NAMES).split("---\n")[1])
    assert front["pipeline_tag"] == "image-classification"
    assert front["datasets"] == ["fer2013"]
    [index] = front["model-index"]
    assert index["name"] == "emotion, cnn-fast"
    [result] = index["results"]
    assert result["dataset"]["split"] == "test"
    assert [metric["value"] for metric in result["metrics"]] == [0.75, 0.7]


def test_a_class_whose_name_mlflow_refuses_has_its_row():
    names = ["angry", "sad & tired"]
    metrics = {key.replace("happy", "sad _ tired"): value for key, value in METRICS.items()}
    text = body(card("emotion", PARAMS, metrics, names))
    assert "On 100 test images" in text
    assert "| sad & tired | 0.850 |" in text


@pytest.mark.parametrize("dataset", ["sketch", "mine", "fer2013"])
def test_of_another_dataset_nothing_is_said_that_holds_for_fer2013_alone(dataset):
    """Own images in its layout are another."""
    own = {key: value for key, value in METRICS.items() if not key.startswith("test_public/")}
    text = card("emotion", PARAMS | {"dataset": dataset}, own, NAMES)
    assert "65%" in card("emotion", PARAMS, METRICS, NAMES)
    assert not any(words in text.lower() for words in ("65%", "web search", "fer-2013", "fer2013"))
    assert ("trained on own images" in text) == (dataset == "fer2013")


def test_where_every_test_image_has_a_near_duplicate_that_is_said():
    known = {key: value for key, value in METRICS.items() if not key.startswith("test_without_twins/")}
    assert "near-duplicate" not in card("emotion", PARAMS, known, NAMES)
    text = card("emotion", PARAMS, known | {IMAGES_WITHOUT_TWINS: 0.0}, NAMES)
    assert "All of them have a near-duplicate in train or validation: of others this says nothing." in text


def test_no_name_of_a_class_breaks_the_table():
    names = ["angry", "a|b\nc"]
    metrics = {key.replace("happy", "a_b_c"): value for key, value in METRICS.items()}
    assert "| a\\|b c | 0.850 |" in body(card("emotion", PARAMS, metrics, names))


def test_every_figure_is_one_that_was_logged():
    text = body(card("emotion", PARAMS, METRICS, NAMES))
    assert text.startswith("# emotion\n\nTells the expression of a face: cnn with 1,148,135 parameters")
    assert "2.3 MB; 3.2 ms" in text
    low, high = wilson(75, 100)
    assert (
        f"On 100 test images, which chose nothing: accuracy 0.750 (95% interval {low:.3f} to {high:.3f})"
        in text
    )
    assert "near-duplicate in train or validation: 0.650" in text
    low, high = wilson(24, 40)
    assert f"| angry | 0.600 | {low:.3f} to {high:.3f} | 0.500 | 40 |" in text
    assert "| happy | 0.850 |" in text
    assert text.count("| – |") == 1
    assert "Images: 25,838 for train, 2,871 for validation." in text
    assert "23 epochs, seed 4, on cpu, bfloat16 with float32 weights." in text
    assert "Training took 14 minutes. Energy, estimated: 0.012 kWh (0.006 to 0.025), 4 g of CO2." in text
    for limit in ("Labels", "People", "Privacy", "not in hiring"):
        assert limit in text


def test_only_slices_that_are_weak_by_more_than_chance_are_told():
    more = {
        "slices/sharpness/most blurred": -0.0512, "slices_decided/sharpness/most blurred": 0.0,
        "slices/brightness/darkest": -0.02, "slices_decided/brightness/darkest": 1.0,
        "slices/brightness/brightest": 0.08, "slices_decided/brightness/brightest": 1.0,
        "slices/watermark/with a watermark": math.nan, "slices_decided/watermark/with a watermark": math.nan,
    }  # fmt: skip
    text = body(card("emotion", PARAMS, METRICS | more, NAMES))
    assert "of the same classes: darkest (brightness) −2.0.\n" in text + "\n"
    assert "most blurred" not in text
    none = more | {"slices_decided/brightness/darkest": 0.0}
    text = body(card("emotion", PARAMS, METRICS | none, NAMES))
    assert "In no slice of the test images is it worse by more than chance." in text
    assert "Weakest" not in text


def test_the_weakest_slices_and_what_is_left_on_worse_images_are_told():
    more = {
        "slices/sharpness/most blurred": -0.0512, "slices/sharpness/sharpest": 0.03, "slices/brightness/darkest": -0.02,
        "robustness/relative": 0.7512, "robustness/noise": 0.41, "robustness/low resolution": 0.3,
    }  # fmt: skip
    text = body(card("emotion", PARAMS, METRICS | more, NAMES))
    assert "most blurred (sharpness) −5.1, darkest (brightness) −2.0. They may be chance" in text
    assert "sharpest" not in text
    assert "in 2 ways and five strengths each, it keeps 75% of its accuracy" in text
    assert "low resolution 0.300, noise 0.410." in text


def test_what_was_not_logged_is_not_told():
    text = body(card("emotion", {}, {}, NAMES))
    assert "It was not measured." in text
    for word in ("nan", "Energy", "MB;", "near-duplicate", "None"):
        assert word not in text


@pytest.mark.parametrize("name", ['a: "b"', "- x", "{y}", "multi\nline"])
def test_no_name_breaks_the_metadata(name: str):
    front = yaml.safe_load(card(name, {"dataset": name}, {}, NAMES).split("---\n")[1])
    assert front["model-index"][0]["name"] == name
    assert front["datasets"] == [name]
