"""Grids of faces: test images with truth and predictions in words, as one piece of HTML."""

from collections.abc import Sequence

import numpy as np

from dashboard.cache import Pictures
from dashboard.selection import Chosen
from dashboard.text import percent, source, tag
from trainer.evaluation.attention import Attention
from trainer.evaluation.comparison import Predictions

ATTENTION_PX = 240
GLYPHS = {"circle": "●", "square": "■", "diamond": "◆", "triangle-up": "▲", "cross": "✚", "star": "★"}
"""Marker of a chart → the same as text."""

STYLE = """<style>
.faces{display:grid;grid-template-columns:repeat(auto-fill,minmax(144px,1fr));gap:18px 16px;margin:.25rem 0 1rem}
.faces figure{margin:0;min-width:0}.faces img,.faces .none{width:120px;height:120px;border-radius:4px;display:block}
.faces .none{border:1px dashed currentColor;opacity:.65;font-size:.75rem;display:grid;place-items:center}
.faces figcaption{font-size:.82rem;line-height:1.35;margin-top:.35rem;overflow-wrap:anywhere}
.faces .bar{display:grid;grid-template-columns:12px 1fr;gap:0 5px;align-items:center}
.faces .bar{font-variant-numeric:tabular-nums}
.faces .mark{font-size:.8rem;line-height:1;text-align:center}.faces .quiet{opacity:.65}
</style>"""


def gallery(
    index: Sequence[int], runs: Sequence[Chosen], predictions: dict[str, Predictions], pictures: Pictures
) -> str:
    """Figures in the order of `index` (positions in the test set); each run's answer with its probability."""
    return (
        STYLE
        + '<div class="faces">'
        + "".join(_figure(i, runs, predictions, pictures) for i in index)
        + "</div>"
    )


def _figure(i: int, runs: Sequence[Chosen], predictions: dict[str, Predictions], pictures: Pictures) -> str:
    first = predictions[runs[0].run_id]
    truth, sample_id = first.class_names[first.target[i]], first.sample_ids[i]
    data = pictures.get(sample_id)
    lines = []
    for run in runs:
        found = predictions[run.run_id]
        pred = int(found.preds[i])
        truth_share = found.probabilities[i, found.target[i]]
        second = (
            "" if pred == found.target[i] else f', <span class="quiet">{tag(truth)} {truth_share:.2f}</span>'
        )
        weight = "600" if pred == found.target[i] else "400"
        answer = f"{tag(found.class_names[pred])} {found.probabilities[i, pred]:.2f}{second}"
        lines.append(
            f'<div class="bar" title="{tag(probability_text(found, i, run.label))}">'
            f"{_mark(run)}"
            f'<span style="font-weight:{weight}">{answer}</span></div>'
        )
    picture = '<div class="none">no picture</div>'
    if data is not None:
        picture = f'<img src="{source(data, "png")}" alt="{tag(f"a face labelled {truth}")}">'
    caption = f"<figcaption title='{tag(sample_id)}'><b>{tag(truth)}</b> {''.join(lines)}</figcaption>"
    return f"<figure>{picture}{caption}</figure>"


def _mark(run: Chosen) -> str:
    """The run's marker of the charts, in its colour; read aloud by its label."""
    look = f'class="mark" role="img" style="color:{run.colour}"'
    return f'<span {look} aria-label="{tag(run.label)}">{GLYPHS[run.marker]}</span>'


def probability_text(found: Predictions, i: int, label: str) -> str:
    """All probabilities of one image, the largest first."""
    order = np.argsort(-found.probabilities[i])
    return f"{label}: " + ", ".join(f"{found.class_names[k]} {found.probabilities[i, k]:.2f}" for k in order)


def attention_row(found: Attention) -> str:
    """The mean face of each class under what the network looked at on it."""
    from trainer.inference.annotate import (
        encoded,
        overlay,
    )  # with OpenCV, which no other page of tables needs

    figures = []
    for index, name in enumerate(found.class_names):
        picture, share = '<div class="none">no image</div>', ""
        if found.images[index]:
            face = found.faces[index].clip(0, 255).astype(np.uint8)[np.newaxis]
            strongest = max(float(found.maps[index].max()), 1e-6)
            data = encoded(overlay(face, found.maps[index] / strongest, ATTENTION_PX))
            words = tag(f"the mean face of {name} with the places that spoke for it")
            picture = f'<img src="{source(data, "png")}" alt="{words}">'
            share = f"{percent(found.lower_share(index))} in the lower half, "
        caption = f"<b>{tag(name)}</b><br>{share}{found.images[index]:,} images"
        figures.append(f"<figure>{picture}<figcaption>{caption}</figcaption></figure>")
    return f'{STYLE}<div class="faces">{"".join(figures)}</div>'


def key_line(runs: Sequence[Chosen]) -> str:
    """Which mark stands for which run."""
    entries = (f"<span>{_mark(run)} {tag(run.label)}</span>" for run in runs)
    return f'{STYLE}<div class="faces" style="display:flex;flex-wrap:wrap;gap:.3rem 1.2rem">{"".join(entries)}</div>'
