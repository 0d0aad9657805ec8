"""Arguments shared by several commands."""

from typing import Annotated

import tyro

Checkpoint = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="PATH|URI|pretrained")]
"""A policy's location, as :func:`distributed_pg.storage.policy_file.load_policy` takes it."""
