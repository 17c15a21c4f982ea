"""Tools that only look or reckon: `clock`, `calculator`."""

from __future__ import annotations

import ast
import json
import math
import operator
from collections.abc import Callable

from pydantic import Field

from parley_dispatcher.errors import ToolError
from parley_dispatcher.tools.base import Arguments, Call, Result, Tool
from parley_events.clock import rfc3339

_MOST_DIGITS = 4000


class NoArguments(Arguments):
    pass


class Expression(Arguments):
    expression: str = Field(max_length=1000, description="for example (2 + 3) * 4 ** 2 / 7")


async def _clock(call: Call, arguments: NoArguments) -> Result:
    return Result(json.dumps({"now": rfc3339(call.clock())}))


def _power(base: float, exponent: float) -> float:
    if isinstance(base, int) and isinstance(exponent, int) and exponent > 0:
        digits = exponent * math.log10(max(abs(base), 1) + 1)
        if digits > _MOST_DIGITS:
            raise ToolError(f"the result would have more than {_MOST_DIGITS} digits")
    result = base**exponent
    if isinstance(result, complex):
        raise ToolError("the result is not a real number")
    return float(result) if isinstance(result, float) else int(result)


_BINARY: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: _power,
}
_UNARY: dict[type[ast.unaryop], Callable[[float], float]] = {ast.UAdd: operator.pos, ast.USub: operator.neg}
_FUNCTIONS: dict[str, Callable[[float], float]] = {
    "abs": abs,
    "round": round,
    "sqrt": math.sqrt,
    "floor": math.floor,
    "ceil": math.ceil,
    "log": math.log,
    "log10": math.log10,
    "exp": math.exp,
    "sin": math.sin,
    "cos": math.cos,
    "tan": math.tan,
}
_NAMES = {"pi": math.pi, "e": math.e}


def _value(node: ast.expr) -> float:
    match node:
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            return number
        case ast.Name(id=name) if name in _NAMES:
            return _NAMES[name]
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            return _BINARY[type(op)](_value(left), _value(right))
        case ast.UnaryOp(op=op, operand=operand) if type(op) in _UNARY:
            return _UNARY[type(op)](_value(operand))
        case ast.Call(func=ast.Name(id=name), args=[argument], keywords=[]) if name in _FUNCTIONS:
            return _FUNCTIONS[name](_value(argument))
    raise ToolError(f"only numbers, + - * / // % **, brackets, pi, e and {', '.join(_FUNCTIONS)} are understood")


async def _calculator(call: Call, arguments: Expression) -> Result:
    try:
        tree = ast.parse(arguments.expression.strip(), mode="eval")
        result = _value(tree.body)
        if isinstance(result, float) and not math.isfinite(result):
            raise ToolError("the result is too large, or no number")
        return Result(json.dumps({"result": result}) if not isinstance(result, int) else f'{{"result": {result}}}')
    except (SyntaxError, RecursionError, MemoryError):
        raise ToolError("that is not an expression") from None
    except (ZeroDivisionError, OverflowError, ValueError) as error:
        raise ToolError(f"cannot be computed: {error}") from None


CLOCK = Tool("clock", "The time now, in UTC.", NoArguments, _clock, "read_only")
CALCULATOR = Tool("calculator", "Computes an arithmetic expression.", Expression, _calculator, "read_only")
