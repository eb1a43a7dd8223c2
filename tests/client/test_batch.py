"""``client batch edit``: every photo once, whatever is stopped when; failures reported and retried."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from PIL import Image

from client import Inversion, cli
from client.batch.manifest import Item
from client.batch.plan import Plan
from client.errors import OutputError
from client.wire import retry
from tests.client.fakes import FakeTriton, direction_file, serving
from tests.client.running import results, save

COUNT = 5


@pytest.fixture
def triton() -> FakeTriton:
    return FakeTriton(cuts=(16, 8, 4))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, triton: FakeTriton) -> Iterator[Path]:
    """A folder to work in, with a server, five photos in ``photos``, and two directions."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("client.files.direction.FOLDER", tmp_path / "installed")
    for name in ("age", "smile"):
        direction_file(tmp_path / f"installed/ffhq/{name}.safetensors")
    Path("photos").mkdir()
    for number in range(COUNT):
        save(Path(f"photos/{number}.png"), number)
    with serving(triton) as address:
        monkeypatch.setenv("UNALIGNED_URL", address)
        yield tmp_path


def batch(*arguments: str, photos: str = "photos", out: str = "out") -> int:
    return cli.main(["batch", "edit", "--photos", photos, "--out", out, "--edit", "age=-1,2", "--fast", *arguments])


def failed(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 2, **places: str) -> str:
    assert batch(*arguments, **places) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ") and not captured.err.endswith(".\n") and captured.err.count("\n") == 1
    return captured.err


def test_every_photo_has_its_folder_and_the_batch_its_report(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert batch("--edit", "smile=1", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["photos"] == {"pending": 0, "done": COUNT, "failed": 0}
    assert report["run"]["made"] == COUNT and report["run"]["per_minute"] > 0
    assert len(report["slowest"]) == 5 and report["failures"] == []
    assert json.loads((place / "out/report.json").read_text()) == report
    names = ["age+2.jpg", "age-1.jpg", "photo.inversion.safetensors", "reconstruction.jpg", "smile+1.jpg"]
    for number in range(COUNT):
        folder = place / f"out/{number}.png"
        assert sorted(path.name for path in folder.iterdir()) == names
        inversion = Inversion.load(folder / "photo.inversion.safetensors")
        assert inversion.photo_name == f"{number}.png"
    with Image.open("out/sheet.jpg") as sheet:
        assert sheet.size == (5 * 160, COUNT * 160)
    assert not list(place.rglob("*.tmp"))


@pytest.mark.usefixtures("triton")
def test_resume_begins_where_nothing_was_begun(place: Path) -> None:
    assert batch("--resume") == 0
    assert (place / "out/report.json").exists()


def test_nothing_is_made_twice(place: Path, triton: FakeTriton, capsys: pytest.CaptureFixture[str]) -> None:
    assert batch() == 0
    asked, before = triton.inferences, results(place / "out")
    stamps = {path: path.stat().st_mtime_ns for path in (place / "out").rglob("*.jpg") if path.name != "sheet.jpg"}
    assert batch("--resume", "--json") == 0
    assert triton.inferences == asked
    assert results(place / "out") == before
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items())
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["run"]["made"] == 0


def test_a_photo_that_fails_is_reported_and_retried(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = Path("photos/2.png").read_bytes()
    Path("photos/2.png").write_bytes(good[:200])
    assert batch() == 1
    told = capsys.readouterr().out
    assert "4 photos done, 1 failed, 0 left" in told
    assert "photos/2.png: cannot read `2.png`: a truncated or damaged PNG file" in told
    assert not (place / "out/2.png").exists()
    # It is only retried on request.
    Path("photos/2.png").write_bytes(good)
    assert batch("--resume") == 1
    assert batch("--retry-failed") == 0
    assert "5 photos done, 0 failed" in capsys.readouterr().out
    assert (place / "out/2.png/reconstruction.jpg").exists()
    assert batch(out="whole") == 0
    assert results(place / "out") == results(place / "whole")


@pytest.mark.parametrize("stop", [0, 1, 3])
def test_an_interrupted_batch_ends_with_the_same_results(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    made: list[str] = []
    make = Plan.make

    async def interrupted(self: Plan, inverter, item: Item, folder: Path) -> None:
        if len(made) == stop:
            raise KeyboardInterrupt
        await make(self, inverter, item, folder)
        made.append(item.name)

    with monkeypatch.context() as patched:
        patched.setattr(Plan, "make", interrupted)
        message = failed(capsys, "--concurrency", "1", code=130)
    assert f"{stop} of {COUNT} photos are done: continue with the same command and --resume" in message
    assert batch("--resume", "--json") == 0
    assert json.loads(capsys.readouterr().out)["run"]["made"] == COUNT - stop
    assert batch(out="whole") == 0
    assert results(place / "out") == results(place / "whole")


@pytest.mark.slow
def test_a_killed_process_ends_with_the_same_results(place: Path, triton: FakeTriton) -> None:
    """SIGKILL while requests are under way, later each time, until the batch is done."""
    killed = 0
    for attempt in range(20):
        ready = threading.Event()
        start = triton.inferences

        def on_infer(servicer: FakeTriton, _context, start=start, wait=3 + 4 * attempt, ready=ready) -> None:
            if servicer.inferences >= start + wait:
                ready.set()

        triton.on_infer = on_infer
        command = ["batch", "edit", "--photos", "photos", "--out", "out", "--edit", "age=-1,2", "--fast"]
        run = [sys.executable, "-c", BOOT, str(place / "installed"), *command, *(["--resume"] if attempt else [])]
        with subprocess.Popen(run, env=os.environ, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
            while process.poll() is None and not ready.wait(0.01):
                pass
            if process.poll() is None:
                process.kill()
                killed += 1
            elif process.returncode == 0:
                break
            else:
                raise AssertionError(process.stderr.read())
    triton.on_infer = None
    assert killed
    assert batch("--resume") == 0
    assert batch(out="whole") == 0
    assert results(place / "out") == results(place / "whole")


BOOT = """
import sys
import time
from pathlib import Path
import client.files.direction
client.files.direction.FOLDER = Path(sys.argv[1])
from client.cli import main
sys.exit(main(sys.argv[2:]))
"""


def test_a_server_that_is_away_one_time_in_three_costs_nothing_but_time(
    place: Path, triton: FakeTriton, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry, "FIRST_BACKOFF", 0.01)

    def flaky(servicer: FakeTriton, context) -> None:
        if servicer.inferences % 3 == 0:
            context.abort(grpc.StatusCode.UNAVAILABLE, "gone")

    triton.on_infer = flaky
    assert batch() == 0
    triton.on_infer = None
    assert batch(out="whole") == 0
    assert results(place / "out") == results(place / "whole")


def test_a_server_that_is_slow_loses_nothing(
    place: Path, triton: FakeTriton, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer may be slow within the deadline; beyond it, the photo is requested again, and then left for later."""
    monkeypatch.setattr(retry, "FIRST_BACKOFF", 0.01)
    triton.on_infer = lambda *_: time.sleep(0.3)
    assert batch("--timeout", "5") == 0
    capsys.readouterr()

    def stuck(servicer: FakeTriton, _context: object) -> None:
        time.sleep(0 if servicer.inferences < before + 7 else 1.5)

    before, triton.on_infer = triton.inferences, stuck
    message = failed(capsys, "--timeout", "0.5", "--patience", "1", "--concurrency", "1", out="stuck", code=3)
    assert "gave no answer within" in message
    assert "2 of 5 photos are done" in message
    triton.on_infer = None
    assert batch("--resume", out="stuck") == 0
    assert results(place / "stuck") == results(place / "out")


@pytest.mark.usefixtures("place")
def test_a_server_that_stays_away_leaves_the_rest(
    triton: FakeTriton, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry, "FIRST_BACKOFF", 0.01)

    def gone(servicer: FakeTriton, context) -> None:
        if servicer.inferences > 6:
            context.abort(grpc.StatusCode.UNAVAILABLE, "gone")

    triton.on_infer = gone
    assert "2 of 5 photos are done: continue with the same command and --resume" in failed(
        capsys, "--patience", "1", "--concurrency", "1", "--timeout", "1", code=3
    )
    triton.on_infer = None
    assert batch("--resume") == 0


def test_a_full_disk_leaves_the_rest(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from client.batch import plan

    written: list[Path] = []
    publish = plan.Draft.publish

    def full(draft) -> None:
        if len(written) == 2:
            raise OutputError("cannot write to `out`: no space left on device")
        publish(draft)
        written.append(next(iter(draft._temporary)))

    with monkeypatch.context() as patched:
        patched.setattr(plan.Draft, "publish", full)
        message = failed(capsys, "--concurrency", "1")
    assert "no space left on device; 2 of 5 photos are done" in message
    assert batch("--resume") == 0
    assert batch(out="whole") == 0
    assert results(place / "out") == results(place / "whole")


def test_shards_are_the_whole(place: Path) -> None:
    for index in range(2):
        assert batch("--shard", f"{index}/2") == 0
    assert sorted(p.name for p in Path("out").glob("ledger*.sqlite")) == [
        "ledger-0-of-2.sqlite",
        "ledger-1-of-2.sqlite",
    ]
    assert batch(out="whole") == 0
    parts, whole = (
        {name: data for name, data in results(place / out).items() if not name.startswith("sheet")}
        for out in ("out", "whole")
    )
    assert parts == whole


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--retry-failed"], "no batch in `out` to continue"),
        (["--concurrency", "0"], "expected 1 to 256"),
        (["--shard", "2/2"], "i from 0 to n-1"),
        (["--shard", "x"], "i/n"),
        (["--shard", "7/9"], "no photo in `photos` for this shard"),
        (["--photos", "nowhere"], "cannot find `nowhere`: expected a folder"),
        (["--photos", "installed"], "no photo in `installed`"),
        (["--photos", ""], "--photos is empty: expected a name"),
        (["--edit", "age"], "name=strength"),
        (["--edit", "nose=1"], "age, smile"),
        (["--steps", "3"], "--steps is for the refinement, which --fast leaves out"),
        (["--method", "im2s"], "no encoder"),
        (["--photos", "bad.jsonl"], 'line 2 of `bad.jsonl` is not an object with a "photo"'),
        (["--photos", "more.jsonl"], "unknown key `size`: expected photo, crop and name"),
        (["--photos", "half.jsonl"], "line 1 of `half.jsonl` has a path or a name with half a character"),
        (["--photos", "twice.jsonl"], "two photos of the batch have the same name"),
    ],
)
@pytest.mark.usefixtures("place")
def test_bad_input_is_one_sentence(capsys: pytest.CaptureFixture[str], arguments: list[str], words: str) -> None:
    Path("bad.jsonl").write_text('{"photo": "photos/1.png"}\n[]\n')
    Path("more.jsonl").write_text('{"photo": "photos/1.png", "size": 3}\n')
    Path("half.jsonl").write_text('{"photo": "photos/\\ud800.png"}\n')
    Path("twice.jsonl").write_text('{"photo": "photos/1.png"}\n{"photo": "photos/1.png"}\n')
    assert words in failed(capsys, *arguments)
    assert not list(Path().rglob("*.jpg"))
    # What was refused has begun nothing.
    assert batch(photos="photos/1.png") == 0


@pytest.mark.parametrize("name", ["report.json", "sheet.jpg", "2.png/notes.txt"])
@pytest.mark.usefixtures("place")
def test_a_batch_does_not_begin_over_other_files(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    other = Path("out") / name
    other.parent.mkdir(parents=True)
    other.write_text("mine")
    assert f"`out/{name.partition('/')[0]}` already exists, but no ledger of it: use another --out" in failed(capsys)
    assert other.read_text() == "mine"
    other.unlink()
    assert batch() == 0


@pytest.mark.usefixtures("place")
def test_a_batch_is_continued_as_it_was_begun(capsys: pytest.CaptureFixture[str]) -> None:
    assert batch() == 0
    capsys.readouterr()
    for arguments, words in (
        ([], "`out` already contains a batch: pass --resume"),
        (["--resume", "--edit", "smile=1"], "different options (edits)"),
        (["--resume", "--cut", "8"], "different options (cut)"),
        (["--resume", "--photos", "photos/*.png"], "different options (photos)"),
    ):
        assert words in failed(capsys, *arguments)
    Path("out/ledger.sqlite").write_bytes(b"no ledger" * 100)
    assert "not the ledger of a batch" in failed(capsys, "--resume")
