"""What the services and the guide need of the Kubernetes manifests."""

import re
import shutil
import subprocess
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import get_args

import pytest
import yaml

from console.__main__ import start
from console.start import stop_seconds
from services.mailer.settings import MailerConfiguration
from services.router.settings import RouterConfiguration
from services.watcher.settings import WatcherConfiguration
from shared.settings import MailerSettings, ServiceName, Settings
from shared.settings_reading import DEFAULT_PATH, load_settings
from tests.deploy.guide import GUIDE, PROVIDED, guide_overlay, scrape_configuration
from tests.deploy.manifests import ROOT, Container, Pod, Rendered, render

PARTS: Mapping[ServiceName, Callable[[Settings], object]] = {
    "watcher": WatcherConfiguration.of,
    "router": RouterConfiguration.of,
    "mailer": MailerConfiguration.of,
}
"""What each service demands of the configuration, as it does when it starts."""

MAY_READ = {
    "watcher": {"access-mail-identity", "access-mail-redis"},
    "router": {"access-mail-redis"},
    "mailer": {"access-mail-relay", "access-mail-redis"},
}
"""No service sees the secrets of another."""


def test_a_service_reads_its_own_secrets_and_no_others(container: Container, service: ServiceName) -> None:
    assert container.secrets <= MAY_READ[service]


def test_the_arguments_are_those_of_the_command(container: Container, service: ServiceName) -> None:
    command, *arguments = container.body["args"]
    assert command == "start"
    with start.make_context(command, arguments) as context:
        assert context.params["service"] == service
    assert "command" not in container.body, "the image's entry point is the command"


def test_the_configuration_is_one_that_the_service_starts_with(
    rendered: Rendered, pod: Pod, container: Container, service: ServiceName, tmp_path: Path
) -> None:
    (mount,) = [mount for mount in container.mounts if mount.path == PurePosixPath(DEFAULT_PATH)]
    assert mount.only == "teleport-email.toml"
    file = tmp_path / "teleport-email.toml"
    file.write_text(rendered.configuration(pod))
    settings = load_settings(file, container.environ)
    PARTS[service](settings)
    assert settings.redis.url is not None
    probes = settings.probes(service)
    assert probes.host == "0.0.0.0"  # noqa: S104 - the kubelet and Prometheus come from other hosts
    assert container.ports == {"probes": probes.port}


def test_every_file_that_the_configuration_names_is_mounted_where_it_is_read(
    rendered: Rendered, service: ServiceName
) -> None:
    pod = rendered.pods[f"access-mail-{service}"]
    tables = {"watcher": ("teleport", "redis"), "router": ("redis",), "mailer": ("smtp", "mailgun", "redis")}
    configuration = tomllib.loads(rendered.configuration(pod))
    keys = ("identity", "password_file", "private_key_file", "ca_file")
    named = {
        PurePosixPath(configuration[table][key])
        for table in tables[service]
        for key in keys
        if key in configuration.get(table, {})
    }
    (container,) = [one for one in pod.containers if one.body["name"] == "access-mail"]
    for path in named:
        (mount,) = [mount for mount in container.mounts if mount.path == path.parent]
        secret = pod.volumes[mount.volume].get("secret", {}).get("secretName")
        if secret in PROVIDED and secret not in rendered.names("Secret"):
            assert path.name == PROVIDED[secret]


def test_probes_ask_for_life_and_readiness(container: Container) -> None:
    paths = {name: probe["httpGet"]["path"] for name, probe in container.probes.items()}
    assert paths == {"startupProbe": "/healthz", "livenessProbe": "/healthz", "readinessProbe": "/readyz"}


def test_a_service_has_the_time_to_end_gracefully(pod: Pod, container: Container, service: ServiceName) -> None:
    settings = load_settings(None, container.environ)
    assert pod.spec["terminationGracePeriodSeconds"] > stop_seconds(settings)[service]
    if service == "mailer":
        assert settings.mailer.grace > MailerSettings().grace, "it makes use of the time it has"


def test_an_eviction_takes_one_copy_at_a_time(rendered: Rendered, pod: Pod) -> None:
    (budget,) = [one for one in rendered.of_kind("PodDisruptionBudget") if one["metadata"]["name"] == pod.name]
    assert budget["spec"]["maxUnavailable"] == 1


def test_all_images_of_ours_are_of_this_version_and_others_are_pinned(rendered: Rendered) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    for container in rendered.containers:
        name, _, tag = container.body["image"].rpartition("/")[2].partition(":")
        if container.body["name"] == "access-mail":
            assert name == "access-mail"
        assert tag == version if name.startswith("access-mail") else re.match(r"\d", tag), container.name


def test_a_changed_configuration_rolls_the_pods(tmp_path: Path) -> None:
    overlay = guide_overlay(tmp_path)
    before = render(overlay)
    file = overlay / "teleport-email.toml"
    file.write_text(file.read_text().replace("security@", "watch@"))
    after = render(overlay)
    for service in get_args(ServiceName):
        name = f"access-mail-{service}"
        assert "watch@" in after.configuration(after.pods[name])
        assert before.pods[name].spec != after.pods[name].spec


def test_the_guide_creates_every_secret_that_is_to_be_provided() -> None:
    commands = re.findall(r"kubectl [^\n]*create secret generic ([\w-]+) (?:\\\n\s+)?--from-file=(\w+)=", GUIDE)
    assert dict(commands) == PROVIDED


def test_the_guide_names_only_what_exists() -> None:
    base = render(ROOT / "k8s/base")
    for path in re.findall(r"\bk8s/(?:base|components|overlays/demo)[\w./-]*", GUIDE):
        assert (ROOT / path.rstrip(".")).exists(), path
    for kind, name in re.findall(r"\b(deploy|svc)/(access-mail-(?:watcher|router|mailer))\b", GUIDE):
        assert name in base.names({"deploy": "Deployment", "svc": "Service"}[kind])


def test_the_guides_scrape_configuration_names_ports_of_the_services_that_it_names() -> None:
    base = render(ROOT / "k8s/base")
    there = {
        (f"{service['metadata']['name']}.access-mail.svc", port["port"])
        for service in base.of_kind("Service")
        for port in service["spec"]["ports"]
    }
    scrapes = [
        scrape for job in yaml.safe_load(scrape_configuration())["scrape_configs"] for scrape in job["dns_sd_configs"]
    ]
    assert {(scrape["names"][0], scrape["port"]) for scrape in scrapes} == there


def test_the_guides_scrape_configuration_is_one_of_prometheus(tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("no promtool: the guide's scrape configuration is not checked")
    file = tmp_path / "prometheus.yml"
    file.write_text(scrape_configuration())
    subprocess.run([promtool, "check", "config", file], check=True)
