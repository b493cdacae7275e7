"""The condition language: Teleport's worked examples, and what is said of a condition that is none."""

from datetime import UTC, datetime
from typing import Any

import pytest

from services.router.conditions import Condition, EvaluationError, ParseError, variables_of
from shared.events import AccessRequest, RequestState, Resource

AR = "access_request.spec"
REQUEST = AccessRequest(
    id="r1",
    user="alice",
    state=RequestState.PENDING,
    roles=("access", "editor"),
    suggested_reviewers=("a@x.io",),
    system_annotations={"teams": ("dev", "ops")},
    request_reason="INC-1",
    created=datetime(2025, 8, 11, 14, 30, tzinfo=UTC),
    request_expires=datetime(2025, 8, 11, 15, 30, tzinfo=UTC),
    user_traits={"level": ("L1", "L2"), "my-team": ("x",)},
    resources=(
        Resource(cluster="c", kind="node", name="1", labels={"env": "test", "os": "linux"}),
        Resource(cluster="c", kind="node", name="2", labels={"env": "test"}),
    ),
    resource_count=2,
)
TEST_AND_DEV = (
    Resource(cluster="c", kind="node", name="1", labels={"env": "test"}),
    Resource(cluster="c", kind="node", name="2", labels={"env": "dev"}),
)


def holds(text: str, **changes: Any) -> bool:
    request = REQUEST.model_copy(update=changes)
    return Condition.parse(text.replace("AR.", f"{AR}.")).holds(variables_of(request))


UNION = {"resources": TEST_AND_DEV}

EXAMPLES: list[tuple[int, str, dict[str, Any], bool]] = [
    (1, "true", {}, True),
    (2, 'AR.roles.contains("editor")', {}, True),
    (3, 'AR.roles.contains("admin")', {}, False),
    (4, 'contains_any(AR.roles, set("admin", "editor"))', {}, True),
    (5, 'AR.roles.contains_any(set("admin"))', {}, False),
    (6, 'contains_all(set("access", "editor", "auditor"), AR.roles)', {}, True),
    (7, 'contains_all(set("access"), AR.roles)', {}, False),
    (8, 'contains_all(set("dev", "stage", "prod"), AR.roles)', {"roles": ("dev", "stage")}, True),
    (9, 'contains_all(set("dev"), AR.roles)', {"roles": ()}, False),
    (10, "contains_all(set(), AR.roles)", {"roles": ()}, False),
    (11, "is_empty(AR.suggested_reviewers)", {"suggested_reviewers": ()}, True),
    (12, "AR.suggested_reviewers.isempty()", {}, False),
    (14, 'AR.user == "alice"', {}, True),
    (15, 'AR.user != "alice" || AR.request_reason == "INC-1"', {}, True),
    (16, '!AR.roles.contains("admin") && AR.roles.contains("access")', {}, True),
    (17, 'user.traits["level"].contains("L1")', {}, True),
    (18, 'user.traits.level.contains_all(set("L1", "L2"))', {}, True),
    (19, 'contains_all(set("L1"), user.traits["level"])', {}, False),
    (20, 'user.traits["missing"].contains("x")', {}, False),
    (21, 'is_empty(user.traits["missing"])', {}, True),
    (22, 'user.traits["my-team"].contains("x")', {}, True),
    (24, 'AR.system_annotations["teams"].contains_any(set("ops"))', {}, True),
    (25, 'AR.resource_labels_union["env"].contains("test")', UNION, True),
    (26, 'contains_all(set("test", "dev"), AR.resource_labels_union["env"])', UNION, True),
    (27, 'AR.resource_labels_intersection["env"].contains("dev")', {}, False),
    (28, 'AR.resource_labels_union["env"].contains("test")', {"resources": (), "resource_count": 0}, False),
    (29, 'regexp.match(AR.roles, "^edit.*$")', {}, True),
    (30, 'AR.creation_time.before(time.RFC3339("2025-08-12T00:00:00Z"))', {}, True),
    (
        31,
        'between(AR.creation_time, time.RFC3339("2025-08-11T14:30:00Z"), time.RFC3339("2025-08-12T00:00:00Z"))',
        {},
        False,
    ),
    (35, "AR.user", {}, False),
    (40, 'ifelse(AR.user == "alice", "x", "y") == "x"', {}, True),
    (42, 'union(AR.roles, set("z")).contains("z")', {}, True),
    (43, 'AR.roles.add("z").contains("z") && !AR.roles.remove("editor").contains("editor")', {}, True),
]

REFUSED = [
    (13, "AR.suggested_reviewers.is_empty()", "unsupported function: access_request.spec.suggested_reviewers.is_empty"),
    (23, 'user.traits.my-team.contains("x")', "operator (-) is not supported"),
    (32, 'AR.roles == set("editor")', "operator (==) not supported for type: set"),
    (33, 'AR.nope == "x"', 'unknown identifier: "access_request.spec.nope"'),
    (34, "", "empty expression"),
    (36, "AR.user == 'alice'", "rune"),
    (37, 'set("a", AR.roles).contains("a")', "function (set): argument 2 must be string, not set"),
    (38, 'AR.roles.contains("a", "b")', "function (contains) accepts 1 argument(s), given 2"),
    (39, "1 < 2", "operator (<) is not supported"),
    (41, 'ifelse(true, "x", "y") == ifelse(true, "x", "z")', "at least one operand type known at parse time"),
    (44, 'foo("x")', "unsupported function: foo"),
    (45, '(AR.roles.contains("editor")', "expected ')', found 'EOF'"),
    (46, "AR.user == 3", "operator (==) cannot compare string with int"),
]


def test_all_of_teleports_examples_are_here() -> None:
    assert sorted([row[0] for row in EXAMPLES] + [row[0] for row in REFUSED]) == list(range(1, 47))


@pytest.mark.parametrize(("number", "text", "changes", "answer"), EXAMPLES)
def test_teleports_examples(number: int, text: str, changes: dict[str, Any], answer: bool) -> None:  # noqa: FBT001  a column
    assert holds(text, **changes) is answer, number


@pytest.mark.parametrize(("number", "text", "reason"), REFUSED)
def test_teleports_examples_of_what_is_no_condition(number: int, text: str, reason: str) -> None:
    with pytest.raises(ParseError) as caught:
        holds(text)
    assert reason in str(caught.value), number


MORE: list[tuple[str, bool]] = [
    # texts and numbers
    ('AR.user == "\\x61\\u006cice"', True),
    ("AR.user == `alice`", True),
    ('set("tab\\there").contains("tab\there")', True),
    ("0x10 == 16 && 0b11 == 3 && 0o17 == 15 && 017 == 15 && 1_000 == 1000", True),
    # lines and comments, where Go allows them
    ('AR.user ==\n  "alice" && // who asks\n  /* and more */ true\n', True),
    ('contains_any(\n  AR.roles,\n  set("editor",\n  ),\n)', True),
    # precedence
    ("true || false && false", True),
    ("!(true && false) && !false", True),
    # dicts
    ('dict(pair("a", set("b")))["a"].contains("b")', True),
    ('dict().put("a", set("b")).a.contains("b")', True),
    ('dict(pair("a", set("b"))).add_values("a", "c").a.contains_all(set("b", "c"))', True),
    ('dict(pair("a", set("b"))).remove("a", "z").a.isempty()', True),
    # unknown types are looked at when they are there
    ('choose(option(false, "a"), option(true, AR.roles)).contains("editor")', True),
    ('strings.upper(AR.roles).contains("EDITOR") && strings.lower("A") == "a"', True),
    ('strings.replaceall(AR.roles, "edit", "audit").contains("auditor")', True),
    ('strings.split("a,b", ",").contains_all(set("a", "b"))', True),
    ('strings.split(set("a b", "c"), " ").contains_all(set("a", "b", "c"))', True),
    ('email.local(AR.suggested_reviewers).contains("a") && email.local("Al <al@x.io>") == "al"', True),
    ("ifelse(true, true, false)", True),
    ('!ifelse(true, false, "x") && ifelse(false, "x", true)', True),
    # regular expressions: all of a text, or a part where it is replaced
    ('regexp.match(AR.roles, "edit*") && !regexp.match(AR.roles, "edit") && !regexp.match(AR.roles, "e.itor")', True),
    ('regexp.match(AR.roles, "^e.itor$")', True),
    ('regexp.match(strings.upper(AR.roles), "E*") && regexp.match(AR.roles, strings.lower("EDIT*"))', True),
    ('regexp.replace(AR.roles, "^e(.)itor$", "$1-${1}!").contains("d-d!")', True),
    ('contains_all(set("x"), regexp.replace(AR.roles, "^editor$", "x"))', True),
    # times and versions
    ('AR.creation_time.after(time.RFC3339("2025-08-11T16:29:59+02:00"))', True),
    ('between(AR.expiry, time.RFC3339("2026-01-01T00:00:00Z"), time.RFC3339("2025-01-01T00:00:00.5Z"))', True),
    ("before(AR.creation_time, AR.expiry) && after(AR.expiry, AR.creation_time)", True),
    ('newer_than("1.10.0", "1.9.9") && older_than("2.0.0-rc.1", "2.0.0") && !newer_than("1.0.0+a", "1.0.0")', True),
    ('between("1.2.3", "1.2.3", "1.3.0") && !between("1.3.0", "1.2.3", "1.3.0")', True),
    ('older_than("1.0.0-alpha.2", "1.0.0-alpha.10") && older_than("1.0.0-1", "1.0.0-a")', True),
    # what is no truth value is none
    ("AR.roles", False),
    ('ifelse(true, "x", "y")', False),
]


@pytest.mark.parametrize(("text", "answer"), MORE)
def test_the_language(text: str, answer: bool) -> None:  # noqa: FBT001  a column
    assert holds(text) is answer


BAD = [
    ("AR.user ==", "line 1, column 28: expected operand, found 'EOF'"),
    ("true\n&& true", "line 2, column 1: expected 'EOF', found '&&'"),
    ("true\ntrue", "line 2, column 1: expected 'EOF', found 'true'"),
    ('AR.user == "alice', "line 1, column 29: literal not terminated"),
    ('"\\q" == "q"', 'line 1, column 1: literal "\\q": unknown escape sequence'),
    ('"\\xff" == "q"', "the text is not UTF-8"),
    ("user.traits.type", "expected operand, found 'type'"),
    ("true /* and", "line 1, column 6: comment not terminated"),
    ("/* nothing", "line 1, column 1: comment not terminated"),
    ("user.traits.", "line 1, column 13: expected a name, found 'EOF'"),
    ('user.traits["level"', "line 1, column 20: expected ']', found 'EOF'"),
    ("(true", "expected ')', found 'EOF'"),
    ("true # false", "line 1, column 6: illegal character U+0023"),
    ("9223372036854775808 == 1", "the number is too large"),
    ("9" * 5000 + " == 1", "the number is too large"),
    ("user.traits[1]", "string expected"),
    ('AR.roles["x"]', "dict expected"),
    ("user.traits.level.more", "unknown identifier"),
    ("!AR.user", "operator (!): bool expected, not string"),
    ("true && AR.roles", "line 1, column 9: operator (&&): bool expected, not set"),
    ("true == true", "operator (==) not supported for type: bool"),
    ('false && foo("x")', "unsupported function: foo"),
    ('"a"("b")', "only a function can be called"),
    ("pair(1, set())", "function (pair): argument 1 must be string, not int"),
    ("strings.upper(1)", "function (strings.upper): argument 1 must be set or string, not int"),
    ('AR.user.contains("a")', "function (contains): the value before the dot must be set, not string"),
    ('contains(AR.roles, "a")', "unsupported function: contains"),
    ("between(AR.creation_time, AR.expiry)", "function (between) accepts 3 argument(s), given 2"),
    ("1 + 1 == 2", "operator (+) is not supported"),
    ("-1 == 1", "operator (-) is not supported"),
    ("(" * 100 + "!" * 100 + "true" + ")" * 100, "nested more than 64 levels deep"),
    ("true" + " " * 10_000, "longer than 10000 characters"),
]


@pytest.mark.parametrize(("text", "reason"), BAD)
def test_what_is_wrong_is_said_with_its_place(text: str, reason: str) -> None:
    with pytest.raises(ParseError) as caught:
        holds(text)
    assert reason in str(caught.value)


FAILING = [
    ('regexp.match(AR.roles, "^($")', "no regular expression: missing )"),
    ('regexp.match(AR.roles, "^(?P<x$")', "no regular expression"),
    ('choose(option(false, "a")) == "a"', "no option's condition holds"),
    ('ifelse(true, AR.roles, "a") == "a"', "operator (==): string expected, not set"),
    ('ifelse(true, "a", true) && true', "operator (&&): bool expected, not string"),
    ('strings.upper(ifelse(true, 1, 2)) == "A"', "function (strings.upper): argument 1 must be"),
    ('newer_than("1.0", "1.0.0")', "no semantic version: '1.0'"),
    ('before(AR.expiry, time.RFC3339("tomorrow"))', "no time like"),
    ('before(AR.expiry, time.RFC3339("2025-02-30T00:00:00Z"))', "no time like"),
    ('email.local(AR.roles).contains("a")', "no e-mail address"),
    (f'strings.replaceall(strings.replaceall("{"a" * 1000}", "", "{"b" * 500}"), "b", "bb") == ""', "grows beyond"),
    (f'regexp.replace(set("{"a" * 1000}"), "a", "{"$0" * 1000}").contains("")', "grows beyond"),
    (f'regexp.replace(set("{"a" * 2000}"), "a", "{"$9" * 1000}").contains("")', "grows beyond"),
    (f'email.local("{"(" * 2000}") == ""', "no e-mail address"),
]


@pytest.mark.parametrize(("text", "reason"), FAILING)
def test_what_fails_fails_only_where_it_is_evaluated(text: str, reason: str) -> None:
    with pytest.raises(EvaluationError) as caught:
        holds(text)
    assert reason in str(caught.value)
    assert holds(f"true || {text}")


def test_the_intersection_of_resources_that_are_not_all_known_is_empty() -> None:
    text = 'AR.resource_labels_intersection["env"].contains("test")'
    assert holds(text)
    assert not holds(text, resource_count=51)
