"""The board "Access Mail: mailer": each mailer's throughput, what the relay answers, and what becomes of mails."""

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.models import dashboard as model

from monitoring.panels import (
    COUNT,
    GREEN,
    RED,
    SECONDS,
    SOURCE,
    Query,
    Row,
    age,
    bad_above,
    bad_below,
    board,
    figure,
    graph,
    in_this_time,
    per_minute,
    quantile,
    words,
)

UID = "access-mail-mailer"
CHOSEN = 'instance=~"$instance"'
MAILS = "access_mail_mailer_mails_total"
TO_ACCEPT = "access_mail_request_to_accept_seconds"
IS_MAILER = f'and on (job, instance) access_mail_build_info{{service="mailer", {CHOSEN}}}'


def mailer_board() -> str:
    """As JSON."""
    instance = (
        dashboard.QueryVariable("instance")
        .label("Mailer")
        .datasource(SOURCE)
        .query("label_values(access_mail_mailer_mails_in_flight, instance)")
        .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(model.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".*")
    )
    return board(
        UID,
        "Access Mail: mailer",
        "Each mailer's throughput, what the relay answers, and what becomes of mails that are not delivered at once. "
        "The figures of the queue are the same from every copy, whichever mailers are chosen.",
        [_now(), _throughput(), _relay(), _held(), _queue(), _undelivered(), _process()],
        [instance],
    )


def _by_reason(outcome: str) -> Query:
    return Query(per_minute(MAILS, f'outcome="{outcome}", {CHOSEN}', "reason"), "{{reason}}")


def _now() -> Row:
    return Row(
        "Now",
        [
            figure(
                "Mailers",
                "Copies that Prometheus reaches. To send more at once, start more: they share the work.",
                Query(f'count(access_mail_build_info{{service="mailer", {CHOSEN}}}) or vector(0)', "mailers"),
                width=4,
                steps=bad_below(1),
            ),
            figure(
                "At the relay now",
                "Mails that are being handed over. A mailer never has more than its `connections`: if it stays there "
                "while mails wait, the relay is slow, or more connections are needed.",
                Query(f"sum(access_mail_mailer_mails_in_flight{{{CHOSEN}}})", "mails"),
                width=4,
            ),
            figure(
                "Delivered in the time shown",
                "Mails that the relay took.",
                Query(in_this_time(MAILS, f'outcome="delivered", {CHOSEN}'), "mails"),
                width=4,
            ),
            figure(
                "To be repeated in the time shown",
                "Attempts that failed and are repeated; the same mail counts each time. See `Tried again, by reason`.",
                Query(in_this_time(MAILS, f'outcome="later", {CHOSEN}'), "attempts"),
                width=4,
                steps=bad_above(1, 100),
            ),
            figure(
                "Dead in the time shown",
                "Mails that will not be sent although somebody should have had them. See `Dead, by reason`, mend the "
                "cause, then `rq requeue --queue mail --all`.",
                Query(in_this_time(MAILS, f'outcome="dead", {CHOSEN}'), "mails"),
                width=4,
                steps=bad_above(1, 10),
            ),
            figure(
                "Operator's brake",
                "Whether somebody holds all mails by `rq suspend`. `rq resume` lets them go.",
                Query("max(access_mail_queue_suspended)", "queue"),
                width=4,
                mappings=[words(_0=("mails go out", GREEN), _1=("suspended", RED))],
            ),
        ],
    )


def _throughput() -> Row:
    return Row(
        "Throughput",
        [
            graph(
                "Delivered, by mailer",
                "They share one queue, so that equal ones deliver about equally much. One that delivers nothing while "
                "others do: its log and its /readyz tell why.",
                Query(per_minute(MAILS, f'outcome="delivered", {CHOSEN}', "instance"), "{{instance}}"),
                width=8,
            ),
            graph(
                "At the relay, by mailer",
                "Mails that are being handed over at the moment of the scrape.",
                Query(f"access_mail_mailer_mails_in_flight{{{CHOSEN}}}", "{{instance}}"),
                width=8,
                unit=COUNT,
            ),
            graph(
                "From request to relay",
                "From the creation of a request in Teleport to the relay's acceptance of a mail that asks for its "
                "review. No line: no such mail. All hops count; the age of the oldest mail tells this one's part.",
                Query(quantile(0.5, TO_ACCEPT, "$__rate_interval", CHOSEN), "p50"),
                Query(quantile(0.9, TO_ACCEPT, "$__rate_interval", CHOSEN), "p90"),
                Query(quantile(0.99, TO_ACCEPT, "$__rate_interval", CHOSEN), "p99"),
                width=8,
                unit=SECONDS,
            ),
        ],
    )


def _relay() -> Row:
    return Row(
        "Relay",
        [
            graph(
                "Answers, by class",
                "How the relay ended transactions. 4xx: not now. 5xx: never. none: no answer at all, so look at the "
                "network, at TLS, and at the relay itself.",
                Query(per_minute("access_mail_mailer_relay_answers_total", CHOSEN, "class"), "{{class}}"),
                width=8,
            ),
            graph(
                "Tried again, by reason",
                "connect, tls, credentials: the relay is away or does not let us in; mend that, the mails wait. busy: "
                "it limits our rate. temporary: greylisting, a full disk. timeout, connection_lost: the network. "
                "claim_lost: another mailer may have had the mail. The mailer's log has the relay's words.",
                _by_reason("later"),
                width=8,
            ),
            graph(
                "In doubt",
                "The relay may have taken these mails, for its answer was lost. By mailer.on_ambiguous they are tried "
                "again, and may come twice, or are dead letters.",
                Query(per_minute("access_mail_mailer_ambiguous_answers_total", CHOSEN), "in doubt"),
                width=8,
            ),
        ],
    )


def _queue() -> Row:
    return Row(
        "Queue",
        [
            graph(
                "Mails, by state",
                "RQ's own registries. queued: for a mailer. started: in a mailer's hands. scheduled: for its next "
                "attempt. deferred: for an earlier mail of its thread. failed: dead letters, kept for 30 days.",
                Query("max by (state) (access_mail_queue_jobs)", "{{state}}"),
                width=12,
                unit=COUNT,
            ),
            graph(
                "Age of the oldest mail",
                "How long the head of the queue has waited for a mailer. If it grows, mailers cannot keep up: start "
                "more, unless `At the relay` stands at its limit because the relay is slow.",
                Query(age("access_mail_oldest_job_timestamp_seconds"), "oldest"),
                width=8,
                unit=SECONDS,
                steps=bad_above(30, 300),
            ),
            figure(
                "Redis at the scrape",
                "Whether Redis told at the last scrape how queue and stream stand. If not, this board's figures of the "
                "queue are missing: Redis is away or slow.",
                Query("min(access_mail_queue_readable)", "queue"),
                Query("min(access_mail_stream_readable)", "stream"),
                width=4,
                height=8,
                mappings=[words(_0=("no answer", RED), _1=("answers", GREEN))],
            ),
        ],
    )


def _held() -> Row:
    return Row(
        "Held relay",
        [
            graph(
                "Relay held, by reason",
                "1: the relay turns everybody away, so all mails wait and none is lost. credentials: it refuses our "
                "password or key. tls: its certificate, or ours. connect: it is down or cannot be reached. "
                "sender_refused: it does not let us send as `delivery.sender`. Its words are in the log. A mailer that "
                "is named is the only one that it turns away: look at that one's network, CA and secrets.",
                Query(f"max by (reason) (access_mail_mailer_relay_held{{{CHOSEN}}})", "{{reason}}"),
                Query(f"max by (instance) (access_mail_mailer_turned_away{{{CHOSEN}}})", "only {{instance}}"),
                width=12,
                unit=COUNT,
            ),
            graph(
                "Probes",
                "While the relay is held one mail at a time tries it, less and less often. The first that is let in "
                "ends the hold, and mails follow slowly at first.",
                Query(per_minute("access_mail_mailer_relay_probes_total", CHOSEN), "probes"),
                width=12,
            ),
        ],
    )


def _undelivered() -> Row:
    return Row(
        "Not delivered",
        [
            graph(
                "Dropped, by reason",
                "Not worth sending any more: nobody misses them. settled: nobody needs to review the request any "
                "more. superseded: a later mail says it all. never_announced: the person never heard of the request.",
                _by_reason("dropped"),
                width=8,
            ),
            graph(
                "Dead, by reason",
                "Somebody was not told. *_refused: the relay's words are in the log and in the dead letter. "
                "expired_unsent: the request ended before any mail got out. internal_error, malformed, poison: a fault "
                "of ours or of whoever put the job there; report it with the log.",
                _by_reason("dead"),
                width=8,
            ),
            graph(
                "Claims and Redis",
                "claims lost: a mailer was cut off for longer than its claims live. put back: jobs of mailers that "
                "died, after a crash or a hard stop. Redis: times that it did not do its part. All may cost a "
                "duplicate at worst; if they go on, look for mailers that are killed (memory?) or a Redis that hangs.",
                Query(per_minute("access_mail_mailer_claims_lost_total", CHOSEN), "claims lost"),
                Query(per_minute("access_mail_mailer_recovered_jobs_total", CHOSEN), "put back"),
                Query(per_minute("access_mail_mailer_redis_failures_total", CHOSEN), "Redis"),
                width=8,
            ),
        ],
    )


def _process() -> Row:
    return Row(
        "Process",
        [
            graph(
                "CPU",
                "1: one core. A mailer uses one at most; near 1 while mails wait means that another mailer helps.",
                Query(f"rate(process_cpu_seconds_total[$__rate_interval]) {IS_MAILER}", "{{instance}}"),
                width=8,
                unit="percentunit",
            ),
            graph(
                "Memory",
                "Resident. It does not grow with the queue; steady growth over days is worth a report.",
                Query(f"process_resident_memory_bytes {IS_MAILER}", "{{instance}}"),
                width=8,
                unit="bytes",
            ),
            graph(
                "Time since the start",
                "A saw-tooth means that something ends the process: its log has the last words.",
                Query(f"time() - (process_start_time_seconds {IS_MAILER})", "{{instance}}"),
                width=8,
                unit=SECONDS,
            ),
        ],
    )
