"""The Kubernetes manifests by themselves: the schemas of Kubernetes, what refers to what, and what containers may do.

What only a cluster can show (admission, scheduling, evictions) is not tested here.
"""

from collections import Counter

import kubernetes_validate
import pytest

from tests.deploy.guide import PROVIDED
from tests.deploy.manifests import ROOT, Rendered, render

OLDEST_KUBERNETES = "1.29"
"""The first that runs sidecars (init containers that are restarted) without a feature gate."""


@pytest.mark.parametrize("version", [OLDEST_KUBERNETES, kubernetes_validate.latest_version()])
def test_every_object_fits_its_strict_schema(rendered: Rendered, version: str) -> None:
    for manifest in rendered.manifests:  # a kind without a schema raises, too
        kubernetes_validate.validate(manifest, version, strict=True)


def test_no_object_is_there_twice_or_in_another_namespace(rendered: Rendered) -> None:
    (namespace,) = rendered.names("Namespace")
    there = Counter((manifest["kind"], manifest["metadata"]["name"]) for manifest in rendered.manifests)
    assert max(there.values()) == 1
    elsewhere = [
        manifest["metadata"]["name"]
        for manifest in rendered.manifests
        if manifest["kind"] != "Namespace" and manifest["metadata"].get("namespace") != namespace
    ]
    assert elsewhere == []


def test_the_namespace_admits_restricted_pods_only(rendered: Rendered) -> None:
    (namespace,) = rendered.of_kind("Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_the_base_holds_no_secret() -> None:
    assert render(ROOT / "k8s/base").of_kind("Secret") == []


# Who refers to whom


def test_a_workload_chooses_its_own_pods_and_no_others(rendered: Rendered) -> None:
    for name, pod in rendered.pods.items():
        assert rendered.chosen_by(pod.owner["spec"]["selector"]["matchLabels"]) == [name]


def test_every_selector_chooses_the_pods_of_its_name(rendered: Rendered) -> None:
    for service in rendered.of_kind("Service"):
        assert rendered.chosen_by(service["spec"]["selector"]) == [service["metadata"]["name"]]
    for budget in rendered.of_kind("PodDisruptionBudget"):
        assert rendered.chosen_by(budget["spec"]["selector"]["matchLabels"]) == [budget["metadata"]["name"]]
    for name, pod in rendered.pods.items():
        for spread in pod.spec.get("topologySpreadConstraints", []):
            assert rendered.chosen_by(spread["labelSelector"]["matchLabels"]) == [name]


def test_network_policies_speak_of_pods_and_ports_that_exist(rendered: Rendered) -> None:
    for policy in rendered.of_kind("NetworkPolicy"):
        name, spec = policy["metadata"]["name"], policy["spec"]
        targets = rendered.chosen_by(spec["podSelector"]["matchLabels"])
        assert targets, f"{name} protects nobody"
        for rule in spec["ingress"]:
            for port in rule.get("ports", []):
                assert all(port["port"] in rendered.pods[target].ports for target in targets), f"{name}: {port}"
            for peer in rule.get("from", []):
                assert rendered.chosen_by(peer["podSelector"]["matchLabels"]), f"{name}: nobody is let in by {peer}"


def test_services_and_probes_name_ports_of_their_pods(rendered: Rendered) -> None:
    for service in rendered.of_kind("Service"):
        for port in service["spec"]["ports"]:
            for target in rendered.chosen_by(service["spec"]["selector"]):
                assert rendered.pods[target].ports.get(port["targetPort"]) == port["port"], service["metadata"]["name"]
    for container in rendered.containers:
        for probe in container.probes.values():
            if "httpGet" in probe:
                assert probe["httpGet"]["port"] in container.ports, container.name
            elif "tcpSocket" in probe:
                assert probe["tcpSocket"]["port"] in container.ports, container.name


def test_whatever_a_pod_needs_is_rendered_or_is_to_be_provided(rendered: Rendered) -> None:
    secrets = rendered.names("Secret") | PROVIDED.keys()
    for name, pod in rendered.pods.items():
        for container in pod.containers:
            assert container.secrets <= secrets, container.name
        for volume in pod.volumes.values():
            assert volume.get("configMap", {}).get("name") in rendered.names("ConfigMap") | {None}, name
            assert volume.get("secret", {}).get("secretName") in secrets | {None}, name
            claim = volume.get("persistentVolumeClaim", {}).get("claimName")
            assert claim in rendered.names("PersistentVolumeClaim") | {None}, name
        assert pod.spec.get("serviceAccountName") in rendered.names("ServiceAccount") | {None}, name


def test_every_mount_has_a_volume_every_volume_a_mount_and_every_path_is_mounted_once(rendered: Rendered) -> None:
    for name, pod in rendered.pods.items():
        mounted = {mount.volume for container in pod.containers for mount in container.mounts}
        assert mounted == pod.volumes.keys(), name
        for container in pod.containers:
            paths = [mount.path for mount in container.mounts]
            assert len(paths) == len(set(paths)), container.name


# What containers may do


def test_every_container_is_restricted(rendered: Rendered) -> None:
    for container in rendered.containers:
        pod, own = container.pod.spec["securityContext"], container.body["securityContext"]
        assert pod["runAsNonRoot"] is True, container.name
        assert pod["runAsUser"] > 0, container.name
        assert pod["seccompProfile"] == {"type": "RuntimeDefault"}, container.name
        assert own["allowPrivilegeEscalation"] is False, container.name
        assert own["readOnlyRootFilesystem"] is True, container.name
        assert own["capabilities"] == {"drop": ["ALL"]}, container.name
        assert not container.pod.spec.keys() & {"hostNetwork", "hostPID", "hostIPC"}, container.name
        assert own.keys() == {"allowPrivilegeEscalation", "readOnlyRootFilesystem", "capabilities"}, container.name


def test_nobody_has_a_token_for_the_cluster(rendered: Rendered) -> None:
    for pod in rendered.pods.values():
        assert pod.spec["automountServiceAccountToken"] is False, pod.name
    for account in rendered.of_kind("ServiceAccount"):
        assert account["automountServiceAccountToken"] is False


def test_every_volume_is_of_one_kind_that_does_not_show_the_disk_of_the_node(rendered: Rendered) -> None:
    for pod in rendered.pods.values():
        for volume in pod.spec.get("volumes", []):
            (kind,) = volume.keys() - {"name"}
            assert kind in {"configMap", "secret", "emptyDir"}, pod.name


def test_secrets_are_readable_by_the_group_of_the_pod_alone(rendered: Rendered) -> None:
    for pod in rendered.pods.values():
        for volume in pod.volumes.values():
            if "secret" in volume:
                assert volume["secret"]["defaultMode"] == 0o400, pod.name  # and the kubelet adds the group
                assert pod.spec["securityContext"]["fsGroup"] == pod.spec["securityContext"]["runAsGroup"], pod.name


def test_every_container_asks_for_memory_and_is_held_to_a_limit(rendered: Rendered) -> None:
    for container in rendered.containers:
        resources = container.body["resources"]
        assert resources["requests"].keys() == {"cpu", "memory"}, container.name
        assert resources["limits"].keys() == {"memory"}, container.name
