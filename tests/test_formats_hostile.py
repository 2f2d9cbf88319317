"""Files that must not be read: each is refused with one line that names it, runs nothing, and takes no memory."""

from __future__ import annotations

import base64
import io
import json
import os
import pickle
import stat
import struct
import sys
import tempfile
import tracemalloc
import zipfile
import zlib
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest

from topo import formats
from topo.cli import main
from topo.containers.pickle_machine import Machine, resolved
from topo.errors import FormatError, MaskError, TopoError

torch = pytest.importorskip("torch")

MEGABYTES = 1 << 20


def refused(path, pattern, error=FormatError, at_most=24 * MEGABYTES, **options):
    """The refusal of a file, checked to be one bounded line that names it, at little cost in memory."""
    tracemalloc.start()
    try:
        with pytest.raises(TopoError, match=pattern) as caught:
            formats.read(path, **options)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    text = str(caught.value)
    assert caught.type is error, text
    assert Path(path).name in text
    assert text.isprintable()
    assert len(text) <= 400
    assert peak < at_most, f"{peak:,} bytes"
    return text


@pytest.fixture
def trap(tmp_path):
    """A shell command that leaves a file, to show that it was run; none is when the test ends."""
    mark = tmp_path / "ran"
    yield f"touch {mark}"
    assert not mark.exists()


def text(value):
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


# --- pickles that would run something

# What each would do: `command` is put where the payload's argument goes.
PAYLOADS = {
    "GLOBAL": lambda c: b"\x80\x02cos\nsystem\n" + text(c) + b"\x85R.",
    "STACK_GLOBAL": lambda c: b"\x80\x04" + text("posix") + text("system") + b"\x93" + text(c) + b"\x85R.",
    "INST": lambda c: b"(S" + repr(c).encode() + b"\nios\nsystem\n.",
    "OBJ": lambda c: b"\x80\x02(cos\nsystem\n" + text(c) + b"o.",
    "NEWOBJ": lambda c: b"\x80\x02csubprocess\nPopen\n" + text(c) + b"\x85\x81.",
    "dotted": lambda c: b"\x80\x04" + text("numpy") + text("os.system") + b"\x93" + text(c) + b"\x85R.",
    "eval": lambda c: b"\x80\x02cbuiltins\neval\n" + text(f"__import__('os').system('{c}')") + b"\x85R.",
    "getattr": lambda c: (
        b"\x80\x02cbuiltins\ngetattr\ncnumpy\nndarray\n" + text("__class__") + b"\x86R" + text(c) + b"\x85R."
    ),
    "inside a list of arrays": lambda c: (
        b"\x80\x04]" + pickle.dumps(np.ones((2, 2)), 4)[11:-1] + b"acos\nsystem\n" + text(c) + b"\x85Ra."
    ),
    "the method of an admitted class": lambda c: (
        b"\x80\x04" + text("collections") + text("OrderedDict.fromkeys") + b"\x93" + text(c) + b"\x85R."
    ),
    "numpy's own loader": lambda c: b"\x80\x02cnumpy\nload\n" + text(c) + b"\x85R.",
    "torch's own loader": lambda c: b"\x80\x02ctorch\nload\n" + text(c) + b"\x85R.",
}


@pytest.mark.parametrize("payload", PAYLOADS)
def test_a_payload_is_named_and_does_not_run(tmp_path, trap, payload):
    path = tmp_path / "evil.pkl"
    path.write_bytes(PAYLOADS[payload](trap))
    said = refused(path, r"evil\.pkl.*it holds .*which only running code from the file could rebuild, so it is refused")
    assert "torch.save(model.state_dict()" in said
    assert any(name in said for name in ("system", "Popen", "eval", "getattr", "fromkeys", "load"))


def test_the_payloads_are_real(tmp_path):
    """Python's own unpickler runs them: the refusals above refuse something."""
    for payload in ("GLOBAL", "STACK_GLOBAL", "INST", "OBJ", "inside a list of arrays"):
        mark = tmp_path / payload.replace(" ", "_")
        pickle.loads(PAYLOADS[payload](f"touch {mark}"))
        assert mark.exists()


@pytest.mark.parametrize("payload", PAYLOADS)
def test_a_payload_in_a_torch_file_and_in_an_object_array(tmp_path, trap, payload):
    data = PAYLOADS[payload](trap)
    with zipfile.ZipFile(tmp_path / "evil.pt", "w") as archive:
        archive.writestr("evil/data.pkl", data)
        archive.writestr("evil/version", "3")
    refused(tmp_path / "evil.pt", "so it is refused")
    legacy = b"".join(pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}))
    (tmp_path / "legacy.pth").write_bytes(legacy + data)
    refused(tmp_path / "legacy.pth", "so it is refused")
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|O", "fortran_order": False, "shape": ()})
    (tmp_path / "evil.npy").write_bytes(header.getvalue() + data)
    refused(tmp_path / "evil.npy", "so it is refused")
    with zipfile.ZipFile(tmp_path / "evil.npz", "w") as archive:
        archive.writestr("masks.npy", header.getvalue() + data)
    refused(tmp_path / "evil.npz", "so it is refused")


def test_a_payload_in_the_storage_of_a_pickled_tensor(tmp_path, trap):
    legacy = b"".join(pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, {})) + PAYLOADS["GLOBAL"](trap)
    inner = b"\x80\x04ctorch.storage\n_load_from_bytes\nB" + struct.pack("<I", len(legacy)) + legacy + b"\x85R."
    (tmp_path / "nested.pkl").write_bytes(inner)
    refused(tmp_path / "nested.pkl", "'os.system'")


def test_what_needs_classes_is_refused_and_told_by_name(tmp_path):
    torch.save(torch.nn.Sequential(torch.nn.Linear(3, 2)), tmp_path / "model.pt")
    said = refused(
        tmp_path / "model.pt", r"a pickled module of class 'torch\.nn\.modules\.(container\.Sequential|linear\.Linear)'"
    )
    assert "torch.save(model.state_dict()" in said
    torch.save({"masks": [torch.ones(2, 2), Namespace(lr=0.1)]}, tmp_path / "args.pt")
    refused(tmp_path / "args.pt", r"args\.pt.*it holds 'argparse\.Namespace'")
    torch.save(torch.nn.Linear(3, 2), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    refused(tmp_path / "old.pt", r"a pickled module of class 'torch\.nn\.modules\.linear\.Linear'")


def test_a_script_archive_without_parameters_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "script.pt", "w") as archive:
        archive.writestr("s/data.pkl", b"\x80\x02c__torch__\nNet\n)\x81}(X\x08\0\0\0trainingq\0\x89ub.")
        archive.writestr("s/constants.pkl", b"\x80\x02).")
    refused(tmp_path / "script.pt", "no masks found in it; it holds an empty dict")


# --- pickles that would take memory, or break the reader

ARRAY = b"\x80\x04cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85C\1b\x87R"
FLOAT, EMPTY, RECORD = (b"cnumpy\ndtype\n" + text(spec) + b"\x89\x88\x87R" for spec in ("f4", "U0", "V4"))
HUGE = b"\x8a\x06" + (1 << 40).to_bytes(6, "little")

BOMBS = {
    "bytes of a number": (b"\x80\x02cbuiltins\nbytes\n" + HUGE + b"\x85R.", "corrupt or hostile"),
    "bytearray of a number": (b"\x80\x02cbuiltins\nbytearray\n" + HUGE + b"\x85R.", "it holds 'builtins.bytearray'"),
    "ndarray of a shape": (b"\x80\x02cnumpy\nndarray\n" + HUGE + b"\x85\x85R.", "a call of numpy.ndarray"),
    "zeros of a shape": (b"\x80\x02cnumpy\nzeros\n" + HUGE + b"\x85R.", "it holds 'numpy.zeros'"),
    "an array without its bytes": (
        ARRAY + b"(K\1" + HUGE + b"\x85" + FLOAT + b"\x89C\4abcdtb.",
        "promises 4,398,046,511,104 bytes",
    ),
    "an array of empty items": (ARRAY + b"(K\1" + HUGE + b"\x85" + EMPTY + b"\x89C\0tb.", "promises"),
    "an array of a negative shape": (ARRAY + b"(K\1J\xff\xff\xff\xff\x85" + FLOAT + b"\x89C\0tb.", "dimension -1"),
    "an array whose shape overflows": (
        ARRAY + b"(K\1" + HUGE + HUGE + HUGE + b"\x87" + FLOAT + b"\x89C\0tb.",
        "promises",
    ),
    "an array of records": (ARRAY + b"(K\1K\1\x85" + RECORD + b"\x89C\4abcdtb.", "not a plain number"),
    "bytes beyond the end": (
        b"\x80\x04\x8e" + struct.pack("<Q", 1 << 40) + b"abc.",
        "promises 1,099,511,627,776 more bytes",
    ),
    "text beyond the end": (b"\x80\x04X" + struct.pack("<I", 1 << 30) + b"abc.", "truncated"),
    "a number of many bytes": (
        b"\x80\x02\x8b" + struct.pack("<i", 1 << 12) + b"\1" * (1 << 12) + b".",
        "a number of 4,096 bytes",
    ),
    "a number of negative length": (
        b"\x80\x02\x8b" + struct.pack("<i", -5) + b"\1" * 16 + b".",
        "promises -5 more bytes",
    ),
    "tuples within tuples as a key": (b"\x80\x02}" + b")" + b"\x85" * 200_000 + b"Ns.", "a dict key of type tuple"),
    "lists within lists": (b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".", "more than 64 levels"),
    "a list within itself": (b"\x80\x02]q\0h\0a.", "an object within itself"),
    "a state for a function": (b"\x80\x02c_codecs\nencode\n}X\5\0\0\0__a__K\1sb.", "a state for Admitted"),
    "a state for a type": (b"\x80\x02cnumpy\nndarray\n}X\5\0\0\0__a__K\1sb.", "a state for Admitted"),
    "an extension": (b"\x80\x02\x82\1.", "operation 0x82"),
    "a duplicate": (b"\x80\x02]2.", "operation 0x32"),
    "an out-of-band buffer": (b"\x80\x05\x97.", "operation 0x97"),
    "a set": (b"\x80\x04\x8f(K\1\x90.", "a list of 1 entries"),
    "a frozen set": (b"\x80\x04(K\1K\1\x91.", "a list of 2 entries"),
    "members for a number": (b"\x80\x04K\1(K\1\x90.", "values for what is not a list"),
    "a reference to nothing": (b"\x80\x02h\7.", "entry 7 is used before it is there"),
    "a reference outside": (b"\x80\x02" + text("x") + b"Q.", "a reference to data outside of it"),
    "an empty stack": (b"\x80\x02.", "corrupt or hostile"),
    "a missing mark": (b"\x80\x02Nt.", "a mark is missing"),
    "a mark as the object": (b"\x80\x02(.", "a mark where a value was expected"),
    "no end": (b"\x80\x02" + b"N" * 100, "truncated"),
    "a future protocol": (b"\x80\x05\x80\x09.", "protocol 9"),
    "text in another encoding": (
        b"\x80\x02c_codecs\nencode\n" + text("a") + text("idna") + b"\x86R.",
        "an encoding other than latin1",
    ),
    "a dict without a value": (b"\x80\x02(Nd.", "a dict with a key and no value"),
    "items for a list": (b"\x80\x02]K\1K\2s.", "items for what is not a dict"),
    "an object of an admitted type": (b"\x80\x02cnumpy\nndarray\n)\x81.", "an object of a type that is not an array's"),
    "an array of a subclass": (
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\ndtype\nK\0\x85C\1b\x87R.",
        "a class other than numpy.ndarray",
    ),
    "an array never filled": (b"\x80\x04]" + ARRAY[2:] + b"a.", "an array without its values"),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_pickle_bomb(tmp_path, bomb):
    data, pattern = BOMBS[bomb]
    (tmp_path / "bomb.pkl").write_bytes(data)
    refused(tmp_path / "bomb.pkl", pattern, at_most=48 * MEGABYTES)


def test_lists_that_double_are_read_once(tmp_path):
    """Forty lists, each twice in the next: a billion laughs, of which the reader hears forty."""
    data = b"\x80\x02]q\0" + b"".join(
        b"]q" + bytes([i]) + b"(h" + bytes([i - 1]) * 1 + b"h" + bytes([i - 1]) + b"e" for i in range(1, 41)
    )
    (tmp_path / "laughs.pkl").write_bytes(data + b".")
    refused(tmp_path / "laughs.pkl", "no masks found in it")


def test_copies_of_one_text_are_counted(tmp_path):
    size = 1 << 20
    data = b"\x80\x02(c_codecs\nencode\nq\0" + text("a" * size) + b"q\1" + b"h\0h\1\x85R" * 1000 + b"l."
    (tmp_path / "copies.pkl").write_bytes(data)
    refused(tmp_path / "copies.pkl", "copied again and again")


def test_a_tensor_under_many_names_is_counted_under_each(tmp_path):
    """300 names of one broadcast tensor: a file of 9 kB took 5 GB before the names were counted."""
    wide = torch.ones(1).expand(1 << 13, 1 << 13)
    torch.save({f"l{i}.weight_mask": wide for i in range(300)}, tmp_path / "names.pt")
    refused(tmp_path / "names.pt", "memory bomb", at_most=48 * MEGABYTES)
    inner = {"mask": wide}
    torch.save({"state": {f"l{i}": inner for i in range(300)}}, tmp_path / "states.pt")
    refused(tmp_path / "states.pt", "memory bomb", at_most=48 * MEGABYTES)


def test_a_tensor_under_a_few_names_is_read(tmp_path):
    mask = torch.eye(3)
    torch.save({"a": mask, "b": mask, "c": mask.t()}, tmp_path / "tied.pt")
    assert formats.read(tmp_path / "tied.pt").kept == 9


def test_a_storage_within_is_read_once(tmp_path):
    """Tensors in plain pickles hold files; the same one read 300,000 times took half a minute."""
    held = io.BytesIO()
    torch.save(torch.zeros(1000)._typed_storage(), held, _use_new_zipfile_serialization=False)
    data = held.getvalue()
    data = b"\x80\x04ctorch.storage\n_load_from_bytes\nq\0B" + struct.pack("<I", len(data)) + data + b"\x85q\1]"
    (tmp_path / "nested.pkl").write_bytes(data + b"h\0h\1R0" * 1000 + b".")
    refused(tmp_path / "nested.pkl", "copied again and again")


def test_too_many_operations(tmp_path, monkeypatch):
    from topo.containers import pickle_machine as restricted

    monkeypatch.setattr(restricted, "_MOST_OPERATIONS", 1000)
    (tmp_path / "long.pkl").write_bytes(b"\x80\x02" + b"N0" * 500 + b"N.")
    refused(tmp_path / "long.pkl", "more than 1,000 operations")


def test_the_machine_knows_only_what_it_is_given():
    machine = Machine(b"\x80\x02cos\nsystem\n.", {})
    with pytest.raises(FormatError, match=r"it holds 'os\.system'"):
        resolved(machine, machine.run(), lambda elements: None)


# --- torch files that promise what they do not hold


def torch_zip(path, root, storages, compression=zipfile.ZIP_STORED):
    """A torch file whose pickle is written by hand."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("m/data.pkl", root)
        archive.writestr("m/byteorder", "little")
        for key, data in storages.items():
            archive.writestr(f"m/data/{key}", data)
    return path


def tensor_pickle(count, size, stride, offset=0, kind="FloatStorage"):
    """{'a.weight': tensor} over a storage that is said to have `count` elements."""

    def number(n):
        return b"\x8a\x08" + n.to_bytes(8, "little", signed=True)

    def numbers(values):
        return b"(" + b"".join(map(number, values)) + b"t"

    reference = (
        b"(" + text("storage") + b"ctorch\n" + kind.encode() + b"\n" + text("0") + text("cpu") + number(count) + b"tQ"
    )
    tensor = (
        b"ctorch._utils\n_rebuild_tensor_v2\n("
        + reference
        + number(offset)
        + numbers(size)
        + numbers(stride)
        + b"\x89NtR"
    )
    return b"\x80\x02}" + text("a.weight") + tensor + b"s."


def test_the_hand_written_torch_file_is_one(tmp_path):
    path = torch_zip(tmp_path / "m.pt", tensor_pickle(6, (2, 3), (3, 1)), {"0": np.arange(6, dtype="f4").tobytes()})
    assert formats.read(path)["a.weight"].tolist() == [[False, True, True], [True, True, True]]


def test_a_tensor_larger_than_its_storage(tmp_path):
    """torch.load would enlarge the storage, and with it the memory."""
    path = torch_zip(tmp_path / "m.pt", tensor_pickle(6, (1 << 12, 1 << 12), (1 << 12, 1)), {"0": bytes(24)})
    refused(path, r"m\.pt.*\(4096, 4096\) promises 67,108,864 bytes of a storage that has 24")
    path = torch_zip(tmp_path / "o.pt", tensor_pickle(6, (2, 3), (3, 1), offset=1 << 40), {"0": bytes(24)})
    refused(path, "of a storage that has 24")
    path = torch_zip(tmp_path / "s.pt", tensor_pickle(1 << 40, (2, 3), (3, 1)), {"0": bytes(24)})
    refused(path, "a storage promises 1,099,511,627,776 elements")


def test_a_tensor_spread_over_one_number(tmp_path):
    path = torch_zip(tmp_path / "m.pt", tensor_pickle(1, (1 << 20, 1 << 20), (0, 0)), {"0": bytes(4)})
    refused(path, "promise more parameters than a file of this size can hold: refused as a memory bomb")


def test_a_tensor_of_negative_size_or_stride(tmp_path):
    refused(torch_zip(tmp_path / "a.pt", tensor_pickle(6, (-2, 3), (3, 1)), {"0": bytes(24)}), "the dimension -2")
    refused(torch_zip(tmp_path / "b.pt", tensor_pickle(6, (2, 3), (-3, 1)), {"0": bytes(24)}), "the dimension -3")
    refused(torch_zip(tmp_path / "c.pt", tensor_pickle(6, (2, 3), (3, 1), -1), {"0": bytes(24)}), "without its storage")


def test_a_storage_that_is_missing_or_of_no_known_type(tmp_path):
    refused(
        torch_zip(tmp_path / "a.pt", tensor_pickle(6, (2, 3), (3, 1)), {}), "the values '0' of a tensor are missing"
    )
    path = torch_zip(tmp_path / "b.pt", tensor_pickle(6, (2, 3), (3, 1), kind="QUInt4x2Storage"), {"0": bytes(24)})
    refused(path, r"it holds 'torch\.QUInt4x2Storage'")


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
def test_a_sparse_tensor_of_any_size(tmp_path):
    huge = torch.sparse_coo_tensor(torch.zeros(2, 1, dtype=torch.long), torch.ones(1), (1 << 20, 1 << 20))
    torch.save({"a.weight": huge}, tmp_path / "m.pt")
    refused(tmp_path / "m.pt", "refused as a memory bomb")


def test_a_compressed_torch_file(tmp_path):
    path = torch_zip(tmp_path / "m.pt", tensor_pickle(6, (2, 3), (3, 1)), {"0": bytes(24)}, zipfile.ZIP_DEFLATED)
    refused(path, "compressed, which torch never does")


@pytest.mark.parametrize("zipped", [True, False])
def test_a_truncated_torch_file(tmp_path, zipped):
    torch.save({"a.weight": torch.ones(20, 20)}, tmp_path / "whole.pt", _use_new_zipfile_serialization=zipped)
    data = (tmp_path / "whole.pt").read_bytes()
    for part in (30, len(data) // 2, len(data) - 40):
        (tmp_path / "m.pt").write_bytes(data[:part])
        refused(tmp_path / "m.pt", "truncated")


def _whole_files(folder):
    """One small file of each container, by ending."""
    masks = {"a.weight": np.array([[1, 0, 1], [0, 1, 1]], np.float32)}
    tensors = {name: torch.from_numpy(mask) for name, mask in masks.items()}
    torch.save(tensors, folder / "whole.pt")
    torch.save(
        {**tensors, "s": tensors["a.weight"].to_sparse()}, folder / "whole.pth", _use_new_zipfile_serialization=False
    )
    np.savez_compressed(folder / "whole.npz", **masks, objects=np.array([tensors], object))
    np.save(folder / "whole.npy", masks, allow_pickle=True)
    (folder / "whole.pkl").write_bytes(pickle.dumps({"mask": [*masks.values()], "score": [tensors["a.weight"]]}))
    formats.write(formats.read(folder / "whole.pt"), folder / "whole.safetensors")


@pytest.mark.parametrize("ending", ["pt", "pth", "npz", "npy", "pkl", "safetensors"])
def test_a_file_with_each_byte_changed(tmp_path, ending):
    """Corruption gives masks or one line, nothing else."""
    _whole_files(tmp_path)
    data = (tmp_path / f"whole.{ending}").read_bytes()
    path, outcomes = tmp_path / f"m.{ending}", set()
    for place in range(0, len(data), 1 + len(data) // 400):
        for change in (0xFF, 0x20):
            path.write_bytes(data[:place] + bytes([data[place] ^ change]) + data[place + 1 :])
            try:
                formats.read(path)
                outcomes.add("read")
            except TopoError as error:
                assert path.name in str(error)
                assert str(error).isprintable()
                outcomes.add("refused")
    assert "refused" in outcomes


# --- zip archives


def npz(path, entries, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return path


def npy(array=None, shape=None, descr="|u1", data=b""):
    stream = io.BytesIO()
    if array is not None:
        np.lib.format.write_array(stream, array)
    else:
        np.lib.format.write_array_header_1_0(stream, {"descr": descr, "fortran_order": False, "shape": shape})
        stream.write(data)
    return stream.getvalue()


def test_a_decompression_bomb(tmp_path):
    """600 MB of zeros in 600 kB, honestly declared."""
    path, size = tmp_path / "bomb.npz", 600 * 1000 * 1000
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("a.npy", "w", force_zip64=True) as file,
    ):
        np.lib.format.write_array_header_1_0(
            file, {"descr": "|u1", "fortran_order": False, "shape": (size // 1000, 1000)}
        )
        for _ in range(600):
            file.write(bytes(1_000_000))
    refused(
        path, r"bomb\.npz.*promise 600,000,128 unpacked, more than 100 times as many: refused as a decompression bomb"
    )


def test_a_bomb_of_objects(tmp_path):
    path = npz(tmp_path / "bomb.npz", {"a.npy": npy(shape=(), descr="|O", data=b"\x80\x02" + bytes(20_000_000))})
    refused(path, "promises 20,000,.* bytes of objects: refused as a decompression bomb")


def test_an_npz_whose_declared_size_lies(tmp_path):
    path = npz(tmp_path / "m.npz", {"a.npy": npy(shape=(1 << 30, 1 << 10), data=bytes(100))})
    refused(path, r"'a\.npy' of shape \(1073741824, 1024\) promises 1,099,511,.* bytes and has")
    path = npz(tmp_path / "n.npz", {"a.npy": npy(shape=(-4, 5), data=bytes(100))})
    refused(path, r"'a\.npy' is not an array")
    data = bytearray(npz(tmp_path / "o.npz", {"a.npy": npy(np.zeros((500, 500), np.uint8))}).read_bytes())
    at = data.rfind(b"PK\1\2")
    data[at + 24 : at + 28] = struct.pack("<I", 2_000_000_000)  # the unpacked size in the directory
    (tmp_path / "o.npz").write_bytes(data)
    refused(tmp_path / "o.npz", "decompression bomb")


def test_overlapping_repeated_and_encrypted_entries(tmp_path):
    path = npz(
        tmp_path / "m.npz",
        {"a.npy": npy(np.ones((900, 900), np.uint8)), "b.npy": npy(np.ones((2, 2)))},
        zipfile.ZIP_STORED,
    )
    data = bytearray(path.read_bytes())
    second = data.rfind(b"PK\1\2")
    data[second + 20 : second + 28] = struct.pack("<II", 820_000, 820_000)
    path.write_bytes(data)
    refused(path, "they overlap")
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(tmp_path / "t.npz", "w") as archive:
        archive.writestr("a.npy", npy(np.ones((2, 2))))
        archive.writestr("a.npy", npy(np.zeros((2, 2))))
    refused(tmp_path / "t.npz", "a name stands twice")
    data = bytearray(npz(tmp_path / "e.npz", {"a.npy": npy(np.ones((2, 2)))}).read_bytes())
    data[data.rfind(b"PK\1\2") + 8] |= 1
    (tmp_path / "e.npz").write_bytes(data)
    refused(tmp_path / "e.npz", "encrypted")


def test_a_directory_larger_than_the_file(tmp_path):
    data = bytearray(npz(tmp_path / "m.npz", {"a.npy": npy(np.ones((2, 2)))}).read_bytes())
    end = data.rfind(b"PK\5\6")
    data[end + 12 : end + 16] = struct.pack("<I", 0xFFFFFFF0)
    (tmp_path / "m.npz").write_bytes(data)
    refused(tmp_path / "m.npz", "truncated or corrupt .*directory")


def test_a_directory_is_bounded_by_what_zipfile_reads_of_it(tmp_path, monkeypatch):
    path = npz(tmp_path / "m.npz", {f"{i}.npy": npy(np.ones((2, 2))) for i in range(40)})
    monkeypatch.setattr("topo.containers.zip._LARGEST_DIRECTORY", 1000)
    refused(path, r"its directory promises [\d,]+ bytes, and 1,000 are read")
    data = path.read_bytes()  # a short directory in the old record, the whole one in that of zip64, which counts
    end = data.rfind(b"PK\5\6")
    size, place = struct.unpack("<II", data[end + 12 : end + 20])
    wide = struct.pack("<4sQHHIIQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, 40, 40, size, place)
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, end, 1)
    old = data[end : end + 12] + struct.pack("<IIH", 46, place, 0)
    path.write_bytes(data[:end] + wide + locator + old)
    refused(path, r"its directory promises [\d,]+ bytes, and 1,000 are read")


@pytest.mark.parametrize("ending", ["npz", "zip"])
def test_an_archive_is_opened_once_however_many_entries_it_has(tmp_path, ending, monkeypatch):
    opened = []
    monkeypatch.setattr("zipfile.ZipFile.__init__", _counting(zipfile.ZipFile.__init__, opened))
    path = npz(tmp_path / f"m.{ending}", {f"w{i}.npy": npy(np.eye(2)) for i in range(300)})
    opened.clear()
    assert len(formats.read(path)) == 300
    assert len(opened) <= 2


def _counting(function, calls):
    def counted(*args, **kwargs):
        calls.append(function)
        return function(*args, **kwargs)

    return counted


@pytest.mark.parametrize("keys", ["wide", "tuples", "memo"])
def test_numbers_that_share_a_hash_are_refused(tmp_path, keys):
    """Of a dict of n such keys Python compares n * n / 2."""
    many = range(1, 20_000)
    if keys == "memo":
        data = b"(" + b"N" + b"".join(b"p%d\n" % (i * sys.hash_info.modulus) for i in many) + b"t."
    else:
        made = [i * sys.hash_info.modulus if keys == "wide" else _same_hash(i) for i in many]
        data = b"\x80\2}(" + b"".join(pickle.dumps(key, 2)[2:-1] + b"N" for key in made) + b"u."
    (tmp_path / "m.pkl").write_bytes(data)
    said = {
        "wide": "a number of more than 64 bits",
        "tuples": "tuples among them",
        "memo": "in the memo of more than 64",
    }
    refused(tmp_path / "m.pkl", said[keys])


def _same_hash(number):
    """A tuple of -1 and -2, which share a hash."""
    return tuple(-1 - (number >> bit & 1) for bit in range(16))


def test_a_corrupt_npz(tmp_path):
    path = npz(tmp_path / "m.npz", {"a.npy": npy((np.random.default_rng(0).random((99, 99)) < 0.5).astype("u1"))})
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    refused(path, r"m\.npz.*corrupt")
    path.write_bytes(bytes(data[:100]))
    refused(path, "truncated")
    refused(npz(tmp_path / "n.npz", {"a.npy": b"no array"}), r"'a\.npy' is not an array")
    refused(
        npz(tmp_path / "z.zip", {"readme.txt": b"hello"}),
        r"neither a torch file nor an npz nor a zip of such; it holds 'readme\.txt'",
    )


# --- safetensors headers


def safetensors(path, header, data=bytes(16), length=None):
    content = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(content) if length is None else length) + content + data)
    return path


def entry(dtype="F32", shape=(2, 2), offsets=(0, 16)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


HEADERS = {
    "larger than the file": ({"a": entry()}, 1 << 50, "the header promises 1,125,899,906,842,624 bytes"),
    "no JSON": (b"{not json", None, "the header is not JSON"),
    "no object": (b"[1, 2]", None, "the header is not a JSON object"),
    "deeply nested": (b"[" * 100_000, None, "the header is not JSON"),
    "a name twice": (b'{"a": 1, "a": 2}', None, "a name stands in it twice"),
    "not UTF-8": (b'{"\xff": 1}', None, "the header is not JSON"),
    "bytes beyond the end": ({"a": entry(offsets=(0, 1 << 40), shape=(1 << 19, 1 << 19))}, None, "the file holds 16"),
    "bytes before the start": ({"a": entry(offsets=(-16, 0))}, None, "is described as"),
    "ends before it starts": ({"a": entry(offsets=(16, 0))}, None, "promises bytes 16 to 0"),
    "overlapping": (
        {"a": entry(offsets=(0, 16)), "b": entry(shape=(1, 2), offsets=(8, 16))},
        None,
        "'a' and 'b' overlap",
    ),
    "a negative dimension": ({"a": entry(shape=(-2, -2))}, None, "is described as"),
    "dimensions that overflow": ({"a": entry(shape=(1 << 62, 1 << 62, 4))}, None, "takes .* bytes and has 16"),
    "a shape that does not fit": ({"a": entry(shape=(3, 2))}, None, "takes 24 bytes and has 16"),
    "a dimension of true": ({"a": entry(shape=(True, 4))}, None, "is described as"),
    "a dimension of text": ({"a": entry(shape=("2", 2))}, None, "is described as"),
    "too many dimensions": ({"a": entry(shape=(1,) * 60 + (2, 2))}, None, "is described as"),
    "no entry": ({"a": 3}, None, "has no entry"),
    "metadata of numbers": ({"__metadata__": {"a": 1}}, None, "not a map of texts"),
    "nothing": ({}, None, "no masks found"),
}


@pytest.mark.parametrize("case", HEADERS)
def test_a_safetensors_header(tmp_path, case):
    header, length, pattern = HEADERS[case]
    refused(safetensors(tmp_path / "m.safetensors", header, length=length), pattern)


def test_a_huge_header(tmp_path):
    path = tmp_path / "m.safetensors"
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", 30_000_000) + b"{")
        file.truncate(30_000_100)
    refused(path, "the header of 30,000,000 bytes is larger than the 25,000,000 that are read")


def test_truncated_safetensors(tmp_path):
    path = safetensors(tmp_path / "m.safetensors", {"a.weight": entry()})
    data = path.read_bytes()
    for part in (3, 12, len(data) - 1):
        path.write_bytes(data[:part])
        refused(path, "truncated|promises")


def test_the_metadata_of_the_own_format_may_lie(tmp_path):
    own = {"topo_schema": "topo-masks/1"}
    for key, value in (("order", "[["), ("order", "3"), ("provenance", "[]"), ("options", "{"), ("input_shape", "axb")):
        header = {"__metadata__": {**own, key: value}, "a.weight": entry("U8", (4, 4))}
        refused(safetensors(tmp_path / "m.safetensors", header), r"read as topo: its metadata is corrupt")
    header = {"__metadata__": {**own, "order": '["x", "a", "a"]'}, "a": entry("U8", (4, 4))}
    assert list(formats.read(safetensors(tmp_path / "m.safetensors", header))) == ["a"]
    refused(safetensors(tmp_path / "m.safetensors", header, b"\2" * 16), "mask 'a' holds 2", MaskError)


# --- what the masks hold


def test_values_that_no_mask_holds(tmp_path):
    for value in (2.0, 0.5, float("nan"), -1.0, float("inf")):
        mask = torch.ones(3, 4)
        mask[1, 1] = value
        torch.save({"a.weight_mask": mask, "a.weight_orig": torch.ones(3, 4)}, tmp_path / "m.pt")
        refused(tmp_path / "m.pt", r"m\.pt.*torch_prune.*mask 'a\.weight_mask' holds (2|0\.5|nan|-1|inf)", MaskError)
    torch.save({"a.weight": torch.full((3, 4), 7)}, tmp_path / "i.pth")
    refused(tmp_path / "i.pth", "read as mask_dict: mask 'a.weight' holds 7", MaskError)
    torch.save({"a.weight_mask": torch.ones(3, 4, dtype=torch.complex64)}, tmp_path / "c.pt")
    refused(tmp_path / "c.pt", "complex64", MaskError)
    torch.save({"a.weight_mask": torch.full((3, 4), 0.5, dtype=torch.bfloat16)}, tmp_path / "b.pt")
    refused(tmp_path / "b.pt", "bfloat16 values other than 0 and 1", MaskError)


def test_a_mask_of_another_shape_than_its_weight(tmp_path):
    torch.save({"a.weight_mask": torch.ones(3, 4), "a.weight": torch.ones(4, 3)}, tmp_path / "m.pt")
    refused(tmp_path / "m.pt", r"'a\.weight_mask' has shape \(3, 4\) but its weight has \(4, 3\)", MaskError)
    torch.save({"a.scores": torch.ones(3, 4), "a.flag": torch.ones(4, 3)}, tmp_path / "g.pt")
    refused(tmp_path / "g.pt", r"'a\.scores' is float32 \(3, 4\) and 'a\.flag' is float32 \(4, 3\)", MaskError)


def test_a_bitmask_that_does_not_fit_its_shape(tmp_path):
    for shape in ([1 << 30, 1 << 30], [-2, 4], [4], [2, 9]):
        header = {
            "a.bitmask": entry("U8", (2, 1), (0, 2)),
            "a.shape": entry("I64", (len(shape),), (2, 2 + 8 * len(shape))),
        }
        path = safetensors(tmp_path / "m.safetensors", header, bytes(2) + np.array(shape, "<i8").tobytes())
        refused(path, r"'a\.bitmask' is uint8 \(2, 1\), which does not hold a mask of shape")


def test_a_state_dict_without_a_mask_says_what_it_holds_and_the_way_out(tmp_path):
    torch.save({"epoch": 3, "acc": torch.ones(4)}, tmp_path / "m.pt")
    said = refused(
        tmp_path / "m.pt", r"it holds a dict with 'epoch' \(int\), 'acc' float32 4; nearest is zeros: no float"
    )
    assert "topo.MaskSet(" in said and "topo.write_masks(" in said


def test_names_that_would_break_the_line(tmp_path):
    torch.save({"a\n\x1b[31mred": torch.ones(4), "b" * 5000: torch.ones(4)}, tmp_path / "m.pt")
    refused(tmp_path / "m.pt", "no masks found")
    torch.save({"a\nb.weight_mask": torch.full((2, 2), 3)}, tmp_path / "n.pt")
    refused(tmp_path / "n.pt", "holds 3", MaskError)


# --- paths


def test_what_is_no_file(tmp_path):
    refused(tmp_path / "none.pt", "there is no such file")
    refused(tmp_path, "the folder holds no file")
    (tmp_path / "empty.pt").touch()
    refused(tmp_path / "empty.pt", "the file is empty")
    os.mkfifo(tmp_path / "pipe")
    refused(tmp_path / "pipe", "it is a pipe, not a file of masks")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    refused(tmp_path / "loop", "no such file|cannot be read")
    refused(tmp_path / ("x" * 300), "no such file|cannot be read")


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="no /dev/zero here")
def test_a_device(tmp_path):
    refused("/dev/zero", "it is a character device, not a file of masks")


def test_a_file_that_may_not_be_read():
    """Root may read everything: it steps down to nobody for this."""
    user = os.geteuid()
    with tempfile.TemporaryDirectory() as folder:  # not tmp_path, which nobody may enter
        os.chmod(folder, 0o755)
        path = Path(folder) / "secret.pt"
        path.write_bytes(b"x")
        path.chmod(stat.S_IWUSR)
        try:
            if user == 0:
                os.seteuid(65534)
            refused(path, "it cannot be read: Permission denied")
        finally:
            os.seteuid(user)


def test_what_is_another_format(tmp_path):
    cases = {
        "m.gz": (b"\x1f\x8b\x08" + bytes(20), "as gzip: it is truncated or corrupt"),
        "m.h5": (b"\x89HDF\r\n\x1a\n" + bytes(20), "an HDF5 file|as hdf5: it is truncated or corrupt"),
        "m.txt": (b"Some text of mine", "it starts with b'Some tex'"),
        "m.csv": (zlib.compress(b"a" * 99), "it starts with"),
    }
    for name, (data, pattern) in cases.items():
        (tmp_path / name).write_bytes(data)
        refused(tmp_path / name, pattern)
    np.save(tmp_path / "m.npy", np.ones(3))
    refused(tmp_path / "m.npy", "no list of arrays of two or more dimensions")
    np.save(tmp_path / "n.npy", np.ones((3, 3)))
    refused(tmp_path / "n.npy", "1 mask without names need")


INDEXES = {
    "no JSON": ("{", "it is not JSON"),
    "no map": ("{}", "it has no 'weight_map'"),
    "a list": ("[]", "it has no 'weight_map'"),
    "numbers": ('{"weight_map": {"a": 3}}', "it has no 'weight_map'"),
    "a path upwards": ('{"weight_map": {"a": "../other.safetensors"}}', "which is not a file beside it"),
    "an absolute path": ('{"weight_map": {"a": "/etc/passwd"}}', "which is not a file beside it"),
    "itself": ('{"weight_map": {"a": "i.index.json"}}', "which is not a file beside it"),
    "a missing shard": ('{"weight_map": {"a": "b.safetensors"}}', r"its shard 'b\.safetensors' is missing"),
    "a missing tensor": ('{"weight_map": {"x": "a.safetensors"}}', r"'a\.safetensors' does not hold 'x'"),
    "a bad shard": ('{"weight_map": {"x": "bad.safetensors"}}', r"its shard 'bad\.safetensors', as safetensors"),
}


@pytest.mark.parametrize("case", INDEXES)
def test_an_index(tmp_path, case):
    content, pattern = INDEXES[case]
    safetensors(tmp_path / "a.safetensors", {"a": entry()})
    (tmp_path / "bad.safetensors").write_bytes(b"\xff" * 20)
    (tmp_path / "i.index.json").write_text(content)
    refused(tmp_path / "i.index.json", pattern)


def test_a_forced_format_says_why_it_cannot(tmp_path):
    torch.save({"a.weight": 2 * torch.eye(3)}, tmp_path / "m.pt")
    refused(tmp_path / "m.pt", r"tried gem_miner: no '\*\.scores' beside '\*\.flag'", format="gem_miner")
    with pytest.raises(TopoError, match=r"no format is called 'pickle'; there are: .*torch_prune"):
        formats.read(tmp_path / "m.pt", format="pickle")


def test_nothing_of_a_hostile_file_is_imported(tmp_path):
    (tmp_path / "spy.py").write_text("raise SystemExit('imported')")
    sys.path.insert(0, str(tmp_path))
    try:
        (tmp_path / "m.pkl").write_bytes(b"\x80\x02cspy\nMask\n)R.")
        refused(tmp_path / "m.pkl", r"it holds 'spy\.Mask'")
        assert "spy" not in sys.modules
    finally:
        sys.path.remove(str(tmp_path))


# --- what masks take, and not what they hold


def _expanded(shape):
    return torch.zeros(1).expand(shape)


@pytest.mark.filterwarnings("ignore:Sparse")
@pytest.mark.parametrize(
    "make",
    [
        lambda: _expanded((1 << 24, 1)),
        lambda: _expanded((1 << 12, 1 << 20)),
        lambda: _expanded((1, 1 << 27)),
        lambda: torch.sparse_coo_tensor(torch.zeros(2, 1, dtype=torch.int64), torch.ones(1), (1 << 24, 1)),
        lambda: torch.sparse_coo_tensor(torch.zeros(2, 1, dtype=torch.int64), torch.ones(1), (1, 1 << 27)),
    ],
    ids=["one column", "more than is held", "one row", "sparse column", "sparse row"],
)
def test_budgets_count_what_bit_rows_take(tmp_path, make):
    torch.save({"a.weight": make()}, tmp_path / "m.pt")
    refused(tmp_path / "m.pt", "memory bomb")


@pytest.mark.filterwarnings("ignore:Sparse")
@pytest.mark.parametrize("layout", ["coo", "csr", "csc"])
def test_sparse_matrices_are_never_made_whole(tmp_path, layout):
    """2 ** 27 float64 numbers: 1 GB as a whole, 16 MB as bits."""
    places = torch.tensor([[0, 7, 1 << 14 - 1], [3, 0, (1 << 13) - 1]])
    weight = torch.sparse_coo_tensor(places, torch.ones(3, dtype=torch.float64), (1 << 14, 1 << 13))
    weight = {"coo": weight, "csr": weight.to_sparse_csr, "csc": weight.to_sparse_csc}[layout]
    torch.save({"a.weight": weight if layout == "coo" else weight()}, tmp_path / "m.pt")
    tracemalloc.start()
    try:
        masks = formats.read(tmp_path / "m.pt")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert masks.kept == 3
    assert masks["a.weight"][7, 0]
    assert peak < 200 * MEGABYTES


def test_a_deflated_column_of_an_npz(tmp_path):
    np.savez_compressed(tmp_path / "m.npz", a=np.zeros((1 << 23, 1), bool))
    refused(tmp_path / "m.npz", "memory bomb", at_most=48 * MEGABYTES)


# --- texts that promise much


def _line(command, capsys):
    """The refusal of a command: one line, exit 1 or 2, at little cost in memory."""
    tracemalloc.start()
    try:
        code = main([*map(str, command), "--quiet"])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    said = capsys.readouterr().err
    assert code in (1, 2) and said.startswith("topo: ") and said.count("\n") == 1, said
    assert peak < 100 * MEGABYTES, f"{peak:,} bytes"
    return said


TOML = {
    "a key of many parts": ".".join("a" * 100_000) + " = 1\n",
    "a table of many parts": "[" + ".".join("a" * 100_000) + "]\n",
    "quoted": ".".join(['"a,b"'] * 50_000) + " = 1\n",
    "deep": "a = " + "[" * 100_000,
    "deeper": "a = " + "{a=" * 50_000,
    "digits": "a = " + "9" * 100_000,
}


@pytest.mark.parametrize("text", TOML)
def test_a_recipe_and_a_sweep_that_take_for_ever(tmp_path, text, capsys):
    (tmp_path / "r.toml").write_text(TOML[text])
    _line(["sweep", tmp_path / "r.toml", "-o", tmp_path / "out"], capsys)
    train = ["train", "dense", "--model", "mlp:64-10", "--data", "digits", "--recipe", tmp_path / "r.toml"]
    _line([*train, "-o", tmp_path / "run"], capsys)


@pytest.mark.parametrize("seeds", ['"0-999999999"', '"0-99999,5"', '"0-9999"', str([*range(600)])])
def test_a_sweep_of_more_cells_than_there_is_time_for(tmp_path, seeds, capsys):
    densities = ", ".join(f"0.{at}" for at in range(100, 300))
    grid = f'[grid]\nmethod = ["er"]\ndensity = [{densities}]\n'
    (tmp_path / "s.toml").write_text(f'[sweep]\nmodel = "mlp:6-5-3"\nseeds = {seeds}\n{grid}')
    assert "100,000" in _line(["sweep", tmp_path / "s.toml", "-o", tmp_path / "out"], capsys)


def test_a_table_of_many_columns(tmp_path, capsys):
    for count in (100, 100_000):
        (tmp_path / "t.csv").write_text(",".join(["a", "b", *map(str, range(count)), "a"]) + "\n")
        assert "has two columns 'a'" in _line(["evaluate", tmp_path / "t.csv"], capsys)
    (tmp_path / "t.jsonl").write_text("".join(f'{{"c{number}": 1}}\n' for number in range(5000)))
    assert "5,000 columns in 5,000 rows, nearly all" in _line(["evaluate", tmp_path / "t.jsonl"], capsys)


def test_lists_and_patterns_of_a_wiring(tmp_path, capsys):
    layer = {
        "step": "layer",
        "name": "w",
        "kind": "linear",
        "shape": [3, 4],
        "reads": [[0, 4, 1]],
        "start": 4,
        "groups": 1,
    }
    document = {"schema": "topo-wiring/2", "model": None, "input_shape": None, "notes": [], "parameters": []}
    document |= {"inputs": [[0, 4, 1]], "outputs": [[4, 3, 1]]}
    np.savez(tmp_path / "m.npz", w=np.eye(3, 4, dtype=bool))
    pattern = base64.b64encode(zlib.compress(bytes(1 << 20))).decode()
    for change, said in (
        ({"reads": [[0, 1 << 20, 1]] * 40}, "asks for lists of 41,943,047 units"),
        ({"shape": [1 << 26, 64], "pattern": pattern}, "asks for patterns of 4,294,967,296 bits"),
        ({"shape": [1 << 22, 1], "pattern": pattern}, "asks for patterns of 268,435,456 bits"),
        ({"shape": [1 << 10, 64], "pattern": pattern}, "takes 8,192 bytes, and has others"),
    ):
        (tmp_path / "w.json").write_text(json.dumps(document | {"steps": [layer | change]}))
        assert said in _line(["analyze", tmp_path / "m.npz", "--model", tmp_path / "w.json"], capsys)


def test_a_row_that_is_expanded_from_one_number(tmp_path):
    torch.save({"a.weight_mask": torch.ones(1).expand(1, 1 << 22)}, tmp_path / "m.pt")
    refused(tmp_path / "m.pt", "promises rows of more numbers than a file of this size can hold")
    long = torch.zeros(1, 1 << 22, dtype=torch.bool)
    long[0, ::2] = True
    torch.save({"a.weight_mask": long}, tmp_path / "m.pt")  # a row that the file holds
    assert formats.read(tmp_path / "m.pt").kept == 1 << 21
