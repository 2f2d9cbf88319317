"""Data sets: the digits, and every layout from tiny files written as their authors write them."""

from __future__ import annotations

import gzip
import os
import pickle
import shutil
import struct
import sysconfig
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from topo.data import Dataset, batches, data, every_fifth, load
from topo.data.idx import DEBIAN
from topo.data.mnist1d import signals
from topo.data.pixels import as_bytes, channels_last
from topo.errors import DataError, TopoError

RNG = np.random.default_rng(0)
STDLIB = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))


def images(count, side=32, channels=3):
    return RNG.integers(0, 256, (count, channels, side, side), dtype=np.uint8)


@pytest.mark.small
def test_digits():
    digits = load("digits")
    assert digits.train_images.shape == (1442, 1, 8, 8) and digits.test_images.shape == (355, 1, 8, 8)
    assert digits.shape == (1, 8, 8) and digits.classes == tuple("0123456789") and not digits.flips
    counts = np.bincount(digits.train_labels) + np.bincount(digits.test_labels)
    assert counts.tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]  # of UCI's test part
    both = np.concatenate([digits.train_images, digits.test_images])
    assert both.max() == 16 and both.astype(int).sum() == 561718  # scikit-learn's load_digits().data.sum()
    normal = digits.normalised(digits.train_images)
    assert normal.dtype == np.float32
    assert abs(normal.mean(dtype=np.float64)) < 1e-5 and normal.std(dtype=np.float64) == pytest.approx(1, abs=1e-5)
    assert load(digits) is digits


@pytest.mark.small
def test_every_fifth_of_each_class():
    labels = np.array([0, 0, 1, 0, 0, 0, 1, 1, 1, 1, 0])
    assert np.flatnonzero(every_fifth(labels)).tolist() == [5, 9]


@pytest.mark.small
def test_moments_are_those_of_numpy():
    held = images(7, 5)
    made = Dataset("x", held, np.arange(7), held, np.arange(7), tuple("abcdefg"))
    assert made.mean == pytest.approx((held / 255).mean(axis=(0, 2, 3)))
    assert made.std == pytest.approx((held / 255).std(axis=(0, 2, 3)))


def write_cifar_binary(folder, kind, parts):
    for name, (pixels, labels) in parts.items():
        head = labels[:, None] if kind == 10 else np.stack([labels // 5, labels], axis=1)
        np.concatenate([head.astype(np.uint8), pixels.reshape(len(pixels), -1)], axis=1).tofile(folder / name)


@pytest.mark.small
def test_cifar10_binary(tmp_path):
    parts = {f"data_batch_{n}.bin": (images(4), RNG.integers(0, 10, 4)) for n in range(1, 6)}
    test = images(3), np.array([1, 9, 0])
    write_cifar_binary(tmp_path, 10, {**parts, "test_batch.bin": test})
    found = load(tmp_path)
    assert found.name == "cifar10" and len(found.train_images) == 20
    np.testing.assert_array_equal(found.train_images[4:8], parts["data_batch_2.bin"][0])
    np.testing.assert_array_equal(found.test_labels, test[1])
    assert found.mean == (0.491, 0.482, 0.447) and found.std == (0.247, 0.243, 0.262)
    (tmp_path / "test_batch.bin").write_bytes(b"\0" * 3072)
    with pytest.raises(DataError, match=r"'test_batch.bin' has 3,072 bytes; it should hold records of 3,073 bytes"):
        load(tmp_path)
    (tmp_path / "test_batch.bin").unlink()
    with pytest.raises(DataError, match="No such file"):
        load(tmp_path)


@pytest.mark.small
def test_cifar100_binary_takes_the_fine_labels(tmp_path):
    inside = tmp_path / "cifar-100-binary"
    inside.mkdir()
    labels = np.array([99, 3, 50])
    write_cifar_binary(inside, 100, {"train.bin": (images(3), labels), "test.bin": (images(3), labels)})
    (inside / "fine_label_names.txt").write_text("\n".join(f"n{i}" for i in range(100)))
    found = load(tmp_path)
    assert found.name == "cifar100" and found.classes[3] == "n3" and found.train_labels.tolist() == [99, 3, 50]


@pytest.mark.small
@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("keys", [str, str.encode], ids=["text", "bytes"])
def test_cifar10_python_through_the_restricted_reader(tmp_path, protocol, keys):
    def write(name, record):
        (tmp_path / name).write_bytes(pickle.dumps({keys(k): v for k, v in record.items()}, protocol=protocol))

    pixels = images(20)
    for n in range(5):
        part = slice(4 * n, 4 * n + 4)
        labels = [n, n + 1, 3, 4]
        write(f"data_batch_{n + 1}", {"data": pixels[part].reshape(4, -1), "labels": labels, "filenames": ["a"] * 4})
    write("test_batch", {"data": pixels[:4].reshape(4, -1), "labels": [0, 1, 2, 3]})
    write("batches.meta", {"label_names": [keys(f"n{i}") for i in range(10)]})
    found = load(tmp_path)
    np.testing.assert_array_equal(found.train_images, pixels)
    assert found.train_labels[:5].tolist() == [0, 1, 3, 4, 1] and found.classes[2] == "n2"


@pytest.mark.small
def test_a_pickle_that_runs_code_is_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return (exec, (f"open({str(tmp_path / 'ran')!r}, 'w')",))

    (tmp_path / "train").write_bytes(pickle.dumps({"data": Evil(), "fine_labels": [1]}))
    (tmp_path / "test").write_bytes(b"")
    (tmp_path / "meta").write_bytes(b"")
    with pytest.raises(DataError, match=r"'train' is not a pickle of arrays: it holds 'builtins.exec'"):
        load(tmp_path)
    assert not (tmp_path / "ran").exists()


def write_pictures(folder, count, side=8, start=0):
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        Image.fromarray(images(1, side)[0].transpose(1, 2, 0)).save(folder / f"{start + index}.png")


def test_tiny_imagenet(tmp_path):
    (tmp_path / "wnids.txt").write_text("n2\nn1\n")
    for name in ("n1", "n2"):
        write_pictures(tmp_path / "train" / name / "images", 3)
    write_pictures(tmp_path / "val" / "images", 2)
    (tmp_path / "val" / "val_annotations.txt").write_text("0.png\tn1\t0\t0\t8\t8\n1.png\tn2\t0\t0\t8\t8\n")
    found = load(tmp_path)
    assert found.name == "tiny_imagenet" and found.classes == ("n2", "n1") and found.mean == (0.480, 0.448, 0.397)
    assert found.train_labels.tolist() == [0, 0, 0, 1, 1, 1] and found.test_labels.tolist() == [1, 0]
    with Image.open(tmp_path / "val" / "images" / "0.png") as picture:
        np.testing.assert_array_equal(found.test_images[0], np.asarray(picture).transpose(2, 0, 1))
    (tmp_path / "val" / "val_annotations.txt").write_text("0.png\tn7\n")
    with pytest.raises(DataError, match=r"the line '0.png n7'"):
        load(tmp_path)


def test_image_folders_with_and_without_a_test_part(tmp_path):
    for part, count in (("train", 4), ("val", 2)):
        for name in ("cat", "dog"):
            write_pictures(tmp_path / "two" / part / name, count)
    found = load(tmp_path / "two")
    assert found.classes == ("cat", "dog") and found.train_images.shape == (8, 3, 8, 8) and len(found.test_images) == 4
    for name in ("cat", "dog"):
        write_pictures(tmp_path / "one" / name, 5)
    found = load(tmp_path / "one")
    assert len(found.train_images) == 8 and found.test_labels.tolist() == [0, 1]
    assert found.notes == ("no test part of its own: every fifth image of each class is kept for it (2)",)
    write_pictures(tmp_path / "one" / "cat", 1, side=6, start=9)
    with pytest.raises(DataError, match=r"'9.png' has 6x6 pixels and '0.png' 8x8; give the size"):
        load(tmp_path / "one")
    assert load(tmp_path / "one", size=4).shape == (3, 4, 4)
    (tmp_path / "one" / "dog" / "0.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"'0.png' is not a picture"):
        load(tmp_path / "one", size=4)


def test_a_cache_is_a_memory_map_and_follows_its_pictures(tmp_path):
    for part in ("train", "test"):
        write_pictures(tmp_path / "set" / part / "a", 3)
    plain = load(tmp_path / "set")
    for _ in range(2):
        cached = load(tmp_path / "set", cache=tmp_path / "cache")
        assert isinstance(cached.train_images, np.memmap)
        np.testing.assert_array_equal(cached.train_images, plain.train_images)
    assert len(list((tmp_path / "cache").iterdir())) == 2
    write_pictures(tmp_path / "set" / "train" / "a", 1, start=7)
    assert len(load(tmp_path / "set", cache=tmp_path / "cache").train_images) == 4


@pytest.mark.small
def test_npz(tmp_path):
    x, y = images(6, 5), np.arange(6) % 3
    np.savez(tmp_path / "a.npz", x_train=x.transpose(0, 2, 3, 1), y_train=y[:, None], x_test=x[:2], y_test=y[:2])
    found = load(tmp_path / "a.npz")
    np.testing.assert_array_equal(found.train_images, x)
    assert found.flips and found.classes == ("0", "1", "2") and found.train_labels.tolist() == y.tolist()
    np.savez(tmp_path / "b.npz", x_train=x[:, 0], y_train=y, x_test=x[:2, 0], y_test=y[:2])
    assert load(tmp_path / "b.npz").shape == (1, 5, 5) and not load(tmp_path / "b.npz").flips
    np.savez(tmp_path / "c.npz", x_train=x, y_train=y)
    with pytest.raises(DataError, match="it has no array x_test"):
        load(tmp_path / "c.npz")
    np.savez(tmp_path / "e.npz", x_train=np.array([object()]), y_train=y, x_test=x, y_test=y)
    with pytest.raises(DataError, match="not an npz of plain arrays"):
        load(tmp_path / "e.npz")


def npz(path, x, y, x_test=None, y_test=None, **more):
    np.savez_compressed(path, x_train=x, y_train=y, x_test=x if x_test is None else x_test,
                        y_test=y if y_test is None else y_test, **more)  # fmt: skip
    return load(path)


@pytest.mark.small
@pytest.mark.parametrize(
    "kind, scale, said",
    [("uint16", 257, "16-bit"), ("float64", 1 / 255, "float64"), ("float32", 1 / 255, "float32"),
     ("float16", 1 / 255, "float16"), (">u2", 257, "16-bit"),
     (">f4", 1 / 255, "from 0 to 1"), ("int64", 1, "int64"), ("float32", 1, "taken as bytes")],
)  # fmt: skip
def test_images_of_other_types_are_the_same_images(kind, scale, said, tmp_path):
    x, y = images(6, 8), np.arange(6) % 2
    other = (x * scale).astype(kind) if scale < 1 else x.astype(kind) * np.array(scale, kind)
    for found in (Dataset("x", other, y, x, y, ("a", "b")), npz(tmp_path / "a.npz", other, y, x)):
        np.testing.assert_array_equal(found.train_images, x)
        assert found.train_images.dtype == np.uint8 and any(said in note for note in found.notes)


@pytest.mark.small
def test_numbers_that_are_no_pixels_are_refused():
    x, y = images(4, 8), np.arange(4) % 2
    for odd, said in (
        (x / 255.0 - 0.5, "run from -0.5"),
        (np.where(x > 9, np.nan, x / 255), "run from nan to nan"),
        (x.astype(np.uint16), "bytes in a wider type"),
        (x.astype(np.int64) * 1000, "whole numbers run from 0 to 255"),
        (x.astype(np.float32) * 1.01 + 1, "floats run from 0 to 1"),
        (x.astype(str), "of type <U3"),
    ):
        with pytest.raises(DataError, match=said):
            Dataset("x", x, y, odd, y, ("a", "b"))
    bools = as_bytes(x > 100)[0]
    assert set(np.unique(bools)) == {0, 255}


@pytest.mark.small
def test_axes_are_told_by_their_shape_or_refused(tmp_path):
    for channels in (1, 2, 3, 4, 13):
        x, y = images(6, 8, channels), np.arange(6) % 2
        last = npz(tmp_path / "a.npz", x.transpose(0, 2, 3, 1), y)
        np.testing.assert_array_equal(last.train_images, x)
        np.testing.assert_array_equal(npz(tmp_path / "a.npz", x, y).train_images, x)
    assert channels_last((5, 24, 32, 3)) and not channels_last((5, 3, 24, 32))
    for shape in ((5, 3, 3, 3), (5, 2, 2, 8), (5, 20, 30, 40), (5, 2, 9, 4), (5, 8, 8, 8)):
        with pytest.raises(DataError, match="may be channels-first or channels-last"):
            npz(tmp_path / "a.npz", np.zeros(shape, np.uint8), np.arange(5) % 2)


@pytest.mark.small
def test_labels_that_are_no_class_numbers_are_refused_before_they_are_held(tmp_path):
    x = images(6, 8)
    for most in (2**31, 70_000, 61 * 2):
        with pytest.raises(DataError, match=f"labels go up to {most:,}"):
            npz(tmp_path / "a.npz", x, np.array([0, 1, 2, 3, 4, most]))
    with pytest.raises(DataError, match="y_test has the label 3, which y_train lacks"):
        npz(tmp_path / "a.npz", x, np.arange(6) % 2, y_test=np.array([0, 1, 0, 1, 0, 3]))
    found = npz(tmp_path / "a.npz", x, np.arange(6) % 3 + 1)
    assert found.classes == ("0", "1", "2", "3") and any("none is 0: class 0 is empty" in n for n in found.notes)
    assert any("1 of 4 classes have no image, the first is 2" in n for n in
               npz(tmp_path / "a.npz", x, np.array([0, 1, 3, 0, 1, 3])).notes)  # fmt: skip
    assert any("left out: weights" in n for n in npz(tmp_path / "a.npz", x, np.arange(6) % 2, weights=x).notes)


@pytest.mark.small
def test_an_array_that_is_larger_than_its_file_is_not_made(tmp_path):
    header = np.lib.format.header_data_from_array_1_0(np.zeros(3, np.uint8)) | {"shape": (1 << 40, 3, 32, 32)}
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        for key in ("x_train", "y_train", "x_test", "y_test"):
            with archive.open(f"{key}.npy", "w") as file:
                np.lib.format.write_array_header_1_0(file, header)
    with pytest.raises(DataError, match=r"'x_train' should hold 3,377,699,720,527,872 bytes"):
        load(tmp_path / "a.npz")


@pytest.mark.small
def test_a_test_part_of_training_images_is_noticed_by_hash(tmp_path):
    x, y = images(20, 8), np.arange(20) % 2
    again = npz(tmp_path / "a.npz", x, y, x[::-1], y[::-1])
    assert "all of the 20 test images are training images too: no fair test" in again.notes
    assert any("5 of the 10 test" in n for n in load(Dataset("x", x[:15], y[:15], x[10:], y[10:], ("a", "b"))).notes)
    assert load("digits").overlap == () and again.digests != load("digits").digests
    relabelled = Dataset("x", x, y[::-1], x, y, ("a", "b"))
    same = Dataset("other name", x.copy(), y, x, y, ("a", "b"))
    assert same.digests == Dataset("x", x, y, x, y, ("a", "b")).digests
    assert relabelled.digests["images"] == same.digests["images"]
    assert relabelled.digests["labels"] != same.digests["labels"]


@pytest.mark.small
def test_validation_parts(tmp_path):
    x, y = images(40, 8), np.arange(40) % 2
    found = npz(tmp_path / "a.npz", x, y, x_val=x[:4], y_val=y[:4])
    assert found.parts == ("train", "test", "val") and len(found.val_labels) == 4
    digits = load("digits", val=0.1)
    assert len(digits.val_labels) == 143 and len(digits.train_labels) == 1442 - 143
    assert np.bincount(digits.val_labels).min() >= 13  # of every class a tenth
    assert load("digits", val=0.1).digests == digits.digests != load("digits").digests
    for share, said in ((0.0, "val is 0.0"), (1, "val is 1"), (0.9, "validation part of its own")):
        with pytest.raises(DataError, match=said):
            load(digits, val=share)
    with pytest.raises(DataError, match="one of x_val and y_val"):
        npz(tmp_path / "a.npz", x, y, x_val=x)


@pytest.mark.small
def test_cifar_files_of_another_length_than_the_others_are_refused(tmp_path):
    for name in [f"data_batch_{n}.bin" for n in range(1, 6)]:
        write_cifar_binary(tmp_path, 10, {name: (images(4), RNG.integers(0, 10, 4))})
    write_cifar_binary(tmp_path, 10, {"test_batch.bin": (images(4), RNG.integers(0, 10, 4))})
    assert any("4 records a file" in note for note in load(tmp_path).notes)
    write_cifar_binary(tmp_path, 10, {"data_batch_3.bin": (images(3), RNG.integers(0, 10, 3))})
    with pytest.raises(DataError, match=r"'data_batch_3.bin' has 3 records; it should have 10,000, as published"):
        load(tmp_path)


def test_pictures_are_read_as_they_are_to_be_seen(tmp_path):
    pixels = images(1, 6)[0].transpose(1, 2, 0)
    wide = (pixels[..., 0].astype(np.uint16) * 257)[:, :4]
    clear = np.dstack([pixels, np.full((6, 6), 255, np.uint8)])
    clear[0, 0] = (10, 20, 30, 0)
    clear[0, 1] = (0, 100, 200, 51)
    turned = Image.Exif()
    turned[0x0112] = 6  # a quarter turn
    kinds = {
        "plain": (Image.fromarray(pixels), {}, pixels, ""),
        "grey": (Image.fromarray(pixels[..., 0]), {}, np.repeat(pixels[..., :1], 3, 2), ""),
        "wide": (Image.fromarray(wide), {}, np.repeat(pixels[:, :4, :1], 3, 2), "16 bits"),
        "turned": (Image.fromarray(pixels[:, :4]), {"exif": turned}, np.rot90(pixels[:, :4], -1), ""),
    }
    for name, (picture, how, expected, said) in kinds.items():
        for part in ("train", "test"):
            (tmp_path / name / part / "a").mkdir(parents=True)
            picture.save(tmp_path / name / part / "a" / "0.png", **how)
        found = load(tmp_path / name)
        np.testing.assert_array_equal(found.train_images[0].transpose(1, 2, 0), expected, name)
        assert bool(said) == any(said in note for note in found.notes[:-1] if said)
    for part in ("train", "test"):
        (tmp_path / "clear" / part / "a").mkdir(parents=True)
        Image.fromarray(clear).save(tmp_path / "clear" / part / "a" / "0.png")
    for _ in range(2):  # a cache remembers what was done
        found = load(tmp_path / "clear", cache=tmp_path / "cache")
        assert found.train_images[0, :, 0, 0].tolist() == [255, 255, 255]
        assert found.train_images[0, :, 0, 1].tolist() == [204, 224, 244]
        np.testing.assert_array_equal(found.train_images[0, :, 1:].transpose(1, 2, 0), pixels[1:])
        assert "1 of 1 pictures are transparent in places, composed over white" in found.notes


def png_of_16_bits(colours):
    """A PNG of uint16 (h, w, 3), which PIL cannot write."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width, _ = colours.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in colours)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def test_colours_of_16_bits_and_what_lies_beside_the_parts_are_told(tmp_path):
    pixels = images(1, 6)[0].transpose(1, 2, 0)
    for part in ("train", "test"):
        (tmp_path / part / "a").mkdir(parents=True)
        (tmp_path / part / "a" / "0.png").write_bytes(png_of_16_bits(pixels.astype(np.uint16) * 257))
    write_pictures(tmp_path / "b", 2)
    write_pictures(tmp_path, 1)
    found = load(tmp_path)
    np.testing.assert_array_equal(found.train_images[0].transpose(1, 2, 0), pixels)
    assert "1 of 1 pictures have 16 bits a colour, of which the upper 8 are taken" in found.notes
    assert {"left out: 'b', beside the parts", "left out: '0.png', beside the parts"} <= set(found.notes)
    with pytest.raises(DataError, match="'' is not a data set"):
        load("")


@pytest.mark.parametrize("channels", [2, 4])
def test_channels_that_may_be_transparency_are_told(channels, tmp_path):
    x, y = np.random.default_rng(0).integers(0, 256, (8, 6, 6, channels), dtype=np.uint8), np.arange(8) % 2
    found = npz(tmp_path / "a.npz", x, y, x)
    assert found.shape == (channels, 6, 6)
    assert any(f"{channels} channels, all taken as they are" in note for note in found.notes)


def test_folders_that_are_no_classes(tmp_path):
    for part in ("Train", "test", "val"):
        for name in ("cat", "dog"):
            write_pictures(tmp_path / part / name, 4)
        write_pictures(tmp_path / part / "__MACOSX", 1)
        (tmp_path / part / "empty").mkdir()
        (tmp_path / part / "cat" / "._0.png").write_bytes(b"a Mac's own")
        (tmp_path / part / "cat" / "notes.txt").write_text("not read")
        write_pictures(tmp_path / part, 1, start=3)
    write_pictures(tmp_path / "__MACOSX" / "Train" / "cat", 1)
    found = load(tmp_path)
    assert found.classes == ("cat", "dog") and len(found.train_labels) == len(found.val_labels) == 8
    assert "the folder 'Train/empty' holds no picture and is not a class" in found.notes
    assert any("left out of class 'cat': 'notes.txt'" in note for note in found.notes)
    assert any("left out of 'test': '3.png', in no class folder" in note for note in found.notes)
    write_pictures(tmp_path / "val" / "cow", 1)
    with pytest.raises(DataError, match="'val' has the class 'cow', which 'Train' lacks"):
        load(tmp_path)
    (tmp_path / "testing").mkdir()
    with pytest.raises(DataError, match="both 'test' and 'testing'"):
        load(tmp_path)


@pytest.mark.small
def test_what_is_no_data_set(tmp_path):
    with pytest.raises(DataError, match=r"there is no data set 'nowhere'.*built in is .*digits"):
        load("nowhere")
    with pytest.raises(DataError, match="in no known layout"):
        load(tmp_path)
    x = images(2, 4)
    for labels, said in ((np.array([0, 2]), "run from 0 to 2"), (np.array([0.0, 1.0]), "whole numbers")):
        with pytest.raises(DataError, match=said):
            Dataset("x", x, labels, x, np.array([0, 1]), ("a", "b"))
    with pytest.raises(DataError, match="holds no image"):
        Dataset("x", x[:0], np.zeros(0, int), x, np.array([0, 1]), ("a", "b"))
    with pytest.raises(TopoError, match="takes no size"):
        np.savez(tmp_path / "a.npz", x_train=x)
        load(tmp_path / "a.npz", size=3)
    assert all(entry.about for entry in data.values())


@pytest.mark.small
def test_batches_for_pruners():
    digits = load("digits")
    found = list(batches(digits, 50, 3, per_class=10, count=2))
    assert [x.shape for x, _ in found] == [(50, 1, 8, 8)] * 2
    assert np.bincount(np.concatenate([y for _, y in found])).tolist() == [10] * 10
    again = list(batches(digits, 50, 3, per_class=10, count=2))
    np.testing.assert_array_equal(found[1][0], again[1][0])
    whole = np.concatenate([x for x, _ in batches(digits, 103, 0, count=14)])
    assert len(np.unique(whole.reshape(1442, -1), axis=0)) == len(np.unique(digits.train_images, axis=0))
    with pytest.raises(DataError, match="need 1443 images; 'digits' has 1442"):
        next(batches(digits, 1443, 0))
    with pytest.raises(DataError, match="10 images of each of 10 classes are 100; 1 batches of 64 take 64"):
        next(batches(digits, 64, 0, per_class=10))
    with pytest.raises(DataError, match="has 140 images to train on; 150 were asked for"):
        next(batches(digits, 1500, 0, per_class=150))


@pytest.mark.small
def test_mnist1d_is_the_published_set():
    curves, labels = signals()
    assert np.bincount(labels).tolist() == [500] * 10 and labels[:10].tolist() == [2, 6, 4, 5, 6, 6, 6, 0, 3, 1]
    assert curves.mean() == pytest.approx(0, abs=1e-12) and curves.std() == pytest.approx(1)
    assert curves[0, :3] == pytest.approx([-0.33200567, -0.47191037, -0.77869708])  # of the package's make_dataset
    assert curves[-1, -2:] == pytest.approx([0.87773435, 1.19315184])
    made = load("mnist1d")
    assert made.shape == (1, 1, 40) and (len(made.train_images), len(made.test_images)) == (4000, 1000)
    back = made.test_images[:, 0, 0] / 255 * 11 - 5.5
    assert np.abs(back - curves[4000:]).max() <= 11 / 255 / 2 + 1e-9
    np.testing.assert_array_equal(made.test_labels, labels[4000:])


def test_mnist1d_is_that_of_its_package():
    package = pytest.importorskip("mnist1d.data", reason="the package mnist1d is not installed")
    made = package.make_dataset()
    curves, labels = signals()
    np.testing.assert_array_equal(np.concatenate([made["y"], made["y_test"]]), labels)
    assert np.abs(np.concatenate([made["x"], made["x_test"]]) - curves).max() < 1e-12


def write_idx(path, array):
    head = bytes((0, 0, 8, array.ndim)) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    data = head + array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


def write_mnist(folder, prefix="", ending="", first=0, dash="-", test="t10k"):
    held = {}
    for part, count in (("train", 20), (test, 10)):
        held[part] = RNG.integers(0, 256, (count, 5, 5)), np.arange(count) % 10 + first
        write_idx(folder / f"{prefix}{part}-images{dash}idx3-ubyte{ending}", held[part][0])
        write_idx(folder / f"{prefix}{part}-labels{dash}idx1-ubyte{ending}", held[part][1])
    return held


@pytest.mark.small
@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize("dash", ["-", "."])
def test_idx_files_of_mnist(tmp_path, ending, dash):
    held = write_mnist(tmp_path, ending=ending, dash=dash)
    found = load(tmp_path)
    np.testing.assert_array_equal(found.train_images[:, 0], held["train"][0])
    np.testing.assert_array_equal(found.test_labels, held["t10k"][1])
    assert found.classes == tuple("0123456789") and not found.flips and found.notes == ()


@pytest.mark.small
def test_letters_of_emnist_are_upright_and_begin_at_0(tmp_path):
    held = write_mnist(tmp_path, "emnist-letters-", ".gz", first=1, test="test")
    found = load(tmp_path)
    np.testing.assert_array_equal(found.test_images[3, 0], held["test"][0][3].T)
    assert found.name == "emnist-letters" and found.train_labels.min() == 0 and len(found.notes) == 2


@pytest.mark.small
def test_broken_idx_files_are_named(tmp_path):
    write_mnist(tmp_path)
    labels, images_ = tmp_path / "t10k-labels-idx1-ubyte", tmp_path / "train-images-idx3-ubyte"
    whole = images_.read_bytes()
    for written, said in (
        (whole[:-1], r"should hold 500 entries, shape \(20, 5, 5\), and holds 499"),
        (whole + b"x", "and holds more"),
        (b"\0\0\x0d\3" + whole[4:], "begins with 00 00 0d 03"),
        (b"", "begins with"),
        (whole[:4] + b"\xff" * 12, "should hold"),
    ):
        images_.write_bytes(written)
        with pytest.raises(DataError, match=said):
            load(tmp_path)
    images_.write_bytes(whole)
    labels.unlink()
    with pytest.raises(DataError, match="no file of test labels"):
        load(tmp_path)
    write_idx(labels, np.zeros(10))
    write_mnist(tmp_path, "emnist-digits-")
    with pytest.raises(DataError, match="2 data sets"):
        load(tmp_path)
    packed = tmp_path / "packed"
    packed.mkdir()
    write_mnist(packed, ending=".gz")
    (packed / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(whole)[:-9])
    with pytest.raises(DataError, match="not a whole gzip file"):
        load(packed)


def test_fashion_mnist_of_debian():
    if not DEBIAN.is_dir():
        with pytest.raises(DataError, match="install Debian's package dataset-fashion-mnist"):
            load("fashion_mnist")
        pytest.skip("Debian's package dataset-fashion-mnist is not installed")
    found = load("fashion_mnist")
    assert found.train_images.shape == (60_000, 1, 28, 28) and np.bincount(found.test_labels).tolist() == [1000] * 10


def test_characters_are_one_hot_and_follow_each_other():
    found = load("chars")
    assert found.shape == (1, 32, 64) and len(found.classes) == 64
    assert (found.train_images.sum(axis=3, dtype=np.int64) == 255).all()
    codes = found.test_images[:, 0].argmax(axis=2)
    text = "".join(path.read_text("utf-8", "replace") for path in STDLIB[4::5])
    number = {name: code for code, name in enumerate(found.classes)}
    coded = [number.get(letter if letter.isprintable() and letter != " " else repr(letter), 63) for letter in text]
    windows = {tuple(coded[at : at + 33]) for at in range(len(coded) - 32)}
    assert all((*row, label) in windows for row, label in zip(codes.tolist(), found.test_labels.tolist()))
    assert load("chars").digests == found.digests
    # a guess by the training part's counts takes about 4.5 bits; a uniform one would take 6
    share = np.bincount(found.train_labels, minlength=64) / len(found.train_labels)
    assert 4 < -np.log2(np.maximum(share[found.test_labels], 1e-6)).mean() < 5.5


def test_a_link_to_a_picture_that_is_not_there_is_told(tmp_path):
    for part in ("train", "test"):
        for name in ("a", "b"):
            (tmp_path / part / name).mkdir(parents=True)
            Image.fromarray(np.full((4, 4), len(name), np.uint8)).save(tmp_path / part / name / "0.png")
    (tmp_path / "train" / "a" / "1.png").symlink_to(tmp_path / "gone.png")
    with pytest.raises(DataError, match=r"is a link to '.*gone\.png', which is not there"):
        load(tmp_path)


@pytest.mark.parametrize(
    "source", [np.ones(3), np.ones((2, 2)), [1], {}, object(), 3, b"x"], ids=lambda x: type(x).__name__
)
def test_what_is_no_data_set_is_one_line(source):
    with pytest.raises(DataError, match=r"is not a data set|in no known layout") as caught:
        load(source)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("what", ["empty folder", "pipe", "linked folder", "link to nothing", "closed folder"])
def test_what_is_called_a_picture_and_is_none_is_refused(what, tmp_path):
    for name in ("a", "b"):
        write_pictures(tmp_path / name, 5)
    odd = tmp_path / "a" / "deep" / "d.png"
    odd.parent.mkdir()
    if what == "pipe":
        os.mkfifo(odd)
    elif what.startswith("link"):
        odd.symlink_to(tmp_path / ("b" if what == "linked folder" else "gone"))
    else:
        odd.mkdir(mode=0 if what == "closed folder" and os.getuid() else 0o777)
    with pytest.raises(DataError, match=r"is called a picture and is|is a link to|cannot be looked into") as caught:
        load(tmp_path)
    assert "d.png" in str(caught.value) and "\n" not in str(caught.value)


def test_all_that_lies_in_a_class_and_is_not_read_is_in_a_note(tmp_path):
    for name in ("a", "b"):
        write_pictures(tmp_path / name, 5)
    write_pictures(tmp_path / "a" / "inner.png", 1)  # a folder with a picture
    os.mkfifo(tmp_path / "a" / "pipe")
    (tmp_path / "a" / "sub").mkdir()
    (tmp_path / "a" / "._0.png").touch()  # a Mac's, of 0.png
    shutil.copy(tmp_path / "b" / "0.png", tmp_path / "b" / ".0.png")
    (tmp_path / "lost+found").mkdir()
    found = load(tmp_path)
    assert len(found.train_images) + len(found.test_images) == 11 and found.classes == ("a", "b")
    assert "left out of class 'a': 'pipe' and 1 more, no picture by the ending" in found.notes
    assert "left out of class 'b': '.0.png', hidden by the dot" in found.notes
