"""Records of updates for tests that need some, whatever they say."""

from typing import Any

from distributed_pg.storage.metrics import UpdateRecord


def record_of(update: int, **given: Any) -> UpdateRecord:
    """An update of one episode, with every number 0 that is not given."""
    zeros: dict[str, Any] = dict.fromkeys(UpdateRecord.__annotations__, 0)
    usual = {"episodes": update, "rewards": [1.0], "lengths": [10], "weights_checksum": ""}
    return UpdateRecord(**{**zeros, **usual, "update": update, **given})
