"""Imports policies of the classic script as policy files."""

from pathlib import Path

import numpy as np

from distributed_pg.errors import writing
from distributed_pg.storage.classic_script import load_classic
from distributed_pg.storage.policy_export import check_target
from distributed_pg.storage.policy_file import TrainedPolicy, save_policy


def import_policy(path: Path, out: Path, frame_skip: int) -> TrainedPolicy:
    """Write the policy in a ``save.p`` of the classic script as a policy file, in float32.

    Args:
        path: the script's file.
        out: the policy file; replaced atomically.
        frame_skip: frames per step to play at.

    Returns:
        The policy.

    Raises:
        UsageError: ``out`` is a checkpoint or its folder does not exist, or ``path`` does not hold
            a model of the script.
        RunError: ``out`` cannot be written.
    """
    check_target(out)
    trained = load_classic(path, frame_skip)
    with writing(f"out: {out}"):
        save_policy(out, trained, np.float32)
    return trained
