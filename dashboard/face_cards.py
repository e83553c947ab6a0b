"""Faces with what each model says of them, as HTML."""

from collections.abc import Mapping, Sequence

import numpy as np

from dashboard.album import Seen, Spot, answers_of
from dashboard.models import Candidate
from dashboard.text import source, tag
from trainer.inference import annotate
from trainer.inference.answers import Answer, agreement

STYLE = """<style>
.face{display:flex;flex-wrap:wrap;gap:14px 22px;align-items:flex-start}
.face h4{flex-basis:100%;margin:0;padding:0;font-size:1rem;font-weight:600}
.face h4 span{font-weight:400;opacity:.75}
.face figure{margin:0}.face img{width:96px;height:96px;border-radius:4px;display:block}
.face figcaption,.face .quiet{font-size:.78rem;line-height:1.35;opacity:.75;margin-top:.3rem}
.face figcaption{max-width:96px}
.face .said{flex:0 0 212px;max-width:100%;min-width:0}
.face .said b{font-size:.85rem;font-weight:600;overflow-wrap:anywhere}
.face .dot{display:inline-block;width:9px;height:9px;border-radius:50%;margin-right:6px}
.face .answer{font-size:1.15rem;font-weight:600;margin:.1rem 0 .35rem}
.face .bars{display:grid;grid-template-columns:max-content 1fr max-content;gap:2px 8px;align-items:center;
font-size:.82rem;font-variant-numeric:tabular-nums}
.face .bars i{display:block;height:9px;border-radius:2px;min-width:1px}
.face .track{background:rgba(128,128,128,.16);border-radius:2px}
.face .most{font-weight:600}
.face .both{display:flex;gap:12px;margin-top:.5rem;align-items:flex-start}
.photo{width:100%;max-height:620px;object-fit:contain;object-position:left top;border-radius:6px;display:block}
</style>"""


def photo_view(picture: bytes, seen: Seen) -> str:
    """The whole photo; its name and faces in words for those who cannot see it."""
    words = f"{seen.name}: {len(seen.used)} numbered face{'' if len(seen.used) == 1 else 's'}"
    return f'{STYLE}<img class="photo" src="{source(picture, "jpeg")}" alt="{tag(words)}">'


def face_card(
    spot: Spot,
    inputs: Sequence[np.ndarray],
    chosen: Sequence[Candidate],
    limits: Mapping[str, str],
    numbered: bool,
) -> str:
    """One face: what the models were shown, and a column for each model's answer.

    inputs: uint8 (channels, size, size). limits: name of a candidate → one line on what to expect of it.
    """
    words = agreement(answers_of(spot, chosen))
    title = (
        f"Face {spot.number}{f': {words}' if words else ''}" if numbered else words[:1].upper() + words[1:]
    )
    flags = (
        f"<span>This face is {tag(' and '.join(spot.flags))}: mind the answers.</span>" if spot.flags else ""
    )
    heading = f"<h4>{tag(title)} {flags}</h4>" if title or flags else ""
    shown = "".join(_input(image, spot.number) for image in inputs)
    said = "".join(
        _said(candidate, spot, limits.get(candidate.name, ""))
        for candidate in chosen
        if candidate.key in spot.answers
    )
    return f'{STYLE}<div class="face">{heading}{shown}{said}</div>'


def _input(image: np.ndarray, number: int) -> str:
    channels, size, _ = image.shape
    words = f"what the models see: {size}×{size} {'grey' if channels == 1 else 'colour'}"
    picture = source(annotate.encoded(annotate.as_image(image)), "png")
    return (
        f'<figure><img src="{picture}" alt="the input of face {number}">'
        f"<figcaption>{words}</figcaption></figure>"
    )


def _said(candidate: Candidate, spot: Spot, limits: str) -> str:
    answer = spot.answers[candidate.key]
    look = spot.looks.get(candidate.key)
    looked = (
        f'<figure><img src="{source(look, "png")}" alt="what spoke for {tag(answer.best)}">'
        f"<figcaption>what spoke for {tag(answer.best)}</figcaption></figure>"
        if look
        else ""
    )
    milliseconds = spot.milliseconds[candidate.key]
    time = f"{milliseconds:.1f} ms a face" if milliseconds >= 0.1 else "under 0.1 ms a face"
    dot = f'<span class="dot" style="background:{candidate.colour}"></span>'
    return (
        f'<div class="said"><b>{dot}{tag(candidate.label)}</b>'
        f'<div class="answer">{tag(answer.words())}</div>{_bars(answer, candidate.colour)}'
        f'<div class="both">{looked}<div class="quiet">{tag(limits)}<br>{time}</div></div></div>'
    )


def _bars(answer: Answer, colour: str) -> str:
    best = answer.order[0]
    lines = []
    for index, name in enumerate(answer.class_names):
        value = float(answer.probabilities[index])
        most = ' class="most"' if index == best else ""
        lines.append(
            f'<span{most}>{tag(name)}</span><span class="track"><i style="width:{100 * value:.1f}%;'
            f'background:{colour}"></i></span><span{most}>{value:.2f}</span>'
        )
    return f'<div class="bars">{"".join(lines)}</div>'
