"""The first row of the board "is it well?": the figures that answer it, each with what to do if it is red."""

from monitoring.panels import (
    GREEN,
    NOTHING,
    RED,
    SECONDS,
    YELLOW,
    Panel,
    Query,
    Row,
    age,
    bad_above,
    bad_below,
    figure,
    in_this_time,
    quantile,
    words,
)

SERVICES = ("watcher", "router", "mailer")
TO_ACCEPT = "access_mail_request_to_accept_seconds"
REDIS_FAILURES = "access_mail_watcher_append_waits|access_mail_router_redis_errors|access_mail_mailer_redis_failures"
REDIS_FAILURES_OF_ALL = f'{{__name__=~"({REDIS_FAILURES})_total"}}'
TROUBLES = 'reason=~"unavailable|refused"'
"""Reconnects that nobody asked for."""


def answer() -> Row:
    """Who is there, what came of it, and what waits."""
    return Row("Is it well?", [*_there(), *_outcome(), *_waiting()])


def _there() -> list[Panel]:
    return [
        figure(
            "Teleport",
            "Does a watcher follow Teleport's events? If not: `access-mail check`, and the watcher's log, which "
            "says whether Teleport is away, refuses the identity, or grants too little. Nothing is lost meanwhile: "
            "the watcher lists all requests when it is back.",
            Query("max(access_mail_watcher_connected) or vector(0)", "Teleport"),
            width=3,
            steps=bad_below(1),
            mappings=[words(_0=("not connected", RED), _1=("connected", GREEN))],
        ),
        figure(
            "Identity ends in",
            "How long the watcher's certificate lasts. tbot renews it long before its end, and the watcher takes the "
            "new file by itself. Yellow or red: is tbot running, and does the watcher see its file? An identity made "
            "by `tctl auth sign` must be made anew in time.",
            Query("min(access_mail_watcher_identity_expiry_timestamp_seconds) - time()", "identity"),
            width=3,
            unit=SECONDS,
            steps=((None, RED), (10 * 60, YELLOW), (30 * 60, GREEN)),
        ),
        figure(
            "Redis",
            "Whether Redis told every service at the last scrape how stream and queue stand. If not, figures of both "
            "are missing, and nothing moves until it answers: is it up, reachable, and quick? Nothing is lost "
            "meanwhile.",
            Query("min(access_mail_queue_readable or access_mail_stream_readable) or vector(0)", "Redis"),
            width=3,
            steps=bad_below(1),
            mappings=[words(_0=("no answer", RED), _1=("answers", GREEN))],
        ),
        figure(
            "Processes that live",
            "How many copies of each service Prometheus reaches. 0: start it, or mend the scrape configuration.",
            *[Query(f'count(access_mail_build_info{{service="{name}"}}) or vector(0)', name) for name in SERVICES],
            width=4,
            steps=bad_below(1),
        ),
        figure(
            "Dead letters",
            "Mails that the relay refused for good or that came too late, and events that could not be routed: "
            "somebody was not told. `rq info` counts the mails; mend the cause, then "
            "`rq requeue --queue mail --all`. They are kept for 30 days.",
            Query('max(access_mail_queue_jobs{state="failed"})', "mails"),
            Query("max(access_mail_dead_events)", "events"),
            width=3,
            steps=bad_above(1, 10),
        ),
    ]


def _outcome() -> list[Panel]:
    return [
        figure(
            "From request to relay",
            "From the creation of a request in Teleport to the relay's acceptance of a mail that asks for its "
            "review, in the time shown. Well below a second when all is well. If it is slow: the ages of the "
            "oldest event and mail tell which hop waits.",
            Query(quantile(0.5, TO_ACCEPT, "$__range"), "p50"),
            Query(quantile(0.99, TO_ACCEPT, "$__range"), "p99"),
            width=4,
            unit=SECONDS,
            decimals=2,
            steps=bad_above(30, 300),
            mappings=[NOTHING],
        ),
        figure(
            "Troubles in the time shown",
            "Teleport: connections lost or refused. Redis: times that it did not do its part. Relay: attempts "
            "that have to be repeated. All three are retried and cost only time; if one goes on, its row below "
            "has the reason.",
            Query(in_this_time("access_mail_watcher_reconnects_total", TROUBLES), "Teleport"),
            Query(f"sum(increase({REDIS_FAILURES_OF_ALL}[$__range]))", "Redis"),
            Query(in_this_time("access_mail_mailer_mails_total", 'outcome="later"'), "relay"),
            width=4,
            steps=bad_above(1, 100),
        ),
    ]


def _waiting() -> list[Panel]:
    return [
        figure(
            "Events that wait",
            "On the stream between watcher and router. Near 0 when all is well; the watcher stops at 100,000 and "
            "waits. If it grows: is a router alive, and what does its log say?",
            Query("max(access_mail_stream_events)", "events"),
            width=4,
            steps=bad_above(1_000, 50_000),
        ),
        figure(
            "Oldest event",
            "How long the oldest event has waited for a router. More than a few seconds: routers are down, too "
            "slow, or cannot write to Redis.",
            Query(age("access_mail_oldest_event_timestamp_seconds"), "waits"),
            width=4,
            unit=SECONDS,
            steps=bad_above(10, 60),
        ),
        figure(
            "Mails that wait for a mailer",
            "Ready to be sent. Near 0 when all is well. If it grows: start more mailers, unless the relay is what "
            "is slow, or somebody ran `rq suspend`.",
            Query('max(access_mail_queue_jobs{state="queued"})', "mails"),
            width=4,
            steps=bad_above(500, 5_000),
        ),
        figure(
            "Oldest mail",
            "How long the mail at the head of the queue has waited for a mailer. The figure to scale mailers by.",
            Query(age("access_mail_oldest_job_timestamp_seconds"), "waits"),
            width=4,
            unit=SECONDS,
            steps=bad_above(30, 300),
        ),
        figure(
            "Mails that are tried again",
            "They wait for their next attempt, because the relay was away or said not now. The mailer's row below "
            "has the reasons.",
            Query('max(access_mail_queue_jobs{state="scheduled"})', "mails"),
            width=4,
            steps=bad_above(1, 1_000),
        ),
        figure(
            "Operator's brake",
            "Whether somebody holds all mails by `rq suspend`. `rq resume` lets them go.",
            Query("max(access_mail_queue_suspended)", "queue"),
            width=4,
            mappings=[words(_0=("mails go out", GREEN), _1=("suspended", RED))],
        ),
    ]
