"""Write a policy without what training needs, such as the one that comes with the package.

    python scripts/export_policy.py runs/NAME --out policy.safetensors

The file is some 2.5 MB, with weights in float16, and goes wherever a checkpoint can be played. Of
several checkpoints of one run it takes the mean of the weights, which often plays better than the
last of them: RMSProp keeps moving about a good place.
"""

import argparse
import sys
from pathlib import Path

from distributed_pg.determinism import pin_kernels

pin_kernels()

import numpy as np  # noqa: E402

from distributed_pg.algo.policy import Policy  # noqa: E402
from distributed_pg.errors import RunError, UsageError  # noqa: E402
from distributed_pg.storage.policy_file import (  # noqa: E402
    TrainedPolicy,
    load_policy,
    save_policy,
)


def main() -> int:
    """Read, average, write; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("checkpoints", nargs="+", help="checkpoints of one run, or its folder")
    parser.add_argument("--out", type=Path, required=True, help="the file to write")
    arguments = parser.parse_args()
    try:
        policy = mean_policy([load_policy(place) for place in arguments.checkpoints])
        save_policy(arguments.out, policy)
    except UsageError as error:
        parser.error(str(error))
    except (RunError, OSError) as error:
        print(f"{parser.prog}: error: {error}", file=sys.stderr)
        return 1
    print(f"Wrote {arguments.out}, {arguments.out.stat().st_size / 1e6:.1f} MB")
    return 0


def mean_policy(policies: list[TrainedPolicy]) -> TrainedPolicy:
    """The mean of the weights, with the progress of the latest.

    Raises:
        UsageError: they are not of one run.
    """
    latest = max(policies, key=lambda trained: trained.progress.update)
    if any(trained.config.changed_settings(latest.config) for trained in policies):
        raise UsageError("the checkpoints are of different runs")
    layers = zip(*(trained.policy.arrays for trained in policies), strict=True)
    w1, w2 = (np.asarray(np.mean(arrays, axis=0, dtype=np.float64)) for arrays in layers)
    policy = Policy(w1.astype(np.float32), w2.astype(np.float32))
    return TrainedPolicy(latest.config, policy, latest.progress)


if __name__ == "__main__":
    sys.exit(main())
