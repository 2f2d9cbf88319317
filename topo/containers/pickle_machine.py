"""The only pickle reader of this project: a small machine that builds lists, dicts, text, numbers and arrays, and runs
nothing.

Python's own unpickler calls whatever a file names. This one knows a fixed list of names (`topo.containers.rebuild`),
each standing for a function written here that checks its arguments and takes no memory that the file does not hold. Any
other name becomes an inert `Foreign`: it is never imported, called or asked for an attribute. What such objects hold
stays with them: a dict of tensors that has an argparse.Namespace beside them is read without it, and told so; a file
whose tensors lie in such an object, or whose object stands among the tensors of a list, is refused. There is no switch
to allow more.
"""

from __future__ import annotations

import codecs
import struct
from collections.abc import Callable, Mapping
from mmap import mmap
from typing import Any

from topo.containers.tensors import Tensor, bits_of
from topo.errors import FormatError

# A state dict takes about 25 operations a tensor; 4 million take some seconds and at most about 300 MB of small
# objects.
_MOST_OPERATIONS = 4_000_000
_MOST_DEPTH = 64
_MOST_KEYS = 200_000
_MOST_PARTS = 200_000
# Numbers of so many bits share a hash with 15 others at most; beyond, and in tuples, a file chooses how many do, and a
# dict of such keys takes the square of their number.
_WIDEST_KEY = 64
_MOST_TUPLES = 2_000
# From here on bytes are a view of the file, not a copy.
_LARGE = 1 << 12

Buffer = bytes | mmap | memoryview


class Admitted:
    """A name of the fixed list: a type, which only stands for itself, a function that rebuilds an array, or a type
    whose empty objects `new` makes."""

    def __init__(
        self, name: str, call: Callable[..., Any] | None = None, new: Callable[[], Unfinished] | None = None
    ) -> None:
        self.name, self.call, self.new = name, call, new


class Foreign:
    """A name that is not on the list, or an object that it would have made, with what the file gives that object."""

    def __init__(self, name: str, *parts: Any) -> None:
        self.name, self.parts = name, list(parts)

    def tensors(self, seen: set[int]) -> int:
        """How many arrays of two or more dimensions the object holds, besides those seen before."""
        found, left = 0, list(self.parts)
        while left:
            value = left.pop()
            if isinstance(value, (list, tuple, dict, Foreign, Unfinished)) and id(value) not in seen:
                seen.add(id(value))
                if isinstance(value, Unfinished):
                    found += value.dimensions >= 2
                elif isinstance(value, dict):
                    left.extend((*value, *value.values()))
                else:
                    left.extend(value.parts if isinstance(value, Foreign) else value)
        return found


class Unfinished:
    """An array that is filled after it was made: `build` takes its state, `finish` gives the value that it stands
    for."""

    shape: tuple[int, ...] = ()

    @property
    def dimensions(self) -> int:
        """How many the array has, as far as is known yet."""
        return len(self.shape)

    def build(self, state: Any) -> None:
        raise corrupt(f"a state for {type(self).__name__}")

    def finish(self, resolve: Callable[[Any], Any]) -> Any:
        raise NotImplementedError


class NamesIt(FormatError):
    """A refusal that names the class in question itself."""


class _Mark:
    pass


_MARK = _Mark()


# The end of a refusal, and what a file may ask to have called that no honest checkpoint does: it is read no further.
_ONLY_BY_RUNNING = (
    ", which only running code from the file could rebuild, so it is refused; "
    "its owner can export the masks: torch.save(model.state_dict(), 'masks.pt')"
)
_HOSTILE_MODULES = frozenset(
    "os posix nt subprocess sys pty runpy importlib socket shutil ctypes commands webbrowser code".split()
)
_HOSTILE_CALLS = frozenset(
    "eval exec execfile compile open __import__ setattr delattr input breakpoint globals vars map filter apply".split()
)


def _is_hostile(function: Foreign, arguments: Any) -> bool:
    """Whether a call would do harm, as far as its name tells: nothing is called either way, and the user is told."""
    module, _, name = function.name.partition(".")
    if module in _HOSTILE_MODULES:
        return True
    if module not in ("builtins", "__builtin__"):
        return False
    of_enum = isinstance(arguments, tuple) and len(arguments) == 2 and isinstance(arguments[0], Foreign)
    return name in _HOSTILE_CALLS or (name == "getattr" and not of_enum)  # members of an enum are pickled by getattr


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
        self.modules: list[Foreign] = []

    def run(self) -> Any:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        try:
            view, stop, operations = self.view, self.stop, _OPERATIONS
            for _ in range(_MOST_OPERATIONS):
                if self.position >= stop:
                    self.take(1)  # says so
                code = view[self.position]
                self.position += 1
                if code == 0x2E:  # STOP
                    root = self.pop()
                    seen: set[int] = set()
                    if any(module.tensors(seen) for module in self.modules):  # a loss has none, and is left out
                        raise self.refusal()
                    return root
                operation = operations.get(code)
                if operation is None:
                    raise corrupt(f"operation 0x{code:02x} at byte {self.position - 1} is none that arrays need")
                operation(self)
        except FormatError as error:
            raise (self.refusal() if self.foreign and not isinstance(error, NamesIt) else error) from None
        except (IndexError, KeyError, TypeError, ValueError, AttributeError, struct.error, OverflowError) as error:
            what = corrupt(f"{type(error).__name__} {error} before byte {self.position}")
            raise (self.refusal() if self.foreign else what) from None
        raise corrupt(f"more than {_MOST_OPERATIONS:,} operations")

    def refusal(self) -> FormatError:
        """Why a file is refused that needs its own code: by the names that it gives."""
        modules = [module.name for module in reversed(self.modules)]
        first = modules[0] if modules else next(iter(self.foreign))
        others = [name for name in self.foreign if name != first]
        what = f"a pickled module of class '{first}'" if modules else f"'{first}'"
        more = f" (and {', '.join(map(repr, others[:4]))}{', ...' if len(others) > 4 else ''})" if others else ""
        return FormatError(f"it holds {what}{more}{_ONLY_BY_RUNNING}")

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

    def byte(self) -> int:
        """The next byte."""
        if self.position >= self.stop:
            self.take(1)  # says so
        self.position += 1
        return self.view[self.position - 1]

    def number(self, layout: struct.Struct) -> Any:
        """The next bytes as one number."""
        return layout.unpack(self.take(layout.size))[0]

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
            raise corrupt("a name that is not text")
        found: Admitted | Foreign | None = self.admitted.get((module, name))
        if found is None:
            full = f"{module}.{name}"
            found = self.foreign.setdefault(full, Foreign(full))
        self.push(found)

    def call(self, function: Any, arguments: Any) -> None:
        """Push what a function of the list makes of its arguments."""
        if isinstance(function, Foreign):
            if _is_hostile(function, arguments):
                raise self.refusal()
            self.push(Foreign(_made_by(function, arguments), arguments))
        elif isinstance(function, Admitted) and function.call is not None and isinstance(arguments, tuple):
            self.push(function.call(*arguments))
        else:
            raise corrupt(f"a call of {getattr(function, 'name', type(function).__name__)}")

    def build(self) -> None:
        state, value = self.pop(), self.top()
        if isinstance(value, Foreign):
            parts = state if isinstance(state, dict) else {}
            value.parts.append(state)
            if "_modules" in parts and "_parameters" in parts:
                self.modules.append(value)
        elif isinstance(value, Unfinished):
            value.build(state)
        elif not (isinstance(value, dict) and isinstance(state, dict)):  # an OrderedDict's `_metadata`: dropped
            raise corrupt(f"a state for {type(value).__name__}")

    def set_items(self, items: list[Any]) -> None:
        target = self.top()
        if isinstance(target, Foreign):
            target.parts.extend(items)
            return
        if not isinstance(target, dict) or len(items) % 2:
            raise corrupt("items for what is not a dict")
        put(target, items)

    def append(self, values: list[Any]) -> None:
        target = self.top()
        if isinstance(target, list):
            target.extend(values)
        elif isinstance(target, Foreign):
            target.parts.extend(values)
        else:
            raise corrupt("values for what is not a list")


def _made_by(function: Foreign, arguments: Any) -> str:
    """The class of which a call makes an object: its own name, or that handed to Python's own makers of objects."""
    is_maker = function.name.partition(".")[0] in ("copyreg", "copy_reg", "builtins", "__builtin__")
    first = arguments[0] if is_maker and isinstance(arguments, tuple) and arguments else function
    return first.name if isinstance(first, Foreign) else function.name


def put(target: dict[Any, Any], items: list[Any]) -> None:
    """Set key, value, key, value, ...; a key is text, a number, a tuple of them or an object that is left out.

    The hash of a tuple within a tuple within a tuple ... would overrun the stack.
    """
    if len(target) + len(items) // 2 > _MOST_KEYS:
        raise FormatError(f"it holds a dict of more than {_MOST_KEYS:,} keys, which no state dict is")
    for key, value in zip(items[::2], items[1::2]):
        if type(key) is not str:
            _check_key(key, len(target))
        target[key] = value


def _check_key(key: Any, there: int) -> None:
    parts = key if isinstance(key, tuple) else (key,)
    if not all(part is None or isinstance(part, (str, int, float)) for part in parts) and not isinstance(
        key, (bytes, Foreign, Unfinished)
    ):
        raise corrupt(f"a dict key of type {type(key).__name__}")
    if any(isinstance(part, int) and part.bit_length() > _WIDEST_KEY for part in parts):
        raise corrupt(f"a dict key that is a number of more than {_WIDEST_KEY} bits")
    if isinstance(key, tuple) and there > _MOST_TUPLES:
        raise corrupt(f"a dict of more than {_MOST_TUPLES:,} keys, tuples among them")


def resolved(machine: Machine, root: Any, spend: Callable[[int], None]) -> tuple[Any, list[str]]:
    """The object of a machine with its arrays finished and without its foreign objects, and a note of those.

    Shared parts stay shared, a part of itself is refused.
    spend: told the bits of the arrays in a part, see `bits_of`, each time that part stands in another place; a mask is
    packed under every name that it has.
    Raises FormatError where leaving an object out could leave masks out: when it holds tensors, stands in a list beside
    tensors, or is all there is.
    """
    done: dict[int, tuple[Any, int]] = {}
    open_: set[int] = set()
    left_out: list[tuple[str, str]] = []
    seen: set[int] = set()

    def left(where: Any, value: Foreign) -> None:
        if not value.name.startswith(_OF_TRAINING) and (count := value.tensors(seen)):
            raise FormatError(f"it holds {count} tensors in an object of class '{value.name}'{_ONLY_BY_RUNNING}")
        left_out.append((str(where), value.name))

    def resolve(value: Any, depth: int = 0) -> tuple[Any, int]:
        """The finished value and how many bits its arrays take."""
        if not isinstance(value, (list, tuple, dict, Unfinished)):
            return value.name if isinstance(value, Admitted) else value, 0  # torch.float32 and the like
        if id(value) in done:
            spend(done[id(value)][1])
            return done[id(value)]
        if len(done) + len(open_) > _MOST_PARTS:
            raise FormatError(f"it holds more than {_MOST_PARTS:,} dicts, lists and tensors")
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
            result: Any = {}
            for key, entry in value.items():
                if isinstance(key, (Foreign, Unfinished)):
                    raise FormatError(f"it holds a dict with {_kind(key)} for a key{_ONLY_BY_RUNNING}")
                if isinstance(entry, Foreign):
                    left(key, entry)
                else:
                    result[key] = part(entry)
        elif isinstance(value, Unfinished):
            result = value.finish(part)
            elements = bits_of(result.shape) if isinstance(result, Tensor) else elements
        else:
            for place, entry in enumerate(value):
                if isinstance(entry, Foreign):
                    left(f"entry {place} of a list", entry)
            if any(isinstance(entry, Foreign) for entry in value) and any(
                isinstance(entry, (Unfinished, dict, list, tuple)) for entry in value
            ):
                raise machine.refusal()
            result = type(value)(f"<{entry.name}>" if isinstance(entry, Foreign) else part(entry) for entry in value)
        open_.discard(id(value))
        done[id(value)] = result, elements
        return done[id(value)]

    if isinstance(root, Foreign):
        raise machine.refusal()
    content, elements = resolve(root)
    if left_out and not elements:
        raise machine.refusal()
    return content, _noted(left_out)


# Optimizers and schedulers hold the parameters that stand beside them in the file; tables hold results.
_OF_TRAINING = ("torch.optim.", "pandas.")


def _kind(value: Any) -> str:
    return f"'{value.name}'" if isinstance(value, Foreign) else "a tensor"


def _noted(left_out: list[tuple[str, str]]) -> list[str]:
    if not left_out:
        return []
    told = ", ".join(f"'{where}' ({name})" for where, name in left_out[:3])
    more = f" and {len(left_out) - 3} more" if len(left_out) > 3 else ""
    return [f"objects without masks left out, since only running code could rebuild them: {told}{more}"]


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
    machine.stack.append(machine.memo[index])


def _put(machine: Machine, index: int) -> None:
    if index.bit_length() > _WIDEST_KEY:
        raise corrupt(f"a place in the memo of more than {_WIDEST_KEY} bits")
    machine.memo[index] = machine.top()


def _tuple(count: int) -> Callable[[Machine], None]:
    def operation(machine: Machine) -> None:
        values = tuple(machine.stack[-count:])
        if len(values) < count or _MARK in values:
            raise corrupt("a mark where a value was expected")
        del machine.stack[-count:]
        machine.stack.append(values)

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
    arguments = [machine.pop() for _ in range(count)]
    made = machine.pop()
    if isinstance(made, Admitted) and made.new is not None:
        machine.push(made.new())
        return
    if not isinstance(made, Foreign):
        raise corrupt("an object of a type that is not an array's")
    machine.call(made, tuple(arguments))


def _instance_line(machine: Machine) -> None:
    _global_line(machine)
    made = machine.pop()
    arguments = machine.above_mark()
    if not isinstance(made, Foreign):
        raise corrupt("an object of a type that is not an array's")
    machine.call(made, tuple(arguments))


def _instance(machine: Machine) -> None:
    made, *arguments = machine.above_mark()
    if not isinstance(made, Foreign):
        raise corrupt("an object of a type that is not an array's")
    machine.call(made, tuple(arguments))


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


_I4, _U2, _U4, _U8, _F8 = map(struct.Struct, ("<i", "<H", "<I", "<Q", ">d"))
# The operations of protocols 0 to 5, less those for extensions, duplicates and out-of-band buffers.
_BY_LETTER: dict[bytes, Callable[[Machine], None]] = {
    b"\x80": _proto,
    b"\x95": _frame,
    b"(": lambda m: m.stack.append(_MARK),
    b"0": _drop,
    b"1": _drop_to_mark,
    b"N": lambda m: m.stack.append(None),
    b"\x88": lambda m: m.stack.append(True),
    b"\x89": lambda m: m.stack.append(False),
    b"I": _int_line,
    b"L": lambda m: m.stack.append(int(m.line().rstrip(b"L") or b"0")),
    b"F": lambda m: m.stack.append(float(m.line())),
    b"J": lambda m: m.stack.append(m.number(_I4)),
    b"K": lambda m: m.stack.append(m.byte()),
    b"M": lambda m: m.stack.append(m.number(_U2)),
    b"\x8a": lambda m: m.stack.append(_whole_number(m.take(m.byte()))),
    b"\x8b": lambda m: m.stack.append(_whole_number(m.take(m.number(_I4)))),
    b"G": lambda m: m.stack.append(m.number(_F8)),
    b"S": lambda m: m.stack.append(_quoted(m.line())),
    # Text of Python 2 is bytes or text: latin-1 keeps both, and arrays take their bytes back from it.
    b"T": lambda m: m.stack.append(str(m.take(m.number(_I4)), "latin-1")),
    b"U": lambda m: m.stack.append(str(m.take(m.byte()), "latin-1")),
    b"B": lambda m: m.stack.append(_data(m.take(m.number(_U4)))),
    b"C": lambda m: m.stack.append(_data(m.take(m.byte()))),
    b"\x8e": lambda m: m.stack.append(_data(m.take(m.number(_U8)))),
    b"\x96": lambda m: m.stack.append(_data(m.take(m.number(_U8)))),
    b"V": lambda m: m.stack.append(m.line().decode("raw-unicode-escape")),
    b"X": lambda m: m.stack.append(_text(m.take(m.number(_U4)))),
    b"\x8c": lambda m: m.stack.append(_text(m.take(m.byte()))),
    b"\x8d": lambda m: m.stack.append(_text(m.take(m.number(_U8)))),
    b")": lambda m: m.stack.append(()),
    b"\x85": _tuple(1),
    b"\x86": _tuple(2),
    b"\x87": _tuple(3),
    b"t": lambda m: m.stack.append(tuple(m.above_mark())),
    b"]": lambda m: m.stack.append([]),
    b"l": lambda m: m.stack.append(m.above_mark()),
    b"a": _one,
    b"e": _extend,
    b"}": lambda m: m.stack.append({}),
    # Sets are the list of their members, which are not hashed.
    b"\x8f": lambda m: m.stack.append([]),
    b"\x90": _extend,
    b"\x91": lambda m: m.stack.append(m.above_mark()),
    b"d": _dict,
    b"s": _pair,
    b"u": _update,
    b"p": lambda m: _put(m, int(m.line())),
    b"q": lambda m: _put(m, m.byte()),
    b"r": lambda m: _put(m, m.number(_U4)),
    b"\x94": lambda m: _put(m, len(m.memo)),
    b"g": lambda m: _get(m, int(m.line())),
    b"h": lambda m: _get(m, m.byte()),
    b"j": lambda m: _get(m, m.number(_U4)),
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
