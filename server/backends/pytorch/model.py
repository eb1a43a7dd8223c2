"""The Python-based ``pytorch`` backend: runs the TorchScript ``<version>/model.pt`` of an unchanged repository.

Names follow the native backend: inputs are matched to the arguments of ``forward`` where all agree, else by the index
in ``NAME__INDEX``, else in the order of the config; outputs by index, else in order. Honours the config parameters
``INTRA_OP_THREAD_COUNT`` and ``INTER_OP_THREAD_COUNT``.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from server.backends.common.batching import Array, bounds, count, respond, specs
else:
    from batching import bounds, count, respond, specs


class TritonPythonModel:
    """One instance of a model, with its own module."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the module and settle which tensor is which.

        Raises:
            ValueError: the config asks for what is not supported, or its names do not fit the module.
            FileNotFoundError: there is no module.
        """
        # Imported here, because the server also loads this file only to complete the config.
        import torch

        # The server's memory arrives as read-only views.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        config: dict[str, Any] = json.loads(args["model_config"])
        self._batching = config["max_batch_size"] > 0
        inputs = [spec.name for spec in specs(config, "input")]
        outputs = [spec.name for spec in specs(config, "output")]
        self._largest = bounds(config, specs(config, "input"))
        if threads := count(config, "INTRA_OP_THREAD_COUNT"):
            torch.set_num_threads(threads)
        if threads := count(config, "INTER_OP_THREAD_COUNT"):
            torch.set_num_interop_threads(threads)
        path = Path(args["model_repository"], args["model_version"], config["default_model_filename"] or "model.pt")
        if not path.is_file():
            raise FileNotFoundError(f"there is no module at {path}")
        on_gpu = args["model_instance_kind"] == "GPU" and torch.cuda.is_available()
        self._device = torch.device("cuda", int(args["model_instance_device_id"])) if on_gpu else torch.device("cpu")
        load: Any = torch.jit.load
        self._module = load(str(path), map_location=self._device).eval()
        arguments = [argument.name for argument in self._module.forward.schema.arguments[1:]]
        self._inputs = [name for name in arguments if name in inputs]
        if set(self._inputs) != set(inputs):
            self._inputs = _by_index(inputs, "input")
        self._outputs = _by_index(outputs, "output")

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer a batch of requests, in order."""
        return respond(requests, self._run, batching=self._batching, largest=self._largest)

    def _run(self, inputs: dict[str, Array], outputs: list[str]) -> Sequence[Array]:
        import torch

        with torch.inference_mode():
            tensors = [torch.from_numpy(inputs[name]).to(self._device) for name in self._inputs]
            result = self._module(*tensors)
        results = list(result) if isinstance(result, tuple | list) else [result]
        if len(results) < len(self._outputs):
            raise ValueError(f"the module gave {len(results)} outputs, the config lists {len(self._outputs)}")
        by_name = dict(zip(self._outputs, results, strict=False))
        return [by_name[name].cpu().contiguous().numpy() for name in outputs]


def _by_index(names: list[str], key: str) -> list[str]:
    indices = [re.fullmatch(r".*__(\d+)", name) for name in names]
    if not all(indices):
        return names
    ordered = sorted(names, key=lambda name: int(name.rpartition("__")[2]))
    if [int(name.rpartition("__")[2]) for name in ordered] != list(range(len(names))):
        raise ValueError(f"the indices of the {key} names {names} are not 0 to {len(names) - 1}")
    return ordered
