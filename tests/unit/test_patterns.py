"""Regular expressions of conditions: their time is linear in the text, whatever the expression."""

import subprocess
import sys

SECONDS = 20
"""Most of what it needs is the start of Python; backtracking would take longer than there is time."""

LONG = "a" * 250
"""No role's name is longer: names are cut to 256 characters."""

CATASTROPHIC = {
    'regexp.match(access_request.spec.roles, "^(a+)+$")': False,
    'regexp.match(access_request.spec.roles, "^(a|a)*b$")': False,
    'regexp.match(access_request.spec.roles, "^(.*a){20}b$")': False,
    f'regexp.match(access_request.spec.roles, "{"*a" * 20}*b")': False,
    'regexp.replace(access_request.spec.roles, "(a+)+b", "x").isempty()': True,
    'regexp.replace(access_request.spec.roles, "(a|aa)+$", "x").isempty()': True,
}
"""By condition: does it hold?"""

PROGRAM = """
import sys
from services.router.conditions import Condition, variables_of
from shared.events import AccessRequest, RequestState

role, *conditions = sys.argv[1:]
request = AccessRequest(id="r1", user="alice", state=RequestState.PENDING, roles=(role,))
for condition in conditions:
    print(Condition.parse(condition).holds(variables_of(request)), flush=True)
"""


def test_no_expression_takes_more_than_linear_time() -> None:
    # In a process of its own: a regular expression at work hears no signal, and no thread can end it.
    command = [sys.executable, "-P", "-c", PROGRAM, f"{LONG}!", *CATASTROPHIC]
    asked = subprocess.run(command, timeout=SECONDS, capture_output=True, text=True, check=False)
    assert asked.stderr == ""
    assert dict(zip(CATASTROPHIC, asked.stdout.splitlines(), strict=True)) == {
        condition: str(holds) for condition, holds in CATASTROPHIC.items()
    }
