"""A generator's weights as one safetensors file: what ``python -m export fetch`` writes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from networks.mapping import MappingNetwork
from networks.mobilestylegan import MobileStyleGAN


class GeneratorError(ValueError):
    """The generator's weights are missing or are not what this version was made for."""


@dataclass(frozen=True, kw_only=True)
class Generator:
    """A generator in evaluation mode, without gradients on its weights."""

    mapping: MappingNetwork
    synthesis: MobileStyleGAN
    fingerprint: str


def read_generator(path: Path) -> Generator:
    """Load a generator on the CPU.

    Raises:
        GeneratorError: the file is missing or damaged.
    """
    if not path.exists():
        raise GeneratorError(f"there is no generator at {path}; run: python -m export fetch")
    try:
        state = load_file(path)
        with safe_open(path, framework="pt") as file:
            mark = (file.metadata() or {}).get("fingerprint", "")
    except SafetensorError:
        raise GeneratorError(f"{path} is damaged; run: python -m export fetch") from None
    mapping, synthesis = MappingNetwork(), MobileStyleGAN()
    mapping.load_state_dict({k.removeprefix("mapping."): v for k, v in state.items() if k.startswith("mapping.")})
    synthesis.load_state_dict({k.removeprefix("synthesis."): v for k, v in state.items() if k.startswith("synthesis.")})
    return Generator(
        mapping=mapping.eval().requires_grad_(False),
        synthesis=synthesis.eval().requires_grad_(False),
        fingerprint=mark,
    )
