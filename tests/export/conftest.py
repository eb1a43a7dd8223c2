"""Fixtures of all tests of the build."""

from __future__ import annotations

import sys
import types

import pytest


@pytest.fixture
def nvlabs_modules(monkeypatch: pytest.MonkeyPatch) -> types.SimpleNamespace:
    """``torch_utils.persistence`` and ``dnnlib.util``, for writing; the reader is used without them."""

    def _reconstruct_persistent_obj(meta: object) -> object:
        raise AssertionError(meta)

    class EasyDict(dict[str, object]):
        def __getattr__(self, name: str) -> object:
            try:
                return self[name]
            except KeyError as exc:
                raise AttributeError(name) from exc

    for full, thing in (("torch_utils.persistence", _reconstruct_persistent_obj), ("dnnlib.util", EasyDict)):
        package, module = types.ModuleType(full.split(".")[0]), types.ModuleType(full)
        thing.__module__, thing.__qualname__ = full, thing.__name__
        setattr(module, thing.__name__, thing)
        setattr(package, full.split(".")[1], module)
        monkeypatch.setitem(sys.modules, package.__name__, package)
        monkeypatch.setitem(sys.modules, full, module)
    return types.SimpleNamespace(EasyDict=EasyDict)
