"""The board "Access Mail: is it well?": its first row answers, the others follow a request to the relay."""

from monitoring.answer_row import TROUBLES, answer
from monitoring.panels import COUNT, NOT_YET, SECONDS, Query, Row, board, figure, graph, per_minute, since, worst
from monitoring.teleport_row import teleport

UID = "access-mail-pipeline"
MAILS = "access_mail_mailer_mails_total"

LAST_SUCCESS = (
    "How long ago this hop last did its work. A quiet hour is no fault; a growing age beside a growing backlog is: "
    "look at the log of the service and at its /readyz."
)
WATCHER_FAILURES = (
    Query(per_minute("access_mail_watcher_reconnects_total", TROUBLES, "reason"), "Teleport {{reason}}"),
    Query(per_minute("access_mail_watcher_snapshots_total", 'outcome!="complete"', "outcome"), "snapshot {{outcome}}"),
    Query(per_minute("access_mail_watcher_append_waits_total", by="reason"), "stream waits: {{reason}}"),
    Query(per_minute("access_mail_watcher_undecodable_total", by="fault"), "undecodable {{fault}}"),
    Query(per_minute("access_mail_watcher_facts_cut_total", by="fact"), "cut: {{fact}}"),
)
ROUTER_FAILURES = (
    Query(per_minute("access_mail_router_events_total", 'outcome="dead"'), "dead letter"),
    Query(per_minute("access_mail_router_redis_errors_total"), "Redis"),
    Query(per_minute("access_mail_router_unaddressable_reviewers_total"), "reviewer without address"),
    Query(per_minute("access_mail_router_commit_conflicts_total"), "conflict, repeated"),
    Query(per_minute("access_mail_router_postponed_total"), "postponed"),
)


def pipeline_board() -> str:
    """As JSON."""
    return board(
        UID,
        "Access Mail: is it well?",
        "The first row answers the question. The rows below follow a request from Teleport to the relay, hop by hop: "
        "what waits, what comes in, what goes out, what fails, and when it last went well.",
        [answer(), _watcher(), _router(), _mailer(), teleport()],
    )


def _watcher() -> Row:
    return Row(
        "Teleport → watcher → stream",
        [
            graph(
                "Connection",
                "1 for each watcher that follows Teleport's events. A short gap is a reconnect, after which all "
                "requests are listed again.",
                Query("access_mail_watcher_connected", "{{instance}}"),
                width=5,
                unit=COUNT,
            ),
            graph(
                "In: from Teleport",
                "What the watch brings, and what a snapshot found that the watch had not brought: after a reconnect "
                "that is right, otherwise it tells of a gap.",
                Query(per_minute("access_mail_watcher_events_received_total", by="type"), "{{type}}"),
                Query(per_minute("access_mail_watcher_events_found_total"), "found by a snapshot"),
                width=5,
            ),
            graph(
                "Out: on the stream",
                "Events put on the stream. Each event that came in and each that a snapshot found must appear here.",
                Query(per_minute("access_mail_watcher_events_appended_total"), "appended"),
                width=5,
            ),
            graph(
                "Failed",
                "unavailable: network, or Teleport is down. refused: the identity has expired or its role lacks a "
                "permission (`access-mail check`). stream waits: Redis is away, or the stream is full because routers "
                "are down. undecodable: a request that this version cannot read, passed over; look for a newer one. "
                "cut: a request is larger than is looked at (docs/rules.md), perhaps not all are told who should be.",
                *WATCHER_FAILURES,
                width=5,
            ),
            figure(
                "Last success",
                LAST_SUCCESS + " A snapshot is taken every few minutes even when nothing happens.",
                Query(since("access_mail_watcher_last_snapshot_timestamp_seconds"), "snapshot"),
                Query(since("access_mail_watcher_last_append_timestamp_seconds"), "event on the stream"),
                width=4,
                height=8,
                unit=SECONDS,
                mappings=[NOT_YET],
            ),
        ],
    )


def _router() -> Row:
    return Row(
        "Stream → router → queue",
        [
            graph(
                "Waits: events",
                "Events on the stream. It is trimmed once a second, so that a few are seen even where nothing waits.",
                Query("max(access_mail_stream_events)", "on the stream"),
                width=5,
                unit=COUNT,
            ),
            graph(
                "In: events",
                "routed: it taught something new. known: seen before, or late. settled_unannounced: the request was "
                "over when it was first seen, so that nobody is told. dead: see Failed.",
                Query(per_minute("access_mail_router_events_total", by="outcome"), "{{outcome}}"),
                width=5,
            ),
            graph(
                "Out: mails",
                "Mails put into the queue, and those that had been put or sent before.",
                Query(per_minute("access_mail_router_mails_total"), "new"),
                Query(per_minute("access_mail_router_mails_known_total"), "known"),
                width=5,
            ),
            graph(
                "Failed",
                "dead letter: the router's log has the error. Redis: it was away, and is asked again. reviewer "
                "without address: a suggested reviewer whose name is no e-mail address was not told. Conflicts and "
                "postponed events are how several routers keep out of each other's way: they cost only time.",
                *ROUTER_FAILURES,
                width=5,
            ),
            figure(
                "Last success",
                LAST_SUCCESS,
                Query(since("access_mail_router_last_success_timestamp_seconds"), "event routed"),
                width=4,
                height=8,
                unit=SECONDS,
                mappings=[NOT_YET],
            ),
        ],
    )


def _mailer() -> Row:
    return Row(
        "Queue → mailer → relay",
        [
            graph(
                "Waits: mails",
                "By RQ's states. queued: for a mailer. deferred: for an earlier mail of its thread. scheduled: for its "
                "next attempt. started: in a mailer's hands. failed: dead letters.",
                Query("max by (state) (access_mail_queue_jobs)", "{{state}}"),
                width=5,
                unit=COUNT,
            ),
            graph(
                "In: mails",
                "Mails that mailers took from the queue; each attempt counts.",
                Query(per_minute("access_mail_mailer_claimed_jobs_total"), "taken"),
                width=5,
            ),
            graph(
                "Out: mails",
                "delivered: the relay took it. dropped: not worth sending any more, which harms nobody. later: tried "
                "again. dead: a dead letter.",
                Query(per_minute(MAILS, by="outcome"), "{{outcome}}"),
                width=5,
            ),
            graph(
                "Failed",
                "The most frequent reasons why mails are tried again (later) or die (dead); the mailer's board has all "
                "of them. connect, tls, credentials: mend the relay or its settings, the mails wait. "
                "recipient_refused: the address is wrong.",
                Query(
                    worst(3, per_minute(MAILS, 'outcome=~"later|dead"', "outcome, reason")), "{{outcome}}: {{reason}}"
                ),
                Query(per_minute("access_mail_mailer_redis_failures_total"), "Redis"),
                width=5,
            ),
            figure(
                "Last success",
                LAST_SUCCESS,
                Query(since("access_mail_mailer_last_success_timestamp_seconds"), "mail accepted"),
                width=4,
                height=8,
                unit=SECONDS,
                mappings=[NOT_YET],
            ),
        ],
    )
