"""The descriptions of clusters in the cloud.

cluster.yaml goes through the whole of `ray up` and `ray down` with an emulated AWS. Only ssh and
rsync, which need the machine, are replaced: they write down what they are called with.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
import requests
import yaml
from command import ROOT
from moto.server import ThreadedMotoServer
from packaging.requirements import Requirement
from ray.autoscaler._private import commands
from ray.autoscaler._private.aws import config as aws_config
from ray.autoscaler._private.aws import utils as aws_utils
from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
from ray.autoscaler._private.util import prepare_config, validate_config

from distributed_pg import __version__

AWS, GCP = ROOT / "cluster.yaml", ROOT / "docs" / "cluster-gcp.yaml"
RAYJOB = ROOT / "docs" / "kuberay-rayjob.yaml"
REQUIREMENTS = ROOT / "docs" / "cluster-requirements.txt"
TO_HEAD = "~/ray_bootstrap_config.yaml"


@dataclass(frozen=True)
class Cloud:
    """An emulated AWS, with what cluster.yaml has its user make there."""

    ec2: Any
    folder: Path
    image: str
    ssh: str
    inside: str

    def instances(self) -> list[dict[str, Any]]:
        found = self.ec2.describe_instances()["Reservations"]
        return [instance for reservation in found for instance in reservation["Instances"]]

    def volumes(self) -> list[dict[str, Any]]:
        return list(self.ec2.describe_volumes()["Volumes"])

    def rules(self) -> dict[str, list[dict[str, Any]]]:
        found = self.ec2.describe_security_groups()["SecurityGroups"]
        return {group["GroupId"]: group["IpPermissions"] for group in found}


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    folder = tmp_path_factory.mktemp("cloud")
    home, programs = folder / "home", folder / "bin"
    (home / ".ray").mkdir(parents=True)
    (home / ".ray" / "auth_token").write_text("secret")
    programs.mkdir()
    for name in ("ssh", "rsync"):
        # The head's configuration is a temporary file, so it is kept.
        (programs / name).write_text(
            f'#!/bin/sh\necho {name} "$@" >> {folder}/log\n'
            f'case "$*" in *:{TO_HEAD}) for last; do source=$to; to=$last; done;'
            f" cp $source {folder}/head.json;; esac\n"
        )
        (programs / name).chmod(0o755)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOTO_IAM_LOAD_MANAGED_POLICIES", "true")
        server.start()
        host, port = server.get_host_and_port()
        # Another test of this process may have used the emulated AWS, without its own policies.
        requests.post(f"http://{host}:{port}/moto-api/reset", timeout=60).raise_for_status()
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "none")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "none")
        patch.setenv("HOME", str(home))
        patch.setenv("PATH", f"{programs}:/usr/bin:/bin")
        patch.chdir(ROOT)
        # Ray gives the real AWS 30 seconds to make a new role known everywhere.
        patch.setattr(aws_config, "time", SimpleNamespace(sleep=lambda _: None))
        try:
            yield prepared(folder)
        finally:
            server.stop()
            for cached in (aws_utils.resource_cache, aws_utils.client_cache):
                cached.cache_clear()


def prepared(folder: Path) -> Cloud:
    """What the comment at the top of cluster.yaml has its user do."""
    ec2 = boto3.client("ec2", "us-east-2")
    image = ec2.register_image(Name="ubuntu", RootDeviceName="/dev/sda1", Architecture="x86_64")
    ssh, inside = (
        ec2.create_security_group(GroupName=name, Description=name)["GroupId"]
        for name in ("distributed-pg-ssh", "distributed-pg")
    )
    from_user = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "CidrIp": "203.0.113.7/32"}
    from_nodes = {"IpProtocol": "tcp", "FromPort": 0, "ToPort": 65535}
    from_nodes["UserIdGroupPairs"] = [{"GroupId": inside}]
    ec2.authorize_security_group_ingress(GroupId=ssh, **from_user)
    ec2.authorize_security_group_ingress(GroupId=inside, IpPermissions=[from_nodes])
    return Cloud(ec2, folder, image["ImageId"], ssh, inside)


def ray_up(config: Path) -> None:
    commands.create_or_update_cluster(
        str(config),
        override_min_workers=None,
        override_max_workers=None,
        no_restart=False,
        restart_only=False,
        yes=True,
        no_config_cache=True,
    )


@dataclass(frozen=True)
class Cluster:
    """What was seen while a cluster came, got a worker, and went."""

    cloud: Cloud
    rules: dict[str, list[dict[str, Any]]]
    """Who was admitted before."""
    sent_to_head: dict[str, Any]
    """The configuration from which the head's autoscaler makes workers."""
    log: list[str]
    """What ssh and rsync were called with."""
    head: dict[str, Any]
    worker: dict[str, Any]
    volumes: dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def cluster(cloud: Cloud) -> Cluster:
    """What comes of cluster.yaml, with the three fields changed that must be."""
    text = AWS.read_text()
    values = {
        "ami-CHANGE": cloud.image,
        "sg-CHANGE-SSH": cloud.ssh,
        "sg-CHANGE-INSIDE": cloud.inside,
    }
    for field, value in values.items():
        assert text.count(f" {field} #") == 1
        text = text.replace(f" {field} #", f" {value} #")
    assert "CHANGE" not in text
    file = cloud.folder / "cluster.yaml"
    file.write_text(text)

    rules = cloud.rules()
    ray_up(file)
    sent = json.loads((cloud.folder / "head.json").read_text())
    validate_config(sent)
    provider = AWSNodeProvider(sent["provider"], sent["cluster_name"])  # type: ignore[no-untyped-call]
    names = {"ray-node-type": "worker", "ray-user-node-type": "worker", "ray-launch-config": ""}
    provider.create_node(sent["available_node_types"]["worker"]["node_config"], names, 1)
    log = (cloud.folder / "log").read_text().splitlines()
    volumes = {volume["VolumeId"]: volume for volume in cloud.volumes()}
    nodes = {tags(instance)["ray-user-node-type"]: instance for instance in cloud.instances()}
    assert len(cloud.instances()) == 2
    commands.teardown_cluster(str(file), True, False, None, False)
    return Cluster(cloud, rules, sent, log, nodes["head"], nodes["worker"], volumes)


def tags(instance: dict[str, Any]) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in instance["Tags"]}


def groups(instance: dict[str, Any]) -> set[str]:
    return {group["GroupId"] for group in instance["SecurityGroups"]}


def test_the_nodes_are_what_cluster_yaml_says(cluster: Cluster) -> None:
    head, worker = cluster.head, cluster.worker
    assert (head["InstanceType"], worker["InstanceType"]) == ("m7a.large", "c7a.4xlarge")
    assert "InstanceLifecycle" not in head
    assert worker["InstanceLifecycle"] == "spot"
    for node in (head, worker):
        assert node["ImageId"] == cluster.cloud.image
        assert node["Placement"]["AvailabilityZone"] == "us-east-2a"
        assert tags(node)["ray-cluster-name"] == "distributed-pg"
        (disk,) = node["BlockDeviceMappings"]
        assert disk["Ebs"]["DeleteOnTermination"]
        volume = cluster.volumes[disk["Ebs"]["VolumeId"]]
        assert (volume["Size"], volume["VolumeType"]) == (20, "gp3")
    worker_type = cluster.sent_to_head["available_node_types"]["worker"]
    assert worker_type["resources"]["CPU"] == 16
    assert (worker_type["min_workers"], worker_type["max_workers"]) == (0, 4)


def test_only_the_head_is_reached_from_outside_and_only_by_its_user(cluster: Cluster) -> None:
    ssh, inside = cluster.cloud.ssh, cluster.cloud.inside
    assert groups(cluster.head) == {ssh, inside}
    assert groups(cluster.worker) == {inside}
    assert cluster.cloud.rules() == cluster.rules
    assert "0.0.0.0/0" not in json.dumps([cluster.rules[ssh], cluster.rules[inside]])


def test_only_the_head_may_make_nodes(cluster: Cluster) -> None:
    assert cluster.head["IamInstanceProfile"]["Arn"].endswith("/ray-autoscaler-v1")
    assert "IamInstanceProfile" not in cluster.worker


def test_a_node_is_sent_the_project_and_the_token_before_it_is_set_up(cluster: Cluster) -> None:
    home = cluster.cloud.folder / "home"
    key = home / ".ssh" / "ray-autoscaler_us-east-2.pem"
    assert key.stat().st_mode & 0o777 == 0o600
    assert all(str(key) in line for line in cluster.log)
    copied = dict(re.findall(r" (\S+) ubuntu@[\d.]+:(\S+)$", "\n".join(cluster.log), re.M))
    assert copied[f"{home}/.ray/auth_token"] == "~/.ray/auth_token"
    assert copied["distributed_pg/"] == "~/distributed_pg/distributed_pg/"
    assert copied["docs/cluster-requirements.txt"] == "~/distributed_pg/requirements.txt"
    steps = (
        "auth_token",
        "-m venv",
        "requirements.txt)",
        "no-build-isolation ~/distributed_pg)",
        "export RAY_AUTH_MODE=token",
        "pip check",
        "ray start --head",
    )
    order = [next(i for i, line in enumerate(cluster.log) if step in line) for step in steps]
    assert order == sorted(order)


def test_the_head_has_no_cpus_and_keeps_its_dashboard_to_itself(cluster: Cluster) -> None:
    (start,) = (line for line in cluster.log if "ray start" in line)
    assert """RAY_OVERRIDE_RESOURCES='"'"'{"CPU":0}'""" in start
    assert "--dashboard-host=127.0.0.1" in start


def test_ray_down_leaves_nothing_that_costs(cluster: Cluster) -> None:
    states = {instance["State"]["Name"] for instance in cluster.cloud.instances()}
    assert states == {"terminated"}
    assert cluster.cloud.volumes() == []


def test_cluster_yaml_as_it_is_starts_nothing_and_opens_nothing(
    cloud: Cloud, capsys: pytest.CaptureFixture[str]
) -> None:
    rules, instances = cloud.rules(), cloud.instances()
    with pytest.raises(AssertionError):
        ray_up(AWS)
    assert "Failed to detect a security group" in capsys.readouterr().err
    assert cloud.instances() == instances
    assert cloud.rules() == rules


@pytest.mark.parametrize("file", [AWS, GCP])
def test_ray_accepts_the_file(file: Path) -> None:
    config = prepare_config(yaml.safe_load(file.read_text()))
    validate_config(config)
    head, worker = (config["available_node_types"][name] for name in ("head", "worker"))
    assert config["head_node_type"] == "head"
    assert (head["resources"]["CPU"], head["max_workers"]) == (0, 0)
    assert (worker["min_workers"], worker["max_workers"]) == (0, config["max_workers"])
    for local in config["file_mounts"].values():
        assert local == "~/.ray/auth_token" or (ROOT / local).exists()


def test_the_clouds_differ_only_in_what_is_the_clouds() -> None:
    aws, gcp = (yaml.safe_load(file.read_text()) for file in (AWS, GCP))
    for field in ("metadata", "provider", "available_node_types"):
        aws.pop(field), gcp.pop(field)
    assert aws == gcp


def test_workers_on_google_are_spot_and_only_the_head_admits_ssh() -> None:
    config = yaml.safe_load(GCP.read_text())
    head, worker = (config["available_node_types"][n]["node_config"] for n in ("head", "worker"))
    assert "scheduling" not in head
    assert worker["scheduling"]["provisioningModel"] == "SPOT"
    ssh, inside = "distributed-pg-head", "distributed-pg"
    assert head["tags"]["items"] == [inside, ssh]
    assert worker["tags"]["items"] == [inside]
    # Where the network is given, Ray does not take the project's default one, which is open.
    network = config["metadata"]["subnet"]
    assert all(n["networkInterfaces"][0]["subnetwork"] == network for n in (head, worker))
    assert config["metadata"]["region"] in network


def pins() -> dict[str, str]:
    lines = (line for line in REQUIREMENTS.read_text().splitlines() if line[:1] != "#")
    pairs = [line.split("==") for line in lines]
    assert all(len(pair) == 2 for pair in pairs)
    return dict(pairs)


def test_the_nodes_get_one_version_of_everything() -> None:
    project = (ROOT / "pyproject.toml").read_text()
    (dependencies,) = re.findall(r"^dependencies = \[(.*?)^\]", project, re.M | re.S)
    for quoted in re.findall(r'"(.+)"', dependencies):
        needed = Requirement(quoted)
        assert needed.specifier.contains(pins()[needed.name]), quoted
    before_version = r"(?:ray\[default\]==|rayproject/ray:|rayVersion: )"
    for file in (AWS, GCP, RAYJOB):
        named = re.findall(before_version + r"(\d+\.\d+\.\d+)", file.read_text())
        assert set(named) == {pins()["ray"]}, file
    assert set(re.findall(r"/distributed-pg:(\S+)", RAYJOB.read_text())) == {__version__}
