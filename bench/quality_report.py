"""Report of ``bench.quality``: Markdown tables and a contact sheet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

import numpy as np
from PIL import Image

from bench import edits
from bench.edits import Ends
from bench.likeness import Likeness
from bench.table import head, mean, row
from bench.targets import Image8
from client.files.sheet import sheet

SHEET = "quality.jpg"
SAME_PERSON = 0.363
MARGIN = 6  # pixels around the eyes
COLUMNS = {
    "stlpips_vgg": ("ST-LPIPS VGG", ".3f"),
    "stlpips_alex": ("ST-LPIPS Alex", ".3f"),
    "psnr_256": ("PSNR 256", ".1f"),
    "psnr": ("PSNR 1024", ".1f"),
    "identity": ("identity", ".2f"),
    "second": ("second", ".2f"),
    "landmarks": ("landmarks", ".3f"),
    "skin": ("skin", ".1f"),
    "face": ("faces", ".0%"),
}
TITLES = [title for title, _ in COLUMNS.values()]
DISTANCES = ("stlpips_vgg", "stlpips_alex")
# Group, variant and name of a target.
Place = tuple[str, str, str]

LEGEND = f"""Variants: `rotated+20` is rotated anticlockwise by 20 degrees, `rotated-20` clockwise; `shifted` is moved
right and down by 12 % of the side; `smaller` and `larger` are scaled by 0.8 and 1.2. All are about the centre, with a
reflected border. The sheet has plain targets, each with its edits at the upper ends, and the eyes at full size, the
target's above.

Methods: `mean` is the f that a refinement starts from, with the mean style. `fast` is what one pass shows, as from
`client invert --fast`. `refined` is what the side-car makes of `fast`, as from `client invert`.

ST-LPIPS is shift-tolerant LPIPS, computed at 256 px. Ratios of distances are ratios of means over the same targets,
VGG / Alex. Identity is the cosine of SFace embeddings, `second` that of MobileFaceNet's, which the refinement, the
training of the two looks and the directions know. Landmarks are the mean distance between landmarks, in eye distances
of the target; `skin` is the distance of the mean colours inside the face, in Lab. These are means over the
reconstructions in which a face is detected, so read them together with the share of faces. Two faces count as the same
person from an identity of {SAME_PERSON} (the threshold of SFace's authors); a reconstruction without a face counts as
another person. The detector also accepts faces with smeared eyes: look at the sheet.

An edit is the photo plus the change, as from `client edit`, at both ends of a strength: `fast, 2` is by -2 and by +2.
Identities are to the photo, by SFace / MobileFaceNet. The effect is what the judged age, smile (width of the mouth) and
yaw change from end to end, as a share of what they change in other samples whose own styles all move, by 2. The last
rows show these: nothing is lost to an inversion there. `outside` is ST-LPIPS (Alex) where the face is not."""


@dataclass(frozen=True)
class Result:
    """Quality of one method on one `bench.targets.TargetImage`."""

    name: str
    group: str
    variant: str
    method: str
    quality: Likeness
    edits: Mapping[float, Ends] = field(default_factory=dict)


@dataclass
class Row:
    """One of the contact sheet.

    Attributes:
        pictures: captions and pictures: the target and its reconstructions.
        edits: the same, of edits by the last method.
        eyes: at full size, uint8 [H, W, 3]; None to show none.
    """

    pictures: list[tuple[str, Image8]]
    edits: list[tuple[str, Image8]] = field(default_factory=list)
    eyes: Image8 | None = None


def markdown(results: Sequence[Result], own: edits.OwnEdits, *, note: str) -> str:
    """The sheet, the means, edits, the comparisons, and a row per target.

    Args:
        results: what was measured.
        own: edits of samples by their own codes; may be empty if nothing was edited.
        note: how it was made.
    """
    picture = f"![Targets, their reconstructions and edits]({SHEET})"
    parts = [picture, summary(results), edited(results, own), derived(results), LEGEND, note]
    return "\n\n".join(part for part in (*parts, details(results)) if part) + "\n"


def summary(results: Sequence[Result]) -> str:
    """A table of means: a row per group, variant and method."""
    kinds = dict.fromkeys((result.group, result.variant, result.method) for result in results)
    lines = head(["group", "variant", "method", "targets", *TITLES, "the same person"])
    for kind in kinds:
        qualities = [r.quality for r in results if (r.group, r.variant, r.method) == kind]
        same = same_person(qualities)
        lines.append(row([*kind, str(len(qualities)), *_cells(qualities), f"{sum(same)} of {len(same)}"]))
    return "\n".join(lines)


def edited(results: Sequence[Result], own: edits.OwnEdits) -> str:
    """A table of edits: a row per group, method and strength, and of own codes; empty if nothing was edited."""
    if not any(r.edits for r in results):
        return ""
    full = edits.full_effects(own)
    lines = head(["edits of", "method", "targets", *edits.titles()])
    for group, method, strength in dict.fromkeys((r.group, r.method, s) for r in results for s in r.edits):
        found = [r.edits[strength] for r in results if (r.group, r.method) == (group, method) and r.edits]
        lines.append(row([group, f"{method}, {strength:g}", str(len(found)), *edits.cells(found, full)]))
    for strength, samples in own.items():
        lines.append(row(["other samples", f"own codes, {strength:g}", str(len(samples)), *edits.cells(samples, full)]))
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

    def compare(title: str, form: str, others: Mapping[Place, Likeness]) -> None:
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
    """A contact sheet: a row of captioned pictures per target, and its eyes at full size."""
    strips = []
    for each in rows:
        strip = np.asarray(sheet([*each.pictures, *each.edits]).reduce(2))
        if each.eyes is not None:
            high, wide = each.eyes.shape[:2]
            beside = np.full((len(strip), wide + 2 * MARGIN, 3), 255, np.uint8)
            beside[MARGIN : MARGIN + high, MARGIN : MARGIN + wide] = each.eyes
            strip = np.concatenate([strip, beside], axis=1)
        strips.append(strip)
    widest = max(strip.shape[1] for strip in strips)
    padded = [np.pad(s, ((0, 0), (0, widest - s.shape[1]), (0, 0)), constant_values=255) for s in strips]
    return Image.fromarray(np.concatenate(padded))


def _ratio(pairs: Sequence[tuple[Likeness, Likeness]], field: str, form: str) -> str:
    """Ratio of two means; their relative difference if the format has a sign."""
    if not pairs:
        return "-"
    value, base = (fmean(getattr(quality, field) for quality in side) for side in zip(*pairs, strict=True))
    return format(value / base - form.startswith("+"), form) if base else "-"


def same_person(qualities: Sequence[Likeness]) -> list[bool]:
    """Whether each shows the same person. Without a face it does not; targets without a face do not count."""
    return [(q.identity or 0) >= SAME_PERSON for q in qualities if q.face is not None]


def _cells(qualities: Sequence[Likeness]) -> list[str]:
    return [mean((getattr(q, field) for q in qualities), form) for field, (_, form) in COLUMNS.items()]
