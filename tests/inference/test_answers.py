"""What models say, in words and in rows."""

import io
import json

import numpy as np
import pandas as pd
import pytest

from trainer.inference.answers import SURE, Answer, agreement, csv_text, rows, table
from trainer.inference.faces import Face, Region

NAMES = ("angry", "fear", "happy", "surprise")


def answer(*probabilities: float, model: str = "faces/1") -> Answer:
    return Answer(model, NAMES, np.array(probabilities, np.float32))


@pytest.mark.parametrize(
    ("probabilities", "words"),
    [
        ((0.02, 0.03, 0.93, 0.02), "happy (0.93)"),
        ((0.1, 0.4, 0.1, 0.4), "not sure: fear or surprise"),
        ((0.5, 0.2, 0.2, 0.1), "angry (0.50)"),
        ((0.4999, 0.3, 0.1, 0.1), "not sure: angry or fear"),
    ],
)
def test_an_answer_in_words(probabilities, words):
    assert answer(*probabilities).words() == words
    assert answer(*probabilities).sure == (max(probabilities) >= SURE)


def test_models_agree_where_their_best_class_is_the_same_and_none_alone_is_in_doubt():
    happy, sure, angry = answer(0, 0, 0.4, 0.3), answer(0, 0, 1, 0), answer(0.9, 0, 0.1, 0)
    assert agreement([happy]) == ""
    assert agreement([sure, sure]) == agreement([happy, happy]) == "both models agree"
    assert agreement([sure, sure, sure]) == "all 3 models agree"
    assert agreement([happy, sure, angry]) == "the models disagree"
    assert agreement([happy, sure]) == "both models name happy first, 1 of them not sure"
    assert agreement([sure, happy, happy]) == "all 3 models name happy first, 2 of them not sure"


def test_rows_hold_everything_and_survive_json_csv_and_parquet(tmp_path):
    face = Face(Region(100.04, 50, 80, -12.34), 0.91234)
    found = rows("a,b\n.jpg", 2, face, ["blurred", "turned away"], [answer(0.1, 0.2, 0.6, 0.1)])
    assert json.loads(json.dumps(found)) == found
    (row,) = found
    assert (row["photo"], row["face"], row["x"], row["angle"]) == ("a,b\n.jpg", 2, 100.0, -12.3)
    assert row["probabilities"] == {"angry": 0.1, "fear": 0.2, "happy": 0.6, "surprise": 0.1}
    read = pd.read_csv(io.StringIO(csv_text(found)))
    assert read.loc[0, "photo"] == "a,b\n.jpg"
    assert read.loc[0, "flags"] == "blurred; turned away"
    assert read.loc[0, "probability/happy"] == 0.6
    table(found).to_parquet(tmp_path / "rows.parquet")
    assert pd.read_parquet(tmp_path / "rows.parquet").loc[0, "answer"] == "happy"


@pytest.mark.parametrize("name", ["=1+1", "+cmd", "-2", "@x", "\t=1"])
def test_no_text_is_a_formula_in_a_spreadsheet(name):
    found = rows(name, 1, Face(Region(0, 0, 1)), [], [answer(1, 0, 0, 0)])
    assert pd.read_csv(io.StringIO(csv_text(found))).loc[0, "photo"] == f"'{name}"


def test_models_with_other_classes_share_a_table():
    face = Face(Region(0, 0, 1))
    other = Answer("b/1", ("calm", "happy"), np.array([0.3, 0.7]))
    found = table(rows("x", 1, face, [], [answer(0, 0, 1, 0), other]))
    assert list(found["probability/happy"]) == [1, 0.7]
    assert found["probability/calm"].isna().tolist() == [True, False]


def test_no_answers_make_an_empty_table():
    assert table([]).empty
    assert csv_text([]).startswith("photo,face")
