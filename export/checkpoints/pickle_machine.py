"""Steps through the instructions of a checkpoint's pickle; imports nothing, calls nothing of the file."""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from typing import BinaryIO, cast

from export.checkpoints.errors import (
    CheckpointError,
    DamagedError,
    UnsafePickleError,
    UnsupportedNetworkError,
)
from export.checkpoints.pickle_records import (
    BROKEN,
    ArrayRecord,
    Budget,
    DTypeRecord,
    NameRecord,
    ObjectRecord,
    Table,
    hashable,
    of,
    printable,
)


class Stream:
    """A file as `pickletools` reads it, never asked for more bytes than it has."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self.file, self.size = file, size

    def read(self, count: int) -> bytes:
        """At most so many bytes."""
        return self.file.read(max(0, min(count, self.size - self.file.tell())))

    def line(self) -> str:
        """The next line, ASCII, at most 4096 characters."""
        return self.file.readline(4096).removesuffix(b"\n").decode("ascii")


_OPCODES = {opcode.code: opcode for opcode in pickletools.opcodes}
_INTEGERS = {"BININT", "BININT1", "BININT2", "LONG1"}
_TEXTS = {"BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"}
_PUSHES = {*_INTEGERS, *_TEXTS, "BINFLOAT", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_EMPTY: dict[str, Callable[[], object]] = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_SET": set}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_PUTS = {"BINPUT", "LONG_BINPUT", "MEMOIZE"}
_GETS = {"BINGET", "LONG_BINGET"}
_FILLS = {"TUPLE", "APPENDS", "SETITEMS", "ADDITEMS"}
_FILLS_ONE = {"APPEND": 1, "SETITEM": 2}
_OTHERS = {"PROTO", "FRAME", "STOP", "MARK", "GLOBAL"}
_BUILDS = {"STACK_GLOBAL", "REDUCE", "NEWOBJ", "BUILD", "BINPERSID"}
_KNOWN = _PUSHES | _PUTS | _GETS | _FILLS | _OTHERS | _BUILDS | {*_CONSTANTS, *_EMPTY, *_TUPLES, *_FILLS_ONE}


class Machine:
    """Steps through one pickle, protocols 2 to 5, and builds records from it."""

    def __init__(self, table: Table, budget: Budget, persistent: Callable[[object], object] | None = None) -> None:
        self.table, self.budget, self.persistent = table, budget, persistent
        self.stack: list[object] = []
        self.marks: list[list[object]] = []
        self.memo: dict[int, object] = {}

    def load(self, stream: Stream) -> object:
        """The value of the pickle that begins where the stream stands, which ends up behind it.

        Raises:
            UnsafePickleError, DamagedError, TooLargeError, UnsupportedNetworkError: see the module's docstring.
        """
        try:
            while True:
                self.budget.spend("instructions")
                code = stream.read(1)
                if not code:
                    raise DamagedError("is cut short")
                opcode = _OPCODES.get(code.decode("latin1"))
                if opcode is None:
                    raise DamagedError("is no whole pickle")
                if opcode.name not in _KNOWN:  # before its argument is decoded
                    raise UnsafePickleError(f"uses the pickle instruction {opcode.name}, which no such file needs")
                if opcode.name == "STOP":
                    return self.stack.pop()
                if opcode.name == "GLOBAL":  # pickletools would take its backslashes for escapes
                    self.stack.append(self.find(stream.line(), stream.line()))
                else:
                    argument = None if opcode.arg is None else opcode.arg.reader(cast(BinaryIO, stream))
                    self.step(opcode.name, argument)
        except CheckpointError:
            raise
        except BROKEN:
            raise DamagedError("is cut short or no whole pickle") from None

    def step(self, name: str, argument: object) -> None:
        """One instruction."""
        stack = self.stack
        if name in _PUSHES:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            stack.append(_EMPTY[name]())
        elif name in _TUPLES:
            values = tuple(stack[-_TUPLES[name] :])
            if len(values) != _TUPLES[name]:
                raise DamagedError("is no whole pickle")
            stack[-_TUPLES[name] :] = [values]
        elif name in _PUTS:
            self.memo[len(self.memo) if name == "MEMOIZE" else of(int, argument)] = stack[-1]
        elif name in _GETS:
            stack.append(self.memo[of(int, argument)])
        elif name == "MARK":
            self.marks.append(stack)
            self.stack = []
        elif name in _FILLS:
            self.stack = self.marks.pop()
            self.fill(name, stack)
        elif name in _FILLS_ONE:
            items = stack[-_FILLS_ONE[name] :]
            del stack[-_FILLS_ONE[name] :]
            self.fill(f"{name}S", items)
        elif name in _BUILDS:
            self.build(name)

    def fill(self, name: str, items: list[object]) -> None:
        """Close a tuple, or put items into the container below them."""
        if name == "TUPLE":
            self.stack.append(tuple(items))
        elif name == "APPENDS":
            of(list, self.stack[-1]).extend(items)
        elif name == "ADDITEMS":
            of(set, self.stack[-1]).update(hashable(item) for item in items)
        else:
            keys = [hashable(key) for key in items[::2]]
            of(dict, self.stack[-1]).update(zip(keys, items[1::2], strict=True))

    def build(self, name: str) -> None:
        """Names, and what is made of them."""
        stack = self.stack
        if name == "STACK_GLOBAL":
            attribute, module = of(str, stack.pop()), of(str, stack.pop())
            stack.append(self.find(module, attribute))
        elif name == "BINPERSID":
            if self.persistent is None:
                raise UnsafePickleError("refers to an object outside of the pickle")
            stack.append(self.persistent(stack.pop()))
        elif name == "BUILD":
            _set_state(stack[-2], stack.pop())
        else:  # REDUCE and NEWOBJ
            arguments, called = of(tuple, stack.pop()), stack.pop()
            function = self.table[called.module, called.attribute] if isinstance(called, NameRecord) else None
            if function is None:
                raise UnsafePickleError("calls something that is not in the table of what may stand in a checkpoint")
            stack.append(function(*arguments))

    def find(self, module: str, attribute: str) -> NameRecord:
        """The name, if it is in the table."""
        if (module, attribute) in self.table:
            return NameRecord(module, attribute)
        if module.startswith("dnnlib.tflib") or module == "tfutil":
            raise UnsupportedNetworkError(
                "holds TensorFlow's networks; convert them to PyTorch with legacy.py of NVlabs' stylegan3 and read that"
            )
        full = printable(f"{module}.{attribute}")
        raise UnsafePickleError(
            f"names {full}, which is not in the table of what may stand in a checkpoint; nothing of it was run"
        )


def _set_state(target: object, state: object) -> None:
    if isinstance(target, ObjectRecord) and target.class_name == "Namespace":
        target.state = of(dict, state)
    elif isinstance(target, ArrayRecord):
        _, target.shape, target.dtype, fortran, target.data = of(tuple, state)
        target.fortran = fortran is True
    elif isinstance(target, DTypeRecord):
        if of(tuple, state)[1] not in {"<", "|", "="}:
            raise DamagedError("holds a numpy array in big-endian order")
    elif not isinstance(target, dict):  # a state dict's _metadata lies in an attribute; nothing here needs it
        raise UnsafePickleError(
            f"sets the attributes of a value of type {type(target).__name__.removesuffix('Record')}"
        )
