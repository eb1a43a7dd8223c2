"""The curves, and the image grids of Figures 1 and 2."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from bench.paper.cases import DEGREES, PLAIN
from bench.paper.contenders import CONTENDERS
from bench.paper.runs import Record
from bench.targets import Image8
from client.files.sheet import jpeg

TILE = 192
_CAPTION, _LABEL, _GAP = 26, 150, 3
_DRAWS = 2000
AXES = {"translation": "share of the side", "rotation": "degrees", "scale": "factor of the size"}
# The identity on the axis of each transform.
_STILL = {"translation": 0.0, "rotation": 0.0, "scale": 1.0}
CURVES = {
    "stlpips_alex": "ST-LPIPS (Alex), less is better",
    "psnr_256": "PSNR at 256 px, dB, more is better",
    "identity": "identity, cosine, more is better",
    "age_per_unit": "years per unit of the edit",
}


def band(values: Sequence[float], *, seed: int = 0) -> tuple[float, float, float]:
    """Mean and the 95 % interval of the mean, by bootstrap over the images."""
    found = np.asarray(values, np.float64)
    draws = np.random.default_rng(seed).integers(0, len(found), (_DRAWS, len(found)))
    low, high = np.percentile(found[draws].mean(axis=1), [2.5, 97.5])
    return float(found.mean()), float(low), float(high)


def points(records: Sequence[Record], contender: str, transform: str, field: str) -> NDArray[np.float64]:
    """A line of the curves, [n, 4]: degree, mean, and the ends of the interval; includes the unmoved faces."""
    found: dict[float, list[float]] = {}
    for record in records:
        case, value = record.case, record.values[field]
        if case.figure == 1 and record.contender == contender and case.transform in (PLAIN, transform):
            degree = _STILL[transform] if case.transform == PLAIN else case.degree
            if value is not None:
                found.setdefault(degree, []).append(value)
    return np.array([(degree, *band(values)) for degree, values in sorted(found.items())]).reshape(-1, 4)


def curves(records: Sequence[Record]) -> bytes:
    """The metrics of Figure 1 against the degree, a line per method, as a PNG file."""
    transforms = [t for t in DEGREES if any(r.case.transform == t for r in records)]
    keys = [key for key in CONTENDERS if any(r.contender == key for r in records)]
    with mpl.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(4.0 * len(transforms), 2.6 * len(CURVES)), layout="constrained")
        axes = figure.subplots(len(CURVES), len(transforms), squeeze=False, sharey="row")
        for row, (field, title) in zip(axes, CURVES.items(), strict=True):
            for axis, transform in zip(row, transforms, strict=True):
                for key in keys:
                    line = points(records, key, transform, field)
                    colour = CONTENDERS[key].colour
                    axis.plot(line[:, 0], line[:, 1], "o-", color=colour, markersize=3, label=CONTENDERS[key].title)
                    axis.fill_between(line[:, 0], line[:, 2], line[:, 3], color=colour, alpha=0.15, linewidth=0)
                axis.set_xlabel(f"{transform}, {AXES[transform]}")
                axis.grid(alpha=0.2)
            row[0].set_ylabel(title)
        handles, labels = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=len(keys), frameon=False)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


def grid_one(records: Sequence[Record]) -> bytes:
    """Figure 1 for one face, as a JPEG file: a column per degree, two rows per method, the second edited."""
    cases = list({(r.case.transform, r.case.degree): r.case for r in records}.values())
    heads = ["unmoved" if c.transform == PLAIN else f"{c.transform} {c.degree:g}" for c in cases]
    rows: list[tuple[str, list[Image8]]] = [("input", [case.image for case in cases])]
    for key in dict.fromkeys(record.contender for record in records):
        own = {(r.case.transform, r.case.degree): r for r in records if r.contender == key}
        for kind in ("reconstruction", "edit"):
            title = CONTENDERS[key].title if kind == "reconstruction" else "older"
            rows.append((title, [own[case.transform, case.degree].picture(kind) for case in cases]))
    return _grid(heads, rows)


def grid_two(records: Sequence[Record]) -> bytes:
    """Figure 2, as a JPEG file: a row per photo, with the reconstruction and the edit by each method."""
    keys = list(dict.fromkeys(record.contender for record in records))
    heads = ["input"] + [text for key in keys for text in (CONTENDERS[key].title, "older")]
    rows = []
    for case in {record.case.name: record.case for record in records}.values():
        own: Mapping[str, Record] = {r.contender: r for r in records if r.case.name == case.name}
        tiles = [own[key].picture(kind) for key in keys for kind in ("reconstruction", "edit")]
        rows.append((case.name, [case.image, *tiles]))
    return _grid(heads, rows)


def _grid(heads: Sequence[str], rows: Sequence[tuple[str, Sequence[Image8]]]) -> bytes:
    step = TILE + _GAP
    page = Image.new("RGB", (_LABEL + len(heads) * step, _CAPTION + len(rows) * step), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(size=13)
    for column, head in enumerate(heads):
        draw.text((_LABEL + column * step + TILE / 2, _CAPTION / 2), head, fill="black", font=font, anchor="mm")
    for index, (label, images) in enumerate(rows):
        top = _CAPTION + index * step
        text = label.replace(" (", "\n(").replace("W+ ", "W+\n") if len(label) > 16 else label
        draw.multiline_text((6, top + TILE / 2), text, fill="black", font=font, anchor="lm")
        for column, image in enumerate(images):
            tile = Image.fromarray(image).reduce(max(1, len(image) // TILE // 2)).resize((TILE, TILE))
            page.paste(tile, (_LABEL + column * step, top))
    return jpeg(page, quality=88)
