"""Several domains in one repository: imported generators of two families, in both formats."""

from __future__ import annotations

import io
import subprocess
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from client.api import Inverter
from client.errors import GeneratorMismatch, ModelMissing
from client.files.direction import Direction
from client.files.inversion import Inversion
from client.frames.frame import Frame
from export.__main__ import main
from server.triton import LocalTriton
from tests.export.published import saved
from tests.export.publishers import rosinality_file, stylegan2, stylegan_file


@dataclass(frozen=True)
class Domain:
    """An imported generator and its export options."""

    name: str
    side: int
    f: tuple[int, int, int]
    styles: int
    options: tuple[str, ...]


PLAIN = Domain("plain", 32, (16, 16, 16), 4, ())
SCRIPTED = Domain("scripted", 128, (16, 16, 16), 7, ("--format", "torchscript"))
HALF = Domain("half", 32, (16, 16, 16), 4, ("--format", "torchscript", "--precision", "bf16"))
DOMAINS = (PLAIN, SCRIPTED, HALF)


@dataclass(frozen=True)
class House:
    """The folder with the imported domains, and the server that serves them."""

    folder: Path
    server: LocalTriton

    def export(self, command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run ``python -m export`` with a separate build folder."""
        return export(self.folder, command, *arguments)

    def directions(self, domain: Domain) -> Path:
        return self.folder / "directions" / domain.name


def export(folder: Path, command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """As ``python -m export``, but in this process, which has imported torch already."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setenv("UNALIGNED_BUILD", str(folder / "build"))
        status = main([command, *arguments])
    return subprocess.CompletedProcess([command, *arguments], status, out.getvalue(), err.getvalue())


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("domains")
    rosinality_file(*stylegan2(), folder / "stylegan2.pt")
    state, _ = stylegan_file()
    (folder / "stylegan.pth").write_bytes(saved({"generator_smooth": state}))
    for domain in DOMAINS:
        done = export(
            folder, "import", str(folder / ("stylegan.pth" if domain is SCRIPTED else "stylegan2.pt")),
            f"--domain={domain.name}", "--mapped=20000", f"--weights={folder / 'weights' / domain.name}",
            f"--directions={folder / 'directions' / domain.name}", f"--repository={folder / 'repository'}",
            *domain.options,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "generator " in done.stdout
    with LocalTriton(folder / "repository", http_port=None, metrics_port=None, timeout=600, grace=0) as server:
        yield House(folder, server)


@pytest.mark.parametrize("domain", DOMAINS, ids=lambda d: d.name)
def test_files_and_served_models_agree_with_torch(house: House, domain: Domain) -> None:
    # A random network of 32 px is bf16 from the first block on: edits of W+ there miss 45 dB by a little.
    cuts = ["--cuts", "16", "8"] if domain is HALF else []
    done = house.export("verify", f"--domain={domain.name}", f"--url={house.server.url}", *cuts, *domain.options)
    assert done.returncode == 0, done.stdout + done.stderr
    backend = "pytorch" if "torchscript" in domain.options else "onnxruntime"
    for model in ("mapping", "coarse", "fine", "shift"):
        assert f"| {domain.name}_{model} |" in done.stdout
    assert f"| {backend} |" in done.stdout
    assert "| served |" in done.stdout
    assert (" dB |" in done.stdout) == (domain is HALF)


@pytest.mark.parametrize("domain", DOMAINS, ids=lambda d: d.name)
def test_a_client_draws_from_each_domain(house: House, domain: Domain) -> None:
    with Inverter(house.server.url, domain=domain.name) as inverter:
        first, second = inverter.generate(1), inverter.generate(2)
    assert first.shape == (domain.side, domain.side, 3)
    assert np.abs(first.astype(int) - second).max() > 8


@pytest.mark.parametrize("domain", DOMAINS, ids=lambda d: d.name)
def test_edits_move_the_styles_behind_the_cut(house: House, domain: Domain) -> None:
    direction = Direction.load(house.directions(domain) / "pca_00.safetensors")
    inversion = code(domain, generator=direction.generator)
    with Inverter(house.server.url, domain=domain.name) as inverter:
        left, same, right = inverter.edit(inversion, direction, (-3, 0, 3))
        rendered = inverter.render(inversion)
    assert np.abs(same.astype(int) - rendered).max() <= (3 if domain is HALF else 1)
    assert np.abs(left.astype(int) - right).max() > 8


@pytest.mark.parametrize("domain", DOMAINS, ids=lambda d: d.name)
def test_w_plus_needs_no_training(house: House, domain: Domain, tmp_path: Path) -> None:
    """The mean of W in W+ shows what psi 0 shows, in every family, and moves along a direction."""
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8)).save(tmp_path / "noise.png")
    direction = Direction.load(house.directions(domain) / "pca_00.safetensors")
    with Inverter(house.server.url, domain=domain.name) as inverter:
        mean = inverter.invert(tmp_path / "noise.png", method="im2s")
        assert mean.inversion.f.shape[1:] == (4, 4)
        rendered = inverter.render(mean.inversion)
        left, right = inverter.edit(mean.inversion, direction, (-3, 3))
        with pytest.raises(ModelMissing, match=f"{domain.name}_cut4_invert"):
            inverter.invert(tmp_path / "noise.png", method="psp")
    assert np.array_equal(rendered, mean.reconstruction)
    assert rendered.shape == (domain.side, domain.side, 3)
    assert rendered.std() > 0
    assert np.abs(left.astype(int) - right).max() > 8


def test_an_inversion_of_one_domain_is_refused_by_another(house: House) -> None:
    generator = Direction.load(house.directions(SCRIPTED) / "pca_00.safetensors").generator
    with Inverter(house.server.url, domain=PLAIN.name) as inverter, pytest.raises(GeneratorMismatch):
        inverter.render(code(SCRIPTED, generator=generator))


def test_a_repository_changes_its_format_and_leaves_no_file_of_the_other(house: House, tmp_path: Path) -> None:
    for options, kept in ((PLAIN.options, "model.onnx"), (SCRIPTED.options, "model.pt")):
        for command in ("graphs", "repository"):
            target = [f"--repository={tmp_path}"] if command == "repository" else []
            done = house.export(command, f"--domain={PLAIN.name}", *target, *options)
            assert done.returncode == 0, done.stderr
        found = sorted(path.name for path in tmp_path.glob("*/1/*"))
        assert found == [kept] * 9  # four of the default cut, two at 8x8, three of W+
        backend = "pytorch" if kept == "model.pt" else "onnxruntime"
        assert f'backend: "{backend}"' in (tmp_path / "plain_fine/config.pbtxt").read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nothing.pt", "--domain=other"], "no checkpoint at `nothing.pt`"),
        (["stylegan2.pt", "--domain=ffhq"], "domain `ffhq` holds the generator that ships with the project"),
        (["stylegan2.pt", "--domain=scripted"], "domain `scripted` already has generator"),
        (["cut.pt", "--domain=other"], "cannot read `cut.pt`: it is cut short"),
        (["evil.pkl", "--domain=other"], "evil.pkl"),
    ],
)
def test_a_rejected_import_leaves_no_files(house: House, arguments: list[str], said: str) -> None:
    (house.folder / "cut.pt").write_bytes((house.folder / "stylegan2.pt").read_bytes()[:5000])
    (house.folder / "evil.pkl").write_bytes(b"cos\nsystem\n(S'touch evil'\ntR.")
    before = {path: path.stat().st_mtime_ns for path in house.folder.rglob("*")}
    path = str(house.folder / arguments[0]) if arguments[0] != "nothing.pt" else arguments[0]
    done = house.export(
        "import", path, arguments[1], "--mapped=20000", f"--weights={house.folder / 'other'}",
        f"--directions={house.folder / 'other'}", f"--repository={house.folder / 'other'}",
    )  # fmt: skip
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert {path: path.stat().st_mtime_ns for path in house.folder.rglob("*")} == before


def code(domain: Domain, *, generator: str) -> Inversion:
    """A random inversion of a domain."""
    rng = torch.Generator().manual_seed(0)
    f = torch.randn(domain.f, generator=rng).numpy()
    return Inversion(
        f=f, f_o=f, w_m_plus=torch.randn(domain.styles, 512, generator=rng).numpy(), generator=generator,
        domain=domain.name, cut=16, frame=Frame.crop(0, 0, 64), photo_size=(64, 64), photo_sha256="0" * 64,
        photo_name="none.png", method="encoder", versions={},
    )  # fmt: skip
