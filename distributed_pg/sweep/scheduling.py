"""Decides how many workers each trial has."""

from collections.abc import Sequence


def shares(cpus: int, limits: Sequence[int]) -> list[int]:
    """Share CPUs among trials as evenly as their limits allow.

    Args:
        cpus: CPUs to share.
        limits: the most workers that each trial can keep busy, at least 1.

    Returns:
        The number of workers of each trial. If there are fewer CPUs than trials, the last ones have
        none; otherwise each has at least one, and numbers differ by one at most unless limited.
    """
    given = [0] * len(limits)
    while cpus > 0:
        open_trials = [i for i, limit in enumerate(limits) if given[i] < limit]
        if not open_trials:
            break
        fewest = min(given[i] for i in open_trials)
        for i in [i for i in open_trials if given[i] == fewest][:cpus]:
            given[i] += 1
            cpus -= 1
    return given


def is_worth_a_restart(workers: int, share: int) -> bool:
    """Whether a trial should be stopped and resumed with more workers, which takes seconds."""
    return share >= 2 * workers
