"""Mistakes and Confusion on six images whose answers are known: who is right on which, and what comes first."""

import re

import numpy as np
import pandas as pd
import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest
from streamlit.testing.v1.element_tree import Block

from tests.dashboard.test_pages import answer, open_page
from tests.extra.odd_runs import log_predictions, make_run
from trainer.contract import Tag
from trainer.store.location import open_store

LABELS = ["cat", "cat", "cat", "dog", "dog", "dog"]
CAT = {  # how sure each run is of a cat; of the fourth image, a dog, both are too sure
    "one": [0.91, 0.22, 0.93, 0.94, 0.65, 0.16],
    "two": [0.31, 0.82, 0.83, 0.92, 0.66, 0.76],
}


@pytest.fixture(autouse=True)
def runs(stocked) -> list[str]:
    st.cache_resource.clear()
    store, found = open_store(), []
    for name, shares in CAT.items():
        run_id = make_run(
            store.client(), store.experiment_id("pets"), name, tags={Tag.ARCHITECTURE: name, Tag.DATASET: "pets"},
            params={"architecture": name}, metrics={"test/accuracy": 0.5},
        )  # fmt: skip
        cat = np.array(shares)
        table = pd.DataFrame({"part": "test", "sample_id": [f"test/{n}" for n in range(6)], "label": LABELS})
        of_label = np.where(np.array(LABELS) == "cat", cat, 1 - cat)
        log_predictions(
            store.client(), run_id, table.assign(p_cat=cat, p_dog=1 - cat, loss=-np.log(of_label))
        )
        found.append(run_id[:8])
    return found


def shown(block: AppTest | Block) -> list[str]:
    """The first run's answer to each image of a page, or a part of it, in order: `cat 0.91`."""
    [page] = [one.proto.body for one in block.get("html") if 'class="faces"' in one.proto.body]
    return re.findall(r'<figure.*?font-weight:\d+">(\w+ [\d.]+)', page, re.DOTALL)


def test_who_is_right_on_which_image_is_told_apart(runs):
    app = open_page("mistakes.py", runs=runs)
    assert answer(app) == (
        "Of 6 test images both get 2 wrong; one alone is right on 2, two alone on 1; 1 label deserves a second look."
    )
    assert [tab.label for tab in app.tabs] == [
        "Both wrong (2)", "Only one right (2)", "Only two right (1)", "Both right (1)", "Suspected label errors (1)",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("part", "images"),
    [
        ("Both wrong (2)", ["cat 0.94", "cat 0.65"]),
        ("Only one right (2)", ["dog 0.84", "cat 0.91"]),
        ("Only two right (1)", ["dog 0.78"]),
        ("Both right (1)", ["cat 0.93"]),
        ("Suspected label errors (1)", ["cat 0.94"]),
    ],
)
def test_each_part_has_its_images_the_highest_loss_first(runs, part, images):
    [tab] = [one for one in open_page("mistakes.py", runs=runs, part=part).tabs if one.label == part]
    assert shown(tab) == images


def test_the_widest_disagreement_comes_first_where_it_is_asked_for(runs):
    app = open_page("mistakes.py", runs=runs, part="Only one right (2)", **{"by-what": "disagreement"})
    assert shown(app.tabs[1]) == ["cat 0.91", "dog 0.84"]


def test_confusion_tells_the_most_confused_pair_and_shows_its_images_the_worst_first(runs):
    app = open_page("confusion.py", runs=runs[:1])
    assert answer(app) == "one takes dog for cat in 67% of cases (2 images)."
    assert app.selectbox(key="truth").value == "dog"
    assert shown(app) == ["cat 0.94", "cat 0.65"]
