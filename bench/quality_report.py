"""What ``bench.quality`` found, as Markdown and as a contact sheet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from PIL import Image

from bench.targets import Image8
from client.files.sheet import sheet
from judges.reconstruction import Quality

SHEET = "quality.jpg"
SAME_PERSON = 0.363
COLUMNS = {
    "stlpips_vgg": ("ST-LPIPS VGG", ".3f"),
    "stlpips_alex": ("ST-LPIPS Alex", ".3f"),
    "psnr_256": ("PSNR 256", ".1f"),
    "psnr": ("PSNR 1024", ".1f"),
    "identity": ("identity", ".2f"),
    "landmarks": ("landmarks", ".3f"),
    "face": ("faces", ".0%"),
}
DISTANCES = ("stlpips_vgg", "stlpips_alex")
# Group, variant and name of a target.
Place = tuple[str, str, str]
# Captions and pictures.
Row = list[tuple[str, Image8]]

LEGEND = f"""Variants: `rotated+20` is turned anticlockwise by 20 degrees and `rotated-20` clockwise, `shifted` by 12 %
of the side to the right and as much down, `smaller` and `larger` are scaled by 0.8 and 1.2; about the middle, and with
a reflected border.

Methods: `mean` is f^o with the mean style, the paper's starting point; `fast` is f^o with the detail head's styles, as
from `client invert --fast`; `refined` is what the side-car makes of that, as from `client invert`.

ST-LPIPS is shift-tolerant LPIPS, at 256 px; a distance compared is the ratio of two means over the same targets, VGG /
Alex. Identity is the cosine of SFace embeddings, landmarks their mean distance in eye distances of the target; both are
means over the reconstructions in which a face is found, so read them with the share of faces. The same person is an
identity of {SAME_PERSON} and more (SFace's authors); a reconstruction without a face is another one. The detector finds
faces with smeared eyes too: look at the sheet."""


@dataclass(frozen=True)
class Result:
    """How good one method is on one target, which is named as in `bench.targets.Target`."""

    name: str
    group: str
    variant: str
    method: str
    quality: Quality


def markdown(results: Sequence[Result], *, note: str) -> str:
    """The sheet's link, the means, what they come to, and a row for each target; ``note`` says how it was made."""
    parts = [f"![Targets and their reconstructions]({SHEET})", summary(results), derived(results), LEGEND, note]
    return "\n\n".join(part for part in (*parts, details(results)) if part) + "\n"


def summary(results: Sequence[Result]) -> str:
    """A table of means: a row for each group, variant and method."""
    kinds = dict.fromkeys((result.group, result.variant, result.method) for result in results)
    lines = _head("group", "variant", "method", "targets")
    for kind in kinds:
        found = [r.quality for r in results if (r.group, r.variant, r.method) == kind]
        lines.append(_row([*kind, str(len(found)), *_cells(found)]))
    return "\n".join(lines)


def details(results: Sequence[Result]) -> str:
    """A table with a row for each plain target and method; empty where no plain one was measured."""
    lines = _head("plain target", "method")
    lines += [_row([r.name, r.method, *_cells([r.quality])]) for r in results if r.variant == "plain"]
    return "\n".join(lines) if len(lines) > 2 else ""


def derived(results: Sequence[Result]) -> str:
    """A table of how far ``fast`` is from ``refined``, what each variant costs it, how often it keeps the person."""
    fast, refined = (
        {(r.group, r.variant, r.name): r.quality for r in results if r.method == method}
        for method in ("fast", "refined")
    )
    if not fast:
        return ""
    groups = list(dict.fromkeys(group for group, _, _ in fast))
    variants = list(dict.fromkeys(variant for _, variant, _ in fast))
    lines = [_row(["of `fast`", *groups]), "|---" * (len(groups) + 1) + "|"]

    def compare(title: str, form: str, others: Mapping[Place, Quality]) -> None:
        """A row of the mean distances over those of ``others`` in the same places."""
        if others:
            pairs = {g: [(fast[p], other) for p, other in others.items() if p[0] == g] for g in groups}
            ratios = (" / ".join(_ratio(pairs[g], field, form) for field in DISTANCES) for g in groups)
            lines.append(_row([title, *ratios]))

    compare("distance over that of `refined`", ".2f", {p: q for p, q in refined.items() if p in fast})
    for variant in variants:
        if variant != "plain":
            plain = {(g, variant, name): q for (g, v, name), q in fast.items() if v == "plain"}
            compare(f"distance, {variant} against plain", "+.1%", {p: q for p, q in plain.items() if p in fast})
    for title, chosen in (("plain", {"plain"}), ("any variant", set(variants))):
        if chosen <= set(variants):
            shares = (_same([q for (g, v, _), q in fast.items() if g == group and v in chosen]) for group in groups)
            lines.append(_row([f"the same person, {title}", *shares]))
    return "\n".join(lines)


def strips(rows: Sequence[Row]) -> Image.Image:
    """A contact sheet with a row of captioned pictures for each target, all rows of one length."""
    return Image.fromarray(np.concatenate([np.asarray(sheet(row).reduce(2)) for row in rows]))


def _ratio(pairs: Sequence[tuple[Quality, Quality]], field: str, form: str) -> str:
    """The first's mean over the second's; where the format shows a sign, how much it is more."""
    if not pairs:
        return "-"
    mean, base = (fmean(getattr(quality, field) for quality in side) for side in zip(*pairs, strict=True))
    return format(mean / base - form.startswith("+"), form) if base else "-"


def _same(qualities: Sequence[Quality]) -> str:
    """The share with the target's person; without a face there is none, and targets without one do not count."""
    kept = [(q.identity or 0) >= SAME_PERSON for q in qualities if q.face is not None]
    return f"{fmean(kept):.0%} of {len(kept)}" if kept else "-"


def _head(*names: str) -> list[str]:
    titles = [*names, *(title for title, _ in COLUMNS.values())]
    return [_row(titles), "|---" * len(titles) + "|"]


def _cells(qualities: Sequence[Quality]) -> list[str]:
    cells = []
    for field, (_, form) in COLUMNS.items():
        values = [value for quality in qualities if (value := getattr(quality, field)) is not None]
        cells.append(format(fmean(values), form) if values else "-")
    return cells


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
