"""Pictures of an evaluation for people: confusion matrix, learning curves, worst mistakes."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import Rectangle
from PIL import Image, ImageDraw, ImageFont

from trainer.evaluation.lettering import font_file
from trainer.evaluation.metrics import Evaluation, percent

TRAIN_COLOR, VALIDATION_COLOR = "#8A8F98", "#0072B2"
INK = "#1F2328"


MOST_WRITTEN = 30
"""With more classes a confusion matrix does not grow any more, and its cells hold no text."""


def confusion_figure(evaluation: Evaluation, title: str) -> Figure:
    """Rows are the truth; a cell gives the share of its row, and the count, for up to MOST_WRITTEN classes."""
    names, counts = evaluation.class_names, evaluation.confusion
    size = max(4.5, 0.85 * min(len(names), MOST_WRITTEN) + 1.5)
    figure = Figure(figsize=(size, size), layout="constrained")
    axes = figure.subplots()
    support = counts.sum(1, keepdims=True)
    share = np.divide(counts, support, out=np.zeros(counts.shape), where=support > 0)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.ndindex(counts.shape) if len(names) <= MOST_WRITTEN else ():
        text = f"{percent(share[row, column])}\n({counts[row, column]})" if support[row, 0] else "–"
        color = "white" if share[row, column] > 0.62 else INK  # where both can be read alike
        axes.text(column, row, text, ha="center", va="center", fontsize=8, color=color)
    for index in range(len(names)):
        axes.add_patch(Rectangle((index - 0.5, index - 0.5), 1, 1, fill=False, edgecolor=INK, linewidth=1.2))
    axes.set_xticks(range(len(names)), names, rotation=35, ha="right")
    axes.set_yticks(range(len(names)), names)
    for label in [*axes.get_xticklabels(), *axes.get_yticklabels()]:
        label.set_parse_math(False)  # a dollar in the name of a class is a dollar
        label.set_fontproperties(FontProperties(fname=font_file(label.get_text()), size=label.get_fontsize()))
    axes.set(xlabel="predicted", ylabel="truth")
    axes.set_title(title, fontsize=10, loc="left", color=INK)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure


def save(figure: Figure, path: Path) -> None:
    """As a PNG. Letters that the font lacks are boxes there, without a warning for each."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(path, dpi=110)


def curves_figure(history: Sequence[dict[str, float]], best_epoch: int) -> Figure:
    """Loss and accuracy over the epochs; validation heavy, train thin, the chosen epoch marked.

    history: one dict an epoch with number, train_loss, validation_loss, train_accuracy and
    validation_accuracy.
    """
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    epochs = [row["number"] for row in history]
    panels = figure.subplots(1, 2)
    for axes, quantity, unit in zip(panels, ("loss", "accuracy"), ("nats", "share of images"), strict=True):
        for part, color, width in (("train", TRAIN_COLOR, 1.2), ("validation", VALIDATION_COLOR, 2.2)):
            values = [row[f"{part}_{quantity}"] for row in history]
            axes.plot(epochs, values, color=color, linewidth=width)
            axes.annotate(
                part, (epochs[-1], values[-1]), (4, 0), textcoords="offset points", color=color, fontsize=8
            )
        axes.axvline(best_epoch, color=INK, linewidth=0.8, linestyle=":")
        axes.set(xlabel="epoch", ylabel=f"{quantity} ({unit})")
        axes.set_title(
            f"{quantity.capitalize()}; best validation accuracy in epoch {best_epoch}", fontsize=9, loc="left"
        )
        axes.spines[["top", "right"]].set_visible(False)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.margins(x=0.12)
    return figure


def mistakes_sheet(
    images: np.ndarray,
    target: np.ndarray,
    probabilities: np.ndarray,
    class_names: Sequence[str],
    loss: np.ndarray,
    count: int = 32,
) -> Image.Image:
    """The `count` mistakes of highest loss, worst first, with truth, prediction and its probability.

    images: uint8 (N, 1, H, W). target: int64 (N,). probabilities: float (N, K). loss: float (N,).
    """
    preds = probabilities.argmax(1)
    wrong = np.flatnonzero(preds != target)
    worst = wrong[np.argsort(-loss[wrong], kind="stable")][:count]
    captions = [
        (f"{class_names[target[i]]}", f"taken for {class_names[preds[i]]} {probabilities[i, preds[i]]:.2f}")
        for i in worst
    ]
    return contact_sheet(images[worst], captions, columns=8)


def contact_sheet(
    images: np.ndarray, captions: Sequence[Sequence[str]], *, columns: int, side_px: int = 120
) -> Image.Image:
    """Images (uint8 (N, 1, H, W)) on a regular grid, enlarged, with lines of text under each."""
    lines = max((len(caption) for caption in captions), default=1)
    gap, line_px = 10, 15
    cell_width, cell_height = side_px + gap, side_px + lines * line_px + gap
    rows = max(1, -(-len(images) // columns))
    sheet = Image.new("L", (columns * cell_width + gap, rows * cell_height + gap), 255)
    draw = ImageDraw.Draw(sheet)
    for index, (image, caption) in enumerate(zip(images, captions, strict=True)):
        left, top = gap + index % columns * cell_width, gap + index // columns * cell_height
        face = Image.fromarray(np.ascontiguousarray(image[0])).resize(
            (side_px, side_px), Image.Resampling.BICUBIC
        )
        sheet.paste(face, (left, top))
        for line, text in enumerate(caption):
            font = ImageFont.truetype(font_file(text), 11)
            draw.text((left, top + side_px + 2 + line * line_px), text, fill=40, font=font)
    return sheet
