"""How much memory a process says it needed."""

import subprocess
import sys

from distributed_pg.system_info import peak_memory

SAY = "from distributed_pg.system_info import peak_memory; print(peak_memory())"


def test_what_started_a_process_does_not_count_as_its_own() -> None:
    block = b"1" * (200 * 2**20)
    said = subprocess.run([sys.executable, "-c", SAY], capture_output=True, text=True, check=True)
    assert 10**6 < int(said.stdout) < len(block) < peak_memory()
