"""Many damaged files of every kind, with the clock, the memory and what is executed watched: `make fuzz`.

Prints a line for each kind; exits 1 if a reading ends in anything but masks or one line, takes more than --seconds or
a gigabyte, or starts anything.
"""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import resource
import shutil
import sys
import tempfile
import time
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from fuzzing import SEEDS, mutations, outcome
from numba.core.registry import cpu_target

import topo.kernels
from topo.containers.container import containers

_HARM = ("os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen", "socket.connect", "os.remove")


def _is_harm(event: str, told: tuple[object, ...]) -> bool:
    """Whether something is started, or code executed that is not in a file of an installed module."""
    if event != "exec":
        return event.startswith(_HARM)
    return not Path(getattr(told[0], "co_filename", "")).is_file()


def _who(event: str, told: tuple[object, ...]) -> str:
    """An event with the functions that led to it, the innermost last."""
    frames = traceback.extract_stack()[-12:-2]
    return f"{event} {told} by " + " > ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kinds", nargs="*", help="kinds of file (default: all)")
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--first", type=int, default=0, help="number of the first mutation")
    parser.add_argument("--seconds", type=float, default=5, help="the longest that a reading may take")
    args = parser.parse_args()
    for module in pkgutil.iter_modules(topo.kernels.__path__):  # with numba, whose import executes code that it makes
        importlib.import_module(f"topo.kernels.{module.name}")
    cpu_target.typing_context.refresh()  # the parts of numba that it loads with the first call
    cpu_target.target_context.refresh()
    importlib.import_module("numba.core.runtime.context")  # a named tuple, whose class is made by exec
    watching: list[str] = []
    harm: list[str] = []
    sys.addaudithook(lambda event, told: harm.append(_who(event, told)) if watching and _is_harm(event, told) else None)
    failures = 0
    for kind in args.kinds or [name for name in containers if name in SEEDS]:
        folder = Path(tempfile.mkdtemp())
        try:
            for path in mutations(kind, folder / "warm", 200, 1_000_000_000):
                outcome(path)
            used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 30), resource.getrlimit(resource.RLIMIT_AS)[1]))
            counts, slowest, started = {"read": 0, "refused": 0}, 0.0, time.monotonic()
            for number, path in enumerate(mutations(kind, folder / "run", args.count, args.first), args.first):
                start = time.process_time()
                watching.append(kind)
                try:
                    counts[outcome(path)] += 1
                except BaseException as error:
                    failures += 1
                    print(f"{kind} {number}: {type(error).__name__}: {str(error)[:300]}", flush=True)
                    if isinstance(error, KeyboardInterrupt):
                        raise
                watching.clear()
                slowest = max(slowest, time.process_time() - start)
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
            failures += slowest > args.seconds
            print(
                f"{kind:14} {counts['read']:6} read {counts['refused']:6} refused, slowest {slowest:.2f} s, "
                f"peak {peak} MB, {time.monotonic() - started:.0f} s",
                flush=True,
            )
        finally:
            shutil.rmtree(folder)
    if harm:
        print(f"code was run: {sorted(set(harm))[:5]}")
    return 1 if failures or harm else 0


if __name__ == "__main__":
    sys.exit(main())
