"""Text to tree: Go's expression grammar by lark, whose tables know no recursion."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from importlib import resources
from typing import Final

from lark import Lark, Token, Transformer
from lark.exceptions import UnexpectedCharacters, UnexpectedToken

from services.router.conditions import literals
from services.router.conditions.errors import ParseError, Place
from services.router.conditions.syntax import Call, Chain, Comparison, Index, Literal, Name, Node, Not, Select

LONGEST: Final = 10_000
"""Characters of a condition."""

DEEPEST: Final = 64
"""Levels of nesting."""

KEYWORDS: Final = frozenset(
    {"break", "case", "chan", "const", "continue", "default", "defer", "else", "fallthrough", "for", "func", "go"}
    | {"goto", "if", "import", "interface", "map", "package", "range", "return", "select", "struct", "switch"}
    | {"type", "var"}
)
"""Go's, which are no identifiers."""

OPERAND_ENDS: Final = frozenset({"NAME", "INT", "FLOAT", "STRING", "RAW", "RPAR", "RSQB"})

NEVER_RIGHT: Final = {
    "RUNE": "single-quoted text is a rune, not a string: use double quotes",
    "UNFINISHED": "comment not terminated",
}

READERS: Final[dict[str, Callable[[str], str | int | float]]] = {
    "STRING": literals.text_of,
    "RAW": literals.raw_text_of,
    "INT": literals.int_of,
    "FLOAT": literals.float_of,
}


def parse(text: str) -> Node:
    """The tree of a condition. Raises `ParseError`, whatever the text is."""
    if len(text) > LONGEST:
        raise ParseError(f"the condition is longer than {LONGEST} characters", Place(1, LONGEST + 1))
    if not text.strip():
        raise ParseError("empty expression", Place(1, 1))
    try:
        tree = _grammar().parse(text)
    except UnexpectedCharacters as error:
        raise ParseError(_illegal(str(error.char)), Place(error.line, error.column)) from None
    except UnexpectedToken as error:
        raise _unexpected(error, text) from None
    assert isinstance(tree, Node), "the grammar's start is a node"
    return tree


class _Tokens:
    """Keeps a line's end only where Go inserts a semicolon: after an operand. Refuses what is never right."""

    always_accept = ("NEWLINE", *NEVER_RIGHT)

    def process(self, tokens: Iterator[Token]) -> Iterator[Token]:
        last = ""
        for token in tokens:
            if token.type in NEVER_RIGHT:
                raise ParseError(NEVER_RIGHT[token.type], _place(token))
            if token.type != "NEWLINE" or last in OPERAND_ENDS:
                yield token
                last = token.type


class _Tree(Transformer[Token, Node]):
    """Called by the parser bottom-up, so that the tree is never walked."""

    def start(self, children: list[Node]) -> Node:
        return children[0]

    def group(self, children: list[Node]) -> Node:
        (inside,) = children
        return replace(inside, depth=_above(inside))

    def name(self, children: list[Token]) -> Node:
        return Name(_place(children[0]), 1, _identifier(children[0]))

    def literal(self, children: list[Token]) -> Node:
        token = children[0]
        try:
            return Literal(_place(token), 1, READERS[token.type](token))
        except ValueError as error:
            reason = "the text is not UTF-8" if isinstance(error, UnicodeError) else str(error)
            raise ParseError(f"literal {token[:40]}: {reason}", _place(token)) from None

    def select(self, children: list[Node | Token]) -> Node:
        of, token = children
        assert isinstance(of, Node)
        assert isinstance(token, Token)
        return Select(of.place, _above(of), of, _identifier(token))

    def index(self, children: list[Node]) -> Node:
        of, key = children
        return Index(of.place, _above(of, key), of, key)

    def call(self, children: list[Node]) -> Node:
        callee, *arguments = children
        return Call(callee.place, _above(callee, *arguments), callee, arguments)

    def unary(self, children: list[Node | Token]) -> Node:
        operator, operand = children
        assert isinstance(operator, Token)
        assert isinstance(operand, Node)
        if operator != "!":
            raise _unsupported(operator)
        return Not(_place(operator), _above(operand), operand)

    def chain(self, children: list[Node | Token]) -> Node:
        left, operator, right = _operation(children)
        # A list that grows in place: a chain of a thousand would otherwise be copied a thousand times.
        if isinstance(left, Chain) and left.operator == operator:
            left.operands.append(right)
            return Chain(left.place, max(left.depth, _above(right)), left.operator, left.operands)
        return Chain(left.place, _above(left, right), str(operator), [left, right])

    def comparison(self, children: list[Node | Token]) -> Node:
        left, operator, right = _operation(children)
        if operator not in ("==", "!="):
            raise _unsupported(operator)
        return Comparison(_place(operator), _above(left, right), str(operator), left, right)

    def arithmetic(self, children: list[Node | Token]) -> Node:
        raise _unsupported(_operation(children)[1])


def _operation(children: list[Node | Token]) -> tuple[Node, Token, Node]:
    left, operator, right = children
    assert isinstance(left, Node)
    assert isinstance(operator, Token)
    assert isinstance(right, Node)
    return left, operator, right


def _above(*nodes: Node) -> int:
    depth = 1 + max(node.depth for node in nodes)
    if depth > DEEPEST:
        raise ParseError(f"nested more than {DEEPEST} levels deep", nodes[-1].place)
    return depth


def _identifier(token: Token) -> str:
    if token in KEYWORDS:
        raise ParseError(f"expected operand, found '{token}'", _place(token))
    return str(token)


def _unsupported(operator: Token) -> ParseError:
    return ParseError(f"operator ({operator}) is not supported", _place(operator))


def _place(token: Token) -> Place:
    assert token.line is not None, "the lexer counts lines"
    assert token.column is not None, "the lexer counts columns"
    return Place(token.line, token.column)


def _illegal(character: str) -> str:
    if character in "\"'`":
        return f"literal not terminated: no second {character}"
    return f"illegal character U+{ord(character):04X}"


def _unexpected(error: UnexpectedToken, text: str) -> ParseError:
    """As Go's scanner says it: what the innermost open bracket waits for, or an operand, or the end."""
    waits_for = (("INT", "operand"), ("$END", "'EOF'"), ("RPAR", "')'"), ("RSQB", "']'"))
    expected = next((said for name, said in waits_for if name in error.expected), "a name")
    if error.token.type == "$END":
        return ParseError(f"expected {expected}, found 'EOF'", _end(text))
    found = "newline" if error.token.type == "NEWLINE" else str(error.token)[:40]
    return ParseError(f"expected {expected}, found '{found}'", Place(error.line, error.column))


def _end(text: str) -> Place:
    lines = text.split("\n")
    return Place(len(lines), len(lines[-1]) + 1)


@cache
def _grammar() -> Lark:
    """Made for the first condition: many routers never see one."""
    return Lark(
        (resources.files(__package__) / "grammar.lark").read_text(encoding="utf-8"),
        parser="lalr",
        lexer="basic",
        postlex=_Tokens(),
        transformer=_Tree(),
    )
