"""Kinds of files that people have and that are not read: each is refused in one line with the way out."""

from __future__ import annotations

from collections.abc import Callable

from topo.containers.container import Container, File, container
from topo.errors import FormatError

_SAVE = "save the weights with torch.save(dict_of_tensors, 'w.pt') or numpy.savez('w.npz', **arrays)"


def _refuse(
    name: str,
    about: str,
    way_out: str,
    *,
    starts_with: bytes | tuple[bytes, ...] = (),
    suffix: str | tuple[str, ...] = (),
    folder: str | None = None,
    recognise: Callable[[File], str | None] | None = None,
    before: str | tuple[str, ...] = (),
) -> None:
    @container(
        name,
        f"not read: {about}",
        starts_with=starts_with,
        suffix=suffix,
        folder=folder,
        recognise=recognise,
        before=before,
        refuses=True,
    )
    def refuse(file: File) -> Container:
        raise FormatError(f"it is {about}, which is not read; {way_out}")


def _at(place: int, magic: bytes) -> Callable[[File], str | None]:
    return lambda file: None if file.start[place : place + len(magic)] == magic else f"no {magic!r} at byte {place}"


_refuse(
    "gguf", "a GGUF or GGML file of quantised blocks",
    "give the safetensors checkpoint that it was converted from",
    starts_with=(b"GGUF", b"lmgg", b"fmgg", b"tjgg"),
)  # fmt: skip
_refuse(
    "tflite", "a TensorFlow Lite model", f"read its tensors with tf.lite.Interpreter and {_SAVE}",
    recognise=_at(4, b"TFL3"),
)  # fmt: skip
_refuse(
    "saved_model", "a TensorFlow SavedModel",
    "load it with tf.keras.models.load_model and model.save_weights('w.weights.h5')",
    folder="saved_model.pb", before="folder",
)  # fmt: skip
_refuse(
    "tf_checkpoint", "a TensorFlow checkpoint", f"read it with tf.train.load_checkpoint and {_SAVE}",
    folder="*.data-00000-of-*", before="folder",
)  # fmt: skip
_refuse(
    "protobuf", "a frozen TensorFlow graph", f"read its constants with tensorflow and {_SAVE}",
    suffix=".pb",
)  # fmt: skip
_refuse(
    "matlab", "a MATLAB file", f"load it with scipy.io.loadmat (7.3: h5py) and {_SAVE}",
    starts_with=(b"MATLAB 5.0 MAT", b"MATLAB 7.3 MAT"),
)  # fmt: skip
_refuse(
    "msgpack", "a msgpack file as flax writes them",
    f"load it with flax.serialization.msgpack_restore, flatten the tree with '/' and {_SAVE}",
    suffix=".msgpack",
)  # fmt: skip
_refuse(
    "orbax", "an orbax checkpoint", f"restore it with orbax.checkpoint, flatten the tree with '/' and {_SAVE}",
    folder="manifest.ocdbt", before="folder",
)  # fmt: skip
_refuse(
    "distributed", "a distributed torch checkpoint",
    "join it: python -m torch.distributed.checkpoint.format_utils dcp_to_torch FOLDER w.pt",
    folder="*.distcp", before="folder",
)  # fmt: skip
_refuse("zstandard", "compressed with zstandard", "unpack it: zstd -d FILE", starts_with=b"\x28\xb5\x2f\xfd")
_refuse("7z", "a 7z archive", "unpack it: 7z x FILE", starts_with=b"7z\xbc\xaf\x27\x1c")
_refuse("rar", "a rar archive", "unpack it: unrar x FILE", starts_with=b"Rar!")
_refuse("tar", "a tar archive", "unpack it: tar -xf FILE", recognise=_at(257, b"ustar"))
