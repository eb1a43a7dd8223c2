"""The generator's weights: fetched as published, converted once, loaded by everything else."""

from __future__ import annotations

import hashlib
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from assets.paths import ROOT, generator_file
from assets.wheels import extract
from export.checkpoints.openvino_ir import Array, mapping_state, synthesis_state
from networks.generator_file import (
    Generator,
    GeneratorError,
    fingerprint,
    generator_metadata,
    read_generator,
    save_generator,
)
from networks.mapping import STYLE_DIM, MappingNetwork
from networks.mobilestylegan import MobileStyleGAN

# sha256 of what is taken out of the wheel; the package itself is never imported.
FILES = {
    "MappingNetwork.xml": "73e2096cad6e696e4af47df2477e048ab4c42c0e0dec83c7c66604822689e55b",
    "MappingNetwork.bin": "212dd716bdb556e18db603ea97300d4fa3c872b878c726b2402fea80820e7305",
    "SynthesisNetwork.xml": "7918fce515243954d3e06628cb39a23902d6b1d5d02932cc0c2faee7a2aeeedd",
    "SynthesisNetwork.bin": "c7da15fa22d508c82e1c30dd6b4cdf67fe3ccdddaf85b310ee764dbf0c289645",
}
CODE = (
    "export/generator.py",
    "export/checkpoints/openvino_ir.py",
    "networks/generator_file.py",
    "networks/mapping.py",
    "networks/mobilestylegan.py",
)
MEAN_SAMPLES = 100_000
# In the metadata of a generator's file: "true" where its pictures are faces.
FACES = "faces"


def extract_ir(folder: Path) -> None:
    """Copy the IR files out of the pinned wheel into ``folder`` and check each one's sha256."""
    for name, sha256 in FILES.items():
        extract("random_face", f"random_face/data/{name}", folder / name)
        if hashlib.sha256((folder / name).read_bytes()).hexdigest() != sha256:
            raise GeneratorError(f"{name} in the random_face wheel is not the published file: its sha256 differs")


def fetch(domain: str) -> Path:
    """Download and convert the generator unless that is done; returns the safetensors file."""
    target = generator_file(domain)
    if target.exists() and _is_current(target):
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=target.parent) as scratch:
        folder = Path(scratch)
        extract_ir(folder)
        mapping, synthesis = MappingNetwork(), MobileStyleGAN()
        mapping.load_state_dict(
            {**_tensors(mapping_state(folder / "MappingNetwork.xml")), "w_avg": torch.zeros(STYLE_DIM)}
        )
        mapping.w_avg.copy_(mean_w(mapping))
        synthesis.load_state_dict(_tensors(synthesis_state(folder / "SynthesisNetwork.xml")))
        save_generator(mapping, synthesis, target, domain=domain, metadata={"stamp": _stamp(), FACES: "true"})
    return target


def _stamp() -> str:
    """sha256 over what the file is made from: the published files and the code that converts them."""
    digest = hashlib.sha256(repr(sorted(FILES.items())).encode())
    for code in CODE:
        digest.update((ROOT / code).read_bytes())
    return digest.hexdigest()


def _is_current(path: Path) -> bool:
    """Whether the file is whole, and was made from the same files by the same code."""
    try:
        metadata = generator_metadata(path)
        return metadata.get("stamp") == _stamp() and metadata["fingerprint"] == fingerprint(load_file(path))
    except (GeneratorError, SafetensorError, OSError):
        return False


@torch.no_grad()
def mean_w(mapping: MappingNetwork) -> Tensor:
    """The mean of W over 100 000 seeded samples, float32 [512]."""
    rng = torch.Generator().manual_seed(0)
    total = torch.zeros(STYLE_DIM, dtype=torch.float64)
    for _ in range(10):
        total += mapping(torch.randn(MEAN_SAMPLES // 10, STYLE_DIM, generator=rng)).double().sum(dim=0)
    return (total / MEAN_SAMPLES).float()


def load_generator(domain: str) -> Generator:
    """Load the fetched generator on the CPU.

    Raises:
        GeneratorError: it has not been fetched, or the file is damaged.
    """
    return read_generator(generator_file(domain))


def shows_faces(domain: str) -> bool:
    """Whether a domain's pictures are faces, as its import found."""
    return generator_metadata(generator_file(domain)).get(FACES) == "true"


def _tensors(state: dict[str, Array]) -> dict[str, Tensor]:
    return {name: torch.from_numpy(value.copy()) for name, value in state.items()}
