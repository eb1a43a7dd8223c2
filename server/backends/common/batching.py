"""Requests in, responses out: what the Python-based backends share.

Copied beside each backend's ``model.py`` when the server is assembled; it runs inside the server's Python process.

Tensors cross by DLPack in both directions. The server's ``as_numpy`` and ``Tensor(name, array)`` were compiled for
NumPy 1, and under NumPy 2 they move no bytes at all, without an error.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import triton_python_backend_utils as pb_utils

Array = npt.NDArray[Any]
# Takes the inputs by name and the names of the wanted outputs; gives these outputs in that order.
Run = Callable[[dict[str, Array], list[str]], Sequence[Array]]

# The id of requests with which the launcher asks for a sign of life (server/probe.py).
PROBE = "unaligned-probe"

# The server marks a capsule it took over by another name than the standard's, which NumPy would complain about.
_USED = ctypes.create_string_buffer(b"used_dltensor")
_set_capsule_name = ctypes.pythonapi.PyCapsule_SetName
_set_capsule_name.argtypes = [ctypes.py_object, ctypes.c_void_p]
_set_capsule_name.restype = ctypes.c_int


@dataclass(frozen=True)
class ModelTensor:
    """A tensor of a model: its name, its Triton type (``TYPE_FP32``), its dims with the batch in front (-1: any)."""

    name: str
    data_type: str
    dims: tuple[int, ...]


@dataclass(frozen=True)
class _Entry:
    """One request of a batch: its place in it, what its sender calls it, its inputs, and the outputs it asks for."""

    index: int
    request_id: str
    inputs: dict[str, Array]
    outputs: list[str]

    @property
    def size(self) -> int:
        return int(next(iter(self.inputs.values())).shape[0])


def specs(config: dict[str, Any], key: str) -> list[ModelTensor]:
    """Read the tensors listed under ``key`` ("input" or "output") of a model's config.

    Raises:
        ValueError: the config lists none, or one of a type that cannot cross (strings, BF16).
    """
    found = []
    for tensor in config.get(key, []):
        if tensor["data_type"] in ("TYPE_STRING", "TYPE_BF16", "TYPE_INVALID"):
            raise ValueError(
                f"{key} '{tensor['name']}' has the type {tensor['data_type']}, which is not supported here"
            )
        dims = tensor.get("reshape", {}).get("shape", tensor["dims"])
        batch = (-1,) if config["max_batch_size"] > 0 else ()
        found.append(ModelTensor(tensor["name"], tensor["data_type"], (*batch, *(int(dim) for dim in dims))))
    if not found:
        raise ValueError(f"the config lists no {key}")
    return found


def count(config: dict[str, Any], key: str) -> int | None:
    """Read a count (0 or more) from the config's parameters, or None if it is absent.

    Raises:
        ValueError: it is not a count.
    """
    if key not in config.get("parameters", {}):
        return None
    text = config["parameters"][key]["string_value"]
    if not text.isascii() or not text.isdigit():
        raise ValueError(f"the parameter {key} is '{text}', not a count")
    return int(text)


def bounds(config: dict[str, Any], inputs: Sequence[ModelTensor]) -> dict[str, int]:
    """Read the largest size of each input's variable dims (parameter ``largest_NAME``) from the config.

    Raises:
        ValueError: one is not a count.
    """
    found = {spec.name: count(config, f"largest_{spec.name}") for spec in inputs}
    return {name: largest for name, largest in found.items() if largest is not None}


def respond(
    requests: Sequence[Any], run: Run, *, batching: bool, largest: Mapping[str, int] = MappingProxyType({})
) -> list[Any]:
    """Run all ``requests`` and give a response to each, in order.

    A probe is answered without running the model, and without outputs.

    An input with a dim above its bound in ``largest`` is refused before the model sees it: a few bytes could ask for
    gigabytes of output, and shared memory that has grown does not shrink.

    With ``batching``, requests whose inputs agree in all but dim 0 run as one, concatenated along it. A request that
    fails, fails alone: when a batch raises, each of its requests runs by itself.
    """
    responses: list[Any] = [None] * len(requests)
    groups: dict[Hashable, list[_Entry]] = {}
    for index, request in enumerate(requests):
        if request.is_cancelled():
            responses[index] = _error("the request was cancelled", pb_utils.TritonError.CANCELLED)
            continue
        if request.request_id() == PROBE:
            responses[index] = _response([], [])
            continue
        inputs = {tensor.name(): np.from_dlpack(tensor) for tensor in request.inputs()}
        if too_large := _too_large(inputs, largest):
            responses[index] = _error(too_large, pb_utils.TritonError.INVALID_ARG)
            continue
        entry = _Entry(index, request.request_id(), inputs, list(request.requested_output_names()))
        key = frozenset((name, array.dtype.str, array.shape[1:]) for name, array in inputs.items())
        groups.setdefault(key if batching else index, []).append(entry)
    for group in groups.values():
        _run_group(group, run, responses)
    return responses


def _too_large(inputs: Mapping[str, Array], largest: Mapping[str, int]) -> str:
    for name, bound in largest.items():
        if name in inputs and max(inputs[name].shape, default=0) > bound:
            return f"input '{name}' has the shape {list(inputs[name].shape)}, but its dims may be at most {bound}"
    return ""


def _run_group(group: list[_Entry], run: Run, responses: list[Any]) -> None:
    if len(group) == 1:
        entry = group[0]
        try:
            arrays = run(entry.inputs, entry.outputs)
            responses[entry.index] = _response(entry.outputs, arrays)
        except Exception as error:
            message = " ".join(str(error).split()) or type(error).__name__
            pb_utils.Logger.log_error(f"[request id: {entry.request_id or '<id_unknown>'}] {message}")
            responses[entry.index] = _error(message)
        return
    names = list(dict.fromkeys(name for entry in group for name in entry.outputs))
    try:
        joined = {name: np.concatenate([entry.inputs[name] for entry in group]) for name in group[0].inputs}
        outputs = dict(zip(names, run(joined, names), strict=True))
        _check_batch(outputs, sum(entry.size for entry in group))
        start = 0
        for entry in group:
            arrays = [outputs[name][start : start + entry.size] for name in entry.outputs]
            responses[entry.index] = _response(entry.outputs, arrays)
            start += entry.size
    except Exception:
        for entry in group:
            _run_group([entry], run, responses)


def _check_batch(outputs: dict[str, Array], size: int) -> None:
    for name, array in outputs.items():
        if array.ndim == 0 or array.shape[0] != size:
            raise ValueError(f"output '{name}' does not keep the batch of {size} in dim 0")


def _response(names: Sequence[str], arrays: Sequence[Array]) -> Any:
    tensors = [_tensor(name, array) for name, array in zip(names, arrays, strict=True)]
    return pb_utils.InferenceResponse(output_tensors=tensors)


def _tensor(name: str, array: Array) -> Any:
    if array.size == 0:
        return pb_utils.Tensor(name, array)
    # The server takes dims of size 1 with odd strides for not contiguous; a reshape writes them anew without a copy.
    capsule = np.ascontiguousarray(array).reshape(-1).reshape(array.shape).__dlpack__()
    tensor = pb_utils.Tensor.from_dlpack(name, capsule)
    _set_capsule_name(capsule, ctypes.addressof(_USED))
    return tensor


def _error(message: str, code: int | None = None) -> Any:
    error = pb_utils.TritonError(message) if code is None else pb_utils.TritonError(message, code)
    return pb_utils.InferenceResponse(output_tensors=[], error=error)
