"""An audit as HTML: findings as pictures with captions, and the whole as one file that opens without a network."""

import base64
import html
from collections.abc import Mapping
from typing import Any

import pandas as pd

from trainer.evaluation.audit import (
    BLANK,
    LABEL,
    MOST_SHOWN,
    NO_FACE,
    TWIN,
    Audit,
    Section,
    class_counts,
    sections,
    sentence,
    suggestions,
    twin_counts,
)

FINDINGS_STYLE = """
.findings{display:grid;grid-template-columns:repeat(auto-fill,minmax(144px,1fr));gap:18px 16px;margin:.5rem 0 1rem}
.findings.pairs{grid-template-columns:repeat(auto-fill,minmax(198px,1fr))}
.findings figure{margin:0;min-width:0}.findings .pair{display:flex;gap:6px}
.findings img,.findings .none{width:96px;height:96px;border-radius:4px;display:block}
.findings .none{border:1px dashed currentColor;opacity:.45;font-size:.75rem;display:grid;place-items:center}
.findings figcaption{font-size:.82rem;line-height:1.35;margin-top:.35rem;overflow-wrap:anywhere}
.findings .quiet{opacity:.65}
"""
REPORT_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;color:#1b1f24;max-width:1100px;margin:2.5rem auto;padding:0 1.25rem}
h1{font-size:1.55rem;line-height:1.3;margin:0 0 1.5rem}h2{font-size:1.15rem;margin:2.25rem 0 .6rem}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}a{color:#0072B2}
th,td{padding:.3rem .9rem .3rem 0;border-bottom:1px solid #dde2e7;text-align:right}
th:first-child,td:first-child,tbody th{text-align:left;font-weight:400}thead th{font-weight:600}
.scroll{overflow-x:auto}p.small{color:#5b636b;font-size:.87rem;overflow-wrap:anywhere}
"""


def findings_html(rows: pd.DataFrame, thumbnails: Mapping[str, bytes]) -> str:
    """The first MOST_SHOWN findings with their pictures; whatever the data call their images and classes is escaped."""
    figures = "".join(_figure(row, thumbnails) for row in rows.head(MOST_SHOWN).itertuples(index=False))
    kind = "findings pairs" if rows["finding"].eq(TWIN).any() else "findings"
    return f'<style>{FINDINGS_STYLE}</style><div class="{kind}">{figures}</div>'


def _figure(row: Any, thumbnails: Mapping[str, bytes]) -> str:
    pictures = _picture(row.sample_id, row.label, thumbnails)
    names = row.sample_id
    if row.finding == TWIN:
        pictures += _picture(row.other_sample_id, row.other_label, thumbnails)
        names += f", {row.other_sample_id}"
    pictures = f'<div class="pair">{pictures}</div>'
    return f'<figure title="{html.escape(names)}">{pictures}<figcaption>{_caption(row)}</figcaption></figure>'


def _picture(sample_id: str, label: str, thumbnails: Mapping[str, bytes]) -> str:
    if sample_id not in thumbnails:
        return '<div class="none">no picture</div>'
    source = base64.b64encode(thumbnails[sample_id]).decode()
    return f'<img src="data:image/png;base64,{source}" alt="{html.escape(f"an image labelled {label}")}">'


def _caption(row: Any) -> str:
    label, other = html.escape(row.label), html.escape(row.other_label)
    part, other_part = html.escape(row.part), html.escape(row.other_part)
    if row.finding == TWIN:
        names = f"<b>{label}</b>" if label == other else f"<b>{label}</b> and <b>{other}</b>"
        parts = part if part == other_part else f"{part} and {other_part}"
        return f'{names}<br><span class="quiet">{parts}</span>'
    said = {
        BLANK: f"deviation {row.score:.1f}",
        NO_FACE: f"face-like {row.score:.2f}",
        LABEL: f"rather {other} {row.other_probability:.2f}, {label} {row.label_probability:.2f}",
    }[row.finding]
    return f'<b>{label}</b><br>{said} <span class="quiet">{part}</span>'


def report_html(audit: Audit) -> str:
    """The whole audit in one file of some megabytes at most."""
    facts = audit.facts
    title = html.escape(sentence(audit))
    found = sections(audit)
    parts = [
        f"<h1>{title}</h1>",
        '<p class="small">' + ", ".join(
            f'<a href="#s{place}">{html.escape(section.heading())}</a>'
            for place, section in enumerate(found)
        ) + "</p>",
        "<h2>Images</h2>",
        _table(class_counts(audit).rename_axis("class").reset_index()),
    ]  # fmt: skip
    if len(twins := twin_counts(audit)):
        parts += ["<h2>Twins</h2>", _table(twins.assign(share=twins["share"].map("{:.1%}".format)))]
    for place, section in enumerate(found):
        parts.append(f'<h2 id="s{place}">{html.escape(section.heading())}</h2>')
        parts.append(f'<p class="small">{html.escape(note(section))}</p>')
        if section.rows["finding"].eq(LABEL).any():
            pairs = pd.DataFrame(list(suggestions(section.rows))[:10], columns=["label", "rather", "images"])
            parts.append(_table(pairs))
        parts.append(findings_html(section.rows, audit.thumbnails))
    source = f"{facts['dataset']}: {facts['source']}; audited by Moodify on {facts['made']}."
    prints = "; ".join(f"{part} {value}" for part, value in facts["fingerprints"].items())
    skipped = f" {facts['skipped']:,} files could not be read." if facts["skipped"] else ""
    parts.append(f'<p class="small">{html.escape(f"{source}{skipped} Fingerprints: {prints}.")}</p>')
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{html.escape(str(facts['dataset']))}: data audit</title><style>{REPORT_STYLE}</style>"
        f"<body>{''.join(parts)}</body></html>"
    )


def note(section: Section) -> str:
    """Of a section, and how many of its findings are shown where that is not all; or that there are none."""
    count = len(section.rows)
    if not count and section.looked_for:
        return f"None was found. {section.note}"
    return (
        f"{section.note} The first {MOST_SHOWN} of {count:,} are shown."
        if count > MOST_SHOWN
        else section.note
    )


def _table(table: pd.DataFrame) -> str:
    formats = dict.fromkeys(table.select_dtypes("integer").columns, "{:,}".format)
    return (
        f'<div class="scroll">{table.to_html(border=0, index=False, escape=True, formatters=formats)}</div>'
    )
