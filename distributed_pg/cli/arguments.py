"""Arguments that several commands have."""

from typing import Annotated

import tyro

Checkpoint = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="PATH|URI|pretrained")]
"""Where a policy is: what :func:`distributed_pg.storage.policy_file.load_policy` takes."""
