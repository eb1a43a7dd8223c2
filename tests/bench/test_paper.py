"""``bench paper``: cached results, the figures, and the report."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.csv
import pyarrow.parquet
import pytest
from PIL import Image

from bench.paper import command, report
from bench.paper.cases import DEGREES, QUICK, Case, Photos, figure_one, figure_two
from bench.paper.contenders import CONTENDERS
from bench.paper.figures import band, grid_one, grid_two, points
from bench.paper.measures import Measured
from bench.paper.runs import Edit, Record, Runs
from bench.targets import Image8
from client.api import Inverter
from client.files.inversion import Inversion
from protocol.messages import Message, RefineRequest
from protocol.methods import METHODS
from tests.client.fakes import SIDE as FAKE_SIDE
from tests.client.fakes import FakeTransport, direction_file
from tests.client.sidecar_fakes import FakeRefineTransport, simulated

VALUES: Measured = {
    "stlpips_vgg": 0.1, "stlpips_alex": 0.2, "lpips_vgg": None, "psnr_256": 20.0, "psnr": 18.0, "ms_ssim": 0.9,
    "identity": 0.5, "landmarks": 0.01, "face": 1.0, "age_per_unit": 5.0, "edit_identity": 0.6, "background": None,
    "steps": 3, "seconds": 1.5,
}  # fmt: skip


class FakeMeasures:
    """Counts."""

    def __init__(self) -> None:
        self.calls = 0

    def reconstruction(self, target: Image8, image: Image8) -> Measured:
        assert target.shape == image.shape
        self.calls += 1
        return {k: v for k, v in VALUES.items() if k not in ("age_per_unit", "edit_identity", "background")}

    def edit(self, image: Image8, edited: Image8, strength: float) -> Measured:
        assert image.shape == edited.shape
        return {"age_per_unit": strength, "edit_identity": 0.6, "background": None}


class Rig:
    """Fake servers with every cut, counting measures, and a folder."""

    def __init__(
        self, folder: Path, *scripts: Callable[[RefineRequest], Iterator[Message]], steps: int | None = None
    ) -> None:
        self.triton, self.sidecar = FakeTransport(cuts=(16, 8, 4)), FakeRefineTransport(*scripts)
        self.measures = FakeMeasures()
        inverter = Inverter(transport=self.triton, refine_transport=self.sidecar)
        self.run = Runs(inverter, self.measures, folder, steps=steps, edit=Edit("age", 2.0))  # type: ignore[arg-type]

    def all(self, case: Case) -> list[Record]:
        return [self.run(case, key) for key in CONTENDERS]


@pytest.fixture
def case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Case:
    monkeypatch.setattr("client.files.direction.FOLDER", tmp_path / "installed")
    direction_file(tmp_path / "installed/ffhq/age.safetensors")
    image = np.random.default_rng(0).integers(0, 256, (FAKE_SIDE, FAKE_SIDE, 3), np.uint8)
    return Case(1, "a.png", "photos", "plain", 0.0, image)


def test_every_contender_is_inverted_by_its_method(tmp_path: Path, case: Case) -> None:
    rig = Rig(tmp_path / "kept", steps=10)
    records = rig.all(case)
    assert [request.options.preset for request in rig.sidecar.requests] == ["im2s", "idinvert", "default", "default"]
    assert [request.f.shape[-1] for request in rig.sidecar.requests] == [4, 4, 8, 16]
    assert {request.options.steps for request in rig.sidecar.requests} == {10}
    assert [record.values["steps"] for record in records] == [10, 10, 0, 10, 10]
    assert {record.values["age_per_unit"] for record in records} == {2.0}
    assert all(record.picture("edit").shape == (FAKE_SIDE, FAKE_SIDE, 3) for record in records)
    assert {CONTENDERS[key].method for key in CONTENDERS} == set(METHODS)


def test_nothing_is_measured_twice_and_other_options_are(tmp_path: Path, case: Case) -> None:
    first = [record.values for record in Rig(tmp_path / "kept", steps=10).all(case)]
    again = Rig(tmp_path / "kept", steps=10)
    assert [record.values for record in again.all(case)] == first
    assert (again.measures.calls, again.sidecar.requests) == (0, [])
    other = Rig(tmp_path / "kept", steps=5)
    other.all(case)
    assert (other.measures.calls, len(other.sidecar.requests)) == (4, 4)  # pSP has no steps
    another = Rig(tmp_path / "kept", steps=10)
    another.run(replace(case, image=case.image[::-1].copy()), "psp")
    assert another.measures.calls == 1


def test_a_killed_run_continues_from_its_checkpoint(tmp_path: Path, case: Case) -> None:
    def killed(step: int) -> None:
        if step == 33:
            raise KeyboardInterrupt

    cut = Rig(tmp_path / "cut", lambda request: simulated(request, killed))
    with pytest.raises(KeyboardInterrupt):
        cut.run(case, "im2s")
    assert not list((tmp_path / "cut").glob("*.json"))
    again, whole = Rig(tmp_path / "cut"), Rig(tmp_path / "whole")
    again.run(case, "im2s")
    whole.run(case, "im2s")
    (request,) = again.sidecar.requests
    assert request.resume is not None and request.resume.step == 25
    one, other = (Inversion.load(next((tmp_path / name).glob("*.safetensors"))) for name in ("cut", "whole"))
    np.testing.assert_array_equal(one.w_m_plus, other.w_m_plus)


def test_the_band_holds_the_mean_of_a_sample() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for seed in range(100):
        mean, low, high = band(rng.normal(3, 1, 30).tolist(), seed=seed)
        assert low < mean < high
        hits += low < 3 < high
    assert 85 <= hits <= 99
    assert band([2.0]) == (2, 2, 2)


@pytest.fixture
def records(tmp_path: Path) -> list[Record]:
    """Two faces and a photo by two methods; ST-LPIPS is the degree, and one identity is missing."""
    image = np.full((64, 64, 3), 90, np.uint8)
    found = []
    every = [*figure_one({"a.png": image, "b.png": image}, "photos", QUICK, seed=0), *figure_two({"a|b.png": image})]
    for number, case in enumerate(every):
        for key in ("psp", "bdinvert16"):
            path = tmp_path / f"{number}-{key}"
            for kind in ("reconstruction", "edit"):
                Image.fromarray(image).save(path.with_suffix(f".{kind}.png"))
            values = {**VALUES, "stlpips_alex": case.degree + (key == "psp")}
            found.append(Record(case, key, values, path))
    found[0].values["identity"] = None
    return found


def test_a_line_starts_at_what_is_not_moved(records: list[Record]) -> None:
    line = points(records, "bdinvert16", "scale", "stlpips_alex")
    np.testing.assert_allclose(line[:, 0], [0.7, 1.0, 1.4])
    np.testing.assert_allclose(line[:, 1], [0.7, 0.0, 1.4])
    assert points(records, "psp", "rotation", "stlpips_alex")[0].tolist() == [0, 1, 1, 1]
    assert points(records, "psp", "rotation", "background").shape == (0, 4)


def test_grids_have_a_place_for_every_picture(records: list[Record], tmp_path: Path) -> None:
    one = [r for r in records if r.case.figure == 1 and r.case.name == "a.png"]
    two = [r for r in records if r.case.figure == 2]
    (tmp_path / "one.jpg").write_bytes(grid_one(one))
    (tmp_path / "two.jpg").write_bytes(grid_two(two))
    sizes = []
    for name in ("one.jpg", "two.jpg"):
        with Image.open(tmp_path / name) as picture:
            sizes.append(picture.size)
    # Seven columns and five rows; five columns and one row; steps of 195 px.
    assert [round((w - 150) / 195) for w, _ in sizes] == [7, 5]
    assert [round((h - 26) / 195) for _, h in sizes] == [5, 1]


def test_the_report_holds_every_measurement(records: list[Record], tmp_path: Path) -> None:
    out = tmp_path / "out"
    document = tmp_path / "docs" / "paper.md"
    document.parent.mkdir()
    document.write_text("before\n<!-- paper -->\n<!-- /paper -->\nbehind\n")
    path = report.write(records, out, ["Skipped: x."], setting="By hand.", document=document)
    rows = pyarrow.csv.read_csv(out / "measurements.csv")
    assert rows.num_rows == len(records)
    parquet = pyarrow.parquet.read_table(out / "measurements.parquet")
    assert parquet.column("stlpips_alex").to_pylist() == [r.values["stlpips_alex"] for r in records]
    assert parquet.column("identity").to_pylist()[0] is None
    assert set(parquet.column("cut").to_pylist()) == {None, 16}
    text = path.read_text()
    assert "Skipped: x." in text and "By hand." in text
    assert "| pSP (W+) | 2 | 0.100 | 1.000 |" in text  # plain
    assert "ST-LPIPS Alex | PSNR 256" in text  # LPIPS, which was not measured, has no column
    shown = [line.split("](")[1][:-1] for line in text.splitlines() if line.startswith("![")]
    assert shown == ["curves.png", "figure1-1.jpg", "figure1-2.jpg", "figure2.jpg"]
    assert all((out / name).stat().st_size > 1000 for name in shown)
    pictures = {p.name for p in document.parent.iterdir()} - {"paper.md"}
    assert pictures == {f"paper-{name}" for name in shown}
    written = document.read_text()
    assert all(f"({name})" in written for name in pictures) and written.endswith("behind\n")
    page = (out / "report.html").read_text()
    assert page.count("<table>") == 5 and page.count("<img") == 4 and "<p>a.png</p>" in page


def test_names_are_escaped(records: list[Record], tmp_path: Path) -> None:
    name = "../a <script>alert(1)</script> [b](c) | *d*_e_.png"
    odd = [replace(r, case=replace(r.case, name=name)) for r in records if r.case.name == "a.png"]
    report.write(odd, tmp_path / "out", [f"Skipped: {name}."], setting="")
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<script" not in page and "<em>" not in page and "<a " not in page
    assert page.count("../a &lt;script&gt;alert(1)&lt;/script&gt; [b](c) | *d*_e_.png") == 2
    assert sorted(p.name for p in (tmp_path / "out").glob("figure1*")) == ["figure1-1.jpg"]


def options(**changes: object) -> argparse.Namespace:
    given = {"full": False, "faces": None, "samples": None, "steps": None, **changes}
    return argparse.Namespace(**given)


def test_what_is_run_by_default_and_in_full() -> None:
    assert command.planned(options()) == (command.FACES, command.SAMPLES, command.STEPS, QUICK)
    assert command.planned(options(full=True)) == (50, 0, None, DEGREES)
    assert command.planned(options(faces=0, samples=3, steps=7)) == (0, 3, 7, QUICK)
    for wrong in ({"steps": 0}, {"faces": -1}):
        with pytest.raises(ValueError, match="too small"):
            command.planned(options(**wrong))


def test_the_plan_has_photos_faces_and_samples() -> None:
    image = np.full((64, 64, 3), 90, np.uint8)
    photos = Photos(squares={"a": image, "b": image, "c": image}, faces={"a": image, "c": image}, faceless=["b"])
    found = command.plan(photos, faces=1, samples={"sample 1": image}, degrees=QUICK, seed=0)
    assert [c.name for c in found if c.figure == 2] == ["a", "b", "c"]
    assert dict.fromkeys((c.name, c.group) for c in found if c.figure == 1) == dict.fromkeys(
        [("a", "photos"), ("sample 1", "samples")]
    )
    assert len(found) == 3 + 2 * 7
