# Copyright (c) 2026, The nemo_speechllm authors.  All rights reserved.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""Renders chat templates, which come with models of unknown origin, with a limit: one that does not end is stopped.

transformers renders them in Jinja's sandbox as well, where a template can reach nothing, but it may run for ever or
fill the memory. Here every pass of a loop, every call, what it is given and every text that is made counts, and what
would be too long is refused before it is made.
"""

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from functools import lru_cache, partial
from typing import Any, cast

from jinja2 import Template, TemplateError, nodes, pass_context
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

MAX_SOURCE = 2**18  # characters of a template; those of today's models have up to 20 000
BUDGET = 2 * 10**7  # characters that one rendering may make
STEP = 100  # what a pass of a loop or a call counts, in characters
MAX_ITEMS = 10**5  # that a range or another iterator may have; Jinja's own limit
MAX_INTEGER_BITS = 2**14
MAX_WIDTH = 1000  # of a padded field

# Filters and methods whose result is not as long as what they are given, but as long as a product of it.
MULTIPLYING = frozenset(
    "replace join center ljust rjust zfill expandtabs format format_map indent batch slice".split()
)
# Filters and methods that prompts do not need, and that take far longer than their texts are long, or make bytes.
LEFT_OUT = ("pprint", "random", "striptags", "urlize", "wordwrap", "xmlattr")
NOT_CALLED = ("translate", "encode", "to_bytes", "from_bytes")
WIDE_FIELD = re.compile(r"\*|\d{4,}")
WIDTH_IN_ARGUMENT = re.compile(r"\{[^{}]*:[^{}]*\{")

_left: ContextVar[list[float] | None] = ContextVar("left", default=None)


class EndlessTemplateError(TemplateError):
    """A chat template does not come to an end, or makes far more text than a prompt."""


def render_chat(template: str, messages: list[dict[str, str]], **variables: Any) -> str:
    """Return the prompt that a chat template makes of messages, as transformers' ``apply_chat_template`` renders it.

    Args:
        template: Jinja source.
        messages: ``role`` and ``content`` of each.
        variables: ``add_generation_prompt``, special tokens by name, ….

    Raises:
        EndlessTemplateError: it takes too many steps or makes too much text.
        jinja2.TemplateError: it is no template, reaches for what the sandbox hides, or refuses the messages.
    """
    with _budget():
        try:
            context = {"messages": messages, "tools": None, "documents": None} | variables
            compiled = _compile(template)
            return "".join(map(_spent, compiled.root_render_func(compiled.new_context(context))))
        except (RecursionError, MemoryError, OverflowError) as error:
            raise EndlessTemplateError(
                f"the chat template goes too far ({type(error).__name__}: {error}); {_REMEDY}"
            ) from error


_REMEDY = "give another in model.prompt.chat_template"


@contextmanager
def _budget() -> Iterator[None]:
    token = _left.set([BUDGET])
    try:
        yield
    finally:
        _left.reset(token)


def _spend(amount: float) -> None:
    left = _left.get()
    if left is None:
        return
    left[0] -= amount
    if left[0] < 0:
        raise EndlessTemplateError(f"the chat template does not end within the work of {BUDGET} characters; {_REMEDY}")


def _spend_reading(*values: Any) -> None:
    """Spend what it takes to go through texts and lists once."""
    _spend(sum(len(value) for value in values if isinstance(value, Sized)))


def _spent(value: Any) -> Any:
    """Return the value, all that it holds spent; what comes one by one is spent as it comes.

    Lists of the same list twice, and so on, soon stand for more than any memory.
    """
    if isinstance(value, Iterator):
        return _counted(value, 0)
    pending = [value]
    while pending:
        _spend(STEP)
        item = pending.pop()
        _spend_reading(item)
        if isinstance(item, list | tuple | dict):
            _spend(STEP * len(item))
            pending.extend(item.values() if isinstance(item, dict) else item)
    return value


@lru_cache(maxsize=16)
def _compile(source: str) -> Template:
    if len(source) > MAX_SOURCE:
        raise EndlessTemplateError(
            f"the chat template has {len(source)} characters; at most {MAX_SOURCE} are read; {_REMEDY}"
        )
    return _Environment(trim_blocks=True, lstrip_blocks=True).from_string(source)


class _Environment(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset(["+", "-", "*", "/", "//", "%", "**"])

    def __init__(self, **options: Any):
        super().__init__(extensions=[_Generation, "jinja2.ext.loopcontrols"], finalize=_finalize, **options)
        kept = {name: function for name, function in self.filters.items() if name not in LEFT_OUT}
        self.filters = {name: _measured(name, function) for name, function in kept.items()}
        self.filters |= {
            "tojson": _tojson,
            "_counted": pass_context(lambda context, items, constants: _counted(items, constants)),
            "_spent": pass_context(lambda context, text: _spent(text)),
        }
        self.tests = {name: _measured(name, cast(Callable, function)) for name, function in self.tests.items()}
        self.globals = {name: self.globals[name] for name in ("range", "dict", "namespace")}
        self.globals |= {"raise_exception": _raise_exception, "strftime_now": _strftime_now}

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        return _Metered().visit(super()._parse(source, name, filename))

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        _check_operands(operator, left, right)
        return _spent(super().call_binop(context, operator, left, right))

    def call(self, context: Any, function: Any, *args: Any, **kwargs: Any) -> Any:  # Jinja names them with underscores
        method = getattr(function, "__wrapped__", function)  # the sandbox wraps `format`
        owner, name = getattr(method, "__self__", None), getattr(method, "__name__", "")
        if isinstance(owner, str | list | tuple) and name in MULTIPLYING:
            _check_product(name, owner, *args, *kwargs.values())
        if name in NOT_CALLED:
            raise EndlessTemplateError(f"the chat template calls {name}, which is not rendered; {_REMEDY}")
        if name in ("format", "format_map") and WIDTH_IN_ARGUMENT.search(str(owner).replace("{{", "")):
            raise EndlessTemplateError(f"the chat template pads a field by an argument; {_REMEDY}")
        _spend_reading(owner, *args, *kwargs.values())
        return _spent(super().call(context, function, *args, **kwargs))


class _Metered(NodeTransformer):
    """Puts a count into every loop, and around every text and list that is put together, cut or compared."""

    def visit_For(self, node: nodes.For) -> nodes.For:
        if node.recursive:
            raise EndlessTemplateError(f"the chat template has a recursive loop, which is not rendered; {_REMEDY}")
        self.generic_visit(node)
        constants = sum(len(data.data) for data in node.find_all(nodes.TemplateData))
        node.iter = nodes.Filter(node.iter, "_counted", [nodes.Const(constants)], [], None, None, lineno=node.lineno)
        return node

    def visit_Concat(self, node: nodes.Expr) -> nodes.Expr:
        self.generic_visit(node)
        is_target = getattr(node, "ctx", "load") != "load"
        return node if is_target else nodes.Filter(node, "_spent", [], [], None, None, lineno=node.lineno)

    visit_List = visit_Tuple = visit_Dict = visit_Concat

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:
        return self.visit_Concat(node) if isinstance(node.arg, nodes.Slice) else self.generic_visit(node)

    def visit_Compare(self, node: nodes.Compare) -> nodes.Compare:
        self.generic_visit(node)
        compared: list[Any] = [node, *node.ops]
        for holder in compared:
            holder.expr = nodes.Filter(holder.expr, "_spent", [], [], None, None, lineno=node.lineno)
        return node


class _Generation(Extension):
    """``{% generation %}`` marks what an assistant says, for masks that are not asked for here."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _counted(items: Iterable, constants: int) -> Iterator:
    for item in items:
        _spend(STEP + constants)
        yield item


def _finalize(value: Any) -> Any:
    return _spent(value if isinstance(value, str) else str(value))


def _measured(name: str, function: Callable) -> Callable:
    """Return a filter or test that spends what it reads and makes, and is refused what would make far too much."""
    passes = {key: value for key, value in getattr(function, "__dict__", {}).items() if key.startswith("jinja_")}

    def measured(*args: Any, **kwargs: Any) -> Any:
        if name in MULTIPLYING:
            _check_product(name, *args[bool(passes) :], *kwargs.values())
        _spend_reading(*args[bool(passes) :], *kwargs.values())
        return _spent(function(*args, **kwargs))

    vars(measured).update(passes)
    return measured


def _check_product(name: str, *operands: Any) -> None:
    if name in ("format", "format_map") and any(
        isinstance(text, str) and WIDE_FIELD.search(text) for text in operands[:1]
    ):
        raise EndlessTemplateError(f"the chat template pads a field to more than {MAX_WIDTH} characters; {_REMEDY}")
    _spend(math.prod(max(1, _extent(operand)) for operand in operands))


def _extent(operand: Any) -> int:
    if isinstance(operand, str | list | tuple | dict | range):
        return len(operand)
    return abs(operand) if isinstance(operand, int) else MAX_ITEMS if isinstance(operand, Iterable) else 1


def _check_operands(operator: str, left: Any, right: Any) -> None:
    if operator == "%" and isinstance(left, str) and WIDE_FIELD.search(left):
        raise EndlessTemplateError(f"the chat template pads a field to more than {MAX_WIDTH} characters; {_REMEDY}")
    if operator == "*" and not (isinstance(left, int) and isinstance(right, int)):
        _spend(_extent(left) * _extent(right) if not isinstance(left, float) and not isinstance(right, float) else 1)
    elif isinstance(left, int) and isinstance(right, int) and operator in ("*", "**"):
        bits = abs(left).bit_length() * abs(right) if operator == "**" else left.bit_length() + right.bit_length()
        if bits > MAX_INTEGER_BITS:
            raise EndlessTemplateError(f"the chat template computes a number of {bits} bits; {_REMEDY}")


def _raise_exception(message: str) -> None:
    raise TemplateError(message)


def _strftime_now(pattern: str) -> str:
    return datetime.now().strftime(str(pattern)[:MAX_WIDTH])


def _tojson(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    dump = partial(json.dumps, ensure_ascii=ensure_ascii, separators=separators, sort_keys=sort_keys)
    return _spent(
        dump(value, indent=min(indent, 100) if isinstance(indent, int) else str(indent)[:100] if indent else None)
    )
