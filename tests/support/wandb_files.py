"""Reads the files that Weights & Biases writes offline, without its code for that."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from command import until
from wandb.proto.wandb_internal_pb2 import Record

_START = struct.pack("<4sHB", b":W&B", 0xBEE1, 0)
_BLOCK = 32768
_HEAD = struct.Struct("<IHB")  # checksum, length, kind: whole, first, middle, last
_WHOLE, _FIRST, _, _LAST = 1, 2, 3, 4


def records(file: Path) -> Iterator[Any]:
    """The records of a .wandb file, a LevelDB log of protocol buffers."""
    data, part = file.read_bytes(), b""
    assert _START.startswith(data[: len(_START)])
    at = len(_START)
    while at + _HEAD.size <= len(data):
        if _BLOCK - at % _BLOCK < _HEAD.size:  # the rest of a block is empty
            at += _BLOCK - at % _BLOCK
            continue
        _, length, kind = _HEAD.unpack_from(data, at)
        at += _HEAD.size
        if at + length > len(data):
            return  # the rest has not been written yet
        part = data[at : at + length] if kind in (_WHOLE, _FIRST) else part + data[at : at + length]
        at += length
        if kind in (_WHOLE, _LAST):
            yield Record.FromString(part)


def sessions(run: Path) -> list[Path]:
    """The files that the sessions of a run have written, in order.

    wandb's own process may still be writing them after it has answered that a session is over.
    """
    files = sorted((run / "wandb").glob("offline-run-*/run-*.wandb"))
    until(lambda: all(map(_is_complete, files)))
    return files


def _is_complete(file: Path) -> bool:
    return "exit" in (record.WhichOneof("record_type") for record in records(file))


def history(file: Path) -> dict[int, dict[str, Any]]:
    """The values by step and name, without wandb's own."""
    rows = {}
    for record in records(file):
        if record.WhichOneof("record_type") == "history":
            items = {item.key or item.nested_key[0]: item for item in record.history.item}
            values = {key: json.loads(item.value_json) for key, item in items.items()}
            rows[record.history.step.num] = {k: v for k, v in values.items() if k[0] != "_"}
    return rows


def settings(file: Path) -> tuple[Any, dict[str, Any]]:
    """The run's record, and its config by name."""
    (run,) = (r.run for r in records(file) if r.WhichOneof("record_type") == "run")
    return run, {item.key: json.loads(item.value_json) for item in run.config.update}
