import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssljax.data.html_text import extract

PAGE = """<!DOCTYPE html>
<html lang="de"><head><meta charset="utf-8"><title>Titel</title>
<style>p > b { color: red }</style><script>if (a < b) { "<p>nein</p>" }</script></head>
<body class='x'><header>Kopf</header>
<nav><ul><li><nav>innen</nav></li><li>Menü</li></ul></nav>
<h1>Größe &amp; Gewicht</h1>
<!-- <p>Kommentar</p> --><p>Ein   <b>fet</b>ter\r
 Absatz&nbsp;mit <a href="x>y">Ver&shy;weis</a>.<br/>Neue Zeile</p>


<ul><li>eins<li>zwei</ul>
<table><tr><td>a</td><td>b</td></tr><tr><th>c</th><th>d</th></tr></table>
<template><p>Vorlage</p></template><noscript>Ohne</noscript>
<pre>
def f():\r
    return  "&lt;b&gt;"

<i>x</i> = 1
</pre><form><select><option>1</option></select><button>Los</button></form>
<footer>Fuß</footer></body></html>
"""

TEXT = """Kopf
Größe & Gewicht
Ein fetter Absatz mit Ver\xadweis.
Neue Zeile
eins
zwei
a b
c d
def f():
    return  "<b>"

x = 1
"""


def test_a_page_becomes_its_lines():
  assert extract(PAGE) == TEXT


@pytest.mark.parametrize(
  ("page", "text"),
  [
    ("", ""),
    (" \n\t", ""),
    ("plain", "plain\n"),
    ("<p></p><img src=x><script>a</script>", ""),
    ("<head><p>no end of head", "no end of head\n"),
    ("<P>a<P>b<UL><LI>c", "a\nb\nc\n"),
    ("a<script>b", "a\n"),
    ("a<nav>b<p>c", "a\n"),
    ("a</nav></p></pre>b", "a\nb\n"),
    ("a<b", "a\n"),
    ('a<p>b<a href="c', "a\nb\n"),
    ("a<!-- b", "a\n"),
    ("a <", "a <\n"),
    ("1 < 2 && 3 > 2 &am", "1 < 2 && 3 > 2 &am\n"),
    ("a<![endif]>b<![CDATA[c]]>d<?php e ?>f", "abdf\n"),
    ("<pre>  a\n\n\n  b<br>c<div>d</div>e", "  a\n\n\n  b\nc\nde\n"),
    ("<pre>\n</pre><pre> \n</pre>", ""),
    ("<pre>a<nav>b</nav>c</pre>  d  e", "a\nc\nd e\n"),
    ("&#228;&#xe4;&auml;&auml &#0;&#xD800;&unknown;", "äää\xe4 \ufffd\ufffd&unknown;\n"),
    (f"a&#{'9' * 5000};b<a href='&#{'9' * 5000};'>c", "a\ufffd;bc\n"),
  ],
)
def test_a_piece_becomes_its_lines(page, text):
  assert extract(page) == text


@pytest.mark.parametrize("piece", ["<div>", "<pre>", "<nav>", "<b><p>", "</div>", "<a ", "<!--", "<![", "<a b='", "&#"])
def test_depth_does_not_matter(piece):
  assert extract(f"x<p>{piece * 50_000}").startswith("x\n")


TAGS = [
  "<p>",
  "</p>",
  "<b>",
  "</b>",
  "<pre>",
  "</pre>",
  "<td a='<i>'>",
  "<br/>",
  "<nav>",
  "</nav>",
  "<script>",
  "<!--",
  "-->",
]
WORDS = st.text(st.characters(exclude_characters="<&", exclude_categories=["Cs"]), max_size=8)


@given(st.lists(st.sampled_from(TAGS) | WORDS).map("".join))
def test_no_complete_tag_is_left(page):
  text = extract(page)
  assert not re.search(r"<[/!a-z]", text)
  assert text == "" or (text.endswith("\n") and text.strip())


@given(st.text(), st.text(st.sampled_from("<>/!?-[]&#;x9= \n\0'\"apre")), st.text(st.sampled_from("<>/!-]'\"& a=\0")))
def test_any_text_is_read(any_text, before, after):
  extract(any_text).encode()
  assert "<mark " not in extract(f"{before}<mark a='b'>{after}")
