"""A tree becomes a typed condition: every type is checked once, even in a branch that is never evaluated."""

from collections.abc import Callable
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, Self

from services.router.conditions.errors import EvaluationError, ParseError
from services.router.conditions.functions import FUNCTIONS, METHODS, Overloads, Signature, fitting
from services.router.conditions.kinds import Kind, Value, kind_of
from services.router.conditions.parsing import parse
from services.router.conditions.syntax import Call, Chain, Comparison, Index, Literal, Name, Node, Not, Select
from services.router.conditions.variables import VARIABLES, Variables

Evaluate = Callable[[Variables], Any]
"""Gives the value. Raises `EvaluationError`."""

EMPTY: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Typed:
    """A part of a condition whose type is known."""

    kind: Kind
    evaluate: Evaluate
    is_constant: bool = False


@dataclass(frozen=True)
class Condition:
    """A condition that can be evaluated."""

    _evaluate: Evaluate

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises `ParseError`, whatever the text is."""
        return cls(_typed(parse(text)).evaluate)

    def holds(self, variables: Variables) -> bool:
        """Is it true for this request? What is no truth value is false. Raises `EvaluationError`."""
        return self._evaluate(variables) is True


def _typed(node: Node) -> Typed:  # noqa: PLR0911  one way for each kind of node
    match node:
        case Literal():
            return _constant(node.value)
        case Index():
            return _index(node, _typed(node.of), _typed(node.key))
        case Call():
            return _call(node)
        case Not():
            operand = _truth(node.operand, "!")
            return Typed(Kind.BOOL, lambda variables: not operand(variables))
        case Chain():
            return Typed(Kind.BOOL, _chain(node))
        case Comparison():
            return _comparison(node)
        case _:
            return _value(node)


def _constant(value: Value) -> Typed:
    return Typed(kind_of(value), lambda _: value, is_constant=True)


# -- names


def _value(node: Node) -> Typed:
    """A variable, or the values of a key of one that is a dict: `user.traits.level`."""
    path = _path(node)
    if path in VARIABLES:
        return Typed(VARIABLES[path], itemgetter(path))
    if isinstance(node, Select):
        whole = _path(node.of)
        if not whole or VARIABLES.get(whole) is Kind.DICT:
            return _index(node, _typed(node.of), _constant(node.name))
    raise ParseError(f'unknown identifier: "{path}"', node.place)


def _path(node: Node) -> str:
    """Names joined by dots; empty where the node is anything else."""
    names: list[str] = []
    while isinstance(node, Select):
        names.append(node.name)
        node = node.of
    return ".".join([node.name, *reversed(names)]) if isinstance(node, Name) else ""


def _index(node: Node, whole: Typed, key: Typed) -> Typed:
    for part, allowed in ((whole, Kind.DICT), (key, Kind.STRING)):
        if part.kind not in (allowed, Kind.DYNAMIC):
            raise ParseError(f"{allowed.value} expected for a key's values, not {part.kind.value}", node.place)
    of, name = _known(whole, Kind.DICT, "[]"), _known(key, Kind.STRING, "[]")
    return Typed(Kind.SET, lambda variables: of(variables).get(name(variables), EMPTY))


# -- calls


def _call(node: Call) -> Typed:
    callee = node.callee
    arguments = [_typed(argument) for argument in node.arguments]
    if isinstance(callee, Select) and callee.name in METHODS:
        return _called(node, callee.name, METHODS[callee.name], [_typed(callee.of), *arguments], received=1)
    name = _path(callee)
    if not name:
        said = f"unsupported function: {callee.name}" if isinstance(callee, Select) else "only a function can be called"
        raise ParseError(said, node.place)
    if name not in FUNCTIONS:
        raise ParseError(f"unsupported function: {name}", node.place)
    return _called(node, name, FUNCTIONS[name], arguments, received=0)


def _called(node: Call, name: str, overloads: Overloads, arguments: list[Typed], received: int) -> Typed:
    kinds = [argument.kind for argument in arguments]
    try:
        signature = fitting(name, overloads, kinds, received)
    except TypeError as error:
        raise ParseError(str(error), node.place) from None
    read = [_read(argument, signature.reads.get(position)) for position, argument in enumerate(arguments)]
    if Kind.DYNAMIC in kinds:
        result = signature.result if len(overloads) == 1 else Kind.DYNAMIC
        return _folded(Typed(result, _call_by_values(name, overloads, read, received)), arguments)
    return _folded(Typed(signature.result, _application(signature.do, [one.evaluate for one in read])), arguments)


def _call_by_values(name: str, overloads: Overloads, arguments: list[Typed], received: int) -> Evaluate:
    """The call where some types are known only with the values. What has a type has been read already."""
    known = [argument.kind for argument in arguments]
    unknown = [position for position, kind in enumerate(known) if kind is Kind.DYNAMIC]
    evaluates = [argument.evaluate for argument in arguments]
    found: dict[tuple[type, ...], Signature] = {}

    def find(values: list[Value]) -> Signature:
        kinds = [kind_of(value) if kind is Kind.DYNAMIC else kind for value, kind in zip(values, known, strict=True)]
        try:
            return fitting(name, overloads, kinds, received)
        except TypeError as error:
            raise EvaluationError(str(error)) from None

    def evaluate(variables: Variables) -> Value:
        values = [evaluate(variables) for evaluate in evaluates]
        these = tuple([type(values[position]) for position in unknown])
        signature = found.get(these)
        if signature is None:
            signature = found[these] = find(values)
        for position in unknown:
            if position in signature.reads:
                values[position] = signature.reads[position](values[position])
        return signature.do(*values)

    return evaluate


def _read(argument: Typed, reader: Callable[[Any], Any] | None) -> Typed:
    if reader is None or argument.kind is Kind.DYNAMIC:
        return argument
    return _folded(Typed(argument.kind, lambda variables: reader(argument.evaluate(variables))), [argument])


def _application(do: Callable[..., Value], evaluates: list[Evaluate]) -> Evaluate:
    if len(evaluates) == 1:
        (only,) = evaluates
        return lambda variables: do(only(variables))
    if len(evaluates) == 2:  # noqa: PLR2004  the usual numbers without a list: 1,000 rules are asked for each request
        one, other = evaluates
        return lambda variables: do(one(variables), other(variables))
    return lambda variables: do(*[evaluate(variables) for evaluate in evaluates])


def _folded(made: Typed, parts: list[Typed]) -> Typed:
    """Evaluate now what will always be the same, unless it fails: that counts only where it is evaluated."""
    if not all(part.is_constant for part in parts):
        return made
    try:
        value = made.evaluate({})
    except EvaluationError:
        return made
    return Typed(made.kind, lambda _: value, is_constant=True)


# -- operators


def _truth(node: Node, operator: str) -> Evaluate:
    operand = _typed(node)
    if operand.kind not in (Kind.BOOL, Kind.DYNAMIC):
        raise ParseError(f"operator ({operator}): bool expected, not {operand.kind.value}", node.place)
    return _known(operand, Kind.BOOL, operator)


def _chain(node: Chain) -> Evaluate:
    operands = [_truth(operand, node.operator) for operand in node.operands]
    ends_it = node.operator == "||"

    def evaluate(variables: Variables) -> bool:
        for operand in operands:
            answer: bool = operand(variables)
            if answer is ends_it:
                return answer
        return not ends_it

    return evaluate


def _comparison(node: Comparison) -> Typed:
    left, right = _typed(node.left), _typed(node.right)
    known = [side.kind for side in (left, right) if side.kind is not Kind.DYNAMIC]
    if not known:
        reason = f"operator ({node.operator}) needs at least one operand type known at parse time"
        raise ParseError(reason, node.place)
    for kind in known:
        if kind not in (Kind.STRING, Kind.INT):
            raise ParseError(f"operator ({node.operator}) not supported for type: {kind.value}", node.place)
    if len(set(known)) > 1:
        raise ParseError(f"operator ({node.operator}) cannot compare string with int", node.place)
    one, other = (_known(side, known[0], node.operator) for side in (left, right))
    if node.operator == "==":
        return Typed(Kind.BOOL, lambda variables: bool(one(variables) == other(variables)))
    return Typed(Kind.BOOL, lambda variables: bool(one(variables) != other(variables)))


def _known(part: Typed, kind: Kind, operator: str) -> Evaluate:
    """Its value, which is of this type: where that was not known before it is made sure of."""
    if part.kind is kind:
        return part.evaluate

    def evaluate(variables: Variables) -> Value:
        value: Value = part.evaluate(variables)
        if kind_of(value) is not kind:
            raise EvaluationError(f"operator ({operator}): {kind.value} expected, not {kind_of(value).value}")
        return value

    return evaluate
