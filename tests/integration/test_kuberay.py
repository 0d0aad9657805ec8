"""The RayJob for Kubernetes: every field is one that KubeRay or Kubernetes has."""

from typing import Any

import jsonschema
import kubernetes.client
import pytest
import yaml
from command import ROOT

RAYJOB = ROOT / "docs" / "kuberay-rayjob.yaml"


def fields(required: str = "", **types: Any) -> dict[str, Any]:
    """The JSON schema of an object with these fields and no others."""
    properties = {name: {"type": t} if isinstance(t, str) else t for name, t in types.items()}
    return {
        "type": "object",
        "properties": properties,
        "required": required.split(),
        "additionalProperties": False,
    }


STRINGS = {"type": "object", "additionalProperties": {"type": "string"}}
GROUP = {"rayStartParams": STRINGS, "template": "object"}
# From KubeRay's API reference (ray.io/v1): those fields of a RayJob that ours has. Its pods are
# looked at with Kubernetes' own types.
RAY_CLUSTER = fields(
    "headGroupSpec",
    rayVersion="string",
    authOptions=fields(mode={"enum": ["disabled", "token"]}),
    enableInTreeAutoscaling="boolean",
    autoscalerOptions=fields(idleTimeoutSeconds="integer"),
    headGroupSpec=fields("template", **GROUP),
    workerGroupSpecs={
        "type": "array",
        "items": fields(
            "groupName maxReplicas minReplicas template",
            groupName="string",
            replicas="integer",
            minReplicas="integer",
            maxReplicas="integer",
            **GROUP,
        ),
    },
)
RAY_JOB = fields(
    "apiVersion kind metadata spec",
    apiVersion={"const": "ray.io/v1"},
    kind={"const": "RayJob"},
    metadata="object",
    spec=fields(
        entrypoint="string",
        backoffLimit="integer",
        shutdownAfterJobFinishes="boolean",
        ttlSecondsAfterFinished="integer",
        rayClusterSpec=RAY_CLUSTER,
    ),
)


def check(value: Any, kind: str, where: str) -> None:
    """Have nothing in ``value`` that Kubernetes' type ``kind`` does not have."""
    outer, _, inner = kind.rstrip("]").partition("[")
    if outer == "List":
        assert isinstance(value, list), where
        for number, item in enumerate(value):
            check(item, inner, f"{where}[{number}]")
    elif outer == "Dict":
        for name, item in value.items():
            check(item, inner.partition(", ")[2], f"{where}.{name}")
    elif outer in ("str", "int", "bool"):
        assert type(value).__name__ == outer, where
    else:
        model = getattr(kubernetes.client, kind)
        attributes = {name: attribute for attribute, name in model.attribute_map.items()}
        for name, item in value.items():
            assert name in attributes, f"{where}: {kind} has no {name}"
            check(item, model.openapi_types[attributes[name]], f"{where}.{name}")


def test_kubernetes_knows_every_field_of_the_rayjob() -> None:
    claim, job = yaml.safe_load_all(RAYJOB.read_text())
    check(claim, "V1PersistentVolumeClaim", "claim")
    jsonschema.validate(job, RAY_JOB)
    cluster = job["spec"]["rayClusterSpec"]
    (workers,) = cluster["workerGroupSpecs"]
    for group in (cluster["headGroupSpec"], workers):
        check(group["template"], "V1PodTemplateSpec", "template")

    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert cluster["authOptions"]["mode"] == "token"
    assert (workers["minReplicas"], cluster["enableInTreeAutoscaling"]) == (0, True)
    (volume,) = cluster["headGroupSpec"]["template"]["spec"]["volumes"]
    assert volume["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    (container,) = workers["template"]["spec"]["containers"]
    cpus = int(container["resources"]["limits"]["cpu"]) * workers["maxReplicas"]
    assert f"--num-workers {cpus} " in job["spec"]["entrypoint"]
    (mount,) = cluster["headGroupSpec"]["template"]["spec"]["containers"][0]["volumeMounts"]
    assert f"--run-dir {mount['mountPath']}/" in job["spec"]["entrypoint"]


def test_the_check_of_kubernetes_fields_finds_a_wrong_one() -> None:
    with pytest.raises(AssertionError, match=r"V1Container has no volumeMount\b"):
        check({"containers": [{"name": "a", "volumeMount": []}]}, "V1PodSpec", "pod")
    with pytest.raises(AssertionError, match=r"resources\.limits\.cpu"):
        check({"limits": {"cpu": 2}}, "V1ResourceRequirements", "resources")
