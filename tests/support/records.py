"""Update records for tests that do not depend on their values."""

from typing import Any

from distributed_pg.storage.metrics import UpdateRecord


def record_of(update: int, **given: Any) -> UpdateRecord:
    """The record of an update with one episode; numbers that are not given are 0."""
    zeros: dict[str, Any] = dict.fromkeys(UpdateRecord.__annotations__, 0)
    usual = {"episodes": update, "rewards": [1.0], "lengths": [10], "weights_checksum": ""}
    return UpdateRecord(**{**zeros, **usual, "update": update, **given})
