"""Teleport's predicate language, as the conditions of Access Monitoring Rules are written in.

A condition is parsed (`parsing`), its types are checked and it is turned into closures (`checking`), once; then it is
evaluated against the variables of a request (`variables`) any number of times. Pure: no clock, no network, and no
text makes it run away: length, nesting, values and regular expressions (RE2) are all bounded.
"""

from services.router.conditions.checking import Condition
from services.router.conditions.errors import ConditionError, EvaluationError, ParseError
from services.router.conditions.variables import variables_of

__all__ = ["Condition", "ConditionError", "EvaluationError", "ParseError", "variables_of"]
