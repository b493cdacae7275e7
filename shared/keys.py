"""The names of all Redis keys that are not RQ's own.

| key | type | content | lifetime | written by | read by |
|---|---|---|---|---|---|
| `access-mail:epoch` | string | random, written once: its loss tells of lost data | for ever | watcher | watcher |
| `access-mail:events` | stream | one `AccessEvent` as JSON per entry | trimmed to what every group has read | watcher | router |
| `access-mail:begun:{entry}` | set | routers that began with what a dead one had left, and never came back | a day | router | router |
| `access-mail:rules` | hash | Access Monitoring Rules by name, their revision | as long as Teleport has them | router | router, watcher |
| `access-mail:request:{id}` | hash | `RequestMemory`: revision, facts, told, notices | 30 days or more, refreshed | router | router, mailer, watcher |
| `access-mail:open` | zset | ids of pending requests by time of routing | bounded by open requests | router | watcher |
| `access-mail:thread:{thread}` | list | mail ids in order; the head is in the queue | 30 days | router, mailer | mailer |
| `access-mail:claims` | zset | `{mail id}:{execution}` in flight, by end of claim | bounded by jobs in flight | mailer | mailer |
| `access-mail:relay:{name}` | hash | breaker and pace of a relay, see `mail_queue/relay.lua` | a day | mailer | mailer |
| `access-mail:relay:{name}:away:{worker}` | hash | a mailer that the relay turns away, see the same | an hour | mailer | mailer |
| `access-mail:recovery` | hash | since when mailers have reached this Redis without a gap | a minute | mailer | mailer |
| `access-mail:receipt:{mail id}` | hash | what became of a mail | 30 days | mailer | router, mailer, watcher |
| `access-mail:receipts` | stream | mail id and outcome of receipts that Teleport's record does not hold yet | until witnessed, capped | mailer | watcher |
| `access-mail:dead` | stream | `DeadLetter`s of events that could not be routed | capped | router | console |

No address stands in a key. All times are Redis's own (`TIME`), never a host's.
"""

EPOCH = "access-mail:epoch"
EVENTS = "access-mail:events"
RULES = "access-mail:rules"
OPEN = "access-mail:open"
CLAIMS = "access-mail:claims"
RECOVERY = "access-mail:recovery"
DEAD = "access-mail:dead"
RECEIPTS = "access-mail:receipts"

THREAD_PREFIX = "access-mail:thread:"
RECEIPT_PREFIX = "access-mail:receipt:"
REQUEST_PREFIX = "access-mail:request:"
RELAY_PREFIX = "access-mail:relay:"
BEGUN_PREFIX = "access-mail:begun:"


def relay(name: str) -> str:
    """What all mailers share about a relay."""
    return RELAY_PREFIX + name


def begun(entry: str) -> str:
    """Which routers have died over an event that another had left before."""
    return BEGUN_PREFIX + entry


def request(request_id: str) -> str:
    """What the router knows of a request."""
    return REQUEST_PREFIX + request_id


def receipt(mail_id: str) -> str:
    """What became of a mail."""
    return RECEIPT_PREFIX + mail_id
