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

"""Chat templates: rendered as transformers renders them, and stopped where they do not end."""

import pytest
from jinja2 import TemplateError

from nemo_speechllm.prompts.chat_template import EndlessTemplateError, render_chat

MESSAGES = [
    {"role": "system", "content": "Be brief. "},
    {"role": "user", "content": "  Wie spät ist es?\n"},
    {"role": "assistant", "content": "</think>Spät."},
    {"role": "user", "content": "'\"<&>"},
]
REAL_TEMPLATES = {
    "llama": "{% for message in messages %}{% if loop.first and message.role == 'system' %}"
    "{{ bos_token ~ '[INST]' }}{% endif %}{{ loop.index0 }}/{{ loop.length }}{{ message['content'] | trim + '\n' }}"
    "{% if loop.last %}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}",
    "qwen": "{%- set ns = namespace(multi_step=true, last=messages|length - 1) %}\n"
    "{%- for message in messages[::-1] %}\n    {%- set index = (messages|length - 1) - loop.index0 %}\n"
    "{%- if ns.multi_step and message.role == 'user' %}{%- set ns.multi_step = false %}"
    "{%- set ns.last = index %}{%- endif %}{%- endfor %}{%- for message in messages %}"
    "{%- if '</think>' in message.content %}{{- message.content.split('</think>')[-1].lstrip('\n') }}{%- else %}"
    "{{- '<|im_start|>' + message.role }}{%- endif %}{%- endfor %}",
    "tools": "{% macro show(message, indent=2) %}{{ message | tojson(indent=indent) }}{% endmacro %}"
    "{% for m in messages if m.role != 'system' %}{{ show(m) }}{% if not loop.last %}{{ ', ' }}{% endif %}{% endfor %}"
    "{{ tools is none }}{{ messages | map(attribute='role') | join('|') }}",
    "generation": "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}"
    "{% endgeneration %}{% else %}{{ '%s: %s' % (m.role, m.content) }}{{ '{}'.format(m.role) }}{% endif %}"
    '{{ \'{{{0}: {{}}}}\'.format(1) }}{{ \'{"a": {"b": %s}}\' % 1 }}{{ \'{"a": {"b": %s}}\' | format(1) }}'
    "{% if loop.index > 2 %}{% break %}{% endif %}{% endfor %}",
    "dict": "{% set roles = {'user': 'U', 'assistant': 'A'} %}{% for m in messages %}{% if m.role in roles %}"
    "{{ roles[m.role] * 2 }}{{ m.get('name', 'nobody') }}{{ m.content.replace('a', 'b') | upper }}{% endif %}"
    "{% endfor %}{{ range(3) | list }}{{ [1, 2] + [3] }}",
}
ENDLESS = {
    "nested loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}"
    + "{% endfor %}" * 3,
    "a loop that prints": "{% for a in range(99999) %}" + "x" * 10**5 + "{% endfor %}",
    "recursive macro": "{% macro f(n) %}{{ f(n - 1) }}{% endmacro %}{{ f(1) }}",
    "branching macro": "{% macro f(n) %}{% if n %}{{ f(n - 1) ~ f(n - 1) }}{% endif %}{% endmacro %}{{ f(99) }}",
    "recursive loop": "{% for a in [1] recursive %}{{ loop([1]) }}{% endfor %}",
    "long text": "{{ 'a' * 10 ** 11 }}",
    "long list": "{{ ([1] * 10 ** 11) | length }}",
    "number": "{{ 9 ** (9 ** 9) }}",
    "squares": "{% set ns = namespace(n=9) %}{% for i in range(99) %}{% set ns.n = ns.n * ns.n %}{% endfor %}",
    "doubled by ~": "{% set ns = namespace(s='a') %}{% for i in range(99) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
    "doubled by +": "{% set ns = namespace(s=[1]) %}{% for i in range(99) %}{% set ns.s = ns.s + ns.s %}{% endfor %}",
    "doubled lists": "{% set ns = namespace(s=[1]) %}{% for i in range(99) %}{% set ns.s = [ns.s, ns.s] %}{% endfor %}"
    "{{ ns.s }}",
    "doubled blocks": "{% set x %}ab{% endset %}" + "{% set x %}{{ x }}{{ x }}{% endset %}" * 60,
    "method": "{{ 'a'.ljust(10 ** 11) }}",
    "filter": "{{ 'a' | center(10 ** 11) }}",
    "format": "{{ '%99999999999d' % 1 }}",
    "format method": "{{ '{:>{width}}'.format(1, width=10 ** 11) }}",
    "replace": "{{ ('a' * 9999).replace('a', 'a' * 9999) | length }}",
    "join": "{{ range(99999) | join('a' * 9999) | length }}",
    "range": "{{ range(10 ** 9) | list }}",
    "long source": "x" * 10**6,
    **{
        f"{work} in a loop": "{% set s = 'ab' * 99999 %}{% set t = 'ab' * 99999 %}{% for i in range(99999) %}"
        "{% set x = " + work + " %}{% endfor %}"
        for work in (
            "range(99999) | sum",
            "range(99999) | max",
            "range(99999) | map('abs') | sum",
            "range(99999) | select('odd') | sum",
            "0.5 in range(99999)",
            "0.5 is in(range(99999))",
            "range(99999).count(0.5)",
            "s == t",
            "s > t",
            "'c' in s",
            "s is eq(t)",
            "s[1:]",
            "s[::-1] | length",
            "s.count('c')",
            "s.find('c')",
            "s | wordcount",
            "s | upper | length",
            "loop.changed(s ~ i)",
        )
    },
    "nested width": "{{ '{0:{1}}'.format(1, '9' * 9) }}",
    "width of two": "{{ '{0:{1}{1}}'.format(1, '99999') }}",
    "bytes": "{{ 'a'.encode().ljust(10 ** 9) }}",
    "bytes of a number": "{{ (1).to_bytes(10 ** 9) }}",
    "wide": "{{ 'a' | center(1000000000) }}",
    "zeros": "{{ '1'.zfill(1000000000) }}",
    "indent": "{{ '\n' | indent(1000000000) }}",
    "batch": "{{ [1] | batch(1000000000, 'x') | list }}",
    "precision": "{{ '%.999999999f' % 1 }}{{ '{:.999999999f}'.format(1) }}",
}


@pytest.mark.parametrize("template", REAL_TEMPLATES.values(), ids=REAL_TEMPLATES)
@pytest.mark.parametrize("asked", [True, False])
def test_a_template_is_rendered_as_transformers_renders_it(tokenizer, template, asked):
    expected = tokenizer.apply_chat_template(
        MESSAGES, chat_template=template, tokenize=False, add_generation_prompt=asked
    )
    assert render_chat(template, MESSAGES, add_generation_prompt=asked, **tokenizer.special_tokens_map) == expected


def test_a_real_model_s_template(tokenizer):
    expected = tokenizer.apply_chat_template(MESSAGES, tokenize=False, add_generation_prompt=True)
    assert render_chat(tokenizer.chat_template, MESSAGES, add_generation_prompt=True) == expected


@pytest.mark.timeout(60)
@pytest.mark.parametrize("template", ENDLESS.values(), ids=ENDLESS)
def test_a_template_that_does_not_end_is_stopped(template):
    with pytest.raises(EndlessTemplateError, match="model.prompt.chat_template"):
        render_chat(template, MESSAGES)


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__ }}{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ cycler.__init__.__globals__.os }}",
        "{% include '/etc/passwd' %}",
        "{{ messages.append(1) }}",
        "{{ raise_exception('no system role') }}",
    ],
)
def test_a_template_reaches_nothing(template):
    with pytest.raises((TemplateError, TypeError)):
        render_chat(template, MESSAGES)


def test_a_long_conversation_is_within_the_budget(tokenizer):
    messages = [{"role": ("user", "assistant")[i % 2], "content": "word " * 500} for i in range(200)]
    assert len(render_chat(tokenizer.chat_template, messages)) > 200 * 2500
