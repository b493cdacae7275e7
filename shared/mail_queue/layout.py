"""Where RQ keeps its state, taken from RQ's own objects, and how a mail looks as an RQ job."""

import json
import zlib
from base64 import b64encode
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib import resources
from typing import Any

from pydantic import TypeAdapter, ValidationError
from redis import Redis
from rq import Queue
from rq.executions import Execution, ExecutionRegistry
from rq.job import Job
from rq.registry import (
    CanceledJobRegistry,
    DeferredJobRegistry,
    FailedJobRegistry,
    ScheduledJobRegistry,
    StartedJobRegistry,
)
from rq.results import Result
from rq.serializers import JSONSerializer
from rq.utils import utcformat

from shared import keys
from shared.mail import Mail

QUEUE_NAME = "mail"
FUNCTION = "services.mailer.jobs.send_mail"
"""What a job names. It only tells a stock worker what to run instead."""

DESCRIPTION = "a mail: run `access-mail start --service mailer`, not `rq worker`"
"""RQ's own workers log a job's description, so it says what to do. No address may stand here."""

TIMEOUT_SECONDS = 180
"""RQ's default. Our mailers have deadlines of their own."""

SCRIPTS_OF_THE_RELAY = ("claim", "settle")

LARGEST_DATA = 1_000_000
"""Octets of a job's data that we are ready to unpack: ours have a few hundred."""


class MalformedJobError(Exception):
    """The job's data is not a mail: a foreign job, or a pickled one, which is never unpickled."""


def rq_queue(redis: Redis) -> Queue:
    """The queue as RQ sees it, with the JSON serializer: pickle is nowhere."""
    return Queue(QUEUE_NAME, connection=redis, serializer=JSONSerializer)


def script_source(name: str) -> str:
    """One script with what stands before all of them, and before those that look at the relay."""
    folder = resources.files(__package__)
    parts = ("common", "relay", name) if name in SCRIPTS_OF_THE_RELAY else ("common", name)
    return "".join((folder / f"{part}.lua").read_text() for part in parts)


def common_keys(redis: Redis) -> list[str]:
    """The keys that every script gets first: `common.lua` names them."""
    queue = rq_queue(redis)
    registries = (
        StartedJobRegistry,
        FailedJobRegistry,
        ScheduledJobRegistry,
        DeferredJobRegistry,
        CanceledJobRegistry,
    )
    return [
        queue.key,
        Queue.redis_queues_keys,
        *(registry(queue=queue).key for registry in registries),
        keys.CLAIMS,
        keys.RECEIPTS,
    ]


def common_arguments(redis: Redis) -> list[str]:
    """The prefixes that every script gets first: `common.lua` names them."""
    execution = Execution(id="", job_id="", connection=redis)
    return [
        Job.redis_job_namespace_prefix,
        Result.get_key(""),  # type: ignore[no-untyped-call]  # of RQ
        execution.key.removesuffix(":"),
        ExecutionRegistry("", connection=redis).key,
        keys.RECEIPT_PREFIX,
        keys.THREAD_PREFIX,
        keys.REQUEST_PREFIX,
    ]


def as_rq_time(seconds: float) -> str:
    """A time as RQ writes it into a job, for people who look: nothing is decided by it."""
    return utcformat(datetime.fromtimestamp(seconds, UTC))


def job_data(mail: Mail) -> bytes:
    """The call that an RQ job of this mail stands for: function, instance, arguments, keyword arguments."""
    return json.dumps((FUNCTION, None, [mail.model_dump(mode="json", exclude_none=True)], {})).encode()


_Call = tuple[str, Any, tuple[Mail], Any]
"""Function, instance, arguments, keyword arguments."""

_CALL: TypeAdapter[_Call] = TypeAdapter(_Call)


def mail_of(data: bytes, job_id: str) -> Mail:
    """Read what `job_data` wrote, perhaps compressed by RQ since. Raises `MalformedJobError`."""
    if not data.startswith(b"["):  # RQ takes data that is not compressed, too
        with suppress(zlib.error):
            data = zlib.decompressobj().decompress(data, LARGEST_DATA)
    try:
        function, _, (mail,), _ = _CALL.validate_json(data)
    except ValidationError as error:
        raise MalformedJobError(f"its data is no mail in JSON ({type(error).__name__})") from error
    if function != FUNCTION or mail.id != job_id:
        raise MalformedJobError("its data is no mail of this id")
    return mail


def as_exc_string(text: str) -> str:
    """An error as RQ keeps it in a result stream."""
    return b64encode(zlib.compress(text.encode())).decode()


Argument = str | bytes | float
"""What a script can be given."""


def flat(rows: Sequence[Sequence[Argument]]) -> list[Argument]:
    """Arguments of a script: all rows in one list."""
    return [value for row in rows for value in row]
