"""Makes tests/golden/templates.json: what jinja2 makes of chat templates, set up as Hugging Face
transformers sets it up. All templates are of our own; FAMILIES write and place white space as
families of models do.

    make_templates.py        (needs jinja2 3.1)

CASES are rendered with VARIABLES. null stands for a template that jinja2 refuses. What jinja2 takes
and ours refuses by design (sets of several names, raw, lists that are printed) is in OUTSIDE.
tests/e2e/check_templates.py renders other templates by the same functions.
"""

import datetime
import json
import pathlib

DATE = "2026-07-04"
VARIABLES = {
    "m": [{"role": "user", "content": "a"}, {"role": "bot", "content": "b"}],
    "n": 0,
    "d": {"y": 1, "x": "two"},
}
CASES = [
    "{{ 'a' ~ 1 ~ none ~ true ~ missing }}|",
    "{{ 1 + 2 * 3 - 4 // 3 % 2 }} {{ -7 // 2 }} {{ -7 % 3 }} {{ 7 % -3 }}",
    "{{ 'a' + 'b' 'c' }} {{ \"it's\" }} {{ 'a\\n\\t\\\\\\'\\x41\\u00e9\\q' }}",
    (
        "{{ 1 == 1.0 }} {{ true == 1 }} {{ 'a' < 'b' }} {{ 1 < 2 < 3 }} {{ 1 < 3 < 2 }} {{ "
        "'é' > 'z' }}"
    ),
    (
        "{{ 'b' in 'abc' }} {{ 'role' in m[0] }} {{ 3 in [1, 2] }} {{ 3 not in (1, 2) }} {{ "
        "not 'x' in 'y' }}"
    ),
    "{{ 1 if true else 2 }}{{ 1 if false }}{{ 'a' if m else 'b' if n else 'c' }}",
    "{{ true and 'x' or 'y' }} {{ false or 0 or 'z' }} {{ not true and false }} {{ none and 1 }}",
    (
        "{{ m[0].role }} {{ m[0]['content'] }} {{ m[-1].role }} {{ m[9] is defined }} {{ "
        "m[0].nothing }}|"
    ),
    "{{ m[0].nothing.deeper }}",
    "{{ missing.x }}",
    "{{ missing[0] }}",
    (
        "{{ 'hello'[1] }}{{ 'hello'[-1] }}{{ 'hello'[9] }}|{{ 'héllo'[1:3] }}|{{ "
        "'hello'[:-2] }}|{{ 'hello'[::-1] }}|{{ 'hello'[1::2] }}|{{ 'hello'[-3:] }}"
    ),
    (
        "{% for x in [1, 2, 3, 4, 5][1:4] %}{{ x }}{% endfor %} {% for x in [1, 2, 3][::-1] "
        "%}{{ x }}{% endfor %} {% for x in [1, 2, 3][5:] %}{{ x }}{% else %}none{% endfor %}"
    ),
    (
        "{{ m | length }} {{ 'héé' | length }} {{ {'a': 1} | length }} {{ missing | length }}"
        " {{ m | count }}"
    ),
    "{{ none | length }}",
    (
        "{{ '  a b ' | trim }}|{{ 'xxaxx' | trim('x') }}|{{ ' a '.strip() }}|{{ ' a "
        "'.lstrip() }}|{{ ' a '.rstrip() }}|{{ 'aabaa'.lstrip('a') }}|{{ "
        "'\\u00a0\\u3000a\\u2003' | trim }}|{{ 5 | trim }}{{ none | trim }}"
    ),
    (
        "{{ 'aBc é ß' | lower }} {{ 'abc é' | upper }} {{ 'hELLO wORLD' | capitalize }} {{ "
        "\"they're o'neil-x2y\".title() }} {{ 'éA'.capitalize() }}"
    ),
    (
        "{{ 'a-b-c'.split('-') | join('+') }} {{ ' a  b c '.split() | join('|') }} {{ "
        "'a-b-c'.split('-', 1) | join('+') }} {{ ' a  b c '.split(none, 1) | join('|') }} {{ "
        "''.split() | length }} {{ ''.split(',') | length }}"
    ),
    (
        "{{ 'a,b'.split(',')[-1] }} {{ 'x</think>y'.split('</think>')[-1].lstrip('\\n') }} "
        "{{ 'a'.split('') }}"
    ),
    (
        "{{ 'banana'.replace('an', 'AN') }} {{ 'aaa' | replace('a', 'aa') }} {{ "
        "'abc'.startswith('ab') }} {{ 'abc'.endswith('bc') }} {{ 'abc'.startswith(('x', "
        "'a')) }} {{ 'abc'.endswith('abcd') }}"
    ),
    (
        "{{ ', '.join(['a', 'b']) }} {{ [1, 'b', true, none] | join('-') }} {{ [] | join }} "
        "{{ 'abc' | join(',') }}"
    ),
    "{{ [1, [2, {'a': none, 'b': true}], 'x\"\\n\\u0001\\\\é/'] | tojson }}",
    (
        "{{ {'a': [1, 2], 'b': {}, 'c': []} | tojson(indent=2) }} {{ [] | tojson(indent=4) }}"
        " {{ 'x' | tojson }} {{ none | tojson }}"
    ),
    "{{ missing | tojson }}",
    (
        "{{ missing | default('d') }} {{ '' | default('d') }}| {{ '' | default('d', true) }} "
        "{{ none | default('d') }} {{ none | d('x', boolean=true) }} {{ missing | default }}|"
    ),
    "{{ m | first | tojson }} {{ (m | last).role }} {{ [] | first is defined }} {{ 'abc' | last }}",
    (
        "{{ m | map(attribute='role') | join(',') }} {{ ['a', 'b'] | map('upper') | join }} "
        "{{ m | selectattr('role', 'equalto', 'user') | list | length }} {{ m | "
        "rejectattr('role', '==', 'user') | map(attribute='content') | list | tojson }} {{ "
        "[0, 1, 2] | select | list | tojson }} {{ [1, 2] | reject('equalto', 1) | list | "
        "tojson }} {{ m | selectattr('tool', 'defined') | list | length }}"
    ),
    (
        "{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %} {% for k, v in d | items %}"
        "{{ k }}{% endfor %} {% for k in d %}{{ k }}{% endfor %} {% for k, v in d | dictsort "
        "%}{{ k }}{% endfor %} {{ d.keys() | list | tojson }} {{ d.values() | list | tojson }"
        "} {{ d.get('y') }} {{ d.get('q', 'no') }} {{ d.get('q') }}"
    ),
    (
        "{{ 3 is number }} {{ true is number }} {{ 3.5 is float }} {{ 3 is integer }} {{ 's' "
        "is string }} {{ d is mapping }} {{ m is sequence }} {{ m is iterable }} {{ 'x' is "
        "iterable }} {{ 3 is iterable }} {{ none is none }} {{ missing is none }} {{ true is "
        "true }} {{ 1 is true }} {{ false is false }} {{ true is boolean }} {{ missing is "
        "undefined }} {{ missing is iterable }} {{ range is callable }}"
    ),
    (
        "{{ 3 is odd }} {{ 4 is even }} {{ 3 is not even }} {{ 'a' is in ['a'] }} {{ 1 is eq "
        "1 }} {{ 1 is ne(2) }} {{ m is not string and m is iterable }} {{ not m is string }}"
    ),
    "{{ x is defined }} {% set x = 1 %}{{ x is defined }} {% set x = x + 1 %}{{ x }}",
    "{% set x = 0 %}{% for i in [1, 2, 3] %}{% set x = x + i %}{{ x }} {% endfor %}{{ x }}",
    "{% set x = 0 %}{% if true %}{% set x = 5 %}{% endif %}{{ x }}",
    "{% for i in [1] %}{% if true %}{% set y = 5 %}{% endif %}{{ y }}{% endfor %}{{ y }}|",
    (
        "{% set ns = namespace(x=0, seen=false) %}{% for i in [1, 2, 3] %}{% set ns.x = ns.x "
        "+ i %}{% set ns.seen = true %}{% endfor %}{{ ns.x }}{{ ns.seen }}{{ ns.other is "
        "defined }}{% set ns.other = 'o' %}{{ ns.other }}"
    ),
    "{% set d.x = 1 %}",
    (
        "{% for i in [1, 2, 3] %}{{ loop.index }}{{ loop.index0 }}{{ loop.first }}{{ "
        "loop.last }}{{ loop.length }}{{ loop.revindex }}{{ loop.revindex0 }}{{ "
        "loop.previtem }}{{ loop.nextitem is defined }};{% endfor %}"
    ),
    (
        "{% for i in [1, 2] %}{% for j in [3, 4] %}{{ loop.index }}{% endfor %}{{ loop.index "
        "}}{% endfor %}{{ loop is defined }}"
    ),
    (
        "{% for i in [1, 2, 3, 4] if i % 2 == 0 %}{{ i }}{{ loop.length }}{% endfor %} {% "
        "for i in [1] if i > 1 %}x{% else %}empty{% endfor %} {% for i in missing %}x{% else "
        "%}none{% endfor %}"
    ),
    "{% for i in none %}x{% endfor %}",
    (
        "{% for i in 'héy' %}{{ i }}.{% endfor %} {% for i in range(3) %}{{ i }}{% endfor %} "
        "{% for i in range(1, 6, 2) %}{{ i }}{% endfor %} {% for i in range(3, 0, -1) %}{{ i "
        "}}{% endfor %}"
    ),
    (
        "{% for i in [1, 2, 3, 4] %}{% if i == 2 %}{% continue %}{% endif %}{% if i == 4 %}"
        "{% break %}{% endif %}{{ i }}{% endfor %}"
    ),
    (
        "{% for a, b in [[1, 2], [3, 4]] %}{{ a }}{{ b }}{% endfor %}{% for i in [1, 2] %}{% "
        "for j in [1, 2] %}{% if j == 2 %}{% break %}{% endif %}{{ i }}{{ j }}{% endfor %}"
        "-{% endfor %}"
    ),
    (
        "{% macro f(a, b='B', c=none) %}[{{ a }}{{ b }}{{ c }}]{% endmacro %}{{ f(1) }}{{ "
        "f(1, 2) }}{{ f(c=3, a=1) }}{{ f('x') | length }}{% set g = f(0) + '!' %}{{ g }}"
    ),
    "{% macro f(n) %}{{ n }}{% if n > 0 %}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(3) }}",
    (
        "{% set v = 'out' %}{% macro f() %}{{ v }}{% set v2 = 1 %}{% endmacro %}{{ f() }}{{ "
        "v2 is defined }}{% set v = 'later' %}{{ f() }}"
    ),
    "{% macro f(a) %}{{ a }}{% endmacro %}{{ f(1, 2) }}",
    "{% macro f(a) %}{{ a }}{% endmacro %}{{ f(z=2) }}",
    "{% set x %}a{{ 1 }}b{% endset %}{{ x | upper }}",
    "{% generation %}{% set y = 1 %}in{% endgeneration %}{{ y is defined }}",
    "{{ raise_exception('no') }}",
    (
        "{% if missing %}x{% elif m %}y{% else %}z{% endif %}{% if none %}a{% elif 0 %}b{% "
        "elif '' %}c{% elif [] %}d{% elif {} %}e{% else %}f{% endif %}"
    ),
    "{{ strftime_now('%d %b %Y') }} {{ strftime_now('%Y-%m-%d %A %j') }}",
    (
        "{{ [1, 2] + [3] == [1, 2, 3] }} {{ {'a': [1]} == {'a': [1]} }} {{ none == missing }}"
        " {{ missing == other }}"
    ),
    "{{ 'a' + 1 }}",
    "{{ 'a' < 1 }}",
    "{{ m.length }}|{{ 'abc'.nothing }}|{{ none.x }}|{{ 5['a'] }}|",
    "{{ unknown_function() }}",
    "{{ 'a'.unknown() }}",
    "{{ 'a' | unknown }}",
    "{{ 'a' is unknown }}",
    (
        "{{ (1, 2)[1] }} {{ (1) }} {{ [1, 2,] | length }} {{ {'a': 1, 'b': 2,}['b'] }} {{ {} "
        "| length }} {{ () | length }} {{ (1,) | length }}"
    ),
    "{{ -'3' | int }}",
    "{{ -3 | string ~ '!' }} {{ '12' | int + 1 }} {{ 'x' | int }} {{ 'x' | int(7) }}",
    "{{ 4 / 2 == 2 }} {{ 1 / 0 }}",
    "{{ '}}' }}{{ '%}' }}{{ {'a': {'b': 1}}['a']['b'] }}{{ \"{{ x }}\" }}",
    "  {% if true %}\n  a\n  {% endif %}\nb\n",
    "x {% if true %} a {% endif %} y\n",
    "  {%- if true -%}\n  a\n  {%- endif -%}\n  b",
    "\n\n{{- 'a' -}}\n\n b \n{{ 'c' }}\n\nd\n\n",
    "a\n  {# note #}\nb\n  {#- note -#}\n c",
    "  {%+ if true %} a{%+ endif +%}\nb",
    "{% if true +%}\n a{% endif %}\n\n",
    "a  {% set x = 1 %}  b{% set y = 2 %}\n{% set z = 3 %}\nc",
    "\t{% for i in [1, 2] %}\n\t- {{ i }}\n\t{% endfor %}\nend",
    "a\r\nb\r{% if true %}\r\nc{% endif %}\r\n",
    "{{ 1 }}\n{{ 2 }}\n",
    (
        "{%- for m in m %}\n    {%- if not loop.first %}{{ ' ' }}{% endif -%}\n    {{ m.role "
        "}}\n{%- endfor %}\n"
    ),
    "",
    "\n",
    "plain",
    "{#- #}x{# a\nb #}\ny",
    "{ {% if true %}%{% endif %} } {",
    "{{'a'}}{%if true%}b{%endif%}",
    "{% if true %}a{% else %}b{% endif %}{% if x is defined and x %}y{% endif %}\n  z",
    "  {{ 1 }}  {%- set x = 1 %}  {{ x -}}  .",
    "{% include 'x' %}",
    "{% if true %}",
    "{% endif %}",
    "{{ 1",
    "{{ 'a }}",
    "{# a",
    "{{ 1 2 }}",
    "{% for x %}{% endfor %}",
    "{{ }}",
    "{% set x = %}",
    "{{ a.1b }}",
    "{{ a | }}",
    "{% if 1 %}{% endfor %}",
    "{{ [1 }}",
    "{{ $ }}",
]
OUTSIDE = [
    "{% set x, y = 1, 2 %}",
    "{{ 1_000 }}",
    "a{% raw %}{{ x }}{% endraw %}",
    "{{ [1] }}",
    "{{ {} }}",
    "{{ 1.5 }}",
    "{{ 1.5 | tojson }}",
    "{{ 'a' * 3 }}",
    "{{ '%s' % 1 }}",
    "{{ 2 ** 3 }}",
    "{% macro f() %}{{ caller() }}{% endmacro %}{% call f() %}x{% endcall %}",
    "{{ f(*[1]) }}",
    "{{ [3, 1] | sort | join }}",
    "{% filter upper %}a{% endfilter %}",
]
FAMILIES = {
    "chatml": (
        "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n"
        "' + m['content'] + '<|im_end|>\n"
        "' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n"
        "' }}{% endif %}"
    ),
    "brackets": (
        "{{- bos_token }}\n"
        "{%- if messages[0]['role'] == 'system' %}\n"
        "    {%- set note = '<<SYS>>\\n' + messages[0]['content'] + '\\n<</SYS>>\\n\\n' %}\n"
        "    {%- set turns = messages[1:] %}\n"
        "{%- else %}\n"
        "    {%- set note = '' %}\n"
        "    {%- set turns = messages %}\n"
        "{%- endif %}\n"
        "{%- for turn in turns %}\n"
        "    {%- if (turn.role == 'user') != (loop.index0 % 2 == 0) %}\n"
        "        {{- raise_exception('Roles must alternate: user, assistant, ...') }}\n"
        "    {%- endif %}\n"
        "    {%- if turn.role == 'user' %}\n"
        "        {{- '[INST] ' + (note if loop.first else '') + turn.content.strip() + ' "
        "[/INST]' }}\n"
        "    {%- else %}\n"
        "        {{- ' ' + turn.content | trim + ' ' + eos_token }}\n"
        "    {%- endif %}\n"
        "{%- endfor %}\n"
    ),
    "headers": (
        "{{ bos_token }}{% if date_string is not defined %}\n"
        "    {% if strftime_now is defined %}\n"
        "        {% set date_string = strftime_now('%d %b %Y') %}\n"
        "    {% else %}\n"
        "        {% set date_string = '01 Jan 2024' %}\n"
        "    {% endif %}\n"
        "{% endif %}\n"
        "{% if messages[0].role == 'system' %}{% set system = messages[0].content | trim "
        "%}{% set messages = messages[1:] %}{% else %}{% set system = '' %}{% endif %}\n"
        "<|start|>system<|end|>\n"
        "\n"
        "Today: {{ date_string }}\n"
        "\n"
        "{{ system }}<|stop|>\n"
        "{%- for message in messages %}\n"
        "{{- '<|start|>' + message['role'] + '<|end|>\\n\\n' + message['content'] | trim "
        "+ '<|stop|>' }}\n"
        "{%- endfor %}\n"
        "{%- if add_generation_prompt %}\n"
        "{{- '<|start|>assistant<|end|>\\n\\n' }}\n"
        "{%- endif %}\n"
    ),
    "tags": (
        "{% for message in messages %}\n"
        "{% if message['role'] == 'user' %}\n"
        "{{ '<|user|>\n"
        "' + message['content'] + eos_token }}\n"
        "{% elif message['role'] == 'system' %}\n"
        "{{ '<|system|>\n"
        "' + message['content'] + eos_token }}\n"
        "{% elif message['role'] == 'assistant' %}\n"
        "{{ '<|assistant|>\n"
        "'  + message['content'] + eos_token }}\n"
        "{% endif %}\n"
        "{% if loop.last and add_generation_prompt %}\n"
        "{{ '<|assistant|>' }}\n"
        "{% endif %}\n"
        "{% endfor %}"
    ),
    "turns": (
        "{{ bos_token }}\n"
        "{%- if messages[0]['role'] == 'system' -%}\n"
        "    {%- if messages[0]['content'] is string -%}\n"
        "        {%- set lead = messages[0]['content'] + '\n"
        "\n"
        "' -%}\n"
        "    {%- else -%}\n"
        "        {%- set lead = messages[0]['content'][0]['text'] + '\n"
        "\n"
        "' -%}\n"
        "    {%- endif -%}\n"
        "    {%- set rest = messages[1:] -%}\n"
        "{%- else -%}\n"
        "    {%- set lead = '' -%}\n"
        "    {%- set rest = messages -%}\n"
        "{%- endif -%}\n"
        "{%- for message in rest -%}\n"
        "    {%- set role = 'model' if message['role'] == 'assistant' else message['role'] -%}\n"
        "    {{ '<start_of_turn>' + role + '\n"
        "' + (lead if loop.first else '') }}\n"
        "    {%- if message['content'] is string -%}\n"
        "        {{ message['content'] | trim }}\n"
        "    {%- elif message['content'] is iterable -%}\n"
        "        {%- for part in message['content'] -%}\n"
        "            {%- if part['type'] == 'text' -%}{{ part['text'] | trim }}{%- endif -%}\n"
        "        {%- endfor -%}\n"
        "    {%- else -%}\n"
        "        {{ raise_exception('Invalid content') }}\n"
        "    {%- endif -%}\n"
        "    {{ '<end_of_turn>\n"
        "' }}\n"
        "{%- endfor -%}\n"
        "{%- if add_generation_prompt -%}\n"
        "    {{ '<start_of_turn>model\n"
        "' }}\n"
        "{%- endif -%}\n"
    ),
    "thinks": (
        "{%- set ns = namespace(last=messages|length - 1, searching=true) %}\n"
        "{%- for message in messages[::-1] %}\n"
        "    {%- set index = (messages|length - 1) - loop.index0 %}\n"
        "    {%- if ns.searching and message.role == 'user' and "
        "not(message.content.startswith('<tool>') and "
        "message.content.endswith('</tool>')) %}\n"
        "        {%- set ns.searching = false %}\n"
        "        {%- set ns.last = index %}\n"
        "    {%- endif %}\n"
        "{%- endfor %}\n"
        "{%- for message in messages %}\n"
        "    {%- if message.role == 'assistant' %}\n"
        "        {%- set thought = '' %}\n"
        "        {%- set content = message.content %}\n"
        "        {%- if '</think>' in content %}\n"
        "            {%- set thought = "
        "content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}"
        "\n"
        "            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}\n"
        "        {%- endif %}\n"
        "        {{- '<|im_start|>assistant\\n' }}\n"
        "        {%- if loop.index0 > ns.last and (loop.last or thought) %}\n"
        "            {{- '<think>\\n' + thought.strip('\\n') + '\\n</think>\\n\\n' }}\n"
        "        {%- endif %}\n"
        "        {{- content + '<|im_end|>\\n' }}\n"
        "    {%- else %}\n"
        "        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}\n"
        "    {%- endif %}\n"
        "{%- endfor %}\n"
        "{%- if add_generation_prompt %}\n"
        "    {{- '<|im_start|>assistant\\n' }}\n"
        "    {%- if enable_thinking is defined and enable_thinking is false %}\n"
        "        {{- '<think>\\n\\n</think>\\n\\n' }}\n"
        "    {%- endif %}\n"
        "{%- endif %}\n"
    ),
    "blocks": (
        "{# ---- what is not given ---- #}\n"
        "{%- if enable_thinking is not defined -%}\n"
        "{%- set enable_thinking = true -%}\n"
        "{%- endif -%}\n"
        "{%- set mode = '/think' if enable_thinking else '/no_think' -%}\n"
        "{%- if messages[0].role == 'system' -%}\n"
        "  {%- set system = messages[0].content -%}\n"
        "  {%- if '/no_think' in system -%}{%- set mode = '/no_think' -%}{%- endif -%}\n"
        "  {%- set custom = system.replace('/no_think', '').replace('/think', '').rstrip() -%}\n"
        "{%- endif -%}\n"
        "{{- '<|im_start|>system\\n' -}}\n"
        "Date: {{ strftime_now('%d %B %Y') }}\n"
        "{{ 'Mode: ' ~ mode ~ '\\n' }}\n"
        "{%- if custom -%}{{ custom + '\\n\\n' }}{%- else -%}{{ 'You help.\\n\\n' }}{%- endif -%}\n"
        "{{- '<|im_end|>\\n' -}}\n"
        "{%- for message in messages -%}\n"
        "    {%- set content = message.content if message.content is string else '' -%}\n"
        "    {%- if message.role == 'user' -%}\n"
        "        {{ '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>\\n' }}\n"
        "    {%- elif message.role == 'assistant' -%}\n"
        "        {%- generation -%}\n"
        "        {{ '<|im_start|>assistant\\n' + content.lstrip('\\n') + '<|im_end|>\\n' }}\n"
        "        {%- endgeneration -%}\n"
        "    {%- endif -%}\n"
        "{%- endfor -%}\n"
        "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}\n"
    ),
    "macros": (
        "{%- macro say(role, text, end='\\n') -%}\n"
        "<{{ role | upper }}>{{ text | trim }}</{{ role | upper }}>{{ end }}\n"
        "{%- endmacro -%}\n"
        "{%- for message in messages if message.content %}\n"
        "{{- say(message.role, message.content, end=('' if loop.last else '\\n')) }}\n"
        "{%- else %}\n"
        "{{- say('nobody', 'nothing') }}\n"
        "{%- endfor %}\n"
        "{%- if add_generation_prompt %}{{ '\\n<ASSISTANT>' }}{% endif %}\n"
    ),
}
CONVERSATIONS = [
    [{"role": "user", "content": "Who keeps the mill?"}],
    [{"role": "system", "content": "Be brief. /no_think "}, {"role": "user", "content": " Who?\n"}],
    [
        {"role": "user", "content": "Gr\u00fc\u00dfe, \u4e16\u754c \u00a0 "},
        {"role": "assistant", "content": "<think>\nhm\n</think>\n\n yes"},
        {"role": "user", "content": '"and" now?\n\n'},
    ],
    [
        {"role": "system", "content": "S"},
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
        {"role": "assistant", "content": "<think>d</think>e"},
    ],
    [{"role": "assistant", "content": "first"}],
    [{"role": "user", "content": ""}],
    [{"role": "user", "content": "x"}, {"role": "user", "content": "y"}],
]


def environment():
    """Raises ImportError where jinja2 is missing."""
    import jinja2.ext
    import jinja2.sandbox

    class Generation(jinja2.ext.Extension):
        tags = {"generation"}

        def parse(self, parser):
            line = next(parser.stream).lineno
            body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
            return jinja2.nodes.Scope(body, lineno=line)

    def tojson(value, ensure_ascii=False, indent=None):
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent)

    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)

    made = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
    )
    made.filters["tojson"] = tojson
    made.globals["raise_exception"] = raise_exception
    return made


def chats():
    """Every conversation, with and without what starts an answer, thinking left open and off."""
    for messages in CONVERSATIONS:
        for prompt in (True, False):
            for more in ({}, {"enable_thinking": False}):
                given = {"messages": messages, "tools": None, "documents": None}
                ends = {"bos_token": "<s>", "eos_token": "</s>", "add_generation_prompt": prompt}
                yield given | ends | more


def render(made, template, variables):
    """The text, or None where the template is refused."""
    day = datetime.datetime.fromisoformat(DATE)
    try:
        return made.from_string(template).render(strftime_now=day.strftime, **variables)
    except Exception:  # jinja2's own, and whatever Python says of a wrong type
        return None


def main():
    made = environment()
    for template in OUTSIDE:
        assert render(made, template, VARIABLES) is not None or "f(*" in template, template
    golden = {
        "date": DATE,
        "variables": VARIABLES,
        "chats": list(chats()),
        "cases": [{"template": t, "text": render(made, t, VARIABLES)} for t in CASES],
        "outside": OUTSIDE,
        "families": [
            {"name": name, "template": t, "texts": [render(made, t, chat) for chat in chats()]}
            for name, t in FAMILIES.items()
        ],
    }
    out = pathlib.Path(__file__).parent / "templates.json"
    out.write_text(json.dumps(golden, indent=0, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
