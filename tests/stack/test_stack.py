"""`docker compose up`: a newcomer sees mails and metrics, and what goes wrong loses nothing."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from monitoring.dashboards import FOLDER
from shared.settings import MailerSettings
from simulators.teleport.people import People
from tests.monitoring.queries import alerts, dashboard_queries
from tests.stack.stack import READERS, ROLE, UP, Stack, asked
from tests.waiting import wait_for

STORY = {
    "ann@example.com": ["requested", "reviewed-1", "approved"],
    "carol@example.com": ["requested", "reviewed-1", "approved"],
    "security@example.com": ["requested", "denied", "requested", "expired"],
}

REQUESTS = 500
RATE_INTERVAL = "40s"
"""Grafana's for scrapes each 10 s."""


def test_the_storys_mails_are_in_the_inbox(stack: Stack) -> None:
    told: dict[str, list[str]] = {}
    for mail in stack.mails_of_the_story:
        told.setdefault(mail["recipient"], []).append(dict(mail["headers"])["X-Access-Mail-Notice"])
    assert told == STORY


def test_prometheus_finds_every_copy(stack: Stack) -> None:
    expected = [*[("access-mail-mailer", "up")] * 3, ("access-mail-router", "up"), ("access-mail-watcher", "up")]
    wait_for(lambda: stack.targets() == expected, f"Prometheus scrapes {expected}", timeout=30)


def test_prometheus_has_the_alerts(stack: Stack) -> None:
    assert stack.alerts() == set(alerts())


def test_a_service_has_no_rights_and_can_write_nothing(stack: Stack) -> None:
    look = "id -u; grep -E 'CapEff|NoNewPrivs' /proc/self/status; touch /x 2>&1; ls /run/secrets 2>&1"
    for service, secrets in {"watcher": "", "router": "", "mailer": "relay-password\n"}.items():
        seen = stack.compose("exec", service, "sh", "-c", f"{look} || true")
        assert seen.startswith("10001\nCapEff:\t0000000000000000\nNoNewPrivs:\t1\ntouch: cannot touch '/x': Read-only")
        assert seen.endswith(secrets or "No such file or directory\n")


def test_each_service_has_all_that_it_needs_and_the_secrets_of_no_other(stack: Stack) -> None:
    tried = {"watcher": "teleport", "router": "redis", "mailer": "relay"}
    for service, last in tried.items():
        told = stack.compose("exec", service, "access-mail", "check", "--service", service).splitlines()
        assert told[0] == f"ok   configuration: complete for the {service}"
        assert told[-1].startswith(f"ok   {last}: "), told


def test_a_killed_mailer_and_a_paused_redis_in_the_midst_of_many_requests_lose_nothing(stack: Stack) -> None:
    before, ids = stack.count(), list[str]()
    mailer, redis = stack.containers("mailer")[0]["Id"], stack.containers("redis")[0]["Id"]

    def ask(people: People) -> None:
        for _ in range(REQUESTS):
            ids.append(people.create_request("alice", [ROLE], suggested_reviewers=["carol@example.com"]))

    with stack.people() as people, ThreadPoolExecutor() as pool:
        asking = pool.submit(ask, people)
        wait_for(lambda: stack.count() > before, "the first mails have come")
        stack.engine.kill_all_in(mailer)
        stack.engine.run("pause", redis)
        assert stack.count() - before < REQUESTS * len(READERS), "the rest was still on its way"
        wait_for(lambda: not stack.are_healthy("router"), "the router has noticed that Redis is away", timeout=180)
        stack.engine.run("unpause", redis)
        asking.result()
    came = stack.wait_for_mails(asked(ids), timeout=300)
    assert len(came) == REQUESTS * len(READERS)
    again = came.total() - len(came)
    assert again <= 3 * MailerSettings().connections, "what the mailers had in hand, and nothing else, may come again"
    wait_for(lambda: "0 jobs total" in stack.rq("info"), "nothing is left in the queue", timeout=180)
    assert ", 0 failed\n" in stack.rq("info")
    wait_for(lambda: stack.are_healthy("router") and stack.are_healthy("mailer"), "all are well again", timeout=180)
    assert stack.engine.inspect(mailer)["RestartCount"] == 1


@pytest.mark.parametrize("board", sorted(FOLDER.glob("*.json")), ids=lambda board: board.stem)
def test_every_query_of_a_dashboard_has_series(stack: Stack, board: Path) -> None:
    queries = dashboard_queries(board, RATE_INTERVAL)
    assert queries

    def empty() -> list[str]:
        return [f"{query.panel}: {query.expr}" for query in queries if not stack.query(query.expr)]

    try:
        wait_for(lambda: not empty(), f"every query of {board.name} has series", timeout=180)
    except AssertionError as error:
        raise AssertionError("\n".join([str(error), *empty()])) from None


def test_a_dead_letter_is_seen_and_replayed_by_rq(stack: Stack) -> None:
    stack.compose("--profile", "demo", "up", "-d", "--wait", "inbox", DEMO_REFUSES="ann@example.com")
    with stack.people() as people:
        request_id = people.create_request("alice", [ROLE])
    wait_for(lambda: ", 1 failed\n" in stack.rq("info"), "rq shows the dead letter", timeout=180)
    assert "550 5.1.1 there is nobody of that name" in stack.compose("exec", "mailer", "access-mail", "dead", "list")
    assert stack.count() == 0
    stack.compose("--profile", "demo", "up", "-d", "--wait", "inbox")
    assert "Requeueing 1 jobs from failed queue" in stack.rq("requeue", "--queue", "mail", "--all")
    assert stack.wait_for_mails(asked([request_id], ["ann@example.com"])).total() == 1
    wait_for(lambda: ", 0 failed\n" in stack.rq("info"), "rq shows no dead letter any more", timeout=180)


def test_another_configuration_file_needs_no_more_than_up(stack: Stack, tmp_path: Path) -> None:
    another = tmp_path / "another.toml"
    another.write_text((stack.checkout / "deploy/demo/teleport-email.toml").read_text() + "# another\n")
    another.chmod(0o644)
    services = ("watcher", "router", "mailer")
    stack.compose(*UP, *services, ACCESS_MAIL_CONFIG=str(another))
    for service in services:
        assert stack.compose("exec", service, "tail", "-n", "1", "/etc/teleport-email.toml") == "# another\n"
    stack.compose(*UP, *services)


def test_down_and_up_again_keep_the_queue(stack: Stack) -> None:
    stack.rq("suspend")
    with stack.people() as people:
        ids = [people.create_request("alice", [ROLE]) for _ in range(20)]
    wait_for(lambda: "20 jobs total" in stack.rq("info"), "20 mails wait", timeout=180)
    stack.compose("--profile", "demo", "down")
    # The simulated cluster forgets its requests: what was asked for is sent before it can be missed.
    stack.compose("--profile", "demo", "up", "-d", "--wait", "redis", "router", "mailer", "inbox")
    assert "20 jobs total" in stack.rq("info")
    assert stack.count() == 0
    stack.rq("resume")
    expected = asked(ids, ["ann@example.com"])
    assert stack.wait_for_mails(expected) == Counter(expected)
    stack.compose(*UP)
    assert len(stack.containers("mailer")) == 3
