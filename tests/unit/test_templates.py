"""Templates: what they may say, what they cost at most, and where they point when they fail."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from typing import Any

import pytest

from sdf.errors import GenreError
from sdf.genres.template_shapes import ANY, NUMBER, TEXT, Absent, ListOf, Shape
from sdf.genres.templates import MAX_SOURCE, Template


class Names:
    secret = "not for templates"

    def person(self, i: int) -> str:
        return f"Person {i}"

    def given(self, i: int) -> str:
        return f"Given {i}"


SCOPE: Mapping[str, Shape] = {
    "brief": {"axes": {"tone": TEXT, "side remark": TEXT}, "n_words": NUMBER, "twin": Absent("no twin axis")},
    "angle": TEXT,
    "taken": ListOf(TEXT),
    "plan": ANY,
    "messages": ListOf({"role": TEXT, "content": TEXT}),
    "n_items": NUMBER,
    "names": {"person": TEXT},
}

CONTEXT: Mapping[str, Any] = {
    "brief": {"axes": {"tone": "warm", "side remark": "yes"}, "n_words": 500},
    "angle": "a lighthouse",
    "taken": ["one", "two", "three"],
    "plan": {"goal": "ferry tickets", "steps": ["ask", "wait"], "level": 3, "none": None},
    "messages": [{"role": "user", "content": "hi"}],
    "n_items": 3,
    "names": Names(),
}


def rendered(source: str, context: Mapping[str, Any] = CONTEXT) -> str:
    template = Template(source)
    template.check(SCOPE)
    return template.render(context)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{{ brief.axes.tone }}", "warm"),
        ("{{ brief.axes['side remark'] }}", "yes"),
        ("{{ names.person(2) }} and {{ names.given(1) }}", "Person 2 and Given 1"),
        ("{% for idea in taken %}\n{{ loop.index }}. {{ idea }}\n{% endfor %}", "1. one\n2. two\n3. three\n"),
        ("{% for idea in taken if idea != 'two' %}{{ idea }} {% endfor %}", "one three "),
        ("{% for m in messages %}{{ m.role }}: {{ m['content'] }}{% endfor %}", "user: hi"),
        ("{% for i in range(1, n_items + 1) %}{{ names.person(i) }};{% endfor %}", "Person 1;Person 2;Person 3;"),
        ("{% for i in range(2) %}{% for j in range(2) %}{{ i }}{{ j }} {% endfor %}{% endfor %}", "00 01 10 11 "),
        ("{% for x in [] %}{{ x }}{% else %}empty{% endfor %}", "empty"),
        ("{% if brief.n_words > 300 and not taken == [] %}long{% elif angle %}x{% else %}short{% endif %}", "long"),
        ("{{ 'a' if brief.n_words % 2 == 0 else 'b' }}", "a"),
        ("{{ brief.n_words - 100 + 1 }}", "401"),
        ("{{ angle[:6] + '!' }} {{ taken[-1] }} {{ taken[:2]|join('/') }}", "a ligh! three one/two"),
        ("{{ plan.goal }} {{ plan['steps'][0] }} {{ plan.level + 1 }}", "ferry tickets ask 4"),
        ("{{ plan.missing|default('none named') }}", "none named"),
        ("{% if plan.missing is defined %}x{% else %}y{% endif %}", "y"),
        ("{{ taken|length }} {{ angle|wordcount }} {{ angle|upper }} {{ taken|last }}", "3 2 A LIGHTHOUSE three"),
        ("{{ plan|tojson }}", '{"goal": "ferry tickets", "level": 3, "none": null, "steps": ["ask", "wait"]}'),
        ("{{ angle|indent('> ', first=true) }}", "> a lighthouse"),
        ("{{ angle|replace('lighthouse', 'mill')|capitalize }}", "A mill"),
        ("{{ angle|truncate(6) }}", "a …"),
        (
            "{{ taken|sort|join(', ') }}; {{ taken|reverse|join }}; {{ ['b', 'b']|unique|join }}",
            "one, three, two; threetwoone; b",
        ),
        (
            "{# a comment #}\n  {% if angle %}\nx\n  {% endif %}\n{% raw %}{{ not read }}{% endraw %}",
            "x\n{{ not read }}",
        ),
    ],
)
def test_what_templates_say(source: str, text: str) -> None:
    assert rendered(source) == text


REFUSED = [
    # attribute escapes
    ("{{ ''.__class__ }}", "names that begin with `_`"),
    ("{{ angle['__class__'] }}", "names that begin with `_`"),
    ("{{ plan.__init__.__globals__ }}", "names that begin with `_`"),
    ("{{ plan|attr('__class__') }}", "no filter 'attr'"),
    ("{{ plan|map(attribute='__class__')|join }}", "no filter 'map'"),
    ("{{ angle.format(1) }}", "only names.person"),
    ("{{ angle.upper }}", "angle is text and has no 'upper'"),
    ("{{ 'x'.join }}", "text and has no 'join'"),
    ("{{ names.secret }}", "`names` is called"),
    ("{{ names }}", "`names` is called"),
    ("{{ names['person'](1) }}", "only names.person"),
    ("{{ names.secret(1) }}", "names has no 'secret'"),
    ("{{ names.persn(1) }}", "did you mean 'person'"),
    ("{{ names.person('1') }}", "one whole number"),
    ("{{ names.person(angle) }}", "one whole number"),
    ("{{ names.person(1, 2) }}", "one whole number"),
    ("{{ names.person(i=1) }}", "one whole number"),
    ("{{ names.person(*taken) }}", "one whole number"),
    ("{{ names.person(0) }}", "from 1 to 200"),
    ("{{ names.person(10000000) }}", "from 1 to 200"),
    ("{{ names.person(1).upper() }}", "only names.person"),
    ("{{ self.__init__ }}", "`_`|knows values"),
    ("{{ self }}", "knows values, not itself"),
    ("{{ loop.cycle('a') }}", "only names.person|called 'loop'"),
    ("{{ cycler('a') }}", "only names.person"),
    ("{{ namespace(a=1) }}", "only names.person"),
    ("{{ lipsum() }}", "only names.person"),
    ("{{ plan.items() }}", "only names.person"),
    ("{{ _private }}", "names that begin with `_`"),
    # format-string tricks
    ("{{ '%0300000000d' % 1 }}", "whole numbers only"),
    ("{{ '%0300000000d'|format(1) }}", "no filter 'format'"),
    ("{{ '{:>300000000}'.format(1) }}", "only names.person"),
    ("{{ angle % 1 }}", "whole numbers only"),
    # giant values
    ("{{ 'a' * 10**9 }}", r"`\*` is refused"),
    ("{{ [1] * 1000000000 }}", r"`\*` is refused"),
    ("{{ 9**9**9 }}", r"`\*\*` is refused"),
    ("{{ 99999999999 }}", "a number above"),
    ("{{ angle ~ angle }}", "`~` is refused"),
    ("{{ 7 / 2 }}", "`/` is refused"),
    ("{{ 7 // 2 }}", "`//` is refused"),
    ("{{ angle|center(100000000) }}", "no filter 'center'"),
    ("{{ angle|indent(100000000) }}", "at most 16"),
    ("{{ angle|indent('" + "x" * 17 + "') }}", "at most 16"),
    ("{{ angle|indent(n_items) }}", "plain values"),
    ("{{ angle|replace('a', 'aaaaaaaaaa') }}", "no longer"),
    ("{{ angle|replace('', 'x') }}", "no longer"),
    ("{{ angle|replace('a', angle) }}", "plain values"),
    ("{{ taken|join('" + "x" * 65 + "') }}", "at most 64"),
    ("{{ taken|join(angle) }}", "plain values"),
    ("{{ taken|join(*taken) }}", "plain values"),
    ("{{ angle|truncate(0) }}", "1 character or more"),
    ("{{ angle|wordwrap(1) }}", "no filter 'wordwrap'"),
    ("{{ angle|urlize }}", "no filter 'urlize'"),
    ("{{ angle|pprint }}", "no filter 'pprint'"),
    ("{{ taken|batch(1, angle) }}", "no filter 'batch'"),
    ("{{ taken|random }}", "no filter 'random'"),
    # loops
    ("{% for i in range(201) %}{% endfor %}", "at most 200 times"),
    ("{% for i in range(1000000000) %}x{% endfor %}", "at most 200 times"),
    ("{% for i in range(-1000000, n_items) %}x{% endfor %}", "at most 200 times"),
    ("{% for i in range(brief.n_words) %}x{% endfor %}", "plain number, n_items"),
    ("{% for i in range(0, 9, 0) %}x{% endfor %}", "one or two"),
    ("{% for i in range(*taken) %}x{% endfor %}", "one or two"),
    ("{{ range(3) }}", "stands only behind"),
    ("{% for i in range(9)|sort %}x{% endfor %}", "stands only behind"),
    (
        "{% for i in range(9) %}{% for j in range(9) %}{% for k in range(9) %}{% endfor %}{% endfor %}{% endfor %}",
        "at most 2 deep",
    ),
    (
        "{% for i in range(200) %}{% for j in range(200) %}{{ angle|upper|length }}{% endfor %}{% endfor %}",
        "more than 1,000,000 steps",
    ),
    ("{% for i in range(200) %}{% for j in range(200) %}0123456789x{% endfor %}{% endfor %}", "400,000 characters"),
    ("{% for i in range(200) %}" + "x" * 2001 + "{% endfor %}", "400,000 characters"),
    ("{% for a in plan recursive %}{{ loop(a) }}{% endfor %}", "`recursive` is refused"),
    ("{% for c in angle %}{{ c }}{% endfor %}", "a loop runs over a list; angle is text"),
    ("{% for c in brief.n_words %}{{ c }}{% endfor %}", "is a number"),
    ("{% for c in brief.axes %}{{ c }}{% endfor %}", "is a mapping"),
    ("{% for names in taken %}{% endfor %}", "the name is taken"),
    ("{% for range in taken %}{% endfor %}", "the name is taken"),
    ("{% for angle in taken %}{% endfor %}", "the name is taken"),
    ("{% for a in taken %}{% for a in taken %}{% endfor %}{% endfor %}", "the name is taken"),
    ("{% for a, a in plan %}{% endfor %}", "the name is taken"),
    ("{% for (a, (b, c)) in plan %}{% endfor %}", "plain name"),
    ("{% for a in taken if loop.index > 1 %}{% endfor %}", "before the loop counts"),
    # statements
    ("{% set x = 1 %}", "`set` is refused"),
    ("{% set x %}y{% endset %}", "`set` is refused"),
    ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "`macro` is refused"),
    ("{% call m() %}{% endcall %}", "`call` is refused"),
    ("{% include '/etc/passwd' %}", "`include` is refused"),
    ("{% import 'x' as x %}", "`import` is refused"),
    ("{% from 'x' import y %}", "`import` is refused"),
    ("{% extends 'x' %}", "`extends` is refused"),
    ("{% block x %}{% endblock %}", "`block` is refused"),
    ("{% filter upper %}x{% endfilter %}", "`filter` block is refused"),
    ("{% with a = 1 %}{% endwith %}", "`with` is refused"),
    ("{% autoescape true %}{% endautoescape %}", "`autoescape` is refused"),
    ("{% do 1 %}", "not a template: Encountered unknown tag 'do'"),
    ("{% break %}", "unknown tag 'break'"),
    ("{{ {'a': 1} }}", "mapping in braces"),
    ("{{ angle is filter }}", "no test 'filter'"),
    ("{{ 4 is divisibleby(0) }}", "no test 'divisibleby'"),
    ("{{ +n_items }}", "not part of the template language"),
    ("{{ taken[n_items] }}", "an index is a plain"),
    ("{{ taken[:n_items] }}", "a slice is written"),
    ("{{ 7[:2] }}", "no parts to take"),
    ("{{ (not 'text')[:2] }}", "no parts to take"),
    ("{{ n_items[0] }}", "no parts to take"),
    ("{{ 'text'[0] }}", "no parts to take"),
    # mistakes
    ("{{ anlge }}", "nothing here is called 'anlge'; did you mean 'angle'?"),
    ("{{ brief.axes.tonne }}", "brief.axes has no 'tonne'; did you mean 'tone'?"),
    ("{{ brief.axes['tonne'] }}", "did you mean 'tone'?"),
    ("{{ brief.twin }}", "'twin' is not known here: no twin axis"),
    ("{{ brief.axes }}", "brief.axes is not text"),
    ("{{ taken }}", "a list is not printed"),
    ("{{ taken|sort }}", "a list is not printed"),
    ("{{ 'x' if angle }}", "needs its `else`"),
    ("{{ angle + 1 }}", "adds two numbers or joins two texts"),
    ("{{ angle - 1 }}", "whole numbers only"),
    ("{{ angle|uper }}", "did you mean 'upper'"),
    ("{{ angle", "not a template"),
    ("{% if angle %}", "not a template"),
    ("{{ plan" + ".a" * 60 + " }}", "nested more than 40"),
    ("{% if angle %}" * 60 + "{% endif %}" * 60, "nested more than 40"),
]

# Faults of a whole template, which the parser cannot place.
UNPLACED = [
    ("{{ " + "9" * 5000 + " }}", "not a template"),
    ("{{ " + "(" * 500 + "1" + ")" * 500 + " }}", "nested too deeply"),
    ("{{ " + "-" * 5000 + "1 }}", "nested too deeply"),
    ("x" * (MAX_SOURCE + 1), "at most 100,000"),
]


@pytest.mark.parametrize(("source", "reason"), REFUSED, ids=[source[:50] for source, _ in REFUSED])
def test_what_templates_may_not_say_is_refused_with_its_line(source: str, reason: str) -> None:
    template = Template("first line\n" + source, "g.md", 10)
    with pytest.raises(GenreError, match=rf"^g\.md:11: .*({reason})"):
        template.check(SCOPE)


@pytest.mark.parametrize(("source", "reason"), UNPLACED, ids=[reason for _, reason in UNPLACED])
def test_a_fault_without_a_place_is_that_of_the_first_line(source: str, reason: str) -> None:
    with pytest.raises(GenreError, match=rf"^g\.md:10: .*{reason}"):
        Template(source, "g.md", 10).check(SCOPE)


STILL_REFUSED_UNCHECKED = [
    source
    for source, reason in REFUSED
    if not re.search("did you mean '(angle|tone)'|not text|not known|a list is not|is text|is a|two numbers", reason)
    and source
    not in ("{{ names.person(angle) }}", "{{ angle % 1 }}", "{{ angle - 1 }}", "{% for angle in taken %}{% endfor %}")
]


@pytest.mark.parametrize("source", STILL_REFUSED_UNCHECKED, ids=[source[:50] for source in STILL_REFUSED_UNCHECKED])
def test_rendering_refuses_what_no_check_has_seen(source: str) -> None:
    with pytest.raises(GenreError):
        Template(source).render(CONTEXT)


@pytest.mark.parametrize(
    ("source", "context", "reason"),
    [
        ("{{ plan.goals }}", CONTEXT, "has no attribute 'goals'"),
        ("{{ plan.none }}", CONTEXT, "a NoneType is not printed"),
        ("{{ plan.goal.upper }}", CONTEXT, "has no attribute 'upper'"),
        ("{{ plan.goal % 2 }}", CONTEXT, "`%` of str and int"),
        ("{{ plan.goal + plan.level }}", CONTEXT, r"`\+` of str and int"),
        ("{{ plan.goal > 1 }}", CONTEXT, "not supported between"),
        ("{{ (none|default(7))[:2] }}", CONTEXT, "not subscriptable"),
        ("{{ plan.level % 0 }}", CONTEXT, "modulo by zero"),
        ("{{ plan.goal|join('x') }}", CONTEXT, "filter 'join': works on a list"),
        ("{{ plan.level|upper }}", CONTEXT, "filter 'upper': works on text"),
        ("{{ plan.nothing|upper }}", CONTEXT, "has no attribute 'nothing'"),
        ("{% for c in plan.goal %}{% endfor %}", CONTEXT, "runs over a list"),
        ("{% for c in plan.nothing %}{% endfor %}", CONTEXT, "has no attribute 'nothing'"),
        ("{% for c in taken %}{% endfor %}", {"taken": ["x"] * 201}, "201 values; at most 200"),
        ("{% for a, b in plan %}{% endfor %}", {"plan": ["xyz"]}, "unpack"),
        ("{% for i in range(n_items) %}{% endfor %}", {"n_items": 10**9}, "1,000,000,000 values"),
        ("{{ angle }}", {}, "'angle' is undefined"),
    ],
)
def test_values_that_do_not_fit_name_the_line(source: str, context: Mapping[str, Any], reason: str) -> None:
    template = Template("one\ntwo {{ 1 }}\n" + source, "g.md", 5)
    template.check(SCOPE)
    with pytest.raises(GenreError, match=rf"^g\.md:7: cannot be filled in: .*{reason}"):
        template.render(context)


def test_a_value_that_multiplies_is_stopped_while_it_grows() -> None:
    source = "{% for i in range(200) %}{% for j in range(200) %}{{ angle }}{% endfor %}{% endfor %}"
    with pytest.raises(GenreError, match="grows beyond 500,000 characters"):
        rendered(source, {"angle": "x" * 100_000})


def test_a_long_value_may_stand_once() -> None:
    text = "x" * 3_000_000
    assert rendered("{{ angle }}!", {"angle": text}) == text + "!"


def test_chained_filters_stop_at_a_bound() -> None:
    with pytest.raises(GenreError, match="filter 'tojson' made a text of more than 4,000,000"):
        rendered("{{ angle" + "|tojson" * 38 + " }}", {"angle": '"' * 100})


def test_data_cannot_reach_attributes_of_python() -> None:
    context = {"plan": {"a": "b"}}
    for name in ("keys", "items", "pop", "update"):
        with pytest.raises(GenreError, match="has no attribute"):
            Template("{{ plan." + name + " }}").render(context)


def test_templates_leave_their_data_as_it_is() -> None:
    context = {"taken": ["b", "a"], "angle": "x"}
    Template("{{ taken|sort|reverse|unique|join }}").render(context)
    assert context == {"taken": ["b", "a"], "angle": "x"}


def test_a_template_is_its_source() -> None:
    template = Template("{{ angle }} {% if angle %}x{% endif %}", "g.md", 7)
    template.render(CONTEXT)
    again = pickle.loads(pickle.dumps(template))
    assert again == template
    assert hash(again) == hash(template)
    assert again.render(CONTEXT) == template.render(CONTEXT)


def test_mentions_count_only_what_is_sent() -> None:
    Template("Write between <document> and </document>.").check({}, mentions=["<document>"])
    for source in ("Write it.", "{# <document> #}", "{{ '<document>' }}", "<documents>", "< document>"):
        with pytest.raises(GenreError, match="never mentions <document>"):
            Template(source).check({}, mentions=["<document>"])
