"""The names that writers and readers of the tracking store share (standard library only)."""

import re
from typing import Literal

CHAMPION = "champion"
CHALLENGER = "challenger"

# Artifacts of a run, relative to its artifact root.
CONFIG_FILE = "config.json"
CONFUSION_FILE = "evaluation/confusion_{part}.json"
CONFUSION_PICTURE = "evaluation/confusion_{part}.png"
CURVES_PICTURE = "evaluation/learning_curves.png"
MISTAKES_PICTURE = "evaluation/worst_mistakes.png"
PREDICTIONS_FILE = "evaluation/predictions.parquet"
WORST_IMAGES_FILE = "evaluation/worst_images.parquet"
EARLIER_PREDICTIONS_FILE = "evaluation/earlier/{fingerprint}/predictions.parquet"
ROBUSTNESS_FILE = "evaluation/robustness.parquet"
CONDITIONS_FILE = "evaluation/conditions.parquet"
ATTENTION_FILE = "evaluation/attention.npz"
ELSEWHERE = "elsewhere: "
"""Begins the teachers, and the model to start from, of a run that was made in another store, where their names mean
other models."""
BEST_FOLDER = "best"
CARD_FILE = "README.md"

# Held by the process that trains a run, in the folder of the checkpoints.
LOCK_FILE = "{run_id}.lock"
STATE_FILE = "state.pt"
"""In a run's folder there: what it goes on from."""

# Files of an audit, in a folder of its run.
AUDIT_FOLDER = "audit"
AUDIT_FACTS = "facts.json"
AUDIT_FINDINGS = "findings.parquet"
AUDIT_TABLE = "findings.csv"
AUDIT_THUMBNAILS = "thumbnails.parquet"
AUDIT_REPORT = "report.html"
AUDIT_LIST = "exclude.txt"
Reason = Literal["blank", "conflict", "duplicate", "leak", "no-face", "label"]
"""Why an image may leave train after an audit."""

# Files of the model format; they travel with a registered version as `extra_files/<name>`.
WEIGHTS_FILE = "weights.safetensors"
SPEC_FILE = "model.json"
EXTRA_FILES = "extra_files"
# Larger ones are neither fetched nor read.
LARGEST_FILES = {SPEC_FILE: 64 * 1024, WEIGHTS_FILE: 1024**3}

# Metrics logged once per epoch, with the epoch (1-based) as step.
EPOCH_METRICS = (
    "train/loss",
    "train/accuracy",
    "validation/loss",
    "validation/accuracy",
    "validation/macro_recall",
    "learning_rate",
    "images_per_second",
    "epoch_seconds",
)

# By what factor the estimate of energy may be off, either way.
ENERGY_FACTOR = "energy/uncertainty_factor"
# Metrics of what it took to train, and of what the model costs to serve.
COST_METRICS = (
    "training_seconds",
    "median_images_per_second",
    "energy/estimated_kwh",
    "energy/estimated_co2_kg",
    ENERGY_FACTOR,
    "cost/size_bytes",
    "cost/gmacs",
    "cost/latency_ms",
    "cost/latency_32_ms",
    "cost/latency_one_view_ms",
)

# Scalar metrics of one evaluated part, logged as `<part>/<name>`.
SUMMARY_METRICS = (
    "accuracy",
    "balanced_accuracy",
    "macro_recall",
    "macro_precision",
    "macro_f1",
    "log_loss",
    "brier",
    "ece",
)
# What a model would answer on test at temperature 1: a part of the predictions file, and of metrics those that a
# temperature is meant to improve.
UNCALIBRATED = "test_uncalibrated"
CALIBRATION_METRICS = ("ece", "log_loss", "brier")
TEMPERATURE_METRIC = "calibration/temperature"
# Metrics of one class, logged as `<part>/<name>/<class name>`.
CLASS_METRICS = ("precision", "recall", "f1", "support")


# What is kept of the accuracy when images are made worse: the score, and the mean accuracy for each kind.
ROBUSTNESS = "robustness/relative"
ROBUSTNESS_OF_KIND = "robustness/{kind}"
STRENGTHS = (1, 2, 3, 4, 5)
# Mean correlation of saliency maps with those of random weights: where it is high they tell of nothing learned. NaN
# where all of the latter are flat.
RANDOM_SIMILARITY = "saliency/similarity_to_random_weights"
# How far the accuracy in a slice of test is from that on the other images of the same classes.
SLICE_DIFFERENCE = "slices/{grouping}/{slice}"
# 1 where that is more than chance, corrected for the number of slices; else 0.
SLICE_DECIDED = "slices_decided/{grouping}/{slice}"


IMAGES_WITHOUT_TWINS = "test_without_twins/images"
"""How many test images have no near-duplicate in train or validation."""


class Tag:
    """Tags of runs and of registered versions."""

    ARCHITECTURE = "architecture"
    MODE = "mode"
    DATASET = "dataset"
    RECIPE = "recipe"
    TEST_ACCURACY = "test_accuracy"
    TRAIN_FINGERPRINT = "train_fingerprint"
    TEST_FINGERPRINT = "test_fingerprint"
    CLASSES = "classes"
    """Their names, a JSON list: those in the keys of metrics lack what MLflow takes in none."""
    BEST_EPOCH = "best_epoch"
    REASON = "reason"
    HOST = "host"
    PID = "pid"
    PROCESS_STARTED = "process_started"
    BUNDLED = "bundled"
    TESTED_AT = "tested_at"
    AUDIT = "audit"
    SWEEP = "sweep"
    """Of the parent run of a sweep: its name."""
    SEARCH = "search"
    SWEEP_RUN = "sweep_run"
    """Of a trial: the id of its parent run."""
    TRIAL = "trial"
    PRUNED = "pruned"
    PROMOTED_AT = "promoted_at"
    PROMOTED_BY = "promoted_by"
    PROMOTED_OVER = "promoted_over"
    PROMOTION_GATES = "promotion_gates"
    PROMOTION_REASON = "promotion_reason"
    DATA_DIR = "data_dir"
    """Where a run last found its images, where it was resumed or tested again."""
    LEARNED = "learned"
    """What a model that began with another one had learned by then: a JSON list of [dataset, fingerprint of train]."""
    MIGRATED_FROM = "migrated_from"
    MIGRATED_WHOLE = "migrated_whole"


def model_name(dataset: str) -> str:
    """The registered model that holds every candidate for one dataset."""
    return f"{dataset}-emotion"


def audit_experiment(dataset: str) -> str:
    """Where audits of a dataset are logged: apart from its trainings."""
    return f"{dataset}-audit"


def sweep_experiment(dataset: str) -> str:
    """Where sweeps and their trials are logged: apart from the trainings that are tested and registered."""
    return f"{dataset}-sweeps"


def metric_key(part: str, name: str, class_name: str | None = None) -> str:
    """`test/accuracy`, or `test/recall/angry` for one class.

    Characters that MLflow refuses in a metric name become `_`.
    """
    key = f"{part}/{name}" if class_name is None else f"{part}/{name}/{class_name}"
    return re.sub(r"[^\w./ -]", "_", key)
