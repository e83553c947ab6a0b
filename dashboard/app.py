"""The list of pages; a new page is one file in `app_pages/` and one line here.

The folder is not called `pages`: Streamlit would then open a link to a page without this file.
"""

import streamlit as st

from dashboard import charts, photos
from dashboard.frame import icon

PAGES = {
    "runs.py": "Runs",
    "compare.py": "Compare",
    "recall.py": "Per-class recall",
    "calibration.py": "Calibration",
    "confusion.py": "Confusion",
    "mistakes.py": "Mistakes",
    "try_it.py": "Try it",
    "registry.py": "Registry",
    "sweep.py": "Sweep",
    "audit.py": "Data audit",
    "train.py": "Train",
}

page = st.navigation(
    [st.Page(f"app_pages/{file}", title=title, default=file == "runs.py") for file, title in PAGES.items()]
)
title = getattr(page, "title", None)  # without a browser a page has none
st.set_page_config(page_title=f"{title} – Moodify" if title else "Moodify", page_icon=icon(), layout="wide")
if title != PAGES["try_it.py"]:
    photos.forget()
st.html(charts.INK)
page.run()
