"""Unusual surroundings: pipes that close, signals, terminals without Unicode, files that are none, hostile settings."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from client import Direction, DirectionError, Inversion, InversionError, OutputError, ParameterError, cli
from client.atomic import sweep, write_all
from client.wire.access import is_local, token_of
from client.wire.settings import endpoints
from tests.client.fakes import direction_file
from tests.client.running import FILE, failed
from tests.client.test_refine_stopped import interrupt

CLIENT = [sys.executable, "-m", "client"]


def ran(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([*CLIENT, *arguments], stderr=subprocess.PIPE, text=True, check=False, timeout=120, **options)
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr
    return done


@pytest.mark.parametrize(
    "arguments", [["directions"], ["directions", "--json"], ["--help"], ["invert", "--help"], ["--version"]]
)
def test_a_reader_that_goes_away_is_no_trouble(arguments):
    reading, writing = os.pipe()
    os.close(reading)
    done = ran(*arguments, stdout=writing)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize("arguments", [["directions"], ["--help"]])
def test_a_full_standard_output_is_reported(arguments):
    with Path("/dev/full").open("w") as full:
        done = ran(*arguments, stdout=full)
    assert done.returncode == 2
    assert done.stderr == "error: cannot write to the standard output: no space left on device\n"


@pytest.mark.parametrize(
    ("command", "code", "out", "error"),
    [
        ("--version >&-", 2, "", "error: cannot write to the standard output: bad file descriptor\n"),
        ("directions --json >&-", 2, "", "error: cannot write to the standard output: bad file descriptor\n"),
        ("invert none.png --json 2>&-", 2, '{"error": ', ""),
        ("nothing 2>&-", 2, "", ""),
        ("nothing >&- 2>&-", 2, "", ""),
        ("directions <&- >&- 2>&-", 2, "", ""),
    ],
)
def test_streams_that_are_closed_are_no_traceback(command, code, out, error):
    done = subprocess.run(["sh", "-c", f"'{sys.executable}' -m client {command}"], capture_output=True, check=False)
    assert (done.returncode, done.stderr.decode()) == (code, error)
    assert done.stdout.decode().startswith(out) and bool(out) == bool(done.stdout)


@pytest.mark.usefixtures("place")
def test_a_terminal_without_unicode_gets_escapes(tmp_path):
    Path("me.png").rename("mé.png")
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = ran("invert", "--fast", "mé.png", cwd=tmp_path, env=environment, stdout=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Inverted m\\xe9.png" in done.stdout
    done = ran("invert", "nö.png", cwd=tmp_path, env=environment, stdout=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (2, "error: cannot read `n\\xf6.png`: the file does not exist\n")


def test_sigterm_leaves_the_last_checkpoint(place, sidecar):
    code, output, error = interrupt(
        place, sidecar, "invert", "me.png", "--checkpoint-every", "10", at=20, number=signal.SIGTERM
    )
    assert (code, output) == (143, "")
    assert error == f"error: terminated; the inversion of step 20 is in {FILE}: continue with `client refine {FILE}`\n"
    assert Inversion.load(FILE).refinement.step == 20


def test_ctrl_c_at_the_very_start_is_no_traceback(place):
    early = "import client.__main__, os, signal, time; os.kill(os.getpid(), signal.SIGINT); time.sleep(60)"
    done = subprocess.run([sys.executable, "-c", early], cwd=place, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (-signal.SIGINT, "")


@pytest.mark.parametrize("attempt", range(4))
def test_ctrl_c_while_it_loads_is_no_traceback(attempt, place):
    command = [*CLIENT, "invert", "--fast", "me.png", "--url", "127.0.0.1:1", "--timeout", "20"]
    with subprocess.Popen(command, cwd=place, stderr=subprocess.PIPE, text=True) as process:
        time.sleep(0.35 + 0.2 * attempt + random.random() / 10)
        process.send_signal(signal.SIGINT)
        error = process.communicate()[1]
    # The interpreter itself was interrupted, or the command, or it was over.
    assert process.returncode in (130, -signal.SIGINT, 3, 1)
    assert "client/" not in error or "KeyboardInterrupt" not in error


@pytest.mark.parametrize("code", [130, 143])
def test_an_interrupted_command_waits_for_nothing_at_its_end(place, code):
    # As gRPC waits for a channel whose closing was interrupted.
    waiting = f"""
import threading
from client import __main__, cli
threading.Thread(target=threading.Event().wait).start()
cli.main = lambda: {code}
__main__.main()
"""
    command = [sys.executable, "-c", waiting]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (code, "")


@pytest.mark.parametrize(
    ("url", "local"),
    [
        ("localhost:1", True),
        ("127.0.0.1:1", True),
        ("127.9.8.7:1", True),
        ("[::1]:1", True),
        ("127.attacker.example:1", False),
        ("127.0.0.1.example:1", False),
        ("localhost.example:1", False),
        ("10.0.0.1:1", False),
        ("[fe80::1]:1", False),
    ],
)
def test_addresses_of_this_machine_are_parsed(url, local):
    assert is_local(url) is local


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("a = " + "[" * 5000 + "]" * 5000, "not TOML"),
        ('tls-ca = "~nosuchuser-at-all/ca.crt"', "no such user"),
        ('token = "@~nosuchuser-at-all/token"', "no such user"),
        ('url = "' + "x" * 70_000 + '"', "larger than 64 KiB"),
    ],
)
def test_configurations_that_are_hostile_are_one_line(content, words, tmp_path):
    (tmp_path / "c.toml").write_text(content)
    with pytest.raises(ParameterError, match=words) as caught:
        endpoints({"config": str(tmp_path / "c.toml")}, {})
    assert str(caught.value).isprintable()


@pytest.mark.usefixtures("place")
def test_pipes_are_not_waited_for(capsys):
    os.mkfifo("pipe.jsonl")
    with pytest.raises(ParameterError, match="not a regular file"):
        token_of("@pipe.jsonl")
    with pytest.raises(ParameterError, match="not a regular file"):
        endpoints({"config": "pipe.jsonl"}, {})
    assert "not a regular file" in failed(capsys, "batch", "edit", "--fast", "--photos", "pipe.jsonl", "--out", "b")
    with pytest.raises(OutputError, match="not a regular file"):
        write_all({Path("pipe.jsonl"): b""})
    assert Path("pipe.jsonl").is_fifo()


def test_metadata_that_is_null_is_no_metadata(tmp_path):
    header = b'{"__metadata__":null}   '
    (tmp_path / "it.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(InversionError):
        Inversion.load(tmp_path / "it.safetensors")
    with pytest.raises(DirectionError):
        Direction.load(tmp_path / "it.safetensors")


def test_only_our_own_temporary_files_are_swept(tmp_path):
    (tmp_path / "one").mkdir()
    ours = [tmp_path / f".{'0a' * 8}.tmp", tmp_path / f"one/.{'f' * 16}.tmp"]
    others = [tmp_path / ".x.tmp", tmp_path / "one/result.tmp"]
    for path in (*ours, *others):
        path.write_bytes(b"")
    sweep(tmp_path)
    assert [path.exists() for path in ours] == [False, False]
    assert [path.exists() for path in others] == [True, True]


def test_two_directions_in_one_edit_are_refused(place, capsys):
    assert cli.main(["invert", "--fast", "me.png"]) == 0
    capsys.readouterr()
    assert "two directions in one edit, `age` and `smile`" in failed(
        capsys, "edit", FILE, "--direction", "age", "--strength", "1", "--direction", "smile", "--strength", "2"
    )
    assert not list((place / "out").rglob("*age*"))


@pytest.mark.usefixtures("place")
def test_nothing_finished_is_replaced_without_force(capsys):
    assert cli.main(["generate", "--seed", "7"]) == 0
    assert cli.main(["generate", "--seed", "7", "--psi", "0.5"]) == 0
    assert sorted(path.name for path in Path("out/generated").iterdir()) == ["seed-7.png", "seed-7.psi+0.5.png"]
    assert cli.main(["invert", "me.png", "--edit", "age=1"]) == 0
    before = {path: path.read_bytes() for path in Path("out/me").iterdir()}
    capsys.readouterr()
    assert "pass --force" in failed(capsys, "invert", "--fast", "me.png")
    # A finished inversion and its edits stay beside what is refined from it.
    assert cli.main(["refine", FILE]) == 0
    assert cli.main(["refine", FILE]) == 0
    assert {path: path.read_bytes() for path in before} == before
    assert Path("out/me/me.refined-2.inversion.safetensors").is_file()
    assert cli.main(["refine", FILE, "--force"]) == 0
    assert not Path("out/me/me.age+1.png").exists()


@pytest.mark.usefixtures("place")
def test_another_photo_of_the_same_name_has_its_own_results(capsys):
    Path("d2").mkdir()
    Image.new("RGB", (70, 70), "red").save("d2/me.jpg")
    assert cli.main(["invert", "--fast", "me.png"]) == 0
    first = Path(FILE).read_bytes()
    assert cli.main(["invert", "--fast", "d2/me.jpg"]) == 0
    assert Path(FILE).read_bytes() == first
    (other,) = Path("out").glob("me-*/me-*.inversion.safetensors")
    assert Inversion.load(other).photo_name == "me.jpg"
    # The edits of the second would have the names of the first's.
    assert cli.main(["edit", FILE, "--direction", "age", "--strength", "1", "--out", "e"]) == 0
    capsys.readouterr()
    other.rename("me.inversion.safetensors")
    Inversion.load("me.inversion.safetensors")
    Image.effect_noise((80, 80), 90).save("e/me.age+1.png")
    message = failed(
        capsys,
        *("edit", "me.inversion.safetensors", "--photo", "d2/me.jpg"),
        *("--direction", "age", "--strength", "1", "--out", "e"),
    )
    assert "already exists" in message


def test_a_direction_whose_file_changed_is_another_choice(place, capsys):
    own = direction_file(place / "own.safetensors")
    (place / "photos").mkdir()
    Path("me.png").rename("photos/me.png")
    batch = ["batch", "edit", "--fast", "--photos", "photos", "--out", "b", "--edit", f"{own}=1"]
    assert cli.main(batch) == 0
    assert cli.main([*batch, "--resume"]) == 0
    direction_file(own, scale="2")
    capsys.readouterr()
    assert "different options (digests)" in failed(capsys, *batch, "--resume")
