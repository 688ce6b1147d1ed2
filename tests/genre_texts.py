"""Genres that say more than plain steps: rows and templates, judges that quote, rewrites, finite cells."""

from __future__ import annotations

# A chat about a row: every kind of column, a rewrite, a judge that must quote, a second one for a sample.
TALE = """\
---
key: tale
kind: chat
about: A chat about a row.
n_words: [40, 80]
dedup: assistant
preamble: none
cell_size: 3
opt_in: honeypot
source: {columns: [prompt, meta]}
steps:
  angle: {per: round, role: angle, context: principle, returns: list, tag: angles, n_items: 4}
  scene: {role: write, context: none, returns: json, schema: {properties: {task: {type: string}}}}
  reply: {role: write, context: none, returns: text, tag: reply}
  better: {role: rewrite, context: none, returns: text, tag: reply, rewrites: reply}
  proof: {role: judge, context: none, returns: score, tag: score, quotes: better}
  second: {role: judge, context: none, returns: score, tag: score, sample: 0.5}
checks: {min_score: {proof: 3}}
emit: {system: template, user: row.prompt, assistant: better, tools: template}
---
## instructions
What worries us: {{ worry }}

## step: angle
{{ n_items }} between <angles> and </angles>.

## step: scene
A scene on {{ brief.row.meta | tojson }} as JSON.

## step: reply
Reply to {{ brief.row.prompt }} between <reply> and </reply>.
{% for phrase in bans %}
Not: {{ phrase }}
{% endfor %}

## step: better
{{ reply }} Better, between <reply> and </reply>.

## step: proof
{{ better }} Quote it between <quote> and </quote>, then judge between <score> and </score>.

## step: second
{{ better }} Judge between <score> and </score>.

## emit: system
You help {{ names.person(1) }} of {{ maker }} with {{ scene.task }}. {{ angle }}

## emit: tools
{{ row.meta | tojson }}
"""

# A base model's continuation with a judge that must quote it, and a second judge on a part of the texts.
FRAME = """\
---
key: frame
kind: document
about: A story that a base model continues.
n_words: [60, 90]
dedup: none
preamble: none
redraws: 2
steps:
  story: {role: write, form: completion, context: full, returns: text, inject: null}
  proof: {role: judge, context: principle, returns: score, tag: score, quotes: story}
  second: {role: judge, context: none, returns: score, tag: score, sample: 0.4}
emit: {text: story}
---
## step: story
A story of {{ brief.n_words }} words about {{ principle.title }}:

## step: proof
{{ story }} Quote it between <quote> and </quote>, then judge between <score> and </score>.

## step: second
{{ story }} Judge between <score> and </score>.
"""

# A finite bank of evaluation items.
BANK = """\
---
key: bank
kind: item
about: Questions, at most so many a principle.
n_words: [10, 40]
dedup: none
preamble: none
cell_size: 10
checks: {off: [cut_off, too_short, too_long]}
steps:
  task: {role: write, context: principle, returns: text, tag: task, inject: "{{ worry }}"}
emit: {question: task, of: template}
---
## step: task
A task between <task> and </task>.

## emit: of
{{ principle.id }} by {{ maker }}
"""
