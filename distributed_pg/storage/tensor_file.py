"""Files of tensors and metadata, written atomically and protected by a checksum.

Each is a safetensors file. Its metadata, all strings, include the ``format`` and a ``sha256`` over
everything else in the file.
"""

import errno
import hashlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from distributed_pg.errors import CheckpointError, one_line

Tensors = dict[str, NDArray[np.floating]]
_CANNOT_SYNC_FOLDERS = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP}
"""Errors that CIFS, vboxsf and some FUSE mounts return when a folder is flushed."""


def write_tensor_file(path: Path, metadata: dict[str, str], tensors: Tensors) -> None:
    """Write a file atomically.

    Args:
        path: the file to write or replace.
        metadata: includes ``format``; ``sha256`` is added.
        tensors: the tensors by name.

    Raises:
        OSError: the file cannot be written; the previous file at ``path`` is intact.
    """
    sealed = metadata | {"sha256": _sha256(metadata, tensors)}
    write_atomically(path, save(tensors, sealed))


def read_tensor_file(path: Path, *formats: str) -> tuple[dict[str, str], Tensors]:
    """Read a file and verify its checksum.

    Args:
        path: the file.
        formats: the allowed formats.

    Returns:
        The metadata without ``sha256``, and the tensors by name.

    Raises:
        CheckpointError: the file is missing, of another format, or damaged. If its format is
            another version of one of ``formats``, the message says so.
    """
    with _opened(path, formats) as (file, metadata):
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if metadata.pop("sha256", None) != _sha256(metadata, tensors):
        raise CheckpointError(f"{path}: damaged, its checksum does not match")
    return metadata, tensors


def read_tensor_metadata(path: Path, *formats: str) -> dict[str, str]:
    """Read only the metadata of a file, without verifying its checksum, in less than 1 ms.

    Args:
        path: the file.
        formats: the allowed formats.

    Raises:
        CheckpointError: the file is missing, of another format, or cut short.
    """
    with _opened(path, formats) as (_, metadata):
        return metadata


@contextmanager
def _opened(path: Path, formats: tuple[str, ...]) -> Iterator[tuple[Any, dict[str, str]]]:
    """Open a file of one of the formats; yield it and its metadata.

    Raises:
        CheckpointError: the file is missing, of another format, or cut short.
    """
    try:
        # So that a folder or a missing file raises a plain OSError.
        with path.open("rb"):
            pass
        with safe_open(path, framework="np") as file:
            metadata = dict(file.metadata() or {})
            found = metadata.get("format", "")
            if found not in formats:
                raise CheckpointError(f"{path}: {_other_format(found, formats)}")
            yield file, metadata
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror or error})") from None
    except (SafetensorError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(
            f"{path}: not a distributed_pg checkpoint, or cut short ({one_line(error)})"
        ) from None


def _other_format(found: str, formats: tuple[str, ...]) -> str:
    """Describe why the format ``found`` is not allowed: another version, or no format of ours."""
    for allowed in formats:
        kind, _, version = allowed.rpartition(" ")
        if match := re.fullmatch(rf"{kind} (\d{{1,9}})", found):
            reader = "a newer" if int(match[1]) > int(version) else "an older"
            return (
                f"has the format {found!r}, which {reader} version of distributed_pg reads; this "
                f"one reads {allowed!r}"
            )
    return "not a distributed_pg checkpoint"


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file under a temporary name beside ``path``, flush it to disk, then rename it.

    Args:
        path: the file to write or replace.
        content: its new content.

    Raises:
        OSError: the file cannot be written; the previous file at ``path`` is intact.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        with suppress(OSError):  # on a read-only disk, which would hide the first error
            temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Flush a folder, so that a rename in it is on disk, if the system supports that."""
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
