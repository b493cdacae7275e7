"""A mailer that the relay turns away, or that cannot reach it, while it lets another one in."""

from pathlib import Path

from simulators.mailbox import Mailbox
from tests.faults.mailers import ids, mailers_in, put_mails
from tests.faults.valkey import Valkey
from tests.relay_tls import relay_certificate
from tests.waiting import wait_until

TRUSTS_NOBODY = {"ACCESS_MAIL__SMTP__STARTTLS_POLICY": "mandatory"}


async def test_a_mailer_that_knows_the_wrong_ca_holds_up_nobody_and_says_so(valkey: Valkey, folder: Path) -> None:
    tls, ca_file = relay_certificate(folder)
    async with Mailbox(tls=tls) as mailbox:
        with mailers_in(valkey, mailbox, folder) as mailers:
            mails = put_mails(mailers.redis, 1)
            bad = await mailers.start(TRUSTS_NOBODY)
            await wait_until(lambda: bad.says("the relay is held (tls"), "all mails wait")
            good = await mailers.start({**TRUSTS_NOBODY, "ACCESS_MAIL__SMTP__CA_FILE": str(ca_file)})

            turned_away = "the relay turns only this mailer away (tls"

            def has_its_turn() -> bool:
                if not mailers.unfinished():
                    mails.extend(put_mails(mailers.redis, 20, first=len(mails)))
                return bool(bad.says(turned_away))

            await wait_until(has_its_turn, "the bad one has tried again", 60)
            assert not await bad.is_ready()
            assert turned_away in (await bad.probe("/readyz"))[1]
            assert 'access_mail_mailer_turned_away{reason="tls"} 1.0' in (await bad.probe("/metrics"))[1]

            mails += put_mails(mailers.redis, 200, first=len(mails))
            await wait_until(lambda: not mailers.unfinished(), "all are delivered by the good one", 60)
            assert set(mailers.received()) == ids(mails)
            assert not mailers.dead()
            assert bad.says("the relay is held") == good.says("the relay is held") == 1, "for one probe"
            assert good.says(turned_away) == 0
            assert await good.is_ready()
