"""``bench paper``: faces that are aligned and moved as it says, results that are kept, and what the report shows."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.csv
import pyarrow.parquet
import pytest
from PIL import Image

from bench.__main__ import main
from bench.paper import cases, command, report
from bench.paper.cases import DEGREES, QUICK, Case, Photos, figure_one, figure_two, move_of, read_photos
from bench.paper.contenders import CONTENDERS
from bench.paper.figures import band, grid_one, grid_two, points
from bench.paper.measures import Measured, background_change
from bench.paper.runs import Edit, Record, Runs
from bench.targets import SIDE, Image8, moved
from client.api import Inverter
from client.files.inversion import Inversion
from judges.alignment import aligned_square, square_of
from judges.faces import Face
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


def face(*landmarks: tuple[float, float], box: tuple[float, float, float, float] = (0, 0, 1, 1)) -> Face:
    return Face(np.array(box, np.float32), np.array(landmarks, np.float32), 1.0)


UPRIGHT = face((40, 50), (60, 50), (50, 60), (42, 70), (58, 70))


class Detector:
    """Finds the same face in every image that is not dark."""

    def portrait(self, image: Image8) -> Face | None:
        return UPRIGHT if image.mean() > 50 else None


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(cases, "FaceDetector", Detector)
    (tmp_path / "photos").mkdir()
    return tmp_path / "photos"


def save(path: Path, level: int) -> None:
    Image.new("RGB", (120, 100), (level, level, level)).save(path)


def test_every_photo_of_a_folder_is_read_or_told(folder: Path) -> None:
    for name, level in (("a.png", 200), ("a.jpg", 180), ("dark.png", 5), (".hidden.png", 200)):
        save(folder / name, level)
    (folder / "broken.png").write_bytes((folder / "a.png").read_bytes()[:60])
    (folder / "sub").mkdir()
    found = read_photos(folder, most=50)
    assert list(found.squares) == ["a.jpg", "a.png", "dark.png"]
    assert list(found.faces) == ["a.jpg", "a.png"]
    assert found.faceless == ["dark.png"]
    assert all(square.shape == (SIDE, SIDE, 3) for square in (*found.squares.values(), *found.faces.values()))
    (sentence,) = found.unreadable
    assert "broken.png" in sentence
    notes = command.told(found)
    assert len(notes) == 2 and "broken.png" in notes[0] and "dark.png" in notes[1]
    assert list(read_photos(folder, most=2).squares) == ["a.jpg", "a.png"]


@pytest.mark.parametrize("name", ["empty", "none"])
def test_a_folder_without_photos_is_one_sentence(folder: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    (folder / "empty").mkdir()
    assert main(["paper", "--photos", str(folder / name)]) == 1
    told = capsys.readouterr().err
    assert told.startswith("error: There is no ") and told.count("\n") == 1


def test_the_square_is_that_of_ffhq() -> None:
    middle, along = square_of(UPRIGHT)
    # Eyes 20 apart, mouth 20 below: 4 x 20 against 3.6 x 20; the middle a tenth of the way down to the mouth.
    np.testing.assert_allclose(middle, [50, 52], atol=1e-4)
    np.testing.assert_allclose(along, [80, 0], atol=1e-4)
    long = face((40, 50), (60, 50), (50, 65), (42, 90), (58, 90))
    np.testing.assert_allclose(square_of(long)[1], [3.6 * 40, 0], atol=1e-3)


@pytest.mark.parametrize(("degrees", "scale"), [(0, 1.0), (30, 1.0), (-75, 1.7), (180, 0.8)])
def test_a_face_is_aligned_wherever_it_was(degrees: float, scale: float) -> None:
    """Dots at the landmarks of a face that is turned and scaled come to lie where those of the upright one do."""
    turn = scale * np.exp(1j * math.radians(degrees))
    points = UPRIGHT.landmarks[:, 0] + 1j * UPRIGHT.landmarks[:, 1]
    turned = (points - (50 + 55j)) * turn + (150 + 140j)
    image = np.full((300, 320, 3), 60, np.uint8)
    y, x = np.mgrid[:300, :320] + 0.5
    for point in turned[[0, 1]]:
        image[np.hypot(x - point.real, y - point.imag) < 4 * scale] = 255
    found = aligned_square(image, face(*[(p.real, p.imag) for p in turned]), size=160)
    assert found.shape == (160, 160, 3)
    # The square has 80 of the upright face's pixels, from (10, 12) on.
    y, x = np.mgrid[:160, :160] + 0.5
    for left, right, place in ((0, 80, (40 - 10) * 2), (80, 160, (60 - 10) * 2)):
        weight = found[:, left:right, 0].astype(float) - 60
        assert (weight * x[:, left:right]).sum() / weight.sum() == pytest.approx(place, abs=0.5)
        assert (weight * y[:, left:right]).sum() / weight.sum() == pytest.approx((50 - 12) * 2, abs=0.5)


def test_outside_the_photo_an_aligned_face_is_reflected() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (100, 80, 3), np.uint8)
    found = aligned_square(image, UPRIGHT, size=80)
    # From (10, 12) on, pixel for pixel; behind column 79 the columns before it come again.
    np.testing.assert_array_equal(found[:80, :70], image[12:92, 10:80])
    np.testing.assert_array_equal(found[:, 70:], image[12:92, 78:68:-1])


def test_a_move_has_its_degree_and_one_way_for_each_face() -> None:
    for name in ("a.png", "b.png"):
        shifts = [move_of("translation", d, name=name, seed=1) for d in (0.1, 0.3)]
        assert [math.hypot(m.right, m.down) for m in shifts] == pytest.approx([0.1, 0.3])
        assert math.atan2(shifts[0].down, shifts[0].right) == pytest.approx(math.atan2(shifts[1].down, shifts[1].right))
        turns = [move_of("rotation", d, name=name, seed=1).degrees for d in (15, 45)]
        assert [abs(t) for t in turns] == [15, 45] and turns[0] * turns[1] > 0
        assert move_of("scale", 0.6, name=name, seed=1).scale == 0.6
    names = [f"{n}.png" for n in range(40)]
    assert {move_of("rotation", 15, name=n, seed=0).degrees for n in names} == {15, -15}
    ways = {move_of("translation", 0.1, name="a.png", seed=seed) for seed in range(5)}
    assert len(ways) == 5


def test_cases_are_every_face_at_every_degree() -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    found = list(figure_one({"a": image, "b": image}, "photos", DEGREES, seed=0))
    assert len(found) == 2 * (1 + sum(map(len, DEGREES.values())))
    np.testing.assert_array_equal(found[0].image, image)
    shown = next(c for c in found if (c.name, c.transform, c.degree) == ("b", "rotation", 30))
    np.testing.assert_array_equal(shown.image, moved(image, move_of("rotation", 30, name="b", seed=0)))
    assert not np.array_equal(shown.image, image)
    (photo,) = figure_two({"a": image})
    assert (photo.figure, photo.transform, photo.degree) == (2, "plain", 0)


def test_the_background_is_what_is_outside_the_grown_box() -> None:
    image = np.zeros((100, 100, 3), np.uint8)
    edited = image.copy()
    edited[30:70, 30:70] = 200  # inside the box, grown by a quarter
    centred = face(*UPRIGHT.landmarks.tolist(), box=(35, 35, 30, 30))
    assert background_change(image, edited, centred) == 0
    edited[:20] = 30
    assert background_change(image, edited, centred) == pytest.approx(
        20 * 100 * 30 / (10_000 - 45 * 45)
    )  # pixels 28 to 72 are inside
    assert background_change(image, edited, face(*UPRIGHT.landmarks.tolist(), box=(0, 0, 100, 100))) is None


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
    """Pretended servers with every cut, counting measures, and a folder."""

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


def test_a_killed_run_goes_on_at_its_checkpoint(tmp_path: Path, case: Case) -> None:
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
    path = report.write(records, out, ["Left out: x."], setting="By hand.", document=document)
    rows = pyarrow.csv.read_csv(out / "measurements.csv")
    assert rows.num_rows == len(records)
    parquet = pyarrow.parquet.read_table(out / "measurements.parquet")
    assert parquet.column("stlpips_alex").to_pylist() == [r.values["stlpips_alex"] for r in records]
    assert parquet.column("identity").to_pylist()[0] is None
    assert set(parquet.column("cut").to_pylist()) == {None, 16}
    text = path.read_text()
    assert "Left out: x." in text and "By hand." in text
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


def test_names_are_shown_as_they_are(records: list[Record], tmp_path: Path) -> None:
    name = "../a <script>alert(1)</script> [b](c) | *d*_e_.png"
    odd = [replace(r, case=replace(r.case, name=name)) for r in records if r.case.name == "a.png"]
    report.write(odd, tmp_path / "out", [f"Left out: {name}."], setting="")
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
