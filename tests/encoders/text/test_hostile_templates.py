"""Chat templates of strangers: each ends soon, in an error, with little memory.

Every template is rendered in a process of its own, whose processor time and peak of memory are then known.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from sensorium.encoders.text import ChatTemplate, template_bounds

_MOST_SECONDS, _MOST_MEGABYTES = 4.0, 400
_LOOP = "{% for i in range(99999) %}"
_LOOPS = _LOOP + "{% for j in range(99999) %}"
_ENDS = "{% endfor %}{% endfor %}"
_GROWING = "{% set ns = namespace(x='aaaaaaaa') %}" + _LOOP + "{% set ns.x = STEP %}{% endfor %}"
_NESTING = "{% set ns = namespace(x=START) %}{% for i in range(99) %}{% set ns.x = STEP %}{% endfor %}{{ END }}"


_TWICE = "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}END{% endif %}{% endmacro %}{{ m(60) }}"


def _growing(step: str) -> str:
    return _GROWING.replace("STEP", step)


def _nesting(start: str, step: str, end: str = "ns.x") -> str:
    return _NESTING.replace("START", start).replace("STEP", step).replace("END", end)


_SIZES = {
    "times": "{{ 'a' * 10**9 }}",
    "times a list": "{{ [1] * 10**9 }}",
    "times inside": "{{ ([[1] * 1000] * 60000) | string }}",
    "repeated": _growing("ns.x * 2"),
    "concatenated": _growing("ns.x ~ ns.x"),
    "added": _growing("ns.x + ns.x"),
    "lists added": _nesting("[1]", "ns.x + ns.x"),
    "collected": _growing("y").replace("{% set ns.x", "{% set y %}{{ ns.x }}{{ ns.x }}{% endset %}{% set ns.x"),
    "collected by a macro": _TWICE.replace("END", "{{ 'x' * 100000 }}"),
    "power": "{{ 2 ** (10 ** 9) }}",
    "powers": "{% set ns = namespace(x=10) %}{% for i in range(99) %}{% set ns.x = ns.x ** 9 %}{% endfor %}",
    "squares": "{% set ns = namespace(x=10) %}{% for i in range(99) %}{% set ns.x = ns.x * ns.x %}{% endfor %}",
    "sums": "{% set ns = namespace(x=1) %}" + _LOOP + "{% set ns.x = ns.x + ns.x %}{% endfor %}",
    "hexadecimal": "{% set a = ('f' * 4000000) | int(0, 16) %}{{ a % 7 }}",
    "huge numbers in a list": "{{ ([1000 ** 1000] * 500000) | string }}",
    "huge numbers joined": "{{ ([1000 ** 1000] * 500000) | join }}",
    "join": "{{ range(99999) | map('string') | join('x' * 1000000) }}",
    "join as a method": "{{ ('x' * 1000000).join(range(99999) | map('string')) }}",
    "replace": "{{ ('a' * 100000) | replace('a', 'b' * 100000) }}",
    "replace as a method": "{{ ('a' * 100000).replace('a', 'b' * 100000) }}",
    "replace nothing": "{{ ('a' * 100000).replace('', 'b' * 100000) }}",
    "center": "{{ 'a' | center(10 ** 9) }}",
    "center as a method": "{{ 'a'.center(10 ** 9) }}",
    "ljust": "{{ 'a'.ljust(10 ** 9) }}",
    "zfill": "{{ 'a'.zfill(10 ** 9) }}",
    "expandtabs": "{{ ('\\t' * 1000000).expandtabs(1000) }}",
    "indent": "{{ ('a\\n' * 1000000) | indent(1000) }}",
    "indent by a text": "{{ ('a\\n' * 100000) | indent('x' * 100000) }}",
    "indent a block": "{% filter indent(1000) %}" + _LOOP + "\n{% endfor %}{% endfilter %}",
    "tojson": "{{ [[1, 2], [3]] | tojson(indent=10 ** 9) }}",
    "tojson by a text": "{{ [[1, 2], [3]] | tojson(indent='x' * 1000000) }}",
    "tojson with separators": "{{ (range(99999) | list) | tojson(separators=('x' * 1000, ':')) }}",
    "tojson escaped": "{{ ('👩' * 1000000) | tojson(ensure_ascii=true) }}",
    "format": "{{ '{:>1000000000}'.format('x') }}",
    "format with a width": "{{ '{:>{w}}'.format('x', w=10 ** 9) }}",
    "format many times": "{{ ('{0}' * 100000).format('x' * 100000) }}",
    "format wide": "{{ ('{:>9999}' * 100000).format(*range(99999)) }}",
    "format_map": "{{ '{a:>1000000000}'.format_map({'a': 'x'}) }}",
    "percent": "{{ '%1000000000d' % 1 }}",
    "percent with a width": "{{ '%*d' % (10 ** 9, 1) }}",
    "percent with precision": "{{ '%.*f' % (10 ** 9, 1.0) }}{{ '%.1000000000f' % 1.0 }}",
    "percent with names": "{{ '%(a)1000000000d' % {'a': 1} }}",
    "percent as a filter": "{{ '%1000000000d' | format(1) }}",
    "percent mapped": "{{ ['%1000000000d'] | map('format', 1) | list }}",
    "round": "{{ 5 | round(-10 ** 8) }}",
    "batch": "{{ [1] | batch(10 ** 8, 'x') | list }}",
    "slice": "{{ [1] | slice(10 ** 8) | list }}",
    "list": "{{ ('漢' * 1000000) | list | length }}{{ nothing.at.all }}",
    "upper": "{{ ('ΐ' * 1000000) | upper }}",
    "urlencode": "{{ ('👩' * 1000000) | urlencode }}",
    "escape": "{{ ('\"' * 4000000) | e }}",
    "wordwrap": "{{ ('x' * 1000000) | wordwrap(1) }}",
    "lists of lists": _nesting("[1]", "[ns.x, ns.x]"),
    "tuples of tuples": _nesting("(1,)", "ns.x, ns.x", "ns.x == ns.x"),
    "dictionaries": _nesting("{}", "{'a': ns.x, 'b': ns.x}", "ns.x | tojson"),
    "dict": _nesting("1", "dict(a=ns.x, b=ns.x)"),
    "cycler": _nesting("1", "cycler(ns.x, ns.x).items"),
    "long names": "{% macro NAME() %}{% endmacro %}{{ ([NAME] * 500000) | string }}".replace("NAME", "m" * 30_000),
    "bound methods": "{% set m = ('x' * 1000000) | safe %}{{ ([m.striptags] * 500000) | string }}",
    "held": "".join(f"{{% set a{number} = 'x' * 4000000 %}}" for number in range(99)),
    "held and wide": "".join(f"{{% set a{number} = '👩' * 1000000 %}}" for number in range(99)),
    "slices": "{% set x = 'a' * 4000000 %}" + _LOOP + "{% set y = x[1:] %}{% endfor %}",
    "output": _LOOPS + "{{ 'x' * 1000 }}" + _ENDS,
    "text": _LOOPS + "x" * 1000 + _ENDS,
    "a message": _LOOP + "{{ messages }}{% endfor %}",
    "a date": "{{ strftime_now('%1000000000d') }}",
    "dates": "{{ strftime_now('%Y' * 100000) }}",
    "refusal": "{{ raise_exception('x' * 10 ** 9) }}",
}
_TIMES = {
    "range": "{% for i in range(10 ** 9) %}{% endfor %}",
    "loops": _LOOPS + _LOOP + "{% endfor %}" + _ENDS,
    "loops with a filter": _LOOP + "{% for j in range(99999) if false %}" + _ENDS,
    "lists in loops": _LOOPS + "{% set x = [] %}" + _ENDS,
    "loops in a block": "{% set x %}" + _LOOPS + _ENDS + "{% endset %}",
    "loops in a call": "{% macro m() %}{{ caller() }}{% endmacro %}{% call m() %}" + _LOOPS + _ENDS + "{% endcall %}",
    "loops in a filter": "{% filter upper %}" + _LOOPS + _ENDS + "{% endfilter %}",
    "generation": "{% generation %}" + _LOOPS + "x" + _ENDS + "{% endgeneration %}",
    "macro": "{% macro m(n) %}{{ m(n + 1) }}{% endmacro %}{{ m(0) }}",
    "two of a macro": _TWICE.replace("END", ""),
    "two of a macro unseen": (
        "{% macro m(n) %}{% if n %}{% set x = m(n - 1) ~ m(n - 1) %}{% endif %}{% endmacro %}{{ m(60) }}"
    ),
    "block": "{% block a %}{{ self.a() }}{{ self.a() }}{% endblock %}",
    "recursive loop": "{% for m in [[1]] recursive %}{{ loop([[1], [1]]) }}{% endfor %}",
    "sort": _LOOP + "{{ range(99999) | sort(reverse=true) | length }}{% endfor %}",
    "unique": _LOOP + "{{ range(99999) | unique | list | length }}{% endfor %}",
    "map": _LOOP + "{{ range(99999) | map('string') | map('upper') | list | length }}{% endfor %}",
    "select": _LOOP + "{{ range(99999) | select('odd') | list | length }}{% endfor %}",
    "in a list": "{% set x = range(99999) | list %}" + _LOOP + "{% if -1 in x %}{% endif %}{% endfor %}",
    "in a text": (
        "{% set x = 'a' * 4000000 %}{% set y = 'a' * 2000000 ~ 'b' %}"
        + _LOOP
        + "{% if y in x %}{% endif %}{% endfor %}"
    ),
    "compare": "{% set x = [1] * 400000 %}{% set y = [1] * 400000 %}"
    + _LOOP
    + "{% if x == y %}{% endif %}{% endfor %}",
    "remainders": (
        "{% set a = ('f' * 3000000) | int(0, 16) %}{% set b = ('f' * 1500000) | int(0, 16) %}{{ (a % b) == (a // b) }}"
    ),
    "striptags": _LOOP + "{{ ('<a>&lt;' * 100000) | striptags | length }}{% endfor %}",
    "title": _LOOP + "{{ ('x ' * 1000000) | title | length }}{% endfor %}",
    "wordcount": _LOOP + "{{ ('x ' * 1000000) | wordcount }}{% endfor %}",
    "counting": _LOOP + "{{ ('a' * 1000000).count('aa') }}{% endfor %}",
    "random": _LOOPS + "{{ range(9) | random }}" + _ENDS,
    "a shadowed meter": "{% macro __made__() %}{% endmacro %}" + _LOOPS + _ENDS,
    "a replaced meter": "{% set __made__ = namespace %}" + _LOOPS + _ENDS,
}
_SOURCES = {
    "too long": "x" * 200_000,
    "parentheses": "{{ " + "(" * 50_000 + "1" + ")" * 50_000 + " }}",
    "brackets": "{{ " + "[" * 50_000 + "]" * 50_000 + " }}",
    "negations": "{{ " + "not " * 30_000 + "1 }}",
    "conditions": "{% if 1 %}" * 6_000 + "{% endif %}" * 6_000,
    "nested loops": "{% for i in [1] %}" * 100 + "{% endfor %}" * 100,
    "additions": "{{ 1" + "+1" * 20_000 + " }}",
    "filters": "{{ 'a'" + "|upper" * 15_000 + " }}",
    "attributes": "{{ a" + ".a" * 20_000 + " }}",
    "a list": "{{ [" + "1," * 34_000 + "] }}",
    "a number": "{{ 0x" + "f" * 100_000 + " }}",
    "alternatives": "{% if a %}" + "{% elif a %}" * 3_000 + "{% endif %}",
    "unclosed": "{{ 'a" * 26_000,
    "unclosed comments": "{#" * 60_000,
    "unclosed blocks": "{%" * 60_000,
    "raw": "{% raw %}" * 14_000,
    "outputs": "{{ x }}" * 6_000 + "{{ 1 / 0 }}",
    "scopes": "".join(f"{{% set a{n} = 1 %}}" for n in range(1_000))
    + "{% for i in a %}{% endfor %}" * 700
    + "{{ 1 / 0 }}",
}
_SECRETS = {
    "class": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "globals": "{{ raise_exception.__globals__['json'] }}",
    "globals of a class": "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "globals of a namespace": "{{ namespace.__init__.__globals__ }}",
    "code of a macro": "{% macro m() %}{% endmacro %}{{ m._func.__code__.co_consts }}",
    "format": "{{ '{0.__class__.__mro__}'.format('') }}",
    "format of a name": "{{ '{x.__class__.__mro__}'.format(x=messages) }}",
    "mapped": "{{ [''] | map(attribute='__class__.__mro__') | list | first | first }}",
    "encode": "{{ 'a'.encode('utf-32') }}",
    "include": "{% include 'secrets' %}",
    "import": "{% import 'os' as os %}",
    "extends": "{% extends 'os' %}",
    "lipsum": "{{ lipsum.__globals__ }}",
}
_HOSTILE = {
    f"{group}: {name}": source
    for group, cases in (("size", _SIZES), ("time", _TIMES), ("source", _SOURCES), ("secret", _SECRETS))
    for name, source in cases.items()
}
# jinja2 gives nothing for what it hides; nothing is what is to be printed.
_NOTHING = {
    "{{ ''.__class__ }}": "",
    "{{ '' | attr('__class__') }}": "",
    "{{ self._TemplateReference__context }}": "",
    "{{ dict(messages[0]).__class__ }}": "",
    "{% set ns = namespace(a=1) %}{% set ns.b = ns %}{{ ns }}{{ [ns] }}": "<Namespace>[<Namespace>]",
    _nesting("1", "namespace(a=ns.x, b=ns.x)"): "<Namespace>",
}
_CHILD = """
import json, os, resource, sys, time
from sensorium.encoders.errors import ChatTemplateError
from sensorium.encoders.text import ChatTemplate, template_bounds

template_bounds.LONGEST_TIME = 0.25  # for the tests' sake
cases, found = json.load(sys.stdin), {}
resource.setrlimit(resource.RLIMIT_CPU, (600, 600))
for name, source in cases.items():
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        resource.setrlimit(resource.RLIMIT_CPU, (20, 20))
        before = time.process_time()
        try:
            answer = "rendered " + ChatTemplate(source).render([{"role": "user", "content": "Hi"}])[:40]
        except ChatTemplateError as error:
            answer = f"ChatTemplateError {error.problem} {error.given}"
        except BaseException as error:
            answer = f"{type(error).__name__} {error}"
        os.write(writing, json.dumps([answer[:300], time.process_time() - before]).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        answer = pipe.read()
    _, status, used = os.wait4(child, 0)
    peak = used.ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)
    found[name] = [*(json.loads(answer) if answer else ["killed", 99.0]), peak]
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def outcomes() -> dict[str, tuple[str, float, float]]:
    """What came of each template: the answer, seconds and megabytes."""
    run = subprocess.run(
        [sys.executable, "-c", _CHILD], input=json.dumps(_HOSTILE), capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


@pytest.mark.parametrize("name", _HOSTILE)
def test_hostile_templates_end_soon_in_an_error(name: str, outcomes: dict[str, tuple[str, float, float]]) -> None:
    answer, seconds, megabytes = outcomes[name]
    assert answer.startswith("ChatTemplateError")
    assert "MemoryError" not in answer
    assert seconds < _MOST_SECONDS
    assert megabytes < _MOST_MEGABYTES


@pytest.mark.parametrize("source", _NOTHING)
def test_what_is_hidden_is_not_shown(source: str) -> None:
    assert ChatTemplate(source).render([{"role": "user", "content": "Hi"}]) == _NOTHING[source]


def test_bounds_are_those_that_are_meant() -> None:
    assert 1 <= template_bounds.LONGEST_TIME <= 10
    assert template_bounds.LARGEST_VALUE >= 1 << 20
    assert template_bounds.MOST_WORK <= 1 << 29


def test_a_meter_ends_with_its_rendering() -> None:
    chat: list[dict[str, Any]] = [{"role": "user", "content": "Hi"}]
    half = "{{ ('x' * 3000000) | length }}" * 50
    for _ in range(3):  # together more than one rendering may do
        assert ChatTemplate(half).render(chat) == "3000000" * 50
