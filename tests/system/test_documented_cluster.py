"""The commands of docs/cluster.md for one's own machines, run on several hosts as written."""

import shlex
from collections.abc import Iterator

import pytest
from command import QUICK, ROOT, metrics
from documented import blocks
from host_network import unavailable
from host_rig import Rig

BRIEF = shlex.join([*QUICK, "--stop-episodes", "2", "--run-dir"])
PAGE = ROOT / "docs/cluster.md"
COPY = "scp -r -o StrictHostKeyChecking=no -o LogLevel=ERROR ~/.ray {host}:"

pytestmark = pytest.mark.skipif(unavailable() is not None, reason=str(unavailable()))


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    rig = Rig(tmp_path_factory.mktemp("rig") / "page")
    rig.up(3)
    yield rig
    rig.down()


@pytest.mark.exhaustive
@pytest.mark.slow
def test_a_cluster_of_ones_own_machines_is_made_as_the_page_says(rig: Rig) -> None:
    def said(host: str, command: str, code: int = 0) -> str:
        done = rig.run(host, command.replace("HEAD", "h1"))
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout if code == 0 else done.stderr

    def refused(host: str) -> str:
        (line,) = said(host, f"{train} {BRIEF} /tmp/run", code=1).splitlines()
        assert line.startswith("distributed-pg: error: "), line
        return line

    def trained(host: str, command: str, name: str) -> list[str]:
        said(host, f"{command} {BRIEF} /tmp/{name}")
        return [line["weights_checksum"] for line in metrics(rig.host(host).tmp / name)]

    block = next(block for block in blocks(PAGE) if "ray start" in block.text)
    make_token, start_head, start_node, train = block.commands
    said("h1", make_token)
    said("h1", COPY.format(host="h2"))
    said("h1", start_head)
    said("h2", start_node)
    expected = trained("h3", "distributed-pg train", "alone")
    assert trained("h1", train, "run") == trained("h2", train, "run") == expected
    assert said("h2", "RAY_AUTH_MODE=token ray status").count("1 node_") == 2

    assert "token" in refused("h3")  # nothing was prepared there
    said("h1", COPY.format(host="h3"))
    assert "is not one of its nodes" in refused("h3")
    said("h3", start_node)
    assert trained("h3", train, "run") == expected
