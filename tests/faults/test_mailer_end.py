"""A mailer that is told to end does so without a word that nobody should read, whatever Redis does at that moment."""

import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from simulators.mailbox import Mailbox
from tests.faults.mailers import Mailers, mailers_in, put_mails
from tests.faults.valkey import Valkey
from tests.waiting import wait_for, wait_until
from tests.working import Gate, Running


@pytest.fixture
async def mailers(valkey: Valkey, folder: Path) -> AsyncIterator[Mailers]:
    async with Mailbox() as mailbox:
        with mailers_in(valkey, mailbox, folder) as mailers:
            yield mailers


@contextmanager
def away(valkey: Valkey) -> Iterator[None]:
    valkey.stop()
    yield
    valkey.start()


def there(_: Valkey) -> AbstractContextManager[None]:
    return nullcontext()


@pytest.mark.parametrize("trouble", [there, away, Valkey.hanging])
async def test_it_ends_without_a_traceback(
    mailers: Mailers, valkey: Valkey, trouble: Callable[[Valkey], AbstractContextManager[None]]
) -> None:
    mails = put_mails(mailers.redis, 3)
    mailer = await mailers.start()
    await wait_until(lambda: len(mailers.mailbox.mails) == len(mails), "it is at work", 30)
    with trouble(valkey):
        await mailer.stop()
    assert mailer.says("INFO mailer: stopped") == 1
    assert "Traceback" not in mailer.log, mailer.log
    assert "Exception" not in mailer.log, mailer.log


@pytest.mark.parametrize("trouble", [away, Valkey.hanging])
def test_redis_lost_while_a_worker_takes_its_leave_leaves_neither_an_error_nor_a_thread(
    valkey: Valkey, trouble: Callable[[Valkey], AbstractContextManager[None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    errors: list[object] = []
    monkeypatch.setattr(threading, "excepthook", errors.append)
    with ExitStack() as lost:
        running = Running(valkey.url, Gate(), capacity=1)
        unsubscribe = running.worker.unsubscribe

        def unsubscribe_without_redis() -> None:
            lost.enter_context(trouble(valkey))
            unsubscribe()

        monkeypatch.setattr(running.worker, "unsubscribe", unsubscribe_without_redis)
        running.thread.start()
        wait_for(lambda: running.worker.trouble is None and running.worker.pubsub_thread, "the worker is ready")
        listener: Any = running.worker.pubsub_thread
        running.end()
    wait_for(lambda: not listener.is_alive(), "the thread that listens to commands has ended")
    assert errors == []
