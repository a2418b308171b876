#!/usr/bin/env python3
"""Writes template_language.jsonl: small templates and what jinja2 3.1, set up as transformers does, makes of them.

    write_template_goldens.py OUT.jsonl    (needs the package jinja2)

The first line holds the variables. A line has "text" or "raises". What differs on purpose is left out: sets,
complex numbers, addresses, and filters that no chat template has a use for.
"""
import copy
import itertools
import json
import random
import re
import signal
import sys
from datetime import datetime

import jinja2
import jinja2.ext
from jinja2.sandbox import ImmutableSandboxedEnvironment


class Generation(jinja2.ext.Extension):
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

    def _body(self, caller):
        return caller()


def environment():
    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    made = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols])
    made.filters["tojson"] = tojson
    made.globals["raise_exception"] = raise_exception
    made.globals["strftime_now"] = lambda format: datetime(2026, 11, 29).strftime(format)
    return made


ENVIRONMENT = environment()


def render(template, variables):
    try:
        return {"text": ENVIRONMENT.from_string(template).render(**copy.deepcopy(variables))}
    except Exception as error:
        return {"raises": str(error)}


# What every template sees.
VARIABLES = {'messages': [{'role': 'system', 'content': 'Sys <b>'}, {'role': 'user', 'content': 'Héllo Wörld ß 🦙\n line2\t x'},
              {'role': 'assistant',
               'content': None,
               'tool_calls': [{'id': 'a',
                               'function': {'name': 'f', 'arguments': {'x': 1, 'y': [1.5, True, None, 'z"\'']}}}]},
              {'role': 'user', 'content': [{'type': 'text', 'text': 'chunk'}, {'type': 'image'}]}],
 's': 'Hello World, hello',
 'u': 'Ünïcode Straße İI ΣΑΣ ﬁ',
 'empty': '',
 'n': 7,
 'neg': -7,
 'f': 2.5,
 'big': 123456789012,
 't': True,
 'fa': False,
 'nn': None,
 'l': [3, 1, 2],
 'ls': ['b', 'A', 'c', 'a'],
 'd': {'b': 1, 'a': 2, 'C': 3},
 'items': {'items': 1, 'get': 2, 'x': {'y': 5}},
 'nested': [[1, 2], [3, [4, 5]]],
 'objs': [{'n': 'x', 'v': 3, 'g': 'A'}, {'n': 'y', 'v': 1, 'g': 'b'}, {'n': 'z', 'v': 2, 'g': 'a'},
          {'n': 'w', 'v': 2}],
 'e': [],
 'ed': {},
 'multi': 'a\nb\n\n c \r\nd\x0be\u2028f',
 'q': 'it\'s "q" \\ \x07\u200bé😀\x7f\xa0',
 'fs': [0.1, 1.0, 1e+16, 1e-05, 123456.789, -0.0, 1e+22, 5e-324, 1.7976931348623157e+308],
 'bos_token': '<s>',
 'add_generation_prompt': True}

# Values that every suffix and operator is tried on.
VALUES = ['s', 'u', 'empty', 'n', 'neg', 'f', 'big', 't', 'fa', 'nn', 'l', 'ls', 'd', 'items', 'nested', 'objs', 'e', 'ed',
 'multi', 'q', 'fs', 'missing', '0', '1', '-1', '2', '10', '3.0', '0.5', "'a'", "'l'", "' '", "''", '[1,2]', '(1,)',
 '()', "(1,'a')", "{'k':1}", '{}', 'true', 'none', '1.5e3', "'%s'", 'range(3)', 'namespace(a=1)', 'd.items()',
 'd.keys()', "l|map('string')"]

# Filters, tests, lookups.
SUFFIXES = ['|length', '|string', '|tojson', '|list', '|first', '|last', "|join(',')", '|upper', '|lower', '|title',
 '|capitalize', '|trim', '|int', '|float', '|abs', '|round', '|sort', '|unique|list', '|reverse|list', '|max',
 '|min', '|sum', '|items|list', '|dictsort', "|default('D')", "|default('D',true)", '|e', '|safe', '|wordcount',
 '|indent', '|indent(2,true,true)', '|tojson(indent=2)', '|center(9)', '|count', '|batch(2)|list', '|slice(2)|list',
 '|urlencode', '|striptags', '|truncate(8)', '|filesizeformat', "|list|tojson(separators=(',',':'))",
 '|string|length', "|map('upper')|list", '|select|list', '|reject|list', "|groupby('g')", "|replace('l','LL')",
 "|replace('','-',3)", '|forceescape', '|xmlattr', '|format(1,2)', "|attr('upper')", "|attr('x')",
 '|string|tojson(ensure_ascii=true)', '|sort(reverse=true)', '|sort(case_sensitive=true)',
 "|map(attribute='n')|list", "|map(attribute='n',default='?')|list", "|selectattr('v')|list|tojson",
 "|rejectattr('v','equalto',2)|list|tojson", "|selectattr('v','defined')|map(attribute='v')|list",
 "|sort(attribute='v')|map(attribute='n')|join", "|sum(attribute='v')", "|max(attribute='v')|tojson", ' is defined',
 ' is undefined', ' is none', ' is string', ' is mapping', ' is sequence', ' is iterable', ' is number',
 ' is integer', ' is float', ' is boolean', ' is true', ' is false', ' is callable', ' is lower', ' is upper',
 ' is odd', ' is even', ' is divisibleby 3', ' is sameas none', ' is escaped', " is in [1,'a',none]", ' is eq 1',
 ' is not defined', ' is gt 1', ' is filter', ' is test', '.x', "['x']", '[0]', '[-1]', '[1:]', '[:-1]', '[::-1]',
 '[::2]', '[5]', '.items()|list', ".get('a')", ".get('zz','dd')", '.keys()|list', '.values()|list', '.upper()',
 '.strip()', '.split()', ".split(' ')", ".startswith('H')", '.append(1)', '.pop()', '.update({})', '.copy()',
 ".count('l')", ".index('l')", '.__class__', '._x', '.a.b', '()', ' and 1', " or 'or'"]

OPERATORS = ['+', '-', '*', '/', '//', '%', '**', '~', '==', '!=', '<', '<=', '>', '>=', 'in', 'not in', 'and', 'or']

# Strings that every method is tried on, plain and as markup.
STRINGS = ['s', 'u', 'empty', 'multi', 'q', "'-42'", "'abc'", "'Title Case'", "'   pad  '", "'ÀÉ'", "'x y  z'"]

# Methods of strings.
METHODS = ['capitalize()', 'casefold()', 'center(20)', "center(21,'*')", "count('l')", "count('')", "endswith('o')",
 "endswith(('x','o'))", 'expandtabs(4)', "find('o')", "find('o',5)", "find('zz')", "rfind('o')", "index('o')",
 'isalnum()', 'isalpha()', 'isascii()', 'isdigit()', 'islower()', 'isupper()', 'isspace()', 'istitle()',
 'isprintable()', "join(['x','y'])", "join('abc')", "ljust(20,'.')", 'rjust(20)', 'lower()', 'lstrip()',
 "lstrip('H')", "rstrip('olf')", "partition(' ')", "rpartition(' ')", "partition('zz')", "removeprefix('He')",
 "removesuffix('lo')", "replace('l','1')", "replace('l','1',1)", "replace('','_')", "rsplit(' ',1)", 'rsplit()',
 'rsplit(None,1)', 'split()', 'split(None,1)', "split('l')", "split('l',1)", "split('')", 'splitlines()',
 'splitlines(true)', "startswith('Hell')", "startswith('ello',1)", "startswith('l',2,4)", "strip('Ho')",
 'swapcase()', 'title()', 'upper()', 'zfill(20)', 'format(1)', 'isnumeric()', 'isdecimal()']

# % and format().
FORMATS = ["'%s'%n", "'%d'%f", "'%5d|%-5d|%05d'%(n,n,neg)", "'%x %X %o'%(255,255,8)", "'%.2f'%f", "'%8.3f|'%f", "'%e'%big",
 "'%g'%f", "'%s %s'%(1,)", "'%s'%(1,2)", "'%(a)s'%d", "'%(b)05d'%d", "'%r'%q", "'%c'%65", "'%c'%'x'", "'%%'%()",
 "'%s'%missing", "'%s'%[1,'a']", "'%s'%nn", "'%d'%'x'", "'%+d % d'%(5,5)", "'%#x'%255", "'%*d'%(5,3)", "'%.3s|'%s",
 "'%10s|%-10s|'%('a','b')", "'%i %u'%(3,4)", "'%5%'%()", "'%z'%1", "'%'%1", "'%F %E %G'%(1.5,1.5,1.5)", "'%s'%d",
 "'%s %s'%d", "'{}'.format(n)", "'{} {}'.format(1,'a')", "'{0} {1} {0}'.format(1,2)", "'{a}'.format(a=1)",
 "'{0[b]}'.format(d)", "'{0.x}'.format(items)", "'{:5}|{:<5}|{:^5}|{:>5}|'.format(1,2,3,4)", "'{:05d}'.format(42)",
 "'{:+.2f}'.format(f)", "'{:,}'.format(big)", "'{:_}'.format(big)", "'{:x} {:#x} {:b} {:o}'.format(255,255,5,8)",
 "'{:10}|'.format('a')", "'{:*^10}|'.format('a')", "'{:.3}'.format('abcdef')", "'{:.3}'.format(3.14159)",
 "'{:%}'.format(0.5)", "'{:.1%}'.format(0.256)", "'{:e}'.format(big)", "'{!r}'.format('a')", "'{!s:>5}|'.format(n)",
 "'{{}}'.format()", "'{'.format()", "'}'.format()", "'{} {1}'.format(1,2)", "'{2}'.format(1)", "'{z}'.format(a=1)",
 "'{:{}}|'.format('a',5)", "'{:d}'.format('a')", "'{:s}'.format(1)", "'{}'.format(nn)", "'{}'.format(t)",
 "'{:5}'.format(t)", "'{:5}'.format(nn)", "'{}'.format(l)", "'{:c}'.format(65)", "'{:g}'.format(1e10)",
 "'{:,.2f}'.format(1234567.891)", "'{:010.2f}'.format(-3.14159)", "'{:=+8d}'.format(42)", "'{:<08d}'.format(42)",
 "'{:n}'.format(42)", "'{0.__class__}'.format(n)", "'{a[x][y]}'.format(a=items)", "'{:.0f}'.format(2.5)",
 "'{:.10}'.format(1.0)", "'{:#.3g}'.format(1.0)", "'{:5d}|{:<5d}|'.format(t,fa)"]

# Corners, one by one.
EXPRESSIONS = ['2.675|round(2)', '2.5|round', '3.5|round', '-2.5|round', "0.5|round(0,'ceil')", '1.25|round(1)',
 "42.55|round(1,'floor')", '1234|round(-2)', '1250|round(-2)', '1350|round(-2)', "12.34|round(1,'bad')",
 '7|round(2)', '1e20|round', "'3.7'|float", "'abc'|int(5)", "' 12 '|int", "'0x1f'|int(0,16)", "'1_000'|int",
 "'12.9'|int", '12.9|int', "'nan'|float", "'inf'|float", "'1e5'|float", "'z'|int(0,36)", "'101'|int(base=2)",
 'true|int', 'nn|int', '[]|int', "'-5'|int", "'+5'|int", "'--5'|int", "''|int", "''|float", '1_000', '0x1F', '0o17',
 '0b101', '1e3', '1.5e-3', '1E5', '0.1+0.2', '1/3', '10//3', '-10//3', '10%3', '-10%3', '10%-3', '5.5%2', '-5.5%2',
 '5.5//2', '-5.5//2', '2**10', '2**-1', '2.0**0.5', '(-8)**2', '-2**2', '2**3**2', '0**0', '7/2', '1e308*10',
 '-1e308*10', '1==1.0', 'true==1', "'a'<'b'", '[1,2]<[1,3]', '(1,2)<(1,2,3)', '1<2<3', '3>2>2', '1<3>2', 'not 1',
 'not not 1', '-(-3)', '+t', '-t', '- 3', '1 - -1', "'a' 'b'", "'a' ~ 1 ~ none ~ 1.5 ~ true", '1 if true',
 '1 if false', '(1 if false) is defined', '1 if false else 2 if false else 3', '(1,2)+(3,)', '[1]*3', "'ab'*2",
 "3*'ab'", "'ab'*-1", '[1,2,3][1:2]', "'héllo'[1:3]", "'héllo'[::-1]", "'héllo'[-1]", 'l[0]', 'l.0', 'nested.1.1.0',
 "d['b']", 'd.b', "d['zz']", 'd.zz is defined', 'missing.x', "missing['x']", 'missing()', 'missing + 1',
 'missing == missing', 'missing == none', 'none == none', 'missing|length', 'missing|list', 'missing|string',
 'missing|tojson', 'for', 'loop', 'range(5)|list', 'range(1,10,3)|list', 'range(5,0,-2)|list', 'range(100001)',
 'range(0)', 'range(3)[1]', 'range(10)[2:5]|list', 'range(3)|length', 'range(1,2,0)', "range('a')", 'range()',
 '3 in range(5)', 'dict(a=1,b=2)', "dict([('a',1)])", "dict({'x':1},y=2)", 'namespace(a=1).a', 'namespace(a=1).b',
 "namespace({'z':1}).z", "cycler('a','b').next()", "joiner(',')()", "raise_exception('boom')", 'raise_exception()',
 "strftime_now('%Y-%m-%d %H:%M')", "strftime_now('%d %B %Y %j %a %A %b %y %p %I %M %S %f %z|%Z %%')",
 "strftime_now('%-d %e')", "'a' is string and 'b'", '1 is number', 'd is mapping', 'l is sequence', '1 in l',
 "'b' in d", "'ell' in s", "'' in ''", "1 in 'abc'", '1 in 5', '[1] in [[1]]', 'none in [none]', "'a' not in 'abc'",
 "not 'a' in 'abc'", '[1,2]==[1,2]', "{'a':1}=={'a':1.0}", '(1,)==[1]', "{'a':1,'a':2}", '{1:2,1.0:3,true:4}',
 '{[1]:2}', '{(1,2):3}', '{none:1}|tojson', '{1:1,2.5:2,true:3}|tojson', '{(1,):1}|tojson', 'fs', 'fs|tojson',
 '[1e15,1e16,123456789.123,0.0001,0.00001]', '1e400', '-0.0', 'q|tojson', 'q', '[q]', 'u|upper', 'u|lower',
 'u|title', 'u|capitalize', 'u|length', 'u[::-1]', 'u|tojson(ensure_ascii=True)', "'😀'|tojson(ensure_ascii=true)",
 "[1,[2,{'a':[]}],{}]|tojson(indent=2)", "[1,[2,{'a':[]}],{}]|tojson(indent=0)",
 "{'b':1,'a':[1,2]}|tojson(sort_keys=true)", "{'b':1,'a':{'x':none}}|tojson(indent='--')", 'objs|tojson(2)',
 'objs|tojson(False,2)', "objs|groupby('g',default='zz')|list", "objs|groupby('v')|map(attribute='grouper')|list",
 "(objs|groupby('v'))[0].list|length", "objs|map(attribute='v')|sum",
 "objs|sort(attribute='v,n')|map(attribute='n')|list", "objs|sort(attribute='g')", 'ls|sort',
 'ls|sort(reverse=true)', 'ls|unique|list', "['a','A','b']|unique|list", "['a','A']|unique(true)|list", 'ls|min',
 'ls|max', 'ls|max(case_sensitive=true)', "[1,'a']|sort", '[none,1]|sort', '[]|max', '[]|first', '[]|last',
 '[]|first is defined', "[1,2,3,4,5]|batch(2,'x')|list", "[1,2,3,4,5]|slice(3,'x')|list", '[1,2]|slice(0)|list',
 "'abc'|batch(2)|list", "'abc'|list", "'abc'|reverse", '[1,2]|reverse', "l|map('string')", "l|map('nope')|list",
 "l|select('odd')|list", "l|select('nope')|list", "l|reject('odd')|list", "ls|map('upper')|join('-')",
 "ls|map('replace','a','X')|join", "objs|selectattr('n','in',['x','y'])|map(attribute='n')|list",
 "objs|selectattr('n','equalto','x')|list|length", "messages|selectattr('role','equalto','user')|list|length",
 "messages|map(attribute='role')|unique|join(', ')", "messages|rejectattr('content','none')|list|length",
 'messages[0].content|e', "('<a>'|safe)+'<b>'", "'<b>'+('<a>'|safe)", "('<a>'|safe)~'<b>'", "('<a>'|safe)*2",
 "('<%s>'|safe)%'<b>'", "('<{}>'|safe).format('<b>')", "('<'|safe).join(['<','>'])", "['<',('<'|safe)]|join('<')",
 "('<a>'|safe)|upper", "('<a>'|safe)[0:2] + '<'", "'<a>'|escape|escape", "'<a>'|escape|forceescape", "[('<'|safe)]",
 "('<a>'|safe)|replace('a','<')", "('<a>'|safe).replace('a','<')", "('<a>'|safe)|string + '<'",
 "('<a>'|safe)|trim + '<'", "('<a>'|safe) == '<a>'", "'a,b'|split(',')", "'text'|wordwrap(3)", 'multi|indent',
 'multi|indent(3,first=true)', "multi|indent('> ')", 'multi|indent(blank=true)', "''|indent", 'multi.splitlines()',
 "' a  b '.split()", "'a b c'.split(' ',1)", "'a--b'.split('--')[-1]", "'x'.join(ls)", "'x'.join(l)",
 "['a',1]|join", "[[1,2],[3]]|join(';')", 'd|join', 'd|list', 'd|length', 'd|first', 'd|items|list',
 'd.items()|list', 'd.items()', 'd.keys()', 'd.values()|sum', 'd|dictsort', 'd|dictsort(true)',
 "d|dictsort(by='value',reverse=true)", "d|dictsort(by='x')", 'items.items', "items['items']", 'items.get',
 "items['get']", 'items.x.y', 'items.keys', 's.upper', "s['upper']()", 's.nope', 's.__len__', 'l.__class__',
 'd.__class__.__mro__', 'n.real', 'n.bit_length()', 'nn.x', "nn['x']", 'nn[0]', 'nn()', 't.x', 's[100]', "s['x']",
 's[1.5]', "l['a']", 'l[1.0]', 'l[100]', 'l[100] is defined', 'd[[1]]', 'd[1:2]', 'nn[1:]', 'n[1:]', "l['a':]",
 'l[::0]', 's[:2]~s[-2:]', 'l[-2:]', 'l[5:]', 'l[:100]', 'l[1:100:2]', 'l[::-2]', 'range', 'namespace', 'dict',
 'lipsum is defined', 'self is defined', 'caller is defined', 'varargs is defined', 'true is true', 'none is none',
 "'x'|default", 'missing|default', "missing|d('x')", "''|d('x',true)", "none|d('x')", "none|d('x',true)",
 "missing.x|default('x')", "d.missing|default('x')", "d.missing.x|default('x')", "'a'|center(5)", "'ab'|center(5)",
 "'ab'|center(6)", "'a'|ljust(5)", '5|string', '1.0|string', 'none|string', "'x'|list|tojson", "'<script>'|tojson",
 "'\\u00e9\\x41\\101\\n\\t\\q\\\\'", "'a\\\nb'", '"it\'s"', '\'say "x"\'', "'\\''", "''''", '1 +', "'abc", 'a b',
 '(1', '[1', '{1}', "{'a'}", '1 2', 'x.', 'x|', 'x|nope', 'x is nope', '{{', 'a.b.c', '()', '(())', '[[]]', '[,]',
 '(,)', '(1,)', '1,2', '1,', 'x[', 'x[]', 'x[1,2]', 'l[1,]', 'f(a=1,2)', 'f(*l,*l)', "dict(**{'a':1})",
 'range(*[1,4])|list', "dict(a=1,**{'a':2})", 'dict(**1)', '1 is', 'is', 'not', '1 if', 'if', '1 is odd is true',
 '1 is in 2', '1 is divisibleby(2)', '4 is divisibleby 2', '4 is even and 3 is odd', "'a' is eq('a')",
 "'a' is sameas 'a'", '1 is sameas 1.0', '[] is sameas []', 'x.0.1', 'x.1.5', '1.real', '1..real', 's|length > 3',
 's|length+1', '-s|length', 'not s|length', 'n|abs - 1', '-n|abs', '(-n)|abs', '-1|abs', '2**2|abs',
 'n is number|string', "'a'|upper ~ 'b'", '1 ~ 2 + 3', '1 + 2 ~ 3', '2 * 3 ~ 4', "'%s' % 'a' ~ 'b'",
 '1 if 1 else 2 + 3', 'a or b and c', 'l|sum + 1', 'l | first | string', '[1,2,3,]', "{'a':1,}", 'f(1,)',
 '1 in [1] in [[1]]', '1 == 1 in [true]', '1 not in [2]', 'not 1 in [2]', 'true and false or true', "none or 'x'",
 "'' or 0 or []", "1 and 'x'"]

# Statements, white space, what does not parse.
TEMPLATES = ['{% if s %}a{% elif n %}b{% else %}c{% endif %}', '{% for i in l %}{{ i }}{% else %}none{% endfor %}',
 '{% for i in e %}{{ i }}{% else %}none{% endfor %}', '{% for i in missing %}x{% else %}none{% endfor %}',
 '{% for i in n %}x{% endfor %}', '{% for i in nn %}x{% endfor %}',
 '{% for k,v in d.items() %}{{k}}={{v}};{% endfor %}', '{% for k,v in d|dictsort %}{{k}}={{v}};{% endfor %}',
 '{% for k in d %}{{k}}{% endfor %}', "{% for c in 'héy' %}[{{c}}]{% endfor %}",
 '{% for a,b in [(1,2),(3,4)] %}{{a+b}} {% endfor %}', '{% for a,b in [(1,2,3)] %}{{a}}{% endfor %}',
 '{% for a,b in [(1,)] %}{{a}}{% endfor %}', '{% for a,(b,c) in [(1,(2,3))] %}{{a}}{{b}}{{c}}{% endfor %}',
 '{% for a in l '
 "%}{{loop.index}}{{loop.index0}}{{loop.revindex}}{{loop.revindex0}}{{loop.first}}{{loop.last}}{{loop.length}}{{loop.depth}}{{loop.depth0}}{{loop.cycle('x','y')}}{{loop.previtem}}{{loop.nextitem}}|{% "
 'endfor %}',
 '{% for a in l %}{{loop.previtem is defined}}{{loop.nextitem is defined}}{% endfor %}',
 '{% for a in [1,1,2] %}{{loop.changed(a)}}{% endfor %}',
 '{% for a in l if a > 1 %}{{a}}{{loop.length}}{% else %}x{% endfor %}',
 '{% for a in l if a > 5 %}{{a}}{% else %}x{% endfor %}',
 '{% for x in nested recursive %}{% if x is iterable %}[{{ loop(x) }}]{% else %}{{x}}@{{loop.depth}}{% endif %}{% '
 'endfor %}',
 '{% for x in l %}{{ loop(x) }}{% endfor %}',
 '{% for i in range(10) %}{% if i==3 %}{% continue %}{% endif %}{% if i==6 %}{% break %}{% endif %}{{i}}{% endfor '
 '%}',
 '{% for i in range(3) %}{% for j in range(3) %}{% if j==1 %}{% break %}{% endif %}{{i}}{{j}} {% endfor %}{% '
 'endfor %}',
 '{% break %}', '{% for i in l %}{% macro m() %}{% break %}{% endmacro %}{% endfor %}',
 '{% set x = 1 %}{% for i in l %}{% set x = i %}{{x}}{% endfor %}{{x}}',
 '{% for i in l %}{% set y = i %}{% endfor %}{{y}}', '{% if true %}{% set z = 5 %}{% endif %}{{z}}',
 '{% set ns = namespace(x=0) %}{% for i in l %}{% set ns.x = ns.x + i %}{% endfor %}{{ns.x}}',
 '{% set ns = namespace() %}{% set ns.a = 1 %}{{ns}}{{ns.a}}', '{% set d.a = 1 %}', '{% set q.a = 1 %}',
 '{% set missing.a = 1 %}', '{% set a, b = 1, 2 %}{{a}}{{b}}', '{% set a, b = [1,2,3] %}',
 '{% set a = 1, 2 %}{{a}}', '{% set x %}hello {{n}}{% endset %}{{x}}',
 '{% set x|upper %}hello {{n}}{% endset %}{{x}}',
 "{% set x|upper|replace('L','_') %}hello {{n}}{% endset %}{{x}}|{{x|length}}",
 '{% set x %}{% set inner = 1 %}{{inner}}{% endset %}{{x}}{{inner}}',
 '{% set ns = namespace() %}{% set ns.t %}a{% endset %}{{ns.t}}',
 '{% macro m(a,b=2) %}{{a}}{{b}}{% endmacro %}{{m(1)}}{{m(1,3)}}{{m(b=5,a=4)}}{{m()}}',
 '{% macro m(a,b=a) %}{{a}}{{b}}{% endmacro %}{{m(1)}}',
 '{% macro m() %}{{varargs}}{{kwargs}}{% endmacro %}{{m(1,2,c=3)}}', '{% macro m() %}x{% endmacro %}{{m(1)}}',
 '{% macro m() %}x{% endmacro %}{{m(a=1)}}', '{% macro m(a) %}{{a is defined}}{{a}}{% endmacro %}{{m()}}',
 '{% macro m(a) %}{{a.x}}{% endmacro %}{{m()}}',
 '{% macro m(a) %}{{ caller() }}{% endmacro %}{% call m(1) %}body{% endcall %}',
 '{% macro m() %}{{ caller(1,2) }}{% endmacro %}{% call(a,b) m() %}{{a}}+{{b}}{% endcall %}',
 '{% macro m() %}{{ caller(x=1) }}{% endmacro %}{% call(x,y=3) m() %}{{x}}{{y}}{% endcall %}',
 '{% macro m() %}x{% endmacro %}{% call m() %}body{% endcall %}',
 '{% macro m() %}{{ caller() }}{% endmacro %}{{ m() }}',
 '{% macro m(caller=none) %}{{ caller is none }}{% endmacro %}{{ m() }}',
 '{% macro m() %}{% if caller %}{{caller()}}{% else %}nc{% endif %}{% endmacro %}{{ m() }}',
 '{% call n() %}x{% endcall %}', '{% call n %}x{% endcall %}',
 '{% macro f(n) %}{{n}}{% if n>0 %},{{f(n-1)}}{% endif %}{% endmacro %}{{f(5)}}',
 '{% macro m() %}{{ x }}{% endmacro %}{% set x = 1 %}{{m()}}{% set x = 2 %}{{m()}}',
 '{% macro m() %}{{x}}{% set x = 9 %}{{x}}{% endmacro %}{% set x = 1 %}{{m()}}{{x}}',
 '{% for i in l %}{% macro m() %}{{i}}{% endmacro %}{{m()}}{% endfor %}',
 '{% macro m(x) %}{{ x }}{% endmacro %}{{ m }}{{m.name}}{{m.arguments}}{{m.catch_kwargs}}{{m.caller}}',
 '{% macro a() %}{{b()}}{% endmacro %}{% macro b() %}B{% endmacro %}{{a()}}',
 '{% macro a() %}{{b()}}{% endmacro %}{{a()}}{% macro b() %}B{% endmacro %}',
 '{% filter upper %}abc {{s}}{% endfilter %}', "{% filter upper|replace('A','_') %}abc{% endfilter %}",
 '{% filter indent(2) %}a\nb\n{% endfilter %}|', '{% filter nope %}a{% endfilter %}',
 '{% with a=1,b=2 %}{{a}}{{b}}{% endwith %}{{a}}', '{% with %}{% set a=1 %}{{a}}{% endwith %}{{a}}',
 '{% with a=1 %}{% with a=2,b=a %}{{a}}{{b}}{% endwith %}{% endwith %}', '{% block x %}in{{s}}{% endblock %}',
 '{% block x %}in{% endblock x %}', '{% generation %}{{s}}{% set g=1 %}{% endgeneration %}{{g}}',
 '{% for m in messages %}{% generation %}{{m.role}}{{loop.index}}{% endgeneration %}{% endfor %}',
 '{% raw %}{{ x }}{% y %}{% endraw %}', '{% raw -%}  {{ x }}  {%- endraw %}', 'a{%- raw %} b {% endraw -%} c',
 '{# comment #}x{#- c -#} y', '{# un', '{% if', '{% if x %}', '{% endif %}', '{% nope %}', '{% for %}',
 '{% for x %}', '{% for x in %}', '{% set %}', '{% set 1 = 2 %}', '{% set none = 2 %}',
 '{% set loop = 2 %}{{loop}}', '{% for loop in l %}{% endfor %}', '{% for i in l %}{% set loop = 1 %}{% endfor %}',
 '{% macro %}', '{% macro m(a=1,b) %}{% endmacro %}', '{% macro m(a,a) %}{% endmacro %}',
 '{% if x %}{% for %}{% endif %}', '{% else %}', '{% if 1 %}{% else %}{% else %}{% endif %}', "{% print 1, 'a' %}",
 '{% print(s) %}', '{% do l.append(1) %}', "{% include 'x' %}", "{% import 'x' as y %}", "{% from 'x' import y %}",
 "{% extends 'x' %}", "{% if false %}{% include 'x' %}{% endif %}ok",
 "{% autoescape false %}{{'<'}}{% endautoescape %}", '{% if false %}{{ 1|nope }}{% endif %}ok',
 '{% if true %}{{ 1|nope }}{% endif %}ok', '{{ (1|nope) if false else 2 }}',
 '{% macro m() %}{{1|nope}}{% endmacro %}ok', '{% for x in [] %}{{1|nope}}{% endfor %}ok',
 '{% if false %}{{ 1 is nope }}{% endif %}ok', '{%if s%}x{%endif%}', '{%-if s-%} x {%-endif-%} y',
 '  {% if s %}\n  x\n  {% endif %}\n y\n', '  {%+ if s %}\n  x\n  {%+ endif %}\n y\n',
 '  {% if s +%}\n  x\n  {% endif +%}\n y', '\t{% set a = 1 %}\n\n{{a}}\n\n', '{{ s }}\n{{ s }}\n',
 '{{- s -}}\n x \n{{- s -}}\n', '  {{ s }}  {# c #}  \n  {# c #}\n z', '{# c #}\n{# d #}\n\nz\n\n',
 'a {%- if s %} b {%- endif %} c', 'a\n{%- if s -%}\n b\n{%- endif -%}\n c',
 '{% for i in l -%}\n {{ i }}\n{%- endfor %}', '{% for i in l %}\n {{ i }}\n{% endfor %}\nend',
 'x{% if s %}\n\n{% endif %}\n\ny', '\r\n{% if s %}\r\nx\r\n{% endif %}\r\ny\r\n', "{{ '\r\n' }}|{{ 'a\r\nb' }}",
 '{{s}}{%- set x = 1 %}  \n  {{x}}', '  {#- a -#}  b', '  {%- raw %} x {% endraw %}  ',
 '{% raw %}\n x\n{% endraw %}\n y', '  {% raw %}\n x\n  {% endraw %}\n y', "{{ {'a':{'b':1}}['a']['b'] }}",
 "{{ {'a':1}}}", "{{{'a':1}}}", '{{ {} }}', "{% if {'a':1}.a %}y{% endif %}",
 "{% set x = {'a': [1,2]} %}{{x.a[0]}}", "{{ '}}' }}{{ '%}' }}", "{% if '%}' == '%}' %}y{% endif %}", '}} %} #}',
 '{ {x} }', '{{ 1 }}{{ 2 }}', '{%- -%}', '{{}}', '{{ }}', '{% %}',
 "{% set c = cycler('a','b') %}{{c.next()}}{{c.next()}}{{c.next()}}{{c.current}}{{c.reset()}}{{c.current}}",
 "{% set j = joiner('|') %}{{j()}}{{j()}}{{j()}}",
 "{% for k,g in objs|groupby('v') %}{{k}}:{{g|length}} {% endfor %}",
 "{% for g in objs|groupby('v') %}{{g.grouper}}{{g.list|length}}{{g[0]}} {% endfor %}",
 "{% set x = l|map('string') %}{{x|list}}{{x|list}}", "{% set x = l|select('odd') %}{{x|length}}",
 "{% set x = l|map('string') %}{% if x %}t{% endif %}{{ x[0] }}",
 '{% for i in l|reverse %}{{i}}{{loop.last}}{% endfor %}',
 '{% for x in [1,2,3] %}{% if loop.index is divisibleby 2 %}e{% else %}o{% endif %}{% endfor %}',
 '{% for x in l: %}{{x}}{% endfor %}',
 '{% if x is defined %}{{x}}{% elif y is defined %}{{y}}{% else %}none{% endif %}',
 "{{ range(3)|map('string')|join }}",
 '{% for i in range(3) %}{% set outer = loop %}{% for j in range(2) %}{{outer.index}}{{loop.index}} {% endfor %}{% '
 'endfor %}',
 '{% set x = [] %}{% set _ = x.append(1) %}', "{% set x = {} %}{% set _ = x.update({'a':1}) %}",
 '{{ [1,2].append }}', '{{ d.update is defined }}', '{{ d.update is callable }}',
 "{% for m in messages %}{% if m.role == 'user' %}{{ m['content'] is string }}{% endif %}{% endfor %}",
 "{{ messages[0]['role'] }}{{ messages[-1].content[0].text }}{{ messages[1:]|length }}", '{{ messages|tojson }}',
 "{% for m in messages if m.role != 'system' %}{{ loop.index0 }}{{ m.role }}{% endfor %}",
 '{% for tc in messages[2].tool_calls %}{{ tc.function.arguments|tojson }}{{ '
 "tc['function']['arguments'].items()|list }}{% endfor %}",
 '{{ messages[2].content }}|{{ messages[2].nope }}|{{ messages[9] }}', '{{ messages[9].x }}', '{{ messages.x.y }}',
 '{{ loop.index }}', '{{ self }}', '{% set x = self %}', '{{ (1).x }}', '{{ namespace(1) }}',
 '{{ s is defined and s and s|length }}',
 "{%- macro json_type(t) -%}{%- if t is string -%}{{ t }}{%- elif t is sequence -%}{{ t|join('|') }}{%- endif "
 "-%}{%- endmacro -%}{{ json_type('a') }}{{ json_type(['a','b']) }}",
 '{% set a = true if s is defined else false %}{{a}}',
 '{% for x in [] %}{% endfor %}{% if not loop %}nl{% endif %}', "{{ 'a' if x is defined else 'b' }}",
 "{% set t = namespace(found=false) %}{% for m in messages %}{% if m.role=='user' and not t.found %}{% set t.found "
 '= true %}{{m.content}}{% endif %}{% endfor %}',
 "{% if (messages|last).role == 'user' %}y{% endif %}", "{{ (messages|map(attribute='role')|list)[0] }}",
 '{% if not (messages and messages[0]) %}x{% else %}y{% endif %}',
 '{%- for i in range(2) %}\n  {%- for j in range(2) %}\n{{i}}{{j}}\n  {%- endfor %}\n{%- endfor %}',
 "{% set x = 'a' 'b' %}{{x}}", "{% set x = ('a'\n'b') %}{{x}}", "{{ dict(a=1).a }}{{ {'a':1}.get('a') }}",
 '{% for a in [[1,2],[3,4]] %}{% for b in a %}{{ loop.parent }}{% endfor %}{% endfor %}',
 "{% for k, v in {'a':1}.items() %}{% for k in [5] %}{{k}}{% endfor %}{{k}}{{v}}{% endfor %}",
 "{% macro m(x) %}{% if x %}{% set r = 'y' %}{% else %}{% set r = 'n' %}{% endif %}{{r}}{% endmacro "
 '%}{{m(1)}}{{m(0)}}',
 '{% set s = s|trim %}{{s}}', '{% set s = missing %}{{ s is defined }}', '{% for s in l %}{{s}}{% endfor %}{{s}}',
 '{% if n == 7 -%}\n  yes\n{%- endif %}!', '{{ \'\' if s else \'x\' }}{{ "\\n" }}|', "{{ 'a\\nb' }}",
 "{{- '\\n' -}}", "{%- set x = '  a  ' -%}[{{ x }}]", "{{ [1,2,3]|join(', ') if l else '' }}", '{{ u }}',
 "{{ [u, 'é'] }}", "{% for i in range(3) %}{{ '-' if not loop.last }}{% endfor %}",
 '{{ (1,2,3)[1] }}{{ (1,2,3)|length }}{{ (1,2) is sequence }}',
 '{% set a = [1,2] + [3] %}{{ a }}{% set a = a + [4] %}{{a}}', "{{ s.split(' ')[0].lower() }}",
 "{{ s.find('World') != -1 }}", "{{ s.replace('Hello','').strip() }}", "{{ s.split('o')|map('trim')|select|list }}",
 "{% set parts = s.split(',') %}{% for p in parts %}{{ p.strip() }}{% if not loop.last %};{% endif %}{% endfor %}"]


def white_space(rng):
    """A template of tags with all kinds of white space and control between them."""
    blanks = ["", "\n", " ", "  \n", "\n  ", "\n\n", "\t", "x", "x\n", " x ", "\n x\n", "\u00a0", "\x0b"]
    opening = ["{% if s %}", "{%- if s %}", "{% if s -%}", "{%+ if s %}", "{% if s +%}"]
    closing = ["{% endif %}", "{%- endif %}", "{% endif -%}", "{%+ endif %}", "{%- endif -%}"]
    printing = ["{{ n }}", "{{- n }}", "{{ n -}}", "{{- n -}}", "{{+ n }}"]
    comments = ["{# c #}", "{#- c #}", "{# c -#}", "{#+ c #}", "{# c +#}"]
    others = ["{% set a=1 %}", "{%- set a=1 %}", "{% set a=1 -%}", "{% raw %} r\n{% endraw %}",
              "{%- raw -%} r\n{%- endraw -%}"]
    text, depth = "", 0
    for _ in range(rng.randint(1, 7)):
        text += rng.choice(blanks)
        kind = rng.randint(0, 4)
        if kind == 0:
            text += rng.choice(opening)
            depth += 1
        elif kind == 1 and depth > 0:
            text += rng.choice(closing)
            depth -= 1
        else:
            text += rng.choice([printing, comments, others][kind % 3])
    text += rng.choice(blanks)
    for _ in range(depth):
        text += rng.choice(closing) + rng.choice(blanks)
    return text


def templates():
    rng = random.Random(5)
    for value in VALUES:
        yield "{{ %s }}" % value
        for suffix in SUFFIXES:
            yield "{{ %s%s }}" % ("(%s)" % value if value.startswith("-") else value, suffix)
    for a, b, op in itertools.product(VALUES, VALUES, OPERATORS):
        if rng.random() < SHARE_OF_OPERATIONS and not (op in ("*", "**") and {"big", "fs"} & {a, b}):
            yield "{{ (%s) %s (%s) }}" % (a, op, b)
    for text, method in itertools.product(STRINGS, METHODS):
        yield "{{ %s.%s }}" % (text, method)
        yield "[{{ (%s|safe).%s }}]" % (text, method)
    for expression in FORMATS + EXPRESSIONS:
        yield "{{ %s }}" % expression
    yield from TEMPLATES
    for _ in range(N_WHITE_SPACE):
        yield white_space(rng)


SHARE_OF_OPERATIONS = 0.1
N_WHITE_SPACE = 1000

# Addresses, sets, complex numbers, Python's own attributes, and lipsum, self, pprint, random, urlize, wordwrap.
LEFT_OUT_TEMPLATES = re.compile(
    r" is (filter|test) \}\}$"
    r"|^\{\{ (\(?-?[\d.e]+\)?|true|none|\{.*\})\[.*:.*\] \}\}$"
    r"|\(d\.(items|keys)\(\)\) [-<>!=]|[-<>!=] \(d\.(items|keys)\(\)\)|in \(?\(d\.keys|d\.(items|keys)\(\)\) (not )?in \("
    r"|missing\.__class__|range\(3\)\.(count|index)|l\|map\('string'\)\|(upper|lower|title|capitalize|wordcount|string|trim|center|truncate|e |safe|urlencode|forceescape|striptags|replace)"
    r"|\*\* \((f|0\.5)\)|%5%|wordwrap|real|bit_length|lipsum|self")
LEFT_OUT_TEXTS = re.compile(r"0x7|<generator|<built-in|<bound|<function|<class|<map|<list_")


def usable(template, result):
    try:
        result.get("text", "").encode()
    except UnicodeEncodeError:
        return False
    return not LEFT_OUT_TEMPLATES.search(template) and not LEFT_OUT_TEXTS.search(result.get("text", ""))


def main():
    with open(sys.argv[1], "w", encoding="utf-8") as out:
        print(json.dumps({"variables": VARIABLES}), file=out)
        for template in dict.fromkeys(templates()):
            signal.alarm(10)
            result = render(template, VARIABLES)
            signal.alarm(0)
            if usable(template, result):
                print(json.dumps({"template": template, **result}), file=out)


if __name__ == "__main__":
    main()
