"""Data sets: the digits, and every layout from tiny files written as their authors write them."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from PIL import Image

from topo.data import Dataset, batches, data, every_fifth, load
from topo.errors import DataError, TopoError

RNG = np.random.default_rng(0)


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
    with pytest.raises(DataError, match=r"'train' is no pickle of arrays: it holds 'builtins.exec'"):
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
    with pytest.raises(DataError, match=r"'0.png' is no picture"):
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
    np.savez(tmp_path / "d.npz", x_train=x / 255, y_train=y, x_test=x, y_test=y)
    with pytest.raises(DataError, match="the train images of 'd' are float64"):
        load(tmp_path / "d.npz")
    np.savez(tmp_path / "e.npz", x_train=np.array([object()]), y_train=y, x_test=x, y_test=y)
    with pytest.raises(DataError, match="no npz of plain arrays"):
        load(tmp_path / "e.npz")


@pytest.mark.small
def test_what_is_no_data_set(tmp_path):
    with pytest.raises(DataError, match=r"there is no data set 'nowhere'.*built in is digits"):
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
