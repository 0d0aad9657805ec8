"""Files of tensors and metadata that are never half written, and whose damage is noticed.

One safetensors file; its metadata, all strings, name the ``format`` and hold ``sha256`` over
everything else in the file.
"""

import errno
import hashlib
import json
import os
import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from distributed_pg.errors import CheckpointError, one_line

Tensors = dict[str, NDArray[np.floating]]
_CANNOT_SYNC_FOLDERS = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP}
"""What CIFS, vboxsf and some FUSE mounts answer where a folder is to be flushed."""


def write_tensor_file(path: Path, metadata: dict[str, str], tensors: Tensors) -> None:
    """Write a file so that ``path`` is never half written, whatever happens meanwhile.

    Raises:
        OSError: it cannot be written; a file that was at ``path`` is still there.
    """
    sealed = metadata | {"sha256": _sha256(metadata, tensors)}
    write_atomically(path, save(tensors, sealed))


def read_tensor_file(path: Path, *formats: str) -> tuple[dict[str, str], Tensors]:
    """The metadata and tensors of a file that has one of ``formats``.

    Raises:
        CheckpointError: it is missing, of another format, or damaged. If the format is another
            version of one of ``formats``, the message says so.
    """
    try:
        # A folder or a missing file is reported as the OSError it is.
        with path.open("rb"):
            pass
        with safe_open(path, framework="np") as file:
            metadata = dict(file.metadata() or {})
            found = metadata.get("format", "")
            if found not in formats:
                raise CheckpointError(f"{path}: {_other_format(found, formats)}")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror or error})") from None
    except (SafetensorError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(
            f"{path}: not a distributed_pg checkpoint, or cut short ({one_line(error)})"
        ) from None
    if metadata.pop("sha256", None) != _sha256(metadata, tensors):
        raise CheckpointError(f"{path}: damaged, its checksum does not match")
    return metadata, tensors


def _other_format(found: str, formats: tuple[str, ...]) -> str:
    """What is wrong with a file of the format ``found``: its version, if it is a file of ours."""
    for ours in formats:
        kind, _, version = ours.rpartition(" ")
        if other := re.fullmatch(rf"{kind} (\d{{1,9}})", found):
            reader = "a newer" if int(other[1]) > int(version) else "an older"
            return (
                f"has the format {found!r}, which {reader} version of distributed_pg reads; this "
                f"one reads {ours!r}"
            )
    return "not a distributed_pg checkpoint"


def write_atomically(path: Path, content: bytes) -> None:
    """Replace ``path`` by ``content``: written beside it, flushed to the disk, then renamed."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Have the new name of a file reach the disk as well, where the system can do that."""
    flag = getattr(os, "O_DIRECTORY", None)
    if flag is None:  # Windows cannot open a folder
        return
    descriptor = os.open(folder, flag)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _CANNOT_SYNC_FOLDERS:
            raise
    finally:
        os.close(descriptor)


def _sha256(metadata: dict[str, str], tensors: Tensors) -> str:
    digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tensor.shape}".encode())
        digest.update(np.ascontiguousarray(tensor).data)
    return digest.hexdigest()
