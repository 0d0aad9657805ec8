"""The worker processes of a Ray that this process started."""

import psutil


def worker_processes(actor: str = "RolloutWorker") -> list[psutil.Process]:
    """The rollout workers, or the processes of another actor, that this process's Ray started."""
    children = psutil.Process().children(recursive=True)
    return [child for child in children if actor in " ".join(cmdline(child))]


def cmdline(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return []
