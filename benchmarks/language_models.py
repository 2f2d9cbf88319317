"""How fast a pruned language model is read: a folder of bfloat16 shards, against a plain read of the same bytes.

    python benchmarks/language_models.py [--gigabytes 2] [--folder DIR] [--write]

The folder is made (a Llama by its config.json, half of each row of its blocks zero) and taken away at the end. Times
are CPU seconds on one thread, page cache hot, the least of three; every ratio is to the same plain read: numpy adds up
the bytes of a fresh map. Memory is what `/proc/self/status` says of a process of its own, sampled.
"""

from __future__ import annotations

import os

os.environ.update({name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")})

import argparse
import json
import mmap
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from run import HERE, machine, rewrite

MARKS = ("<!-- language models: written by benchmarks/language_models.py -->", "<!-- end of language models -->")
HIDDEN, INNER, HEADS, VOCABULARY = 2048, 5504, 16, 8000
SHAPES = {
    **{f"self_attn.{name}_proj": (HIDDEN, HIDDEN) for name in "qkvo"},
    **{f"mlp.{name}_proj": (INNER, HIDDEN) for name in ("gate", "up")},
    "mlp.down_proj": (HIDDEN, INNER),
}
WATCH = """
import os, sys, threading, time
peak = {"RssAnon": 0, "RssFile": 0}
def look():
    while True:
        for line in open("/proc/self/status"):
            name = line.split(":")[0]
            if name in peak: peak[name] = max(peak[name], int(line.split()[1]) * 1024)
        time.sleep(0.005)
threading.Thread(target=look, daemon=True).start()
from topo.cli import main
code = main(sys.argv[1:])
print("PEAK", peak["RssAnon"], peak["RssFile"], file=sys.stderr)
sys.exit(code)
"""


def make(folder: Path, gigabytes: float) -> int:
    """A Llama of this size in shards of some 250 MB; the bytes of its tensors."""
    from safetensors.numpy import save_file

    block = sum(a * b for a, b in SHAPES.values())
    blocks = max(1, round((gigabytes * 1e9 / 2 - 2 * VOCABULARY * HIDDEN) / block))
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": HIDDEN, "intermediate_size": INNER,
        "num_attention_heads": HEADS, "num_key_value_heads": HEADS, "num_hidden_layers": blocks,
        "vocab_size": VOCABULARY, "tie_word_embeddings": False, "torch_dtype": "bfloat16",
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    rng = np.random.default_rng(0)
    pool = rng.standard_normal(1 << 22, dtype=np.float32).view(np.uint32) >> 16
    shapes = {"model.embed_tokens.weight": (VOCABULARY, HIDDEN), "lm_head.weight": (VOCABULARY, HIDDEN)}
    shapes |= {f"model.layers.{n}.{name}.weight": shape for n in range(blocks) for name, shape in SHAPES.items()}
    total, shard, number, places = 0, dict[str, np.ndarray](), 0, dict[str, str]()

    def flush() -> None:
        nonlocal number
        name = f"model-{number:05}.safetensors"
        save_bfloat16(shard, folder / name, save_file)
        places.update(dict.fromkeys(shard, name))
        shard.clear()
        number += 1

    for name, shape in shapes.items():
        values = np.resize(pool, shape).astype(np.uint16)
        if ".layers." in name:
            values[rng.integers(0, 2, shape, dtype=np.uint8).astype(bool)] = 0
        shard[name], total = values, total + values.nbytes
        if sum(array.nbytes for array in shard.values()) > 250e6:
            flush()
    if shard:
        flush()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    return total


def save_bfloat16(arrays: dict[str, np.ndarray], path: Path, save_file: Callable[..., None]) -> None:
    """Tensors of 16-bit patterns, declared as bfloat16."""
    save_file(arrays, path)
    text = path.read_bytes()[:8]
    length = int.from_bytes(text, "little")
    with open(path, "r+b") as file:
        header = file.read(8 + length)[8:]
        fixed = header.rstrip().replace(b'"U16"', b'"BF16"')
        if len(fixed) > length:  # one letter more for each tensor: write it anew
            body = file.read()
            fixed += b" " * (-len(fixed) % 8)
            file.seek(0)
            file.write(len(fixed).to_bytes(8, "little") + fixed + body)


def plain_read(maps: list[mmap.mmap]) -> int:
    """The bytes of every file added up, as 64-bit words."""
    total = 0
    for mapped in maps:
        words = np.frombuffer(mapped, np.uint64, len(mapped) // 8)
        for start in range(0, len(words), 1 << 20):
            total += int(words[start : start + (1 << 20)].sum())
    return total


def fresh(folder: Path) -> list[mmap.mmap]:
    made = []
    for path in sorted(folder.glob("*.safetensors")):
        with open(path, "rb") as file:
            made.append(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    return made


def least(function: Callable[[], object], repeats: int = 3) -> float:
    """CPU seconds of a call, the least of several."""
    found = []
    for _ in range(repeats):
        start = time.process_time()
        function()
        found.append(time.process_time() - start)
    return min(found)


def command(*arguments: str) -> tuple[float, int, int]:
    """CPU seconds of `topo` in a process of its own, and its peaks of anonymous and of file memory, in bytes."""
    found = []
    for _ in range(2):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        ended = subprocess.run(
            [sys.executable, "-c", WATCH, *arguments, "--threads", "1"], capture_output=True, text=True
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        if ended.returncode not in (0, 3):
            raise SystemExit(ended.stderr)
        peaks = ended.stderr.split("PEAK")[1].split()
        spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        found.append((spent, int(peaks[0]), int(peaks[1])))
    return min(found)


def rows(folder: Path, size: int) -> Iterator[tuple[str, float, float, str]]:
    """(task, CPU seconds, times a plain read, goal)."""
    import torch
    from safetensors import safe_open

    from topo import formats, language

    def counted() -> None:
        language.survey(formats.opened(folder), threads=1)

    def torch_count() -> None:
        for path in sorted(folder.glob("*.safetensors")):
            with safe_open(path, "pt") as file:
                for name in list(file.keys()):
                    torch.count_nonzero(file.get_tensor(name))

    def packbits() -> None:
        for mapped in fresh(folder):
            np.packbits(np.frombuffer(mapped, np.uint16, len(mapped) // 2) & 0x7FFF != 0)

    torch.set_num_threads(1)
    plain_read(fresh(folder))
    counted()
    read = least(lambda: plain_read(fresh(folder)))
    held = fresh(folder)
    plain_read(held)
    yield f"plain read of {size / 1e9:.2f} GB, fresh map", read, 1.0, ""
    mapped = least(lambda: plain_read(held))
    yield "plain read, mapped", mapped, mapped / read, ""
    passed = least(counted)
    yield "statistics pass (rows, columns, 2:4, 4:8, blocks, odd numbers)", passed, passed / read, "<= 1.5"
    slow = least(torch_count, 1)
    yield "torch.count_nonzero alone", slow, slow / read, ""
    yield "torch.count_nonzero over the statistics pass", slow, slow / passed, ">= 10"
    slow = least(packbits, 1)
    yield "np.packbits(x != 0) alone", slow, slow / read, ""
    yield "np.packbits over the statistics pass", slow, slow / passed, ""
    with tempfile.TemporaryDirectory() as scratch:
        tiny = Path(scratch) / "tiny.npz"
        np.savez(tiny, **{f"layers.0.{name}.weight": np.eye(8, dtype=np.float32) for name in SHAPES})
        start, *_ = command("analyze", str(tiny), "--metrics", "density")
    yield "start-up of topo analyze", start, start / read, ""
    for name, arguments, goal in (
        ("topo analyze FOLDER", ["analyze", str(folder)], "<= 3"),
        ("topo check FOLDER --n-m 2:4", ["check", str(folder), "--n-m", "2:4"], ""),
        ("topo analyze FOLDER --metrics paths", ["analyze", str(folder), "--metrics", "paths"], "<= 10"),
    ):
        spent, anonymous, file = command(*arguments)
        text = f"{name}, without start-up ({anonymous / 1e6:.0f} MB anonymous, {file / 1e6:.0f} MB of files)"
        yield text, spent - start, (spent - start) / read, goal


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gigabytes", type=float, default=2.0)
    parser.add_argument("--folder", type=Path, help="where the shards are made, or are from before; kept then")
    parser.add_argument("--write", action="store_true", help="write the table into benchmarks/README.md")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        folder.mkdir(exist_ok=True)
        if not (folder / "config.json").is_file():
            make(folder, options.gigabytes)
        size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
        lines = ["| task | CPU seconds | ratio | goal |", "|---|---:|---:|---:|"]
        for task, spent, ratio, goal in rows(folder, size):
            lines.append(f"| {task} | {spent:.3f} | {ratio:.2f} | {goal} |")
            print(lines[-1], flush=True)
    if options.write:
        rewrite(HERE / "README.md", MARKS, f"{machine()}\n\n" + "\n".join(lines))


if __name__ == "__main__":
    main()
