"""Mails through Mailgun's HTTP API: the whole MIME message at `messages.mime`."""

import asyncio
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from urllib.parse import quote

import httpx

from services.mailer.errors import ClaimLost, DeliveryError, Held, NotAsked, Refusal, Refused, Trouble, Unavailable
from services.mailer.retries import LONGEST_HINT
from services.mailer.settings import secret
from services.mailer.transports import Envelope, StillHeld
from services.mailer.transports.width import Width
from shared.mail import one_line
from shared.settings import MailgunSettings, SettingsError

DETAIL_LENGTH = 500
"""Characters of an answer that are worth keeping: a stranger's text of any length."""

_GATEWAYS = {HTTPStatus.BAD_GATEWAY, HTTPStatus.GATEWAY_TIMEOUT}
"""What stands before Mailgun does not know whether Mailgun has taken the mail."""

_ACCOUNT = {HTTPStatus.UNAUTHORIZED, HTTPStatus.PAYMENT_REQUIRED, HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND}
"""Key, account or domain are at fault: no mail shall die for it, and all fare alike."""

_BEFORE_SENDING = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.WriteError, httpx.WriteTimeout)
"""The request has not left whole, so nobody has taken the mail."""


class MailgunTransport:
    """Posts mails to the domain's endpoint over kept connections."""

    def __init__(self, settings: MailgunSettings, connections: int, timeout: float) -> None:
        """`timeout`: seconds for each step of a request. Raises `SettingsError` if the key's file cannot be read."""
        self.at_once = connections
        self._settings = settings
        self._url = f"{settings.base_url}/v3/{quote(settings.domain, safe='')}/messages.mime"
        self._width = Width(connections, time.monotonic)
        self._posting = 0
        self._posted = asyncio.Event()
        self._quiet_until = 0.0
        self._client = httpx.AsyncClient(timeout=timeout, limits=httpx.Limits(max_connections=connections))
        self.reload()

    def reload(self) -> None:
        """See that the key can be read. Raises `SettingsError`."""
        self._read_key()

    async def check(self) -> str:
        """Post no mail: Mailgun asks for the recipient only of those whose key it accepts."""
        try:
            return await self._post({}, {})
        except Refused as error:
            return f"the key is accepted ({error.detail})"

    async def send(self, envelope: Envelope, still_held: StillHeld) -> str:
        """See `Transport`; the answer is Mailgun's id of the message."""
        while self._posting >= self._width.now:
            self._posted.clear()
            await self._posted.wait()
        if (pause := self._quiet_until - time.monotonic()) > 0:
            raise NotAsked("Mailgun has asked for a pause", pause)
        began = time.monotonic()
        self._posting += 1
        try:
            return await self._hand_over(envelope, still_held)
        except Unavailable as error:
            if error.reason is Trouble.BUSY:
                self._is_busy(began, min(error.retry_after or 0, LONGEST_HINT))
            raise
        finally:
            self._posting -= 1
            self._posted.set()

    async def close(self) -> None:
        """Drop all connections."""
        await self._client.aclose()

    def _is_busy(self, began: float, pause: float) -> None:
        """Half as many at once will do for now, and none at all for as long as it asks us to wait."""
        self._width.halve(self._posting, began)
        self._quiet_until = max(self._quiet_until, time.monotonic() + pause)

    async def _hand_over(self, envelope: Envelope, still_held: StillHeld) -> str:
        message = ("message.eml", envelope.content + envelope.shared, "message/rfc822")
        if not still_held():
            raise ClaimLost
        fields = {"to": envelope.recipient} | ({"o:testmode": "yes"} if self._settings.test_mode else {})
        return await self._post(fields, {"message": message})

    async def _post(self, fields: dict[str, str], files: dict[str, tuple[str, bytes, str]]) -> str:
        auth = httpx.BasicAuth("api", self._key())
        with _translated():
            response = await self._client.post(self._url, data=fields, files=files, auth=auth)
        if not response.is_success:
            raise _judged(response)
        return one_line(response.text, DETAIL_LENGTH)

    def _key(self) -> str:
        """Read at each mail, so that a changed key needs no reload."""
        try:
            return self._read_key()
        except SettingsError as error:
            raise Held(Trouble.CREDENTIALS, str(error)) from error

    def _read_key(self) -> str:
        return secret(self._settings.private_key, "mailgun.private_key_file", self._settings.private_key_file)


@contextmanager
def _translated() -> Iterator[None]:
    """The library's errors in our words."""
    try:
        yield
    except httpx.RequestError as error:
        trouble, detail = _trouble(error), one_line(f"{type(error).__name__}: {error}", DETAIL_LENGTH)
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
            raise Held(trouble, detail) from error
        raise Unavailable(trouble, detail, perhaps=not isinstance(error, _BEFORE_SENDING)) from error


def _trouble(error: httpx.RequestError) -> Trouble:
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        return Trouble.TLS if any(isinstance(cause, ssl.SSLError) for cause in _causes(error)) else Trouble.CONNECT
    if isinstance(error, httpx.TimeoutException):
        return Trouble.TIMEOUT
    return Trouble.CONNECTION_LOST


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error and all that led to it; httpcore names some causes as mere context."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _judged(response: httpx.Response) -> DeliveryError:
    """A status that is not the hoped-for one: the whole table of what it means."""
    status, detail = response.status_code, one_line(f"{response.status_code} {response.text}", DETAIL_LENGTH)
    if status in _ACCOUNT:
        return Held(Trouble.CREDENTIALS, detail, code=status)
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return Unavailable(Trouble.BUSY, detail, code=status, retry_after=_retry_after(response))
    if response.is_server_error or status == HTTPStatus.REQUEST_TIMEOUT:
        hint, perhaps = _retry_after(response), status in _GATEWAYS
        return Unavailable(Trouble.TEMPORARY, detail, code=status, retry_after=hint, perhaps=perhaps)
    if response.is_client_error:
        return Refused(Refusal.MESSAGE_REFUSED, detail, code=status)
    return Unavailable(Trouble.PROTOCOL, detail, code=status)


def _retry_after(response: httpx.Response) -> float | None:
    """Seconds that the answer asks to wait (RFC 9110 §10.2.3); a date counts from the answer's own."""
    value = response.headers.get("retry-after", "")
    if value.isascii() and value.isdigit():
        return float(value)
    try:
        return (parsedate_to_datetime(value) - parsedate_to_datetime(response.headers["date"])).total_seconds()
    except (KeyError, ValueError, TypeError):  # none is given, or none that anybody can read
        return None
