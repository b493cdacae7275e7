"""A real Postfix with several doors, each with rules of its own, that delivers one domain to a Maildir."""

import asyncio
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self

from tests.relay_tls import relay_certificate
from tests.waiting import wait_for

DOMAIN = "postfix.test"
USER, PASSWORD = "alice", "pass word"
SIZE_LIMIT = 100_000

_PATH = os.environ["PATH"] + ":/usr/sbin"
NEEDED = ("postfix", "saslpasswd2")
WHY_NOT = (
    f"Postfix must be started by root, with {' and '.join(NEEDED)} installed (make tools)"
    if os.getuid() != 0 or not all(shutil.which(command, path=_PATH) for command in NEEDED)
    else ""
)
"""Why no Postfix can run here; empty where one can."""

ANSWERS = {
    "busy": "450 4.2.1 mailbox is busy",
    "full": "452 4.2.2 mailbox is full",
    "overfull": "552 5.2.2 mailbox is full",
    "unknown": "550 5.1.1 no such user",
    "drop": "421 4.3.2 going down",
}
"""What RCPT is answered with for these local parts."""

MAIN = """
compatibility_level = 3.6
queue_directory = {folder}/spool
data_directory = {folder}/data
maillog_file = {folder}/log
maillog_file_prefixes = {folder}
myhostname = mx.postfix.test
mydestination =
mynetworks =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
alias_maps =
local_recipient_maps =
smtp_dns_support_level = disabled
default_transport = discard:
relay_transport = discard:
virtual_mailbox_domains = {domain}
virtual_mailbox_base = {folder}/mail
virtual_mailbox_maps = static:inbox/
virtual_minimum_uid = 1000
virtual_uid_maps = static:65534
virtual_gid_maps = static:65534
message_size_limit = {size}
smtpd_tls_security_level = encrypt
smtpd_tls_chain_files = {folder}/relay.pem
smtpd_tls_auth_only = yes
smtpd_sasl_auth_enable = yes
smtpd_sasl_local_domain = localhost
smtpd_relay_restrictions = permit_sasl_authenticated, reject
smtpd_recipient_restrictions = check_recipient_access inline:{{ {answers} }}, permit_sasl_authenticated, reject
smtpd_client_event_limit_exceptions =
"""

MASTER = """
pickup     unix  n - n 60    1 pickup
cleanup    unix  n - n -     0 cleanup
qmgr       unix  n - n 300   1 qmgr
tlsmgr     unix  - - n 1000? 1 tlsmgr
rewrite    unix  - - n -     - trivial-rewrite
bounce     unix  - - n -     0 bounce
defer      unix  - - n -     0 bounce
trace      unix  - - n -     0 bounce
proxymap   unix  - - n -     - proxymap
error      unix  - - n -     - error
retry      unix  - - n -     - error
discard    unix  - - n -     - discard
virtual    unix  - n n -     - virtual
anvil      unix  - - n -     1 anvil
postlog    unix-dgram n - n - 1 postlogd
"""

SASL = "pwcheck_method: auxprop\nauxprop_plugin: sasldb\nmech_list: PLAIN LOGIN\nsasldb_path: {folder}/users\n"


@dataclass
class Door:
    """A port of the server."""

    port: int


@dataclass(frozen=True)
class Postfix:
    """A running server."""

    folder: Path
    doors: dict[str, Door]

    @property
    def ca_file(self) -> Path:
        """Who has signed its certificate."""
        return self.folder / "relay-ca.pem"

    @property
    def log(self) -> str:
        """All that it has said."""
        return (self.folder / "log").read_text()

    def delivered(self) -> list[bytes]:
        """The mails in the Maildir, with LF."""
        return [file.read_bytes() for file in (self.folder / "mail/inbox/new").glob("*")]


@contextmanager
def postfix(doors: dict[str, dict[str, str]]) -> Iterator[Postfix]:
    """Run one with these doors, each with its own settings in place of the common ones."""
    with TemporaryDirectory(dir="/tmp") as name:  # where its users can look into it
        folder = Path(name)
        server = Postfix(folder, {door: Door(_free_port()) for door in doors})
        _write(server, doors)
        _command("start", folder)
        try:
            wait_for(lambda: all(_answers(door.port) for door in server.doors.values()), "Postfix answers", 20)
            yield server
        finally:
            _command("stop", folder)


def _write(server: Postfix, doors: dict[str, dict[str, str]]) -> None:
    folder = server.folder
    folder.chmod(0o755)
    for part in ("etc/sasl", "spool", "data", "mail"):
        (folder / part).mkdir(parents=True)
    relay_certificate(folder)
    answers = ", ".join(f"{{ {name}@{DOMAIN} = {answer} }}" for name, answer in ANSWERS.items())
    main = MAIN.format(folder=folder, domain=DOMAIN, size=SIZE_LIMIT, answers=answers)
    (folder / "etc/main.cf").write_text(main.lstrip())
    listeners = [
        f"127.0.0.1:{server.doors[name].port} inet n - n - 50 smtpd\n"
        + "".join(f"  -o {{ {key} = {value} }}\n" for key, value in settings.items())
        for name, settings in doors.items()
    ]
    (folder / "etc/master.cf").write_text("".join(listeners) + MASTER.lstrip())
    # Debian's Postfix looks for this beside its own configuration.
    (folder / "etc/sasl/smtpd.conf").write_text(SASL.format(folder=folder))
    users = folder / "users"
    _run("saslpasswd2", "-p", "-c", "-f", str(users), "-u", "localhost", USER, given=PASSWORD)
    shutil.chown(users, group="postfix")
    users.chmod(0o640)
    shutil.chown(folder / "data", user="postfix")
    shutil.chown(folder / "mail", user=65534, group=65534)


def _command(command: str, folder: Path) -> None:
    _run("postfix", "-c", str(folder / "etc"), command)


def _run(*command: str, given: str = "") -> None:
    done = subprocess.run(
        command, input=given, capture_output=True, text=True, check=False, timeout=60, env=os.environ | {"PATH": _PATH}
    )
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            return connection.recv(4).startswith(b"220")
    except OSError:
        return False


class Greylist:
    """A policy server for Postfix that turns each recipient away the first time."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._known = set[str]()
        self._server: asyncio.Server | None = None
        self._writers: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None, "it was entered"
        self._server.close()
        for writer in self._writers:  # Postfix keeps its connections
            writer.close()
            await writer.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Postfix asks with one attribute a line, and an empty line at the end; it is answered likewise."""
        self._writers.append(writer)
        with suppress(asyncio.IncompleteReadError):  # it leaves when it likes
            while True:
                asked = (await reader.readuntil(b"\n\n")).decode().splitlines()
                recipient = next(line for line in asked if line.startswith("recipient="))
                action = "dunno" if recipient in self._known else "451 4.7.1 Greylisted, try again in 3 seconds"
                self._known.add(recipient)
                writer.write(f"action={action}\n\n".encode())
