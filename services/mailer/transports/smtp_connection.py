"""Mails over one connection, one transaction (RFC 5321 §3.3) after another, in as few round trips as the relay allows.

Where the relay offers PIPELINING (RFC 2920), MAIL, RCPT and DATA leave as one group; and as §3.1 allows commands after
the content, the group of the next mail leaves together with the content of the one before: under load a mail costs one
round trip. Where it does not, each command waits for its answer. The answers are each mail's own in either case.
"""

import asyncio
import ssl
import time
from contextlib import suppress
from dataclasses import dataclass, field

from services.mailer.errors import ClaimLost, DeliveryError, Held, Trouble, Unavailable
from services.mailer.transports.smtp_answers import BrokenOffError, Reply, Stage, judged, unanswered
from services.mailer.transports.smtp_commands import data, mail_command, rcpt_command
from services.mailer.transports.smtp_conversation import Conversation
from services.mailer.transports.smtp_login import Patience, Session
from services.mailer.transports.smtp_traffic import Sending, Traffic

MOST_MAILS = 500
"""Per connection. Relays have limits of their own, and a balancer before several of them wants its turn, too."""

LONG_REST = 1.0
"""Seconds. Who has rested for longer may find that there is no connection any more."""

OPENING = (Stage.MAIL, Stage.RCPT, Stage.DATA)

_HOPED_FOR = {Stage.MAIL: 2, Stage.RCPT: 2, Stage.DATA: 3, Stage.CONTENT: 2}
"""First digits of replies: a client is to go by them alone (RFC 5321 §4.2.1)."""

_CLOSING = 421
_UNSOUND = {Trouble.TIMEOUT, Trouble.PROTOCOL, Trouble.CREDENTIALS}
"""Another connection, and another login, may do."""


@dataclass(eq=False)
class _Turn:
    """A mail's turn on the connection."""

    sending: Sending
    commands: dict[Stage, bytes]
    is_first: bool
    """Nothing went over the connection before it: if that breaks off at once, the relay is at fault and not its age."""
    has_rested: bool = False
    """The connection had rested for long before it."""
    began: float = field(default_factory=time.monotonic)
    replies: dict[Stage, asyncio.Future[Reply]] = field(default_factory=dict)
    """To what has been sent."""
    taken: set[Stage] = field(default_factory=set)
    """What the relay has answered as hoped for."""


class Connection:
    """Carries mails as long as it is wanted."""

    def __init__(
        self, session: Session, tls: ssl.SSLContext, patience: Patience, traffic: Traffic, *, pipelining: bool
    ) -> None:
        """`pipelining`: use it where the relay offers it."""
        self.tls = tls
        self._extensions = session.extensions
        self._patience = patience
        self._traffic = traffic
        self._groups = pipelining and "pipelining" in session.extensions
        self._conversation = Conversation(session.transport, self.wake)
        self._rest: asyncio.Future[None] | None = None
        self._turns: list[_Turn] = []
        self._mails = 0
        self._leftover: list[asyncio.Future[Reply]] = []
        """Answers to what ended a mail that went wrong."""

    @property
    def is_abandoned(self) -> bool:
        """Does nobody wait for any of its mails?"""
        return all(turn.sending.is_over for turn in self._turns)

    async def carry(self) -> None:
        """Send what waits, and what comes, as long as the connection is wanted. Leaves the relay at the end."""
        try:
            turn = self._next_turn() or await self._rested_turn()
            while turn is not None:
                turn = await self._hand_over(turn) or self._next_turn() or await self._rested_turn()
        except Exception as error:
            for turn in self._turns:
                turn.sending.fail(error)  # a fault of ours; whoever waits shall know
            raise
        finally:
            if self._turns:
                self.cut()
            await self._conversation.leave()

    def wake(self) -> None:
        """End its rest: it looks for a mail, or leaves."""
        if self._rest is not None and not self._rest.done():
            self._rest.set_result(None)

    def leave(self) -> None:
        """Leave without delay, from the middle of mails that nobody waits for, too."""
        self.wake()
        if self._turns:
            self.cut()

    def cut(self) -> None:
        """Close the connection now, whatever is under way."""
        self._conversation.cut(BrokenOffError(Trouble.CONNECTION_LOST, "we have left"))

    # -- whose turn it is

    def _next_turn(self) -> _Turn | None:
        """The turn of the next mail that waits, if the connection may have one. Nothing of it has been sent."""
        waiting = self._traffic.waiting
        while waiting and self._is_fit():
            sending = waiting.popleft()
            if sending.is_over:
                continue
            try:
                commands = {
                    Stage.MAIL: mail_command(sending.envelope, self._extensions),
                    Stage.RCPT: rcpt_command(sending.envelope),
                    Stage.DATA: b"DATA\r\n",
                }
            except DeliveryError as error:
                sending.fail(error)
                continue
            except Exception as error:
                sending.fail(error)  # a fault of ours; whoever waits shall know
                raise
            turn = _Turn(sending, commands, is_first=not self._mails)
            self._mails += 1
            self._turns.append(turn)
            return turn
        return None

    async def _rested_turn(self) -> _Turn | None:
        """The turn of a mail that comes before the connection has rested for too long."""
        loop, turn = asyncio.get_running_loop(), None
        since = loop.time()
        until = since + self._patience.idle
        while turn is None and self._is_fit() and loop.time() < until:
            self._rest = loop.create_future()
            self._traffic.resting.append(self)
            expiry = loop.call_at(until, self.wake)
            try:
                await self._rest
            finally:
                expiry.cancel()
                if self in self._traffic.resting:  # whoever woke it has most likely taken it out
                    self._traffic.resting.remove(self)
            turn = self._next_turn()
        if turn is not None and loop.time() > since + LONG_REST:
            turn.has_rested, turn.is_first = True, False
            self._reset(self._patience.wake)
        return turn

    def _is_fit(self) -> bool:
        return self._conversation.is_open and self._mails < MOST_MAILS and self._traffic.wants(self)

    # -- one mail

    async def _hand_over(self, turn: _Turn) -> _Turn | None:
        """Send the mail. Gives the next one, if its commands have left together with the content."""
        following = None
        try:
            await self._open(turn)
            if turn.sending.is_over or not turn.sending.still_held():
                raise ClaimLost
            following = self._send_content(turn)
            turn.sending.succeed(str(await self._answer(turn, Stage.CONTENT)))
        except DeliveryError as error:
            self._went_wrong(turn, error)
        self._turns.remove(turn)
        return following

    async def _open(self, turn: _Turn) -> None:
        """MAIL, RCPT and DATA. All that were sent are answered, so the first bad answer is the one that counts."""
        if self._groups and not turn.replies:
            self._conversation.write(self._group(turn))
        if self._leftover:
            await self._clear_up()
        failure: DeliveryError | None = None
        for stage in OPENING:
            try:
                await self._answer(turn, stage)
            except DeliveryError as error:
                failure = failure or error
                if not self._groups:
                    break
        if failure is not None:
            raise failure

    def _group(self, turn: _Turn) -> bytes:
        """What opens the transaction (RFC 2920 §3.1); the answers are expected from now on."""
        for stage in OPENING:
            turn.replies[stage] = self._conversation.expect(self._patience.command)
        return b"".join(turn.commands.values())

    def _send_content(self, turn: _Turn) -> _Turn | None:
        if self._conversation.end is not None:
            raise unanswered(Stage.DATA, self._conversation.end)  # nothing of the content has left
        turn.replies[Stage.CONTENT] = self._conversation.expect(self._patience.content)
        following = self._next_turn() if self._groups and self._traffic.is_full else None
        content = data(turn.sending.envelope)
        self._conversation.write(content if following is None else content + self._group(following))
        return following

    async def _answer(self, turn: _Turn, stage: Stage) -> Reply:
        """The relay's answer, which is asked for now unless it was before. Raises what an unhoped-for one means."""
        if stage not in turn.replies:
            turn.replies[stage] = self._conversation.expect(self._patience.command)
            self._conversation.write(turn.commands[stage])
        try:
            reply = await turn.replies[stage]
        except BrokenOffError as error:
            raise unanswered(stage, error) from error
        if reply.code // 100 != _HOPED_FOR[stage]:
            raise judged(stage, reply)
        turn.taken.add(stage)
        return reply

    # -- what went wrong

    def _went_wrong(self, turn: _Turn, error: DeliveryError) -> None:
        """Tell whoever waits, unless another connection will do; then see to it that the next mail finds order."""
        ended = not self._conversation.is_open or error.code == _CLOSING
        if ended and self._was_too_late(turn, error):
            self._traffic.waiting.appendleft(turn.sending)
            if turn.has_rested:
                self._doubt_others()
        else:
            turn.sending.fail(error)
            self._tell(turn, error)
        is_unsound = isinstance(error, Unavailable) and error.reason in _UNSOUND
        if ended or is_unsound or isinstance(error, Held | ClaimLost):
            self.cut()  # also where the relay waits for content that it must not have
        elif Stage.CONTENT not in turn.replies:
            self._abort(turn)

    def _was_too_late(self, turn: _Turn, error: DeliveryError) -> bool:
        """Did the connection end between two mails, by its age or by what befell the one before?"""
        unheard = isinstance(error, Unavailable) and error.code in (None, _CLOSING) and not turn.taken
        return unheard and not turn.is_first and not turn.sending.is_over

    def _doubt_others(self) -> None:
        """The others that rest have most likely met the same, and each would cost the mail as long."""
        while self._traffic.resting:
            self._traffic.resting.pop().cut()

    def _tell(self, turn: _Turn, error: DeliveryError) -> None:
        if not isinstance(error, Unavailable):
            return
        if error.reason is Trouble.BUSY:
            self._traffic.relay_is_busy(turn.began)
        confused = error.reason is Trouble.PROTOCOL
        deaf = error.reason is Trouble.TIMEOUT and Stage.MAIL in turn.taken
        if self._groups and Stage.CONTENT not in turn.replies and (confused or deaf):
            self._traffic.pipelining_fails()

    def _abort(self, turn: _Turn) -> None:
        """Leave a transaction that has no content yet."""
        if Stage.DATA in turn.taken:
            if Stage.RCPT in turn.taken:
                self.cut()  # what would end the content would send it
                return
            # RFC 2920 §3.1: a relay may wait for content though it has taken no recipient; its end goes to nobody.
            self._leftover.append(self._conversation.expect(self._patience.content))
            self._conversation.write(b".\r\n")
        if turn.taken:
            self._reset(self._patience.command)

    def _reset(self, patience: float) -> None:
        """Ask the relay to forget what was said; no other command that may stand in a group costs it as little."""
        self._leftover.append(self._conversation.expect(patience))
        self._conversation.write(b"RSET\r\n")

    async def _clear_up(self) -> None:
        """Await the answers to an aborted transaction, or after a rest; the last one tells whether all is forgotten."""
        answers, self._leftover = self._leftover, []
        with suppress(BrokenOffError):  # then there is no connection, as its next mail finds out
            *_, last = [await answer for answer in answers]
            if last.code // 100 != _HOPED_FOR[Stage.MAIL]:
                self.cut()
