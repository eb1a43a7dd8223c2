"""The report: measurements.csv and .parquet, report.md and report.html, and the figures."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import Any

import markdown
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from bench import page
from bench.paper.cases import PLAIN
from bench.paper.contenders import CONTENDERS
from bench.paper.figures import curves, grid_one, grid_two
from bench.paper.runs import Record
from bench.table import head, mean, row
from client.atomic import write_all

MARK = "paper"
COLUMNS = {
    "stlpips_vgg": ("ST-LPIPS VGG", ".3f"),
    "stlpips_alex": ("ST-LPIPS Alex", ".3f"),
    "lpips_vgg": ("LPIPS VGG", ".3f"),
    "psnr_256": ("PSNR 256", ".1f"),
    "psnr": ("PSNR 1024", ".1f"),
    "ms_ssim": ("MS-SSIM", ".3f"),
    "identity": ("identity", ".2f"),
    "landmarks": ("landmarks", ".3f"),
    "face": ("faces", ".0%"),
    "age_per_unit": ("years a unit", "+.1f"),
    "edit_identity": ("identity kept", ".2f"),
    "background": ("background", ".1f"),
}
LEGEND = """Means over the images. ST-LPIPS and LPIPS at 256 px: 0 is equal. PSNR in dB. MS-SSIM at 256 px: 1 is equal.
Identity: cosine of the SFace embeddings of target and reconstruction, if both show a face. Landmarks: their mean
distance in eye distances of the target, if both show a face. Faces: share of the reconstructions in which a face is
detected. For the edit: years per unit of strength, by an independent estimator; identity kept, between reconstruction
and edit; background, mean change in grey levels of the pixels outside the face's box, which is grown by a quarter of
its size on each side. A dash means that it could not be measured."""
STYLE = """body { font: 15px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; font-size: 13px; }
td, th { border: 1px solid #ccc; padding: 2px 7px; text-align: right; }
td:first-child, th:first-child { text-align: left; } img { max-width: 100%; }"""


def table(records: Sequence[Record], label: Callable[[Record], str]) -> str:
    """A Markdown table of means, a row per label, without columns that were never measured."""
    shown = {f: c for f, c in COLUMNS.items() if any(r.values[f] is not None for r in records)}
    lines = head(["", "images", *(title for title, _ in shown.values())])
    for text in dict.fromkeys(label(record) for record in records):
        own = [record for record in records if label(record) == text]
        cells = (mean((record.values[field] for record in own), form) for field, (_, form) in shown.items())
        lines.append(row([text, str(len(own)), *cells]))
    return "\n".join(lines)


def rows_of(records: Sequence[Record]) -> pa.Table:
    """Every measurement, a row per image, degree and method."""
    kinds: dict[str, Any] = {"figure": pa.int8(), "cut": pa.int8(), "steps": pa.int32()}
    kinds |= dict.fromkeys(("image", "group", "transform", "contender", "method"), pa.string())
    rows = [record.row() for record in records]
    names = list(rows[0])
    schema = pa.schema([(name, kinds.get(name, pa.float64())) for name in names])
    return pa.Table.from_pylist(rows, schema=schema)


def pages(
    records: Sequence[Record], notes: Sequence[str], *, setting: str, prefix: str = ""
) -> tuple[str, dict[str, bytes]]:
    """The report in Markdown, and the image files that it shows, by name with ``prefix``."""
    one, two = ([record for record in records if record.case.figure == n] for n in (1, 2))
    pictures: dict[str, bytes] = {}
    parts = [setting, *map(literal, notes)]
    if one:
        pictures[f"{prefix}curves.png"] = curves(one)
        parts += ["## Aligned faces, moved (Figure 1)", f"![Measures against the degree]({prefix}curves.png)"]
        parts += ["### Unmoved", table([r for r in one if r.case.transform == PLAIN], _title)]
        for transform in dict.fromkeys(r.case.transform for r in one if r.case.transform != PLAIN):
            parts += [f"### {transform.capitalize()}", table([r for r in one if r.case.transform == transform], _title)]
        for number, name in enumerate(dict.fromkeys(record.case.name for record in one), start=1):
            file = f"{prefix}figure1-{number}.jpg"
            pictures[file] = grid_one([record for record in one if record.case.name == name])
            parts += [literal(name), f"![Face {number}, moved, by each method]({file})"]
    if two:
        pictures[f"{prefix}figure2.jpg"] = grid_two(two)
        parts += ["## Unaligned photos (Figure 2)", f"![Photos]({prefix}figure2.jpg)", table(two, _title)]
    parts += ["## Columns", LEGEND]
    return "\n\n".join(parts) + "\n", pictures


def write(
    records: Sequence[Record], folder: Path, notes: Sequence[str], *, setting: str, document: Path | None = None
) -> Path:
    """Write everything into a folder, and the report between the marks of a document; returns report.md."""
    text, files = pages(records, notes, setting=setting)
    text = f"# Comparison of the methods\n\n{text}"
    rows = rows_of(records)
    for name, put in (
        ("measurements.csv", pyarrow.csv.write_csv),
        ("measurements.parquet", pyarrow.parquet.write_table),
    ):
        buffer = io.BytesIO()
        put(rows, buffer)
        files[name] = buffer.getvalue()
    html = markdown.markdown(text, extensions=["tables"])
    head = f'<meta charset="utf-8"><title>Comparison</title><style>{STYLE}</style>'
    shown = f'<!doctype html><html lang="en">{head}{html}</html>'
    files |= {"report.md": text.encode(), "report.html": shown.encode()}
    write_all({folder / name: data for name, data in files.items()})
    if document is not None:
        text, pictures = pages(records, notes, setting=setting, prefix=f"{MARK}-")
        write_all({document.with_name(name): data for name, data in pictures.items()})
        page.write(document, text, MARK)
    return folder / "report.md"


def literal(text: str) -> str:
    """Escape text for Markdown and HTML: file names can contain anything."""
    return re.sub(r"([\\`*_{}\[\]()#+!|-])", r"\\\1", escape(text, quote=False))


def _title(record: Record) -> str:
    return CONTENDERS[record.contender].title
