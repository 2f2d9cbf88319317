"""The only pickle reader of this project: a small machine that builds lists, dicts, text, numbers and arrays, and runs
nothing.

Python's own unpickler calls whatever a file names. This one knows a fixed list of names (`topo.containers.rebuild`),
each standing for a function written here that checks its arguments and takes no memory that the file does not hold. Any
other name becomes an inert `Foreign`: it is never imported, called or asked for an attribute; the file is read to its
end only to tell what it holds, and then refused. There is no switch to allow more.
"""

from __future__ import annotations

import codecs
import struct
from collections.abc import Callable, Mapping
from mmap import mmap
from typing import Any

from topo.errors import FormatError

# A state dict takes about 25 operations a tensor; 4 million take some seconds and at most about 300 MB of small
# objects.
_MOST_OPERATIONS = 4_000_000
_MOST_DEPTH = 64
# From here on bytes are a view of the file, not a copy.
_LARGE = 1 << 12

Buffer = bytes | mmap | memoryview


class Admitted:
    """A name of the fixed list: a type, which only stands for itself, or a function that rebuilds an array."""

    def __init__(self, name: str, call: Callable[..., Any] | None = None) -> None:
        self.name, self.call = name, call


class Foreign:
    """Whatever a name that is not on the list would have made."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_module = False


class Unfinished:
    """An array that is filled after it was made: `build` takes its state, `finish` gives the value that it stands
    for."""

    def build(self, state: Any) -> None:
        raise corrupt(f"a state for {type(self).__name__}")

    def finish(self, resolve: Callable[[Any], Any]) -> Any:
        raise NotImplementedError


class _Mark:
    pass


_MARK = _Mark()


def corrupt(what: str) -> FormatError:
    return FormatError(f"the pickle is corrupt or hostile: {what}")


class Machine:
    """One pickle after another from `buffer[position:stop]`.

    admitted: (module, name) -> what it stands for. persistent: what a persistent id stands for (torch's storages).
    `run()` gives the object of the next pickle; `position` is then behind it.

    Raises FormatError with what the file holds if it names anything else, and if it is truncated or corrupt.
    """

    def __init__(
        self,
        buffer: Buffer,
        admitted: Mapping[tuple[str, str], Admitted],
        persistent: Callable[[Any], Any] | None = None,
        position: int = 0,
        stop: int | None = None,
    ) -> None:
        self.buffer, self.view = buffer, memoryview(buffer)
        self.admitted, self.persistent = admitted, persistent
        self.position = position
        self.stop = len(self.view) if stop is None else stop
        self.foreign: dict[str, Foreign] = {}

    def run(self) -> Any:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        try:
            for _ in range(_MOST_OPERATIONS):
                code = self.take(1)[0]
                if code == 0x2E:  # STOP
                    root = self.pop()
                    self._refuse_foreign(root)
                    return root
                operation = _OPERATIONS.get(code)
                if operation is None:
                    raise corrupt(f"operation 0x{code:02x} at byte {self.position - 1} is none that arrays need")
                operation(self)
        except FormatError:
            self._refuse_foreign(None)
            raise
        except (IndexError, KeyError, TypeError, ValueError, AttributeError, struct.error, OverflowError) as error:
            self._refuse_foreign(None)
            raise corrupt(f"{type(error).__name__} {error} before byte {self.position}") from None
        raise corrupt(f"more than {_MOST_OPERATIONS:,} operations")

    def _refuse_foreign(self, root: Any) -> None:
        if not self.foreign:
            return
        modules = [name for name, foreign in self.foreign.items() if foreign.is_module]
        if isinstance(root, Foreign) and root.is_module:
            modules = [root.name, *modules]
        first = modules[0] if modules else next(iter(self.foreign))
        others = [name for name in self.foreign if name != first]
        what = f"a pickled module of class '{first}'" if modules else f"'{first}'"
        more = f" (and {', '.join(map(repr, others[:4]))}{', ...' if len(others) > 4 else ''})" if others else ""
        raise FormatError(
            f"it holds {what}{more}, which only running code from the file could rebuild, so it is refused; "
            "its owner can export the masks: torch.save(model.state_dict(), 'masks.pt')"
        )

    def take(self, count: int) -> memoryview:
        """The next `count` bytes."""
        if count < 0 or count > self.stop - self.position:
            raise FormatError(
                f"the pickle is truncated: it promises {count:,} more bytes and {self.stop - self.position:,} follow"
            )
        start, self.position = self.position, self.position + count
        return self.view[start : self.position]

    def line(self) -> bytes:
        """The bytes up to the next newline."""
        if isinstance(self.buffer, memoryview):
            self.buffer = bytes(self.buffer)
        end = self.buffer.find(b"\n", self.position, self.stop)
        if end < 0:
            raise FormatError("the pickle is truncated in a line of text")
        found = bytes(self.view[self.position : end])
        self.position = end + 1
        return found

    def number(self, layout: str) -> Any:
        return struct.unpack("<" + layout, self.take(struct.calcsize("<" + layout)))[0]

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self) -> Any:
        value = self.stack.pop()
        if value is _MARK:
            raise corrupt("a mark where a value was expected")
        return value

    def top(self) -> Any:
        value = self.stack[-1]
        if value is _MARK:
            raise corrupt("a mark where a value was expected")
        return value

    def above_mark(self) -> list[Any]:
        for start in range(len(self.stack) - 1, -1, -1):
            if self.stack[start] is _MARK:
                values = self.stack[start + 1 :]
                del self.stack[start:]
                return values
        raise corrupt("a mark is missing")

    def name(self, module: Any, name: Any) -> None:
        """Push what a name stands for."""
        if not isinstance(module, str) or not isinstance(name, str):
            raise corrupt("a name that is no text")
        found: Admitted | Foreign | None = self.admitted.get((module, name))
        if found is None:
            full = f"{module}.{name}"
            found = self.foreign.setdefault(full, Foreign(full))
        self.push(found)

    def call(self, function: Any, arguments: Any) -> None:
        """Push what a function of the list makes of its arguments."""
        if isinstance(function, Foreign):
            self.push(function)
        elif isinstance(function, Admitted) and function.call is not None and isinstance(arguments, tuple):
            self.push(function.call(*arguments))
        else:
            raise corrupt(f"a call of {getattr(function, 'name', type(function).__name__)}")

    def build(self) -> None:
        state, value = self.pop(), self.top()
        if isinstance(value, Foreign):
            parts = state if isinstance(state, dict) else {}
            value.is_module |= "_modules" in parts and "_parameters" in parts
        elif isinstance(value, Unfinished):
            value.build(state)
        elif not (isinstance(value, dict) and isinstance(state, dict)):  # an OrderedDict's `_metadata`: dropped
            raise corrupt(f"a state for {type(value).__name__}")

    def set_items(self, items: list[Any]) -> None:
        target = self.top()
        if isinstance(target, Foreign):
            return
        if not isinstance(target, dict) or len(items) % 2:
            raise corrupt("items for what is no dict")
        put(target, items)

    def append(self, values: list[Any]) -> None:
        target = self.top()
        if isinstance(target, list):
            target.extend(values)
        elif not isinstance(target, Foreign):
            raise corrupt("values for what is no list")


def put(target: dict[Any, Any], items: list[Any]) -> None:
    """Set key, value, key, value, ...; a key is text, a number or an entry that is refused anyway.

    The hash of a tuple within a tuple within a tuple ... would overrun the stack.
    """
    for key, value in zip(items[::2], items[1::2]):
        if not (key is None or isinstance(key, (str, int, float, bytes, Foreign))):
            raise corrupt(f"a dict key of type {type(key).__name__}")
        target[key] = value


def resolved(root: Any, spend: Callable[[int], None]) -> Any:
    """The object with its arrays finished; shared parts stay shared, a part of itself is refused.

    spend: told the elements of the arrays in a part each time that part stands in another place; a mask is packed under
    every name that it has.
    """
    done: dict[int, tuple[Any, int]] = {}
    open_: set[int] = set()

    def resolve(value: Any, depth: int = 0) -> tuple[Any, int]:
        """The finished value and how many elements its arrays have."""
        if not isinstance(value, (list, tuple, dict, Unfinished)):
            return value, 0
        if id(value) in done:
            spend(done[id(value)][1])
            return done[id(value)]
        if id(value) in open_ or depth > _MOST_DEPTH:
            raise corrupt("an object within itself" if id(value) in open_ else f"more than {_MOST_DEPTH} levels")
        open_.add(id(value))
        elements = 0

        def part(of: Any) -> Any:
            nonlocal elements
            found, inside = resolve(of, depth + 1)
            elements += inside
            return found

        if isinstance(value, dict):
            result: Any = {key: part(entry) for key, entry in value.items()}
        elif isinstance(value, Unfinished):
            result = value.finish(part)
            elements = getattr(result, "size", elements)
        else:
            result = type(value)(part(entry) for entry in value)
        open_.discard(id(value))
        done[id(value)] = result, elements
        return done[id(value)]

    return resolve(root)[0]


def _data(view: memoryview) -> bytes | memoryview:
    return view if len(view) >= _LARGE else bytes(view)


def _text(view: memoryview) -> str:
    return str(view, "utf-8", "surrogatepass")


def _whole_number(view: memoryview) -> int:
    if len(view) > 256:
        raise corrupt(f"a number of {len(view):,} bytes")
    return int.from_bytes(view, "little", signed=True)


def _quoted(line: bytes) -> str:
    if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in (b"'", b'"'):
        raise corrupt("a text without quotes")
    return codecs.escape_decode(line[1:-1])[0].decode("latin-1")  # type: ignore[attr-defined]


def _drop_to_mark(machine: Machine) -> None:
    machine.above_mark()


def _proto(machine: Machine) -> None:
    if (protocol := machine.take(1)[0]) > 5:
        raise corrupt(f"protocol {protocol}; the newest is 5")


def _get(machine: Machine, index: int) -> None:
    if index not in machine.memo:
        raise corrupt(f"entry {index} is used before it is there")
    machine.push(machine.memo[index])


def _put(machine: Machine, index: int) -> None:
    machine.memo[index] = machine.top()


def _tuple(count: int) -> Callable[[Machine], None]:
    def operation(machine: Machine) -> None:
        machine.push(tuple(machine.pop() for _ in range(count))[::-1])

    return operation


def _pair(machine: Machine) -> None:
    value, key = machine.pop(), machine.pop()
    machine.set_items([key, value])


def _one(machine: Machine) -> None:
    value = machine.pop()
    machine.append([value])


def _dict(machine: Machine) -> None:
    items: dict[Any, Any] = {}
    values = machine.above_mark()
    if len(values) % 2:
        raise corrupt("a dict with a key and no value")
    put(items, values)
    machine.push(items)


def _int_line(machine: Machine) -> None:
    line = machine.line()
    machine.push(line == b"01" if line in (b"00", b"01") else int(line))


def _global_line(machine: Machine) -> None:
    module, name = machine.line(), machine.line()
    machine.name(module.decode(), name.decode())


def _stack_global(machine: Machine) -> None:
    name, module = machine.pop(), machine.pop()
    machine.name(module, name)


def _reduce(machine: Machine) -> None:
    arguments, function = machine.pop(), machine.pop()
    machine.call(function, arguments)


def _new_object(machine: Machine, count: int) -> None:
    for _ in range(count):
        machine.pop()
    made = machine.pop()
    if not isinstance(made, Foreign):
        raise corrupt("an object of a type that is no array's")
    machine.push(made)


def _instance_line(machine: Machine) -> None:
    _global_line(machine)
    made = machine.pop()
    machine.above_mark()
    machine.push(made if isinstance(made, Foreign) else None)


def _instance(machine: Machine) -> None:
    values = machine.above_mark()
    machine.push(values[0] if isinstance(values[0], Foreign) else None)


def _persistent(machine: Machine, key: Any) -> None:
    if machine.persistent is None:
        raise corrupt("a reference to data outside of it")
    machine.push(machine.persistent(key))


def _extend(machine: Machine) -> None:
    values = machine.above_mark()
    machine.append(values)


def _update(machine: Machine) -> None:
    items = machine.above_mark()
    machine.set_items(items)


def _frame(machine: Machine) -> None:
    machine.take(8)  # a hint for readers of streams


def _drop(machine: Machine) -> None:
    machine.stack.pop()


# The operations of protocols 0 to 5, less those for extensions, duplicates and out-of-band buffers.
_BY_LETTER: dict[bytes, Callable[[Machine], None]] = {
    b"\x80": _proto,
    b"\x95": _frame,
    b"(": lambda m: m.push(_MARK),
    b"0": _drop,
    b"1": _drop_to_mark,
    b"N": lambda m: m.push(None),
    b"\x88": lambda m: m.push(True),
    b"\x89": lambda m: m.push(False),
    b"I": _int_line,
    b"L": lambda m: m.push(int(m.line().rstrip(b"L") or b"0")),
    b"F": lambda m: m.push(float(m.line())),
    b"J": lambda m: m.push(m.number("i")),
    b"K": lambda m: m.push(m.number("B")),
    b"M": lambda m: m.push(m.number("H")),
    b"\x8a": lambda m: m.push(_whole_number(m.take(m.number("B")))),
    b"\x8b": lambda m: m.push(_whole_number(m.take(m.number("i")))),
    b"G": lambda m: m.push(struct.unpack(">d", m.take(8))[0]),
    b"S": lambda m: m.push(_quoted(m.line())),
    # Text of Python 2 is bytes or text: latin-1 keeps both, and arrays take their bytes back from it.
    b"T": lambda m: m.push(str(m.take(m.number("i")), "latin-1")),
    b"U": lambda m: m.push(str(m.take(m.number("B")), "latin-1")),
    b"B": lambda m: m.push(_data(m.take(m.number("I")))),
    b"C": lambda m: m.push(_data(m.take(m.number("B")))),
    b"\x8e": lambda m: m.push(_data(m.take(m.number("Q")))),
    b"\x96": lambda m: m.push(_data(m.take(m.number("Q")))),
    b"V": lambda m: m.push(m.line().decode("raw-unicode-escape")),
    b"X": lambda m: m.push(_text(m.take(m.number("I")))),
    b"\x8c": lambda m: m.push(_text(m.take(m.number("B")))),
    b"\x8d": lambda m: m.push(_text(m.take(m.number("Q")))),
    b")": lambda m: m.push(()),
    b"\x85": _tuple(1),
    b"\x86": _tuple(2),
    b"\x87": _tuple(3),
    b"t": lambda m: m.push(tuple(m.above_mark())),
    b"]": lambda m: m.push([]),
    b"l": lambda m: m.push(m.above_mark()),
    b"a": _one,
    b"e": _extend,
    b"}": lambda m: m.push({}),
    # Sets are the list of their members, which are not hashed.
    b"\x8f": lambda m: m.push([]),
    b"\x90": _extend,
    b"\x91": lambda m: m.push(m.above_mark()),
    b"d": _dict,
    b"s": _pair,
    b"u": _update,
    b"p": lambda m: _put(m, int(m.line())),
    b"q": lambda m: _put(m, m.number("B")),
    b"r": lambda m: _put(m, m.number("I")),
    b"\x94": lambda m: _put(m, len(m.memo)),
    b"g": lambda m: _get(m, int(m.line())),
    b"h": lambda m: _get(m, m.number("B")),
    b"j": lambda m: _get(m, m.number("I")),
    b"c": _global_line,
    b"\x93": _stack_global,
    b"R": _reduce,
    b"b": Machine.build,
    b"\x81": lambda m: _new_object(m, 1),
    b"\x92": lambda m: _new_object(m, 2),
    b"i": _instance_line,
    b"o": _instance,
    b"P": lambda m: _persistent(m, m.line().decode("latin-1")),
    b"Q": lambda m: _persistent(m, m.pop()),
}
_OPERATIONS = {code[0]: operation for code, operation in _BY_LETTER.items()}
