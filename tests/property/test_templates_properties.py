"""Templates: whatever passes the check compiles, ends, stays within its bound and depends on nothing else."""

from __future__ import annotations

import pickle
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from sdf.errors import GenreError
from sdf.genres.template_filters import FILTERS
from sdf.genres.template_rules import MAX_CHARS, TESTS
from sdf.genres.templates import Template

CONTEXT: dict[str, Any] = {
    "angle": "a lighthouse\nby the sea",
    "taken": ["one", "two"],
    "plan": {"goal": "x", "steps": [1, "two", None, {"deep": ["er"]}]},
    "n_items": 3,
}

ATOMS = ["angle", "taken", "plan", "plan.goal", "plan.steps", "n_items", "'text'", "7", "0", "none", "true", "[1, 2]"]
ARGUMENTS = ["", "(2)", "('a')", "('aa', 'b')", "('-', first=true)", "(0)"]
OPERATORS = ["+", "-", "%", "==", "<", ">=", "in", "not in", "and", "or", "*", "~", "/", "**"]


def _wider(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    filters = st.sampled_from(sorted(FILTERS))
    return st.one_of(
        st.builds("({} {} {})".format, inner, st.sampled_from(OPERATORS), inner),
        st.builds("({})|{}{}".format, inner, filters, st.sampled_from(ARGUMENTS)),
        st.builds("({} is {})".format, inner, st.sampled_from(TESTS)),
        st.builds("({} if {} else {})".format, inner, inner, inner),
        st.builds("({}){}".format, inner, st.sampled_from(["[0]", "[-1]", "[:2]", "['goal']", ".goal", ".__class__"])),
        st.builds("not ({})".format, inner),
        st.builds("-({})".format, inner),
        st.builds("[{}, {}]".format, inner, inner),
    )


EXPRESSIONS = st.recursive(st.sampled_from(ATOMS), _wider, max_leaves=8)


def _bodies(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        st.builds("{{% if {} %}}{}{{% else %}}{}{{% endif %}}".format, EXPRESSIONS, inner, inner),
        st.builds("{{% for a in {} %}}{}{{{{ loop.index }}}}{{% endfor %}}".format, EXPRESSIONS, inner),
        st.builds("{{% for b in range({}) %}}{}{{% endfor %}}".format, st.sampled_from(["3", "n_items", "200"]), inner),
        st.builds("{}\n{}".format, inner, inner),
    )


PLAIN = st.text(alphabet="ab {}%#<>\n-", max_size=12)
TEMPLATES = st.recursive(PLAIN | st.builds("{{{{ {} }}}}".format, EXPRESSIONS), _bodies, max_leaves=6)


def outcome(template: Template) -> str:
    try:
        return template.render(CONTEXT)
    except GenreError as error:
        return f"! {error}"


@settings(deadline=None, max_examples=150)
@given(TEMPLATES)
def test_a_template_is_refused_or_renders_within_bounds_or_names_its_line(source: str) -> None:
    template = Template(source, "g.md", 3)
    try:
        template.check(None)
    except GenreError as error:
        assert str(error).startswith("g.md:")
        assert outcome(template) == f"! {error}"
        return
    text = outcome(template)
    assert len(text) <= MAX_CHARS + 1000
    assert not text.startswith("! ") or text.startswith("! g.md:")
    assert outcome(pickle.loads(pickle.dumps(template))) == text


@settings(deadline=None, max_examples=150)
@given(st.text(alphabet="{}%|()[].'\"abn_ =+-*~,#\n", max_size=60))
def test_noise_is_a_template_or_an_error(source: str) -> None:
    outcome(Template(source))


@given(st.text(), st.text())
def test_values_are_text_and_never_templates(angle: str, goal: str) -> None:
    rendered = Template("{{ angle }}|{{ plan.goal }}").render({"angle": angle, "plan": {"goal": goal}})
    assert rendered == f"{angle}|{goal}"


@given(st.text())
def test_text_without_braces_is_sent_as_it_stands(text: str) -> None:
    plain = text.replace("{", "").replace("\r", "")
    expected = plain[:-1] if plain.endswith("\n") else plain
    assert Template(plain).render({}) == expected
