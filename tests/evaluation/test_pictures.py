"""Pictures, read back: what is written where, and which pixels come from which image."""

import string
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.colors import same_color
from PIL import ImageFont

from trainer.evaluation import lettering
from trainer.evaluation.metrics import Evaluation, evaluate
from trainer.evaluation.pictures import confusion_figure, contact_sheet, curves_figure, mistakes_sheet, save

NAMES = ("angry", "disgust", "fear", "happy", "neutral", "sad", "surprise")


def judged(target: list[int], preds: list[int]) -> Evaluation:
    return evaluate(np.array(target), np.eye(len(NAMES))[preds], NAMES)


def cells(axes) -> dict[tuple[int, int], str]:
    """(row, column) → the text that is written there."""
    places = [tuple(round(value) for value in text.get_position()) for text in axes.texts]
    return {(row, column): text.get_text() for (column, row), text in zip(places, axes.texts, strict=True)}


def flat(count: int, side: int = 8) -> np.ndarray:
    """uint8 (count, 1, side, side): image i has the grey level 10 × (i + 1) throughout."""
    levels = 10 * np.arange(1, count + 1, dtype=np.uint8)
    return np.broadcast_to(levels[:, None, None, None], (count, 1, side, side)).copy()


def test_both_axes_carry_the_class_names_in_their_order():
    axes = confusion_figure(judged([0], [0]), "title").axes[0]
    for ticks, labels in (
        (axes.get_xticks(), axes.get_xticklabels()),
        (axes.get_yticks(), axes.get_yticklabels()),
    ):
        assert list(ticks) == list(range(len(NAMES)))
        assert tuple(label.get_text() for label in labels) == NAMES
    assert axes.get_ylabel() == "truth"
    assert axes.get_xlabel() == "predicted"
    assert axes.get_title(loc="left") == "title"
    # The first class is at the top, so that the diagonal falls from left to right.
    assert axes.get_ylim()[0] > axes.get_ylim()[1]


def test_perfect_predictions_have_their_mass_on_the_diagonal():
    target = [index for index in range(len(NAMES)) for _ in range(index + 1)]
    axes = confusion_figure(judged(target, target), "").axes[0]
    np.testing.assert_array_equal(axes.images[0].get_array(), np.eye(len(NAMES)))
    for (row, column), text in cells(axes).items():
        assert text == (f"100%\n({row + 1})" if row == column else "0%\n(0)")


@pytest.mark.parametrize(("classes", "texts"), [(30, 900), (31, 0), (100, 0)])
def test_a_matrix_of_many_classes_has_a_size_that_can_be_saved(classes: int, texts: int):
    target = np.arange(classes)
    found = evaluate(target, np.eye(classes), [f"class {index}" for index in target])
    figure = confusion_figure(found, "")
    assert len(figure.axes[0].texts) == texts
    assert max(figure.get_size_inches()) == 27
    assert len(figure.axes[0].patches) == classes  # the outlined diagonal
    assert len(figure.axes[0].get_yticklabels()) == classes


def test_a_mistake_is_written_in_the_row_of_its_truth():
    axes = confusion_figure(judged([5, 5, 5, 5], [5, 4, 4, 4]), "").axes[0]
    written = cells(axes)
    assert written[NAMES.index("sad"), NAMES.index("neutral")] == "75%\n(3)"
    assert written[NAMES.index("sad"), NAMES.index("sad")] == "25%\n(1)"
    assert axes.images[0].get_array()[NAMES.index("sad"), NAMES.index("neutral")] == 0.75


def test_what_is_rare_is_not_written_as_none_nor_what_is_frequent_as_all():
    written = cells(confusion_figure(judged([0] * 300, [0] * 299 + [1]), "").axes[0])
    assert [written[0, column] for column in range(3)] == [">99%\n(299)", "<1%\n(1)", "0%\n(0)"]


def test_the_row_of_a_class_without_examples_shows_a_dash():
    written = cells(confusion_figure(judged([0, 1], [0, 2]), "").axes[0])
    assert {written[2, column] for column in range(len(NAMES))} == {"–"}
    assert "–" not in {written[row, column] for row in (0, 1) for column in range(len(NAMES))}


def test_text_on_a_dark_cell_is_white():
    axes = confusion_figure(judged([0, 1], [0, 1]), "").axes[0]
    colors = dict(zip(cells(axes), (text.get_color() for text in axes.texts), strict=True))
    assert same_color(colors[0, 0], "white")
    assert not same_color(colors[0, 1], "white")


def test_the_confusion_matrix_can_be_saved(tmp_path):
    confusion_figure(judged([0, 1], [0, 2]), "").savefig(tmp_path / "confusion.png", dpi=50)
    assert (tmp_path / "confusion.png").stat().st_size > 1000


def test_learning_curves_show_both_parts_and_mark_the_best_epoch():
    history = [
        {"number": number, "train_loss": 2 / number, "validation_loss": 2.5 / number,
         "train_accuracy": 0.1 * number, "validation_accuracy": 0.08 * number}
        for number in (1, 2, 3)
    ]  # fmt: skip
    figure = curves_figure(history, best_epoch=2)
    for axes, quantity in zip(figure.axes, ("loss", "accuracy"), strict=True):
        train, validation, best = axes.lines
        for line, part in ((train, "train"), (validation, "validation")):
            assert list(line.get_xdata()) == [1, 2, 3]
            assert list(line.get_ydata()) == [row[f"{part}_{quantity}"] for row in history]
        assert validation.get_linewidth() > train.get_linewidth()
        assert list(best.get_xdata()) == [2, 2]
        assert {text.get_text() for text in axes.texts} == {"train", "validation"}
        assert quantity in axes.get_ylabel()
        assert "epoch 2" in axes.get_title(loc="left")


def test_learning_curves_of_a_single_epoch_can_be_drawn(tmp_path):
    row = dict.fromkeys(("train_loss", "validation_loss", "train_accuracy", "validation_accuracy"), 0.5)
    curves_figure([{"number": 1, **row}], best_epoch=1).savefig(tmp_path / "curves.png", dpi=50)
    assert (tmp_path / "curves.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("count", "lines", "size"),
    [
        (8, 2, (4 * 60 + 10, 2 * 90 + 10)),
        (5, 1, (4 * 60 + 10, 2 * 75 + 10)),
        (1, 0, (4 * 60 + 10, 1 * 60 + 10)),
        (0, 0, (4 * 60 + 10, 1 * 75 + 10)),
    ],
)
def test_a_contact_sheet_has_room_for_its_rows_columns_and_lines(count, lines, size):
    captions = [["text"] * lines] * count
    assert contact_sheet(flat(count), captions, columns=4, side_px=50).size == size


def test_images_lie_on_the_sheet_row_by_row():
    sheet = np.asarray(contact_sheet(flat(5), [[]] * 5, columns=3, side_px=20))
    # Cells of 30 px behind a gap of 10: the middles of the faces are at 20, 50 and 80.
    assert sheet[20, [20, 50, 80]].tolist() == [10, 20, 30]
    assert sheet[50, [20, 50, 80]].tolist() == [40, 50, 255]


def test_an_image_keeps_its_orientation_on_the_sheet():
    image = np.zeros((1, 1, 8, 8), np.uint8)
    image[0, 0, :4, 4:] = 200  # top right
    sheet = np.asarray(contact_sheet(image, [[]], columns=1, side_px=40))[10:50, 10:50]
    assert sheet[10, 30] > 180
    assert max(sheet[10, 10], sheet[30, 10], sheet[30, 30]) < 20


def test_a_caption_stands_below_its_image():
    with_text, without = (
        np.asarray(contact_sheet(flat(2), [[text], [""]], columns=2, side_px=40)) for text in ("happy", "")
    )
    changed = np.argwhere(with_text != without)
    assert len(changed) > 10
    assert changed[:, 0].min() >= 50
    assert changed[:, 1].max() < 60  # and not below the other


def test_the_longest_caption_fits_below_its_image():
    font = ImageFont.load_default(11)
    assert max(font.getlength(f"taken for {name} 0.88") for name in NAMES) <= 120


def test_the_sheet_of_mistakes_shows_only_mistakes_and_the_worst_first():
    target, preds = np.array([0, 1, 2, 3, 4]), np.array([0, 2, 2, 5, 6])
    probabilities = np.full((5, len(NAMES)), 0.01)
    probabilities[np.arange(5), preds] = [0.94, 0.5, 0.94, 0.9, 0.7]
    loss = np.array([9.0, 0.5, 8.0, 3.0, 1.5])
    found = mistakes_sheet(flat(5), target, probabilities, NAMES, loss)
    expected = contact_sheet(
        flat(5)[[3, 4, 1]],
        [
            ("happy", "taken for sad 0.90"),
            ("neutral", "taken for surprise 0.70"),
            ("disgust", "taken for fear 0.50"),
        ],
        columns=8,
    )
    assert found.size == expected.size
    np.testing.assert_array_equal(np.asarray(found), np.asarray(expected))
    assert np.asarray(found)[70, [70, 200, 330]].tolist() == [40, 50, 20]


def test_the_sheet_of_mistakes_stops_at_its_count():
    target, probabilities = np.zeros(6, np.int64), np.eye(len(NAMES))[[1] * 6]
    sheet = np.asarray(mistakes_sheet(flat(6), target, probabilities, NAMES, np.arange(6.0), count=2))
    assert sheet[70, [70, 200, 330]].tolist() == [60, 50, 255]


def test_a_model_without_mistakes_gets_an_empty_sheet():
    sheet = mistakes_sheet(flat(2), np.array([0, 1]), np.eye(len(NAMES))[:2], NAMES, np.zeros(2))
    assert set(np.unique(np.asarray(sheet))) == {255}


def test_any_name_of_a_class_can_be_drawn_without_a_warning(tmp_path, recwarn):
    """`$a_$` would be mathematics that cannot be read, and no letter of 怒り is in the usual font."""
    names = ("$a_$", "怒り", "दुख", "грусть")
    figure = confusion_figure(evaluate(np.arange(4), np.eye(4), names), "")
    save(figure, tmp_path / "confusion.png")
    assert (tmp_path / "confusion.png").stat().st_size > 1000
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == list(names)
    assert not recwarn.list


def test_captions_have_letters_beyond_ascii():
    """Pillow's own font draws the same box for each letter that it lacks."""
    image = np.full((1, 1, 48, 48), 255, np.uint8)
    first, second = (np.array(contact_sheet(image, [(text,)], columns=1)) for text in ("г", "ж"))
    assert not np.array_equal(first, second)


def test_letters_that_no_font_has_are_boxes_and_that_is_said_once(caplog, monkeypatch):
    monkeypatch.setattr("matplotlib.font_manager.fontManager.ttflist", [])
    monkeypatch.setattr(lettering, "_warned", False)
    lettering._other.cache_clear()
    files = {lettering.font_file(text) for text in ("ascii", "怒り 0.93", "怒り 0.12", "喜び")}
    lettering._other.cache_clear()
    assert [Path(file).name for file in files] == ["DejaVuSans.ttf"]
    [said] = [record.getMessage() for record in caplog.records]
    assert said == "no font of this machine has such letters as り怒: pictures show boxes"


def test_a_font_that_has_all_letters_is_taken_before_one_that_has_those_which_are_rare(monkeypatch):
    """DejaVu Sans has no Ⓐ; of the two that have, the first lacks г."""
    fonts = {"Last Resort": "Ⓐг喜", "latin": "Ⓐ", "all": "Ⓐг"}
    known = string.ascii_letters + string.digits
    listed = [SimpleNamespace(name=name, fname=name, style="normal", weight=400) for name in fonts]
    monkeypatch.setattr("matplotlib.font_manager.fontManager.ttflist", listed)
    really = lettering._code_points
    monkeypatch.setattr(
        lettering,
        "_code_points",
        lambda file: sorted(map(ord, known + fonts[file])) if file in fonts else really(file),
    )
    lettering._other.cache_clear()
    found = [lettering.font_file(text) for text in ("Ⓐ 0.9", "Ⓐ / г", "Ⓐ / 喜")]
    lettering._other.cache_clear()
    assert found[:2] == ["latin", "all"]
    assert found[2].endswith("DejaVuSans.ttf")
