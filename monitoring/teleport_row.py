"""The row about what else Teleport gives and keeps: rules that say who is told, names, and the record of who was."""

from monitoring.panels import COUNT, GREEN, NOT_YET, RED, SECONDS, Query, Row, figure, graph, per_minute, since, words


def teleport() -> Row:
    """Rules, look-ups and records."""
    return Row(
        "Teleport's rules, names and records",
        [
            figure(
                "Rules",
                "Whether Teleport shows us its Access Monitoring Rules. If not, role_to_recipients alone says who is "
                "told; `access-mail check` names the permission that is missing.",
                Query("max(access_mail_watcher_rules_shown)", "Teleport"),
                width=4,
                height=8,
                mappings=[words(_0=("not shown", RED), _1=("shown", GREEN))],
            ),
            graph(
                "Rules in use",
                "Rules that notify us in Teleport, those that routers ask for each request, and those that cannot be "
                "used: the router's log names each with its fault. The others go on.",
                Query("max(access_mail_watcher_rules)", "in Teleport"),
                Query("max(access_mail_router_rules)", "in use"),
                Query("max(access_mail_router_rules_refused)", "cannot be used"),
                width=5,
                unit=COUNT,
            ),
            graph(
                "Rules at work",
                "changed: somebody edits rules. no answer: a rule did not apply because its condition could not be "
                "worked out for a request. recipient without address: a rule names somebody mail cannot go to.",
                Query(per_minute("access_mail_router_rule_changes_total"), "changed"),
                Query(per_minute("access_mail_router_rule_failures_total"), "no answer"),
                Query(
                    per_minute("access_mail_router_unaddressable_rule_recipients_total"), "recipient without address"
                ),
                width=5,
            ),
            graph(
                "Look-ups, by outcome",
                "What Teleport is asked about a new request: names, logins, traits, and who was told of it. refused: "
                "the role lacks a permission, and mails show ids instead.",
                Query(per_minute("access_mail_watcher_look_ups_total", by="outcome"), "{{outcome}}"),
                width=5,
            ),
            graph(
                "Records written, by outcome",
                "Who was told is put into Teleport's own record of the request, which survives a loss of Redis.",
                Query(per_minute("access_mail_watcher_receipts_total", by="outcome"), "{{outcome}}"),
                width=5,
            ),
            figure(
                "Last record",
                "How long ago somebody's mail was last put on record.",
                Query(since("access_mail_watcher_last_witnessed_timestamp_seconds"), "written"),
                width=24,
                height=4,
                unit=SECONDS,
                mappings=[NOT_YET],
            ),
        ],
    )
