"""The RayJob for Kubernetes: KubeRay and Kubernetes would take it, and not one with a mistake."""

import copy
from typing import Any

import jsonschema
import kubernetes.client
import pytest
import yaml
from command import ROOT
from packaging.version import Version

RAYJOB = ROOT / "docs" / "kuberay-rayjob.yaml"
GONE = object()
"""Stands for a field that is left out."""


def fields(required: str = "", **types: Any) -> dict[str, Any]:
    """The JSON schema of an object with these fields and no others."""
    properties = {name: {"type": t} if isinstance(t, str) else t for name, t in types.items()}
    return {
        "type": "object",
        "properties": properties,
        "required": required.split(),
        "additionalProperties": False,
    }


def strings(*names: str) -> dict[str, Any]:
    return dict.fromkeys(names, "string")


# What the operator's API has, ray.io/v1, and what the operator refuses, by KubeRay's reference and
# documentation: all fields, not those that ours has. Pods are looked at with Kubernetes' own types.
NAME = "^[a-z]([-a-z0-9]*[a-z0-9])?$"
STRINGS = {"type": "object", "additionalProperties": {"type": "string"}}
COUNT = {"type": "integer", "minimum": 0, "maximum": 2**31 - 1}
GROUP = {"labels": STRINGS, "resources": STRINGS, "rayStartParams": STRINGS, "template": "object"}
HEAD = fields(
    "template",
    **GROUP,
    **strings("serviceType"),
    enableIngress="boolean",
    headService="object",
    ingressOptions="object",
)
WORKERS = fields(
    "groupName minReplicas maxReplicas template",
    **GROUP,
    groupName={"type": "string", "pattern": NAME, "maxLength": 63},
    replicas=COUNT,
    minReplicas=COUNT,
    maxReplicas=COUNT,
    numOfHosts=COUNT,
    idleTimeoutSeconds=COUNT,
    priority="integer",
    scaleStrategy="object",
    suspend="boolean",
)
AUTOSCALER = fields(
    **strings("image", "imagePullPolicy"),
    args={"type": "array"},
    command={"type": "array"},
    env={"type": "array"},
    envFrom={"type": "array"},
    idleTimeoutSeconds=COUNT,
    resources="object",
    securityContext="object",
    upscalingMode={"enum": ["Default", "Aggressive", "Conservative"]},
    version={"enum": ["v1", "v2"]},
    volumeMounts={"type": "array"},
)
RAY_CLUSTER = fields(
    "headGroupSpec",
    **strings("rayVersion", "managedBy"),
    authOptions=fields(
        mode={"enum": ["disabled", "token"]}, enableK8sTokenAuth="boolean", secretName="string"
    ),
    autoscalerOptions=AUTOSCALER,
    enableInTreeAutoscaling="boolean",
    gcsFaultToleranceOptions="object",
    headGroupSpec=HEAD,
    headServiceAnnotations=STRINGS,
    historyServerOptions="object",
    networkPolicy="object",
    suspend="boolean",
    tlsOptions="object",
    upgradeStrategy="object",
    workerGroupSpecs={"type": "array", "items": WORKERS},
)
RAY_JOB = fields(
    "apiVersion kind metadata spec",
    apiVersion={"const": "ray.io/v1"},
    kind={"const": "RayJob"},
    metadata={
        "type": "object",
        "properties": {"name": {"type": "string", "pattern": NAME, "maxLength": 47}},
        "required": ["name"],
    },
    spec=fields(
        "entrypoint rayClusterSpec",  # KubeRay could do without, this RayJob cannot
        **strings("entrypoint", "entrypointResources", "jobId", "managedBy", "runtimeEnvYAML"),
        activeDeadlineSeconds=COUNT,
        backoffLimit=COUNT,
        clusterSelector=STRINGS,
        deletionStrategy="object",
        entrypointNumCpus="number",
        entrypointNumGpus="number",
        metadata=STRINGS,
        preRunningDeadlineSeconds=COUNT,
        rayClusterSpec=RAY_CLUSTER,
        shutdownAfterJobFinishes="boolean",
        submissionMode={"enum": ["K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"]},
        submitterConfig=fields(backoffLimit=COUNT),
        submitterPodTemplate="object",
        suspend="boolean",
        ttlSecondsAfterFinished=COUNT,
    ),
)
QUANTITY = {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?(m|[kMGTPE]|[KMGTPE]i)?$"}
QUANTITIES = {"type": "object", "additionalProperties": QUANTITY}
CONTAINER = {
    "properties": {
        "image": {"minLength": 1},
        "resources": {"properties": {"requests": QUANTITIES, "limits": QUANTITIES}},
    },
    "required": ["name", "image"],
}
POD = {
    "properties": {
        "spec": {
            "properties": {"containers": {"minItems": 1, "items": CONTAINER}},
            "required": ["containers"],
        }
    },
    "required": ["spec"],
}


def check_rayjob(job: Any) -> None:
    """Raise AssertionError with the place, unless KubeRay and Kubernetes would take a RayJob."""
    check_schema(job, RAY_JOB, "job")
    spec = job["spec"]
    keeps = not spec.get("shutdownAfterJobFinishes", False)
    assert not (keeps and spec.get("ttlSecondsAfterFinished", 0)), "ttlSecondsAfterFinished: keeps"
    cluster = spec["rayClusterSpec"]
    if cluster.get("authOptions", {}).get("mode") == "token":
        assert Version(cluster.get("rayVersion", "0")) >= Version("2.52"), "rayVersion: no tokens"
    groups = cluster.get("workerGroupSpecs", [])
    names = [group["groupName"] for group in groups]
    assert len(set(names)) == len(names), "groupName: twice"
    for group in groups:
        least, most = group["minReplicas"], group["maxReplicas"]
        assert least <= group.get("replicas", least) <= most, "replicas: out of bounds"
    for group in (cluster["headGroupSpec"], *groups):
        check_pod(group["template"])


def check_pod(template: Any) -> None:
    check(template, "V1PodTemplateSpec", "template")
    check_schema(template, POD, "template")
    volumes = {volume["name"] for volume in template["spec"].get("volumes", [])}
    for container in template["spec"]["containers"]:
        mounts = {mount["name"] for mount in container.get("volumeMounts", [])}
        assert mounts <= volumes, "volumeMounts: no such volume"
        resources = container.get("resources", {})
        for name, most in resources.get("limits", {}).items():
            # Kubernetes takes no request above the limit; equal ones need no arithmetic here.
            asked = resources.get("requests", {}).get(name, most)
            assert asked == most, f"requests.{name}: not the limit"


def check_schema(value: Any, schema: dict[str, Any], where: str) -> None:
    try:
        jsonschema.validate(value, schema)
    except jsonschema.ValidationError as error:
        path = error.json_path.removeprefix("$")
        raise AssertionError(f"{where}{path}: {error.message}") from None


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


@pytest.fixture(scope="module")
def documents() -> tuple[Any, Any]:
    claim, job = yaml.safe_load_all(RAYJOB.read_text())
    return claim, job


def changed(job: Any, path: str, value: object) -> Any:
    """A copy of a RayJob with one field changed; with a slash first, not one of its cluster."""
    result = copy.deepcopy(job)
    here = result if path.startswith("/") else result["spec"]["rayClusterSpec"]
    *way, last = (int(step) if step.isdigit() else step for step in path.strip("/").split("/"))
    for step in way:
        here = here[step]
    if value is GONE:
        del here[last]
    else:
        here[last] = value
    return result


def test_kubernetes_and_kuberay_would_take_the_rayjob(documents: tuple[Any, Any]) -> None:
    claim, job = documents
    check(claim, "V1PersistentVolumeClaim", "claim")
    check_rayjob(job)


def test_the_rayjobs_parts_fit_together(documents: tuple[Any, Any]) -> None:
    claim, job = documents
    cluster = job["spec"]["rayClusterSpec"]
    (workers,) = cluster["workerGroupSpecs"]
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


WORKER = "workerGroupSpecs/0"
HEAD_POD = "headGroupSpec/template/spec"
HEAD_CONTAINER = f"{HEAD_POD}/containers/0"


@pytest.mark.parametrize(
    ("path", "value", "complaint"),
    [
        ("/apiVersion", "ray.io/v1alpha1", r"job\.apiVersion"),
        ("/kind", "RayCluster", r"job\.kind"),
        ("/metadata/name", GONE, "'name' is a required property"),
        ("/metadata/name", "Distributed_PG", r"job\.metadata\.name: .* does not match"),
        ("/metadata/name", "1st", r"job\.metadata\.name: .* does not match"),
        ("/metadata/name", "x" * 48, r"job\.metadata\.name: .* is too long"),
        ("/status", {}, "'status' was unexpected"),
        ("/spec/entrypoint", ["distributed-pg", "train"], r"job\.spec\.entrypoint: .* 'string'"),
        ("/spec/entrypoint", GONE, "'entrypoint' is a required property"),
        ("/spec/entryPoint", "distributed-pg train", "'entryPoint' was unexpected"),
        ("/spec/backoffLimit", "0", r"backoffLimit: '0' is not of type 'integer'"),
        ("/spec/backoffLimit", -1, r"backoffLimit: -1 is less than"),
        ("/spec/shutdownAfterJobFinishes", "true", "shutdownAfterJobFinishes: .* 'boolean'"),
        ("/spec/shutdownAfterJobFinishes", GONE, "ttlSecondsAfterFinished: keeps"),
        ("/spec/ttlSecondsAfterFinished", 0.5, "ttlSecondsAfterFinished: 0.5 is not"),
        ("/spec/rayClusterSpec", GONE, "'rayClusterSpec' is a required property"),
        ("/spec/submissionMode", "Http", "submissionMode: 'Http' is not one of"),
        ("rayVersion", 2.6, "rayVersion: 2.6 is not of type 'string'"),
        ("rayVersion", "2.51.1", "rayVersion: no tokens"),
        ("rayVersion", GONE, "rayVersion: no tokens"),
        ("authOptions/mode", "Token", "authOptions.mode: 'Token' is not one of"),
        ("auth", {"mode": "token"}, "'auth' was unexpected"),
        ("enableInTreeAutoscaling", "yes", "enableInTreeAutoscaling: .* 'boolean'"),
        ("autoscalerOptions/idleTimeoutSeconds", "300", "idleTimeoutSeconds: '300' is not"),
        ("autoscalerOptions/idleTimeoutSeconds", -1, "idleTimeoutSeconds: -1 is less"),
        ("headGroupSpec", GONE, "'headGroupSpec' is a required property"),
        ("headGroupSpec/rayStartParams/num-cpus", 0, "num-cpus.*: 0 is not of type 'string'"),
        ("headGroupSpec/replicas", 1, "'replicas' was unexpected"),
        ("headGroupSpec/template", GONE, "'template' is a required property"),
        (f"{HEAD_POD}/containers", [], r"template\.spec\.containers"),
        (f"{HEAD_POD}/restartpolicy", "Never", "V1PodSpec has no restartpolicy"),
        (f"{HEAD_POD}/securityContext/fsGroup", "100", r"securityContext\.fsGroup"),
        (f"{HEAD_POD}/volumes/0/name", "other", "volumeMounts: no such volume"),
        (f"{HEAD_CONTAINER}/name", GONE, "'name' is a required property"),
        (f"{HEAD_CONTAINER}/image", GONE, "'image' is a required property"),
        (f"{HEAD_CONTAINER}/image", 1, r"containers\[0\]\.image"),
        (f"{HEAD_CONTAINER}/volumeMounts/0/mountpath", "/runs", "V1VolumeMount has no mountpath"),
        (f"{HEAD_CONTAINER}/resources/limits/memory", "8 Gi", "memory: '8 Gi' does not match"),
        (f"{HEAD_CONTAINER}/resources/limits/memory", "8GB", "memory: '8GB' does not match"),
        (f"{HEAD_CONTAINER}/resources/limits/cpu", 2, r"resources\.limits\.cpu"),
        (f"{HEAD_CONTAINER}/resources/requests/cpu", "4", r"requests\.cpu: not the limit"),
        (f"{WORKER}/groupName", GONE, "'groupName' is a required property"),
        (f"{WORKER}/groupName", "spot_nodes", "groupName: .* does not match"),
        (f"{WORKER}/minReplicas", 5, "replicas: out of bounds"),
        (f"{WORKER}/replicas", 5, "replicas: out of bounds"),
        (f"{WORKER}/replicas", "0", "replicas: '0' is not of type 'integer'"),
        (f"{WORKER}/maxReplicas", -1, "maxReplicas: -1 is less"),
        (f"{WORKER}/maxReplicas", GONE, "'maxReplicas' is a required property"),
        (f"{WORKER}/minWorkers", 0, "'minWorkers' was unexpected"),
        (f"{WORKER}/rayStartParams", {"num-gpus": None}, "num-gpus.*: None is not"),
        (f"{WORKER}/template/spec/nodeSelector", {"spot": True}, r"nodeSelector\.spot"),
    ],
)
def test_one_mistake_is_found(
    documents: tuple[Any, Any], path: str, value: object, complaint: str
) -> None:
    with pytest.raises(AssertionError, match=complaint):
        check_rayjob(changed(documents[1], path, value))


def test_two_groups_of_one_name_are_found(documents: tuple[Any, Any]) -> None:
    twice = documents[1]["spec"]["rayClusterSpec"]["workerGroupSpecs"] * 2
    with pytest.raises(AssertionError, match="groupName: twice"):
        check_rayjob(changed(documents[1], "workerGroupSpecs", twice))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("/metadata/name", "x" * 47),
        ("/metadata/labels", {"team": "a"}),
        ("/spec/submissionMode", "HTTPMode"),
        ("/spec/ttlSecondsAfterFinished", 0),
        ("authOptions", GONE),
        ("rayVersion", "2.52.0"),
        ("autoscalerOptions/version", "v2"),
        (f"{WORKER}/replicas", 4),
        (f"{WORKER}/rayStartParams", GONE),
        (f"{WORKER}/template/spec/nodeSelector", {"spot": "true"}),
        (f"{HEAD_CONTAINER}/resources", GONE),
    ],
)
def test_what_is_allowed_is_taken(documents: tuple[Any, Any], path: str, value: object) -> None:
    check_rayjob(changed(documents[1], path, value))
