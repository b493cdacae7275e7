"""A relay in a bad mood mixes nothing up: everyone reads request, reviews and resolution in this order, each once."""

import random
from collections.abc import Sequence

import pytest

from services.watcher.teleport.pb import types_pb2
from simulators.rules import Rule, Stage
from tests.faults.pipeline import PEOPLE, SERVICES, Pipeline
from tests.waiting import wait_until

THREADS = 50
COURSE = ["requested", "reviewed-1", "reviewed-2", "approved"]
STAGES: Sequence[Stage] = ("mail", "rcpt", "data")
REPLIES = (
    "450 4.2.0 Greylisted",
    "451 4.3.0 Try again later",
    "452 4.2.2 Mailbox full",
    "421 4.7.0 Too many connections",
)


def moods(dice: random.Random, number: int) -> list[Rule]:
    """So many temporary refusals, each at another stage, for one person or whoever comes, and only once or twice."""
    rules = []
    for _ in range(number):
        stage = dice.choice(STAGES)
        recipient = "*" if stage == "mail" else dice.choice(("*", *PEOPLE))
        rules.append(Rule(stage, dice.choice(REPLIES), recipient=recipient, times=dice.randint(1, 2)))
    return rules


@pytest.mark.parametrize("seed", [1, 2])
async def test_everyone_reads_in_order_whatever_the_relay_refuses_for_now(pipeline: Pipeline, seed: int) -> None:
    dice = random.Random(seed)  # noqa: S311  # no secret
    await pipeline.start(*SERVICES, environ={"ACCESS_MAIL__MAILER__FIRST_PAUSE": "10ms"})
    pipeline.mailbox.rules += moods(dice, 40)
    requests = [pipeline.auth.create_request(approvals=3) for _ in range(THREADS)]
    await pipeline.all_told(requests, COURSE[:1], timeout=40)

    pipeline.mailbox.rules[:] = moods(dice, 80)
    at_once = set(dice.sample(requests, THREADS // 2))
    for author in ("carol", "dave"):
        for request in dice.sample(requests, THREADS):
            pipeline.auth.review(request, author, types_pb2.APPROVED)
    for request in at_once:
        pipeline.auth.approve(request)
    await pipeline.all_told(set(requests) - at_once, COURSE[:3], timeout=40)
    for request in set(requests) - at_once:
        pipeline.auth.approve(request)

    await wait_until(lambda: pipeline.all_have_read(requests, COURSE[-1]), "everybody has read the end", timeout=40)
    await pipeline.at_rest()
    for (request, _), thread in pipeline.notices().items():
        assert thread == [notice for notice in COURSE if notice in thread], "in order, and each once"
        # Where the resolution waits behind it, a review that has failed may be left out: the resolution names it.
        assert {COURSE[0], COURSE[-1]} <= set(thread) if request in at_once else thread == COURSE
    assert any(rule.obeyed for rule in pipeline.mailbox.rules)
    assert not pipeline.dead()
