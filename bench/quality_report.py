"""Report of ``bench.quality``: Markdown tables and a contact sheet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from PIL import Image

from bench.table import head, mean, row
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
TITLES = [title for title, _ in COLUMNS.values()]
DISTANCES = ("stlpips_vgg", "stlpips_alex")
# Group, variant and name of a target.
Place = tuple[str, str, str]
# Captions and pictures.
Row = list[tuple[str, Image8]]

LEGEND = f"""Variants: `rotated+20` is rotated anticlockwise by 20 degrees, `rotated-20` clockwise; `shifted` is moved
right and down by 12 % of the side; `smaller` and `larger` are scaled by 0.8 and 1.2. All are about the centre, with a
reflected border.

Methods: `mean` is f^o with the mean style, the paper's starting point. `fast` is f^o with the styles of the detail
head, as from `client invert --fast`. `refined` is what the side-car makes of `fast`, as from `client invert`.

ST-LPIPS is shift-tolerant LPIPS, computed at 256 px. Ratios of distances are ratios of means over the same targets,
VGG / Alex. Identity is the cosine of SFace embeddings. Landmarks are the mean distance between landmarks, in eye
distances of the target. Both are means over the reconstructions in which a face is detected, so read them together
with the share of faces. Two faces count as the same person from an identity of {SAME_PERSON} (the threshold of SFace's
authors); a reconstruction without a face counts as another person. The detector also accepts faces with smeared eyes:
look at the sheet."""


@dataclass(frozen=True)
class Result:
    """Quality of one method on one `bench.targets.TargetImage`."""

    name: str
    group: str
    variant: str
    method: str
    quality: Quality


def markdown(results: Sequence[Result], *, note: str) -> str:
    """The sheet, the means, the comparisons, and a row per target; ``note`` says how they were made."""
    parts = [f"![Targets and their reconstructions]({SHEET})", summary(results), derived(results), LEGEND, note]
    return "\n\n".join(part for part in (*parts, details(results)) if part) + "\n"


def summary(results: Sequence[Result]) -> str:
    """A table of means: a row per group, variant and method."""
    kinds = dict.fromkeys((result.group, result.variant, result.method) for result in results)
    lines = head(["group", "variant", "method", "targets", *TITLES])
    for kind in kinds:
        qualities = [r.quality for r in results if (r.group, r.variant, r.method) == kind]
        lines.append(row([*kind, str(len(qualities)), *_cells(qualities)]))
    return "\n".join(lines)


def details(results: Sequence[Result]) -> str:
    """A table with a row per plain target and method; empty if no plain target was measured."""
    lines = head(["plain target", "method", *TITLES])
    lines += [row([r.name, r.method, *_cells([r.quality])]) for r in results if r.variant == "plain"]
    return "\n".join(lines) if len(lines) > 2 else ""


def derived(results: Sequence[Result]) -> str:
    """A table: how far ``fast`` is from ``refined``, what each variant costs it, how often it keeps the person."""
    fast, refined = (
        {(r.group, r.variant, r.name): r.quality for r in results if r.method == method}
        for method in ("fast", "refined")
    )
    if not fast:
        return ""
    groups = list(dict.fromkeys(group for group, _, _ in fast))
    variants = list(dict.fromkeys(variant for _, variant, _ in fast))
    lines = head(["of `fast`", *groups])

    def compare(title: str, form: str, others: Mapping[Place, Quality]) -> None:
        """Add a row: mean distances over those of ``others`` at the same places."""
        if others:
            pairs = {g: [(fast[p], other) for p, other in others.items() if p[0] == g] for g in groups}
            ratios = (" / ".join(_ratio(pairs[g], field, form) for field in DISTANCES) for g in groups)
            lines.append(row([title, *ratios]))

    compare("distance over that of `refined`", ".2f", {p: q for p, q in refined.items() if p in fast})
    for variant in variants:
        if variant != "plain":
            plain = {(g, variant, name): q for (g, v, name), q in fast.items() if v == "plain"}
            compare(f"distance, {variant} against plain", "+.1%", {p: q for p, q in plain.items() if p in fast})
    for title, chosen in (("plain", {"plain"}), ("any variant", set(variants))):
        if chosen <= set(variants):
            kept = [same_person([q for (g, v, _), q in fast.items() if g == group and v in chosen]) for group in groups]
            shares = (f"{fmean(same):.0%} of {len(same)}" if same else "-" for same in kept)
            lines.append(row([f"the same person, {title}", *shares]))
    return "\n".join(lines)


def strips(rows: Sequence[Row]) -> Image.Image:
    """A contact sheet: a row of captioned pictures per target; all rows have the same length."""
    return Image.fromarray(np.concatenate([np.asarray(sheet(row).reduce(2)) for row in rows]))


def _ratio(pairs: Sequence[tuple[Quality, Quality]], field: str, form: str) -> str:
    """Ratio of two means; their relative difference if the format has a sign."""
    if not pairs:
        return "-"
    value, base = (fmean(getattr(quality, field) for quality in side) for side in zip(*pairs, strict=True))
    return format(value / base - form.startswith("+"), form) if base else "-"


def same_person(qualities: Sequence[Quality]) -> list[bool]:
    """Whether each shows the same person. Without a face it does not; targets without a face do not count."""
    return [(q.identity or 0) >= SAME_PERSON for q in qualities if q.face is not None]


def _cells(qualities: Sequence[Quality]) -> list[str]:
    return [mean((getattr(q, field) for q in qualities), form) for field, (_, form) in COLUMNS.items()]
