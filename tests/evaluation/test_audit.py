"""What an audit says of its findings, and the list and the report that follow from them."""

import re

import numpy as np
import pandas as pd
import pytest

from tests.extra.audits import HOSTILE, SAMPLES, audit_of
from trainer.evaluation.audit import (
    BLANK,
    COLUMNS,
    MOST_SHOWN,
    NO_FACE,
    Audit,
    class_counts,
    excludable,
    exclusion_list,
    image_findings,
    label_findings,
    metrics,
    sections,
    sentence,
    twin_counts,
    twin_findings,
)
from trainer.evaluation.audit_report import report_html

PAIRS = np.array([[0, 1], [0, 2], [3, 6], [5, 7]])


@pytest.fixture
def audit() -> Audit:
    return audit_of(
        twin_findings(SAMPLES, PAIRS, np.array([2.0, 1.0, 0.5, 4.0])),
        image_findings(BLANK, SAMPLES, np.array([4, 7]), np.array([3.0, 0.0])),
        image_findings(NO_FACE, SAMPLES, np.array([3, 4]), np.array([0.4, 0.0])),
    )


def test_the_sentence_names_what_was_found_and_of_how_many(audit: Audit):
    assert sentence(audit) == (
        "faces has 4 pairs of near-duplicates, 50% of them with different labels; 2 images are blank; no face was "
        "found on 2 of 8 images, nothing like one on 1 of them."
    )
    nothing = audit_of(twin_findings(SAMPLES, PAIRS[:0], np.empty(0)), judged=5, looked_at=0)
    assert sentence(nothing) == (
        "faces has 0 pairs of near-duplicates; 0 images are blank; 0 of 5 labels are suspect."
    )


def test_findings_are_ordered_by_their_score_and_complete(audit: Audit):
    assert list(audit.findings.columns) == list(COLUMNS)
    assert audit.of("twin")["score"].tolist() == [0.5, 1.0, 2.0, 4.0]
    assert audit.of(BLANK)["sample_id"].tolist() == ["test/1", "train/4"]
    text = audit.findings.drop(columns=["score", "label_probability", "other_probability"])
    assert text.map(lambda value: isinstance(value, str)).all(axis=None)


def test_every_twin_is_in_its_section(audit: Audit):
    found = {section.title: section.rows["sample_id"].tolist() for section in sections(audit)}
    assert found["Twins with different labels"] == ["train/3", "train/0"]
    assert found["Twins in different parts"] == ["train/3", "train/5"]
    assert found["Other twins"] == ["train/0"]
    looked_for = {section.title: section.looked_for for section in sections(audit)}
    assert [title for title, done in looked_for.items() if not done] == ["Suspected labels"]


def test_pairs_and_images_are_counted_by_part(audit: Audit):
    assert twin_counts(audit).set_index("parts")["pairs"].to_dict() == {"train and test": 2, "train": 2}
    assert twin_counts(audit)["other labels"].sum() == 2
    assert class_counts(audit).loc["all"].to_dict() == {"train": 6, "test": 2}
    assert metrics(audit) == {
        "images": 8, "twin_pairs": 4, "twin_pairs_of_different_labels": 2, "blank": 2, "without_face": 2,
        "nothing_like_a_face": 1,
    }  # fmt: skip


def test_suspects_carry_the_suggested_label_and_both_probabilities():
    probabilities = np.full((8, 3), 0.05)
    probabilities[np.arange(8), [0, 0, 1, 1, 2, 0, 0, 1]] = 0.9  # train/5 is labelled sad
    found = label_findings(SAMPLES, np.arange(8), probabilities, ["happy", "sad", HOSTILE])
    assert found["sample_id"].tolist() == ["train/5"]
    row = found.iloc[0]
    assert (row["label"], row["other_label"]) == ("sad", "happy")
    assert (row["label_probability"], row["other_probability"], row["score"]) == pytest.approx(
        (0.05, 0.9, -0.85)
    )


def test_only_images_of_train_are_listed_and_each_once(audit: Audit):
    assert excludable(audit) == {
        "blank": ["train/4"],
        "conflict": [
            "train/0",
            "train/2",
        ],  # train/3 has a twin of another label in test, whose labels choose nothing
        "duplicate": ["train/1"],
        "leak": ["train/3", "train/5"],
        "no-face": ["train/4"],
        "label": [],
    }
    lines = exclusion_list(audit, ("no-face", "blank", "leak", "conflict")).splitlines()
    ids = [line for line in lines if line and not line.startswith("#")]
    assert ids == ["train/4", "train/0", "train/2", "train/3", "train/5"]
    assert "# leak: 2 images with a twin in another part than train" in lines


def test_the_report_is_one_file_in_which_names_are_shown_as_they_are_written(audit: Audit):
    page = report_html(audit)
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert sentence(audit) in page
    assert set(re.findall(r"(?:src|href)=\W*(\w*)", page)) <= {"data", *(f"s{place}" for place in range(6))}
    assert page.count("<figure") == 2 + 2 + 1 + 2 + 2


def test_the_pictures_of_a_report_are_bounded():
    many = pd.concat([SAMPLES] * 200, ignore_index=True)
    many["sample_id"] = [f"train/{index}" for index in range(len(many))]
    blank = image_findings(BLANK, many, np.arange(len(many)), np.zeros(len(many)))
    page = report_html(audit := audit_of(blank))
    assert page.count("<img") == len(audit.thumbnails) == MOST_SHOWN
    assert f"The first {MOST_SHOWN} of 1,600 are shown." in page


def test_what_is_no_audit_is_refused_by_what_it_lacks(audit: Audit):
    thumbnails = pd.DataFrame({"sample_id": list(audit.thumbnails), "png": list(audit.thumbnails.values())})
    again = Audit.checked(audit.facts, audit.findings, thumbnails)
    assert again.thumbnails == audit.thumbnails
    for facts, findings, message in (
        ([], audit.findings, "it lacks class_names, counts"),
        ({**audit.facts}, audit.findings.drop(columns="score"), "it lacks score"),
    ):
        with pytest.raises(ValueError, match=message):
            Audit.checked(facts, findings, thumbnails)
