"""Kernels against numpy, on shapes that straddle words."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from topo import masks as masks_module
from topo.graph.views import channel
from topo.kernels import bits, limbs, paths, reach
from topo.kernels.walks import draw_columns, draw_taps, kernel_sums, running_shares
from topo.masks import BitRows, _pack
from topo.wiring import table as flat

pytestmark = [pytest.mark.small, pytest.mark.kernels]
# Of each type: 1, and (strict, what is odd then).
ONES_AND_ODD = [
    (np.float32(1), [(False, np.nan), (False, -np.nan), (True, 2.0), (True, np.nan), (True, -1.0)]),
    (np.float64(1), [(False, np.nan), (True, 1e-300)]),
    (np.uint8(1), [(True, 2), (True, 255)]),
    (np.uint16(1), [(False, 0x7F81), (False, 0xFFFF), (True, 2)]),
]
SHAPES = [(1, 1), (3, 63), (4, 64), (5, 65), (7, 147), (33, 200)]


def random_mask(shape: tuple[int, int], density: float = 0.3) -> np.ndarray:
    return np.random.default_rng(hash(shape) % 1000).random(shape) < density


def numpy_words(mask: np.ndarray) -> np.ndarray:
    words = np.zeros((len(mask), -(-mask.shape[1] // 64)), np.uint64)
    packed = np.packbits(mask, axis=1, bitorder="little")
    words.view(np.uint8)[:, : packed.shape[1]] = packed
    return words


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8, np.uint16])
def test_pack(shape, dtype) -> None:
    mask = random_mask(shape)
    values = mask.astype(dtype) * (3 if dtype != np.uint16 else 0x3C00)
    words = np.full(numpy_words(mask).shape, 7, np.uint64)
    assert not bits.pack(values, words, False, 0x7C00)
    assert (words == numpy_words(mask)).all()
    assert bits.pack(values, words, True, 0x7C00) == mask.any()  # 3 is not a mask
    assert not bits.pack(mask.astype(dtype), words, True, 0x7C00)


@pytest.mark.parametrize("shape", [(5, 3), (3, 30), (4, 63), (3, 65), (2, 130)])
def test_pack_meets_every_value_once(shape) -> None:
    """Rows whose last word is not full: one value alone, at each place, is one bit; NaN or 2 there is odd."""
    for place in np.ndindex(*shape):
        words = np.full((shape[0], -(-shape[1] // 64)), 7, np.uint64)
        for one, odd in ONES_AND_ODD:
            values = np.zeros(shape, one.dtype)
            values[place] = one
            assert not bits.pack(values, words, True, 0)
            assert (words == numpy_words(values != 0)).all()
            for strict, found in odd:
                values[place] = found
                assert bits.pack(values, words, strict, 0x7F80)
            if values.dtype == np.uint16:  # infinity, of either sign, is a number
                values[place] = 0xFF80
                assert not bits.pack(values, words, False, 0x7F80)


FOR_ARM = """
import re
import llvmlite.binding as llvm, numba, numpy as np
from topo.kernels import bits
llvm.initialize_all_targets()
llvm.initialize_all_asmprinters()
machine = llvm.Target.from_triple("aarch64-linux-gnu").create_target_machine(opt=2)
pack = numba.njit(bits.pack.py_func)  # anew: what comes from a cache cannot be looked at
pack(np.zeros((1, 70), np.float32), np.zeros((1, 2), np.uint64), False, 0)
module = llvm.parse_assembly(pack.inspect_llvm(pack.signatures[0]))
assert "llvm.x86" not in str(module)
module.triple, module.data_layout = "aarch64-linux-gnu", str(machine.target_data)
assert re.search(r"fcm\\w+\\s+v\\d", machine.emit_assembly(module))
"""


@pytest.mark.slow
def test_kernels_name_no_processor() -> None:
    """Packing, the one kernel in the compiler's own words, becomes vector code for ARM; others name no intrinsic."""
    plain = {
        **os.environ,
        "NUMBA_OPT": "0",
        "NUMBA_DISABLE_JIT": "0",
    }  # as it is written, not yet made for this machine
    done = subprocess.run([sys.executable, "-c", FOR_ARM], capture_output=True, text=True, env=plain)
    assert done.returncode == 0, done.stderr
    named = re.findall(r"llvm\.\w+", "".join(path.read_text() for path in Path(bits.__file__).parent.glob("*.py")))
    assert set(named) == {"llvm.prefetch"}


def test_pack_signs_nan_and_the_smallest_numbers() -> None:
    row = [0.0, -0.0, np.nan, np.inf, -np.inf, np.finfo(np.float32).smallest_subnormal, -1e-45] + [0.0] * 70
    for dtype in (np.float32, np.float64):
        words = np.zeros((1, 2), np.uint64)
        assert bits.pack(np.array([row], dtype), words, False, 0)  # NaN
        assert not bits.pack(np.array([row[:2] + row[3:]], dtype), np.zeros((1, 2), np.uint64), False, 0)
        assert words[0, 0] == 0b1111100 and words[0, 1] == 0
    halves = np.array([[0x0000, 0x8000, 0x7E00, 0x0001, 0x8001] + [0x8000] * 70], np.uint16)
    words = np.zeros((1, 2), np.uint64)
    assert not bits.pack(halves, words, False, 0x7E00) and bits.pack(halves, words, False, 0x7DFF)
    assert words[0, 0] == 0b11100 and words[0, 1] == 0


@pytest.mark.parametrize("kernel_size", [1, 2, 9, 25, 49, 64, 121, 200])
def test_kernel_counts(kernel_size: int) -> None:
    mask = random_mask((6, 5 * kernel_size))
    counts = np.zeros((6, 5), np.uint16)
    bits.kernel_counts(numpy_words(mask), kernel_size, counts)
    assert (counts == mask.reshape(6, 5, kernel_size).sum(axis=2)).all()


@pytest.mark.parametrize("shape", SHAPES)
def test_pull_and_push(shape) -> None:
    mask, rng = random_mask(shape), np.random.default_rng(0)
    words = numpy_words(mask)
    x, b = np.zeros(64 * words.shape[1]), rng.integers(0, 2**30, shape[0]).astype(float)
    x[: shape[1]] = rng.integers(0, 2**30, shape[1])
    y, z = np.empty(shape[0]), np.empty(64 * words.shape[1])
    paths.pull_bits(words, x, y)
    paths.push_bits(words, b, z)
    assert (y == mask @ x[: shape[1]]).all()  # integers below 2**53: exact in any order
    assert (z[: shape[1]] == b @ mask).all() and not z[shape[1] :].any()


@pytest.mark.parametrize("shape", [*SHAPES, (700, 130)])
def test_pull_lanes(shape) -> None:
    mask, rng = random_mask(shape), np.random.default_rng(0)
    words = numpy_words(mask)
    x, y = np.zeros((64 * words.shape[1], limbs.LANES)), np.empty((shape[0], limbs.LANES))
    x[: shape[1]] = rng.integers(0, 2**36, (shape[1], limbs.LANES))
    limbs.pull_lanes(words, x, y)
    assert (y == mask @ x[: shape[1]]).all()  # integers below 2**53: exact in any order


@pytest.mark.parametrize("number", [1, 2, 3, 8, 10, 12, 17])
@pytest.mark.parametrize("kernel_size", [1, 9])
def test_several_vectors_through_a_large_layer(number: int, kernel_size: int) -> None:
    rng = np.random.default_rng(number)
    mask = rng.random((256, 64 * 65 // kernel_size, kernel_size)) < 0.5
    edges = channel(BitRows.of_mask(mask), np.arange(mask.shape[1], dtype=np.int32))
    x, b = rng.integers(0, 2**36, (number, mask.shape[1])), rng.integers(0, 2**36, (number, 256))
    counts = mask.sum(axis=2)
    assert (edges.pull(x.astype(float)) == x @ counts.T).all() and (edges.push(b.astype(float)) == b @ counts).all()


@pytest.mark.parametrize("groups", [1, 2, 6])
def test_pull_and_push_counts_with_groups(groups: int) -> None:
    rng = np.random.default_rng(groups)
    counts = rng.integers(0, 10, (6, 4)).astype(np.uint16)
    dense = np.zeros((6, 4 * groups))
    for row in range(6):
        group = row // (6 // groups)
        dense[row, 4 * group : 4 * group + 4] = counts[row]
    x, b = rng.random(4 * groups), rng.random(6)
    y, z = np.empty(6), np.empty(4 * groups)
    paths.pull_counts(counts, 6 // groups, x, y)
    paths.push_counts(counts, 6 // groups, b, z)
    assert y == pytest.approx(dense @ x) and z == pytest.approx(b @ dense)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kernel_size, groups", [(1, 1), (3, 1), (1, 2), (9, 2), (70, 1)])
def test_reach(shape, kernel_size, groups) -> None:
    """One layer as a network of one step: units 0 .. inputs - 1 are read backwards, then come its outputs."""
    rng = np.random.default_rng(1)
    inputs, outputs = shape[1] * groups, shape[0] * groups
    mask = random_mask((outputs, shape[1] * kernel_size), 0.05)
    words = numpy_words(mask)
    steps = np.array([[0, inputs, inputs + outputs, 0, inputs, 1, groups, kernel_size, words.shape[1], 0]])
    reads = np.arange(inputs, dtype=np.int32)[::-1].copy()
    live, ahead = np.zeros(inputs + outputs + 1, bool), np.zeros(inputs + outputs + 1, bool)
    live[:inputs], ahead[inputs:-1] = rng.random(inputs) < 0.3, rng.random(outputs) < 0.5
    pull, push = live[reads].reshape(groups, -1).repeat(kernel_size, axis=1), ahead[inputs:-1].copy()
    pull = pull.repeat(shape[0], axis=0)
    out, used = np.empty_like(words.reshape(-1)), np.zeros(1, np.int64)
    reach.reach_forward(steps, reads, words.reshape(-1), 0, 1, live)
    reach.reach_backward(steps, reads, words.reshape(-1), 0, 1, live, ahead)
    reach.effective(steps, reads, words.reshape(-1), 0, 1, live, ahead, out, used)
    assert (live[inputs:-1] == (mask & pull).any(axis=1)).all()

    def met(kept: np.ndarray) -> np.ndarray:
        return kept.reshape(groups, shape[0], shape[1], kernel_size).any(axis=(1, 3)).reshape(-1)

    assert (ahead[reads] == met(mask & push[:, None])).all() and not ahead[-1]
    effective = mask & pull & push[:, None]
    assert (out.reshape(words.shape) == numpy_words(effective)).all()
    assert used[0] == np.count_nonzero(met(effective))


def test_push_and_pull_of_a_step_are_matrix_products() -> None:
    for rows, channels, kernel_size, groups in [
        (3, 5, 1, 1),
        (300, 4, 9, 1),
        (4, 3, 2, 2),
        (6, 70, 1, 3),
        (260, 1, 9, 260),
    ]:
        rng = np.random.default_rng(0)
        mask = rng.random((rows, channels * kernel_size)) < 0.3
        counts = mask.reshape(rows, channels, kernel_size).sum(axis=2)
        dense = np.zeros((rows, groups * channels))
        for i in range(rows):
            g = i // (rows // groups)
            dense[i, g * channels : (g + 1) * channels] = counts[i]
        x, b = rng.random(groups * channels), rng.random(rows)
        y, z = np.empty(rows), np.empty(groups * channels)
        paths.pull_step(numpy_words(mask), kernel_size, groups, x, y)
        paths.push_step(numpy_words(mask), kernel_size, groups, b, z)
        assert y == pytest.approx(dense @ x) and z == pytest.approx(b @ dense)


def test_counts_share_a_power_of_two() -> None:
    values = np.array([3.0, 1.0, 0.0])
    assert paths.normalise(values, 5) == 7 and values.tolist() == [0.75, 0.25, 0.0]
    values = np.array([5e-324, 0.0])
    assert paths.normalise(values, 0) == -1073 and values.tolist() == [0.5, 0.0]
    values = np.array([1e308])
    assert paths.normalise(values, 0) == 1024 and values[0] == 1e308 / 2.0**1023 / 2
    assert paths.normalise(np.zeros(2), 3) == paths.NEVER
    assert paths.shifted(1.0, paths.NEVER) == 0.0 and paths.shifted(3.0, -1) == 1.5


def test_counts_begin_at_the_units_alone() -> None:
    mantissa, exponent = np.full(5, np.nan), np.full(3, 7)
    paths.begin(np.array([1, 3], np.int32), np.array([0, 0, 1, 2, -1], np.int32), mantissa, exponent)
    assert mantissa.tolist() == [0, 1, 0, 1, 0] and exponent.tolist() == [0, paths.NEVER, 0]


def test_columns_of_tables_have_one_order() -> None:
    for kernels in (reach, paths):
        for place, name in enumerate(flat.COLUMNS):
            assert getattr(kernels, name.upper()) == place
        for place, name in enumerate(flat.KINDS):
            assert getattr(kernels, name.upper()) == place


def test_packing_does_not_depend_on_who_packs(monkeypatch) -> None:
    mask = random_mask((40, 333))
    floats = mask * np.float32(0.5)
    with monkeypatch.context() as patch:
        patch.delitem(sys.modules, "numba")  # as before it was imported
        by_numpy = [_pack(floats), _pack(mask, True), _pack(floats.astype(np.float16))]
    same = (
        floats,
        floats.astype(">f8"),
        floats.astype(np.float16),
        mask,
        mask.astype(np.int64),
        np.asfortranarray(mask),
    )
    for values in same:
        words, odd = _pack(values)
        assert (words == by_numpy[0][0]).all() and not odd
    assert not any(odd for _, odd in by_numpy)
    for strict, odd in ((2.0, True), (np.nan, True), (1.0, False)):
        for dtype in (np.float16, ">f2", np.float32, np.float64, ">f4"):
            assert _pack(np.array([[0.0, strict]], dtype), True)[1] == odd
    assert _pack(np.array([[0, 2]], np.uint8), True)[1] and _pack(np.array([[0, 2]], np.int64), True)[1]
    assert _pack(np.array([[0, 0x7F81]], np.uint16))[1] and not _pack(np.array([[0, 0x7F80]], np.uint16))[1]
    for dtype in (np.float16, ">f2", np.float32, ">f8"):
        assert _pack(np.array([[0, np.nan]], dtype))[1] and not _pack(np.array([[0, np.inf]], dtype))[1]
        assert _pack(np.array([[0, -1e-7, -0.0]], dtype))[0].tolist() == [[2]]


def test_draws_of_walks_by_hand() -> None:
    """Shares of rows, draws on both sides of every boundary, weights of 0 never, against numpy's running sums."""
    weights = np.array([[1.0, -2.0, 0.0], [0.0, 0.0, 0.0], [0.5, 0.0, -0.5], [4.0, 0.0, 1.0]], np.float32)
    sums = np.empty(6)
    kernel_sums(np.concatenate([weights, weights[2:]]), sums)
    assert sums.tolist() == [3, 0, 1, 5, 1, 5]
    drawn = np.random.default_rng(0).standard_normal((11, 9))
    kernel_sums(drawn, found := np.empty(11))
    assert np.allclose(found, np.abs(drawn).sum(axis=1), rtol=1e-14)
    kernel_sums(np.array([[np.nan, 1.0, 1.0]] * 5, np.float32), nans := np.empty(5))
    assert np.isnan(nans).all()
    shares = np.empty((2, 2))
    running_shares(np.array([[1.0, 3.0], [0.0, 0.0]]), shares)
    assert shares.tolist() == [[0.25, 1], [1, 1]]
    chances = np.array([0.0, 0.24999, 0.25, 0.99999, 0.5])
    columns = np.empty(5, np.int64)
    draw_columns(shares, np.array([0, 0, 0, 0, 1]), chances, columns)
    assert columns.tolist() == [0, 0, 1, 1, 0]
    kernels = np.repeat([0, 2, 3], 1000)
    chances, kernel_size = np.tile((np.arange(1000) + 0.5) / 1000, 3), np.empty(3000, np.int64)
    draw_taps(weights, kernels, chances, kernel_size)
    totals = np.cumsum(np.abs(weights[kernels]), axis=1)
    assert np.array_equal(kernel_size, (totals <= chances[:, None] * totals[:, -1:]).sum(axis=1))


@pytest.mark.slow
def test_kernels_compile_where_nothing_can_be_written(tmp_path: Path) -> None:
    """An installation and a home that are read-only: a private cache, gone with the process."""
    (tmp_path / "file").write_text("not a folder")
    code = (
        "import sys; from pathlib import Path; import topo.kernels as kernels; "
        f"here = Path({str(tmp_path)!r}); "
        "assert kernels._private_cache([here / 'file' / 'a', here / 'b']) is None; "
        "made = kernels._private_cache([here / 'file' / 'a']); "
        "print(made, Path(made).is_dir(), oct(Path(made).stat().st_mode & 0o777))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    made, there, mode = done.stdout.split()
    assert (there, mode) == ("True", "0o700") and not Path(made).exists()


LOST_CACHE = """
import os, pathlib, shutil, sys
cache = pathlib.Path(os.environ["NUMBA_CACHE_DIR"])
import topo.kernels.bits as bits, numpy as np
if sys.argv[1] == "gone":
    shutil.rmtree(cache)
    cache.write_text("no folder any more")
for path in cache.rglob("*.nb*"):
    if path.name.endswith(sys.argv[1]):
        path.write_bytes(path.read_bytes()[:50])
words = np.zeros((2, 1), np.uint64)
bits.pack(np.eye(2, 5, dtype=np.float32), words, False, 0)
assert words.tolist() == [[1], [2]]
print(len(list(cache.rglob("bits.pack-*.nbc"))) if cache.is_dir() else "none")
"""


@pytest.mark.slow
def test_a_cache_that_is_damaged_or_goes_away_costs_compiling_alone(tmp_path: Path) -> None:
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache"), "NUMBA_DISABLE_JIT": "0"}
    (tmp_path / "cache").mkdir()
    for damage, left in (("nothing", "1"), (".nbc", "1"), (".nbi", "1"), ("gone", "none")):
        argv = [sys.executable, "-c", LOST_CACHE, damage]
        done = subprocess.run(argv, env=environment, capture_output=True, text=True)
        assert (done.stderr, done.stdout.split()) == ("", [left]), damage


def test_versions_that_share_a_cache_each_find_their_own_code(tmp_path: Path) -> None:
    from topo.kernels import IndexDataCacheFile

    old, new = (IndexDataCacheFile(str(tmp_path), "kernel", stamp) for stamp in ("old", "new"))
    for turn in range(3):
        for mine, other in ((old, new), (new, old)):
            mine.save("types", f"{mine._source_stamp} {turn}")
            assert mine.load("types") == f"{mine._source_stamp} {turn}" and other.load("types") is None


def test_a_second_import_does_not_wait_for_the_first(tmp_path: Path) -> None:
    """As tests and notebooks import anew: the lock is taken once, or each save would wait for itself."""
    import topo.kernels

    importlib.reload(topo.kernels)
    for method in (topo.kernels.IndexDataCacheFile.save, topo.kernels.IndexDataCacheFile.load):
        assert not hasattr(method.__wrapped__, "__wrapped__")


WRITER = """
import sys
from topo.kernels import IndexDataCacheFile
cache = IndexDataCacheFile(sys.argv[1], "kernel", "stamp")
sys.stdin.read()  # all begin at once
for key in range(int(sys.argv[2]), 120, 4):
    cache.save(key, f"compiled for {key}")
"""


@pytest.mark.slow
def test_processes_that_compile_at_once_share_a_cache(tmp_path: Path) -> None:
    """Each type of arguments finds its own code afterwards, not that of another process's."""
    from topo.kernels import IndexDataCacheFile

    many = [[sys.executable, "-c", WRITER, str(tmp_path), str(first)] for first in range(4)]
    writers = [subprocess.Popen(argv, stdin=subprocess.PIPE) for argv in many]
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.close()
    assert [writer.wait() for writer in writers] == [0] * 4
    cache = IndexDataCacheFile(str(tmp_path), "kernel", "stamp")
    assert [cache.load(key) for key in range(120)] == [f"compiled for {key}" for key in range(120)]


@pytest.mark.parametrize("tiny", [0, 1 << 16])
def test_counts_and_turning_are_numpy_or_kernels(monkeypatch, tiny: int) -> None:
    """Small matrices by numpy, so that nothing is compiled for them, larger ones by kernels: the same numbers."""
    monkeypatch.setattr(masks_module, "_TINY", tiny)
    for shape in [*SHAPES, (100, 576), (64, 128)]:
        mask = random_mask(shape)
        words = numpy_words(mask)
        assert (masks_module.column_counts(words)[: shape[1]] == mask.sum(axis=0)).all()
        assert (masks_module.transposed(words, shape[1]) == numpy_words(mask.T.copy())).all()
        for size in (1, shape[1]):
            counts = masks_module.kernel_counts(words, shape[1], size)
            assert counts.dtype == np.uint16 and (counts == mask.reshape(len(mask), -1, size).sum(axis=2)).all()
