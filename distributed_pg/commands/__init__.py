"""The commands of ``distributed-pg``: for each its arguments and what it does.

These modules import at the top only what parsing needs; ``--help`` must not wait for numpy or Ray.
"""

from typing import Annotated

import tyro

Checkpoint = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="PATH|URI|pretrained")]
"""Where a trained policy is: what :func:`distributed_pg.trained_policy.load_policy_at` takes."""
