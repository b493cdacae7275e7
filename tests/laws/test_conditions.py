"""No text makes the condition language crash or run away, and what is well-typed can be evaluated."""

import contextlib
import itertools
from datetime import UTC, datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.router.conditions import Condition, ConditionError, ParseError, variables_of
from shared.events import AccessRequest, RequestState, Resource
from tests.unit.test_conditions import BAD, EXAMPLES, FAILING, MORE, REFUSED

EXAMPLES_OF_EACH = settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow], deadline=None)
LONGEST = 10_000

TEXTS = st.text(max_size=20)
SETS = st.lists(TEXTS, max_size=4).map(tuple)
DICTS = st.dictionaries(st.sampled_from(["level", "team", "env", ""]) | TEXTS, SETS, max_size=4)
TIMES = st.none() | st.datetimes(timezones=st.just(UTC))
REQUESTS = st.builds(
    AccessRequest,
    id=st.just("r1"),
    user=TEXTS,
    state=st.just(RequestState.PENDING),
    roles=SETS,
    suggested_reviewers=SETS,
    request_reason=TEXTS,
    created=TIMES,
    request_expires=TIMES,
    system_annotations=DICTS,
    user_traits=DICTS,
    resources=st.lists(
        st.builds(Resource, cluster=TEXTS, kind=TEXTS, name=TEXTS, labels=st.dictionaries(TEXTS, TEXTS, max_size=3)),
        max_size=3,
    ).map(tuple),
)


def ends(text: str, request: AccessRequest) -> None:
    """It has an answer, or it is told why not."""
    with contextlib.suppress(ConditionError):
        Condition.parse(text).holds(variables_of(request))


@given(st.text(max_size=LONGEST), REQUESTS)
@EXAMPLES_OF_EACH
def test_any_text_ends(text: str, request: AccessRequest) -> None:
    ends(text, request)


TOKENS = (
    '( ) [ ] { } . , && || ! == != < + - * / & | ^ % ; : " \' ` // /* */ \n \\ $ true false "x" `x` 0 1.5 0x 09 1e'
    " set dict pair union ifelse option choose is_empty contains contains_all regexp match time RFC3339 strings upper"
    ' access_request spec roles user traits ["x"] .x ("x") access_request.spec.user user.traits func é \x00'
)


@given(st.lists(st.sampled_from(TOKENS.split(" ")), max_size=300), st.sampled_from(["", " "]), REQUESTS)
@EXAMPLES_OF_EACH
def test_any_tokens_end(tokens: list[str], between: str, request: AccessRequest) -> None:
    ends(between.join(tokens)[:LONGEST], request)


@given(st.lists(st.sampled_from(TOKENS.split(" ")), min_size=1, max_size=3), REQUESTS)
@EXAMPLES_OF_EACH
def test_any_repetition_up_to_the_longest_text_ends(tokens: list[str], request: AccessRequest) -> None:
    unit = "".join(tokens)
    ends(unit * (LONGEST // len(unit)), request)


DEEP = [
    ("(", "true", ")"),
    ("!", "true", ""),
    ("set(", "", ")"),
    ("ifelse(true, ", "true", ", false)"),
    ("user.traits[", '"x"', "]"),
    ("", "user.traits", '["x"]'),
    ("", "user.traits", ".x"),
    ("", "user.traits", '.put("x", set())'),
    ("", "true", "(true)"),
    ("/*", "", "*/"),
    ("true && (true || ", "true", ")"),
]


@pytest.mark.parametrize(("before", "middle", "after"), DEEP)
def test_deep_nesting_is_refused_and_crashes_nothing(before: str, middle: str, after: str) -> None:
    levels = (LONGEST - len(middle)) // len(before + after)
    with pytest.raises(ParseError):
        Condition.parse(before * levels + middle + after * levels)
    with pytest.raises(ParseError):
        Condition.parse((before * LONGEST)[:LONGEST] or middle + after * levels)


@pytest.mark.parametrize(("operator", "operand"), [("||", "false"), ("&&", "true")])
def test_a_long_chain_is_not_deep(operator: str, operand: str) -> None:
    chain = operator.join([operand] * (LONGEST // (len(operand) + len(operator))))
    assert Condition.parse(chain).holds({"true": True, "false": False}) is (operand == "true")


KNOWN = [row[1].replace("AR.", "access_request.spec.") for row in EXAMPLES]
KNOWN += [row[1].replace("AR.", "access_request.spec.") for row in REFUSED]
KNOWN += [row[0].replace("AR.", "access_request.spec.") for row in itertools.chain(MORE, BAD, FAILING)]


@st.composite
def mutations(draw: st.DrawFn) -> str:
    """A known condition with something cut out, doubled, put in or exchanged."""
    text = draw(st.sampled_from(KNOWN))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(text)))
        end = draw(st.integers(start, min(len(text), start + 12)))
        new = draw(st.sampled_from(["", text[start:end] * 2, *TOKENS.split(" ")]) | st.text(max_size=3))
        text = text[:start] + new + text[end:]
    return text[:LONGEST]


@given(mutations(), REQUESTS)
@settings(parent=EXAMPLES_OF_EACH, max_examples=800)
def test_any_change_of_a_known_condition_ends(text: str, request: AccessRequest) -> None:
    ends(text, request)


# -- what is well-typed

PLAIN = st.text(st.characters(exclude_characters='"\\\n', exclude_categories=["Cs", "Cc"]), max_size=6)
STRING_LITERALS = PLAIN.map('"{}"'.format)
TIME_LITERALS = st.datetimes(min_value=datetime(1970, 1, 1)).map(  # noqa: DTZ001  written with a Z
    lambda time: f'time.RFC3339("{time.replace(microsecond=0).isoformat()}Z")'
)
STRINGS = STRING_LITERALS | st.sampled_from(["access_request.spec.user", "access_request.spec.request_reason"])
DICT_VARIABLES = st.sampled_from(
    ["user.traits", "access_request.spec.system_annotations", "access_request.spec.resource_labels_union"]
)


def calls(template: str, *arguments: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.tuples(*arguments).map(lambda values: template.format(*values))


def well_typed() -> st.SearchStrategy[str]:
    """Conditions that must be true or false for every request."""
    dicts = DICT_VARIABLES | calls("dict(pair({}, set({})))", STRINGS, STRINGS)
    sets = st.deferred(lambda: set_expressions)
    set_expressions: st.SearchStrategy[str] = (
        st.sampled_from(["access_request.spec.roles", "access_request.spec.suggested_reviewers", "user.traits.level"])
        | calls("set({}, {})", STRINGS, STRINGS)
        | calls("{}[{}]", dicts, STRINGS)
        | calls("union({}, {})", sets, sets)
        | calls("{}.add({})", sets, STRINGS)
        | calls("{}.remove({})", sets, STRINGS)
        | calls("strings.upper({}).add({})", sets, STRINGS)
        | calls("regexp.replace({}, `a(.)`, {})", sets, STRING_LITERALS)
        | calls("{}.put({}, {})[{}]", dicts, STRINGS, sets, STRINGS)
    )
    times = TIME_LITERALS | st.sampled_from(["access_request.spec.creation_time", "access_request.spec.expiry"])
    truths = st.deferred(lambda: truth_expressions)
    truth_expressions: st.SearchStrategy[str] = (
        st.sampled_from(["true", "false"])
        | calls("{} == {}", STRINGS, STRINGS)
        | calls("strings.lower({}) != {}", STRINGS, STRINGS)
        | calls("{}.contains({})", sets, STRINGS)
        | calls("contains_all({}, {})", sets, sets)
        | calls("{}.contains_any({})", sets, sets)
        | calls("is_empty({})", sets)
        | calls("regexp.match({}, {})", sets, PLAIN.map(lambda text: f'"{text}*"'))
        | calls("{}.before({})", times, times)
        | calls("between({}, {}, {})", times, times, times)
        | calls("!({})", truths)
        | calls("({} && {} || {})", truths, truths, truths)
        | calls("ifelse({}, {}, {}) && true", truths, truths, truths)
        | calls("choose(option({}, {}), option(true, {})) || false", truths, truths, truths)
    )
    return truth_expressions


@given(well_typed(), REQUESTS)
@EXAMPLES_OF_EACH
def test_what_is_well_typed_has_an_answer(text: str, request: AccessRequest) -> None:
    assert Condition.parse(text).holds(variables_of(request)) in (True, False)
