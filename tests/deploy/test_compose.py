"""The compose file, as Compose itself reads it: who sees what, who reaches whom, and what a breach could do."""

import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from console.parts import insist_on_parts
from console.start import stop_seconds
from shared.settings import MailerSettings, RouterSettings, WatcherSettings
from shared.settings_reading import load_settings
from tests.e2e.installation import BIN
from tests.monitoring.queries import RULES

ROOT = Path(__file__).parents[2]
NOTHING = Path("/dev/null")
SERVICES = {"watcher", "router", "mailer"}
SIMULATORS = {"teleport", "inbox", "story"}
ALL = {*SERVICES, *SIMULATORS, "redis", "prometheus", "grafana", "rq"}
PORTS = {"watcher": WatcherSettings().port, "router": RouterSettings().port, "mailer": MailerSettings().port}

Composed = dict[str, Any]


def composed(*profiles: str, env_file: Path = NOTHING) -> Composed:
    """What Compose makes of the file with these profiles and this `.env`."""
    options = [word for profile in profiles for word in ("--profile", profile)]
    command = [str(BIN / "docker-compose"), "--env-file", str(env_file), *options, "config", "--format", "json"]
    done = subprocess.run(command, cwd=ROOT, env={"PATH": "/usr/bin"}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return dict(json.loads(done.stdout))


@pytest.fixture(scope="module")
def everything() -> dict[str, Composed]:
    """All services by name, those of the profiles among them."""
    return dict(composed("demo", "tools")["services"])


def test_without_a_profile_there_is_the_product_and_what_watches_it() -> None:
    assert set(composed()["services"]) == SERVICES | {"redis", "prometheus", "grafana"}
    assert set(composed("demo", "tools")["services"]) == ALL


def test_the_example_env_leads_away_from_the_demo() -> None:
    mine = composed(env_file=ROOT / ".env.example")
    assert mine["configs"]["access-mail"]["file"] == str(ROOT / "teleport-email.toml")
    assert mine["secrets"]["relay-password"]["file"] == str(ROOT / "secrets/relay-password")
    (identity,) = mine["services"]["watcher"]["volumes"]
    assert identity["source"] == str(ROOT / "secrets/teleport")
    assert "demo" not in json.dumps({name: mine[name] for name in ("configs", "secrets", "volumes")})


def test_each_variable_stands_in_the_example_env_or_is_the_demos_own() -> None:
    used = set(re.findall(r"\$\{(\w+)", (ROOT / "docker-compose.yml").read_text()))
    told = set(re.findall(r"(?m)^#?([A-Z_]+)=", (ROOT / ".env.example").read_text()))
    assert used == told | {"INBOX_PORT", "DEMO_REFUSES"}


def test_each_service_sees_its_own_secrets_only(everything: dict[str, Composed]) -> None:
    secrets = {name: [one["source"] for one in service.get("secrets", [])] for name, service in everything.items()}
    assert {name for name, seen in secrets.items() if seen} == {"mailer"}
    with_identity = {
        name: one.get("read_only", False)
        for name, service in composed("tools")["services"].items()
        for one in service.get("volumes", [])
        if one["target"] == "/run/teleport"
    }
    assert with_identity == {"watcher": True}
    configured = {
        name
        for name, service in everything.items()
        if "access-mail" in {one["source"] for one in service.get("configs", [])}
    }
    assert configured == SERVICES


def test_nothing_listens_beyond_this_machine(everything: dict[str, Composed]) -> None:
    published = {
        name: {port["host_ip"] for port in service.get("ports", [])}
        for name, service in everything.items()
        if service.get("ports")
    }
    assert published == {name: {"127.0.0.1"} for name in ("prometheus", "grafana", "inbox")}
    assert all("network_mode" not in service for service in everything.values())


def test_only_prometheus_reaches_the_probes_and_only_the_pipeline_reaches_redis() -> None:
    whole = composed("tools")
    reaches = {name: set(service["networks"]) for name, service in whole["services"].items()}

    def on(network: str) -> set[str]:
        return {name for name, networks in reaches.items() if network in networks}

    assert on("metrics") == {*SERVICES, "prometheus"}
    assert on("queue") == {*SERVICES, "redis", "rq"}
    assert on("teleport") == {"watcher"}
    assert on("relay") == {"mailer"}
    assert {name for name, network in whole["networks"].items() if network.get("internal")} == {"metrics", "queue"}


@pytest.mark.parametrize("name", sorted(ALL))
def test_a_breach_finds_no_rights(everything: dict[str, Composed], name: str) -> None:
    service = everything[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "cap_add" not in service
    assert "privileged" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert int(service["user"].split(":")[0]) > 0
    assert service["pids_limit"] > 0
    assert int(service["mem_limit"]) > 0
    assert any(one.startswith("/tmp:") for one in service["tmpfs"])  # noqa: S108 - the container's own
    assert {"max-size", "max-file"} <= set(service["logging"]["options"])
    assert not any(one["source"].endswith("docker.sock") for one in service.get("volumes", []))


def test_a_service_starts_when_redis_answers_and_comes_back_when_it_dies(everything: dict[str, Composed]) -> None:
    for name in SERVICES:
        assert everything[name]["depends_on"]["redis"]["condition"] == "service_healthy"
        assert everything[name]["restart"] == "unless-stopped"
        assert f":{PORTS[name]}/readyz" in everything[name]["healthcheck"]["test"][-1]
    assert everything["story"]["depends_on"].keys() >= SERVICES
    assert everything["watcher"]["depends_on"]["teleport"] == {"condition": "service_healthy", "required": False}


def test_a_mailer_has_the_time_it_may_take_to_stop(everything: dict[str, Composed]) -> None:
    for name in SERVICES:
        settings = load_settings(None, everything[name]["environment"])
        assert float(everything[name]["stop_grace_period"].removesuffix("s")) > stop_seconds(settings)[name]
    mailer = load_settings(None, everything["mailer"]["environment"]).mailer
    assert mailer.grace > MailerSettings().grace, "it makes use of the time it has"


def test_redis_keeps_what_it_is_given(everything: dict[str, Composed]) -> None:
    command = " ".join(everything["redis"]["command"])
    assert "--appendonly yes --appendfsync everysec" in command
    assert "--maxmemory-policy noeviction" in command
    assert "--hash-max-listpack-value 4096" in command
    assert [one["target"] for one in everything["redis"]["volumes"]] == ["/data"]


def test_foreign_images_are_pinned(everything: dict[str, Composed]) -> None:
    foreign = {service["image"] for service in everything.values() if not service["image"].startswith("access-mail")}
    assert len(foreign) == 3
    assert all(re.search(r":v?\d+\.\d+", image) for image in foreign), foreign
    built = {name for name, service in everything.items() if "build" in service}
    assert built == {"watcher", "teleport"}
    assert everything["watcher"]["build"].get("target") is None


def test_what_is_mounted_from_here_exists(everything: dict[str, Composed]) -> None:
    files = [one["source"] for service in everything.values() for one in service.get("volumes", [])]
    files += [one["file"] for one in composed()["configs"].values()]
    here = [Path(file) for file in files if file.startswith("/") and file != "/dev/null"]
    assert here
    assert [path for path in here if not path.exists()] == []


def test_prometheus_asks_the_names_of_all_services_for_their_copies() -> None:
    text = (ROOT / "deploy/prometheus.yml").read_text()
    jobs = re.findall(
        r"job_name: access-mail-(\w+)\n    dns_sd_configs: \[\{names: \[(\w+)\], type: A, port: (\d+),", text
    )
    assert jobs == [(name, name, str(PORTS[name])) for name in ("watcher", "router", "mailer")]


def test_prometheus_takes_its_configuration() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed: `make tools`")
    command = [promtool, "check", "config", "--lint-fatal", str(ROOT / "deploy/prometheus.yml")]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0


def test_prometheus_finds_the_alerts_where_its_configuration_looks_for_rules(everything: dict[str, Composed]) -> None:
    (pattern,) = re.findall(r"rule_files: \[(.*)\]", (ROOT / "deploy/prometheus.yml").read_text())
    targets = {one["source"]: PurePosixPath(one["target"]) for one in everything["prometheus"]["configs"]}
    assert targets["alerts"].match(f"{targets['prometheus'].parent}/{pattern}")
    assert composed()["configs"]["alerts"]["file"] == str(RULES)


def test_the_demos_configuration_is_complete() -> None:
    insist_on_parts(load_settings(ROOT / "deploy/demo/teleport-email.toml", {}))


def test_the_example_env_names_what_the_configuration_file_must_say() -> None:
    told = (ROOT / ".env.example").read_text()
    demo = tomllib.loads((ROOT / "deploy/demo/teleport-email.toml").read_text())
    assert 'teleport.identity = "/run/teleport/identity"' in told
    assert demo["teleport"]["identity"].startswith("/run/teleport/")
    assert 'smtp.password_file = "/run/secrets/relay-password"' in told
