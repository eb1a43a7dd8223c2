"""The project's own files of a generator (``networks.generator_file``), made elsewhere."""

from __future__ import annotations

import json

from export.checkpoints.conversion import ConversionError, Converted, Source
from networks.generator_file import built
from networks.mapping import MappingNetwork


def generator(source: Source) -> Converted:
    """Mapping and synthesis.

    Raises:
        ConversionError: see :mod:`export.checkpoints.conversion`.
    """
    try:
        synthesis = built(json.loads(str(source.attributes.get("network"))))
    except (TypeError, ValueError, AttributeError) as error:
        raise ConversionError("the file's metadata does not describe a network") from error
    depth = len(source.names(r"mapping\.layers\.\d+\.weight"))
    mapping = MappingNetwork(depth=depth)
    for prefix, network in (("mapping", mapping), ("synthesis", synthesis)):
        state = network.state_dict()
        network.load_state_dict({k: source.take(f"{prefix}.{k}", *v.shape) for k, v in state.items()})
    return Converted(mapping=mapping, synthesis=synthesis, has_w_avg=True)
