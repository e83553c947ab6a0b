"""Plotly figures of DataFrames; text and grid colours come from Streamlit's theme."""

from dashboard.charts.calibration import coverage_curves, reliability_diagram
from dashboard.charts.classes import class_dots, slice_dots
from dashboard.charts.curves import best_so_far, corruption_curves, learning_curves, version_lines
from dashboard.charts.drawing import drawable
from dashboard.charts.matrices import confusion_matrix, difference_matrix
from dashboard.charts.parallel import parallel_coordinates
from dashboard.charts.settings import cost_scatter, importance_bars
from dashboard.charts.style import CONFIG, INK, title_of

__all__ = [
    "CONFIG",
    "INK",
    "best_so_far",
    "class_dots",
    "confusion_matrix",
    "corruption_curves",
    "cost_scatter",
    "coverage_curves",
    "difference_matrix",
    "drawable",
    "importance_bars",
    "learning_curves",
    "parallel_coordinates",
    "reliability_diagram",
    "slice_dots",
    "title_of",
    "version_lines",
]
