"""Access Monitoring Rules from end to end: made and deleted in Teleport, they change who gets mail at once."""

from pathlib import Path

from shared import keys
from simulators.world import World
from tests.e2e.installation import Installation, installed
from tests.e2e.reading import notices
from tests.waiting import wait_until

OPS, EVERYBODY = "ops@example.com", "everybody@example.com"
CONDITION = 'access_request.spec.roles.contains("editor") && access_request.spec.user == "alice"'


async def told(access_mail: Installation, outside: World, user: str = "alice") -> list[str]:
    """Who is asked to review a new request."""
    request_id = outside.auth.create_request(user, ["editor"])
    await wait_until(lambda: "requested" in notices(outside.mailbox.thread(request_id)), "a mail")
    await wait_until(access_mail.is_idle, "all that were put into the queue with it are sent")
    return sorted(mail.recipient for mail in outside.mailbox.thread(request_id))


async def test_a_rule_made_live_redirects_and_deleting_it_ends_that(outside: World, tmp_path: Path) -> None:
    async with installed(tmp_path, outside.configuration({"*": [EVERYBODY]})) as access_mail:
        assert await told(access_mail, outside) == [EVERYBODY]
        outside.auth.create_rule("broken", "access_request.spec.roles.", [OPS])
        outside.auth.create_rule("to-ops", CONDITION, [OPS])
        assert await told(access_mail, outside) == [OPS]
        (mail,) = [mail for mail in outside.mailbox.mails if mail.recipient == OPS]
        assert "the Access Monitoring Rule to-ops names you" in mail.text
        assert mail.message["X-Access-Mail-Reason"] == "rule:to-ops"
        assert await told(access_mail, outside, "bob") == [EVERYBODY]
        outside.auth.delete_rule("to-ops")
        assert await told(access_mail, outside) == [EVERYBODY]
        assert access_mail.log.count("Access Monitoring Rule broken is not used") == 1
        assert "line 1, column 27: expected a name, found 'EOF'" in access_mail.log


async def test_rules_can_add_to_the_role_map_and_survive_a_loss_of_redis(outside: World, tmp_path: Path) -> None:
    outside.auth.create_rule("to-ops", CONDITION, [OPS, "a-channel"])
    configuration = outside.configuration({"*": [EVERYBODY]}) + '\n[routing]\nrules = "add"\n'
    async with installed(tmp_path, configuration) as access_mail:
        assert await told(access_mail, outside) == [EVERYBODY, OPS]
        access_mail.redis.flushall()
        assert await told(access_mail, outside) == [EVERYBODY, OPS]
        assert access_mail.redis.exists(keys.RULES)
