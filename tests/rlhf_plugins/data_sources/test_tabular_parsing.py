"""Templates, cells and dialogues by themselves."""

import json

import pytest

from rlhf_plugins.tabular.cells import BadCell, cut, number_of, strip_html
from rlhf_plugins.tabular.dialogue import read_messages, read_transcript
from rlhf_plugins.tabular.template import parse_template


def test_template_fills_literally():
    template = parse_template("{{a}} {a} {b b}")
    assert template.columns == ("a", "b b")
    assert template.fill({"a": "{b b}", "b b": "{0.__class__}"}.__getitem__) == "{a} {b b} {0.__class__}"


@pytest.mark.parametrize("hostile", ["{a.b}", "{a[0]}", "{a!r}", "{a:>9999999999}", "{}", "{", "{a:{b}}"])
def test_template_takes_nothing_but_names(hostile):
    with pytest.raises(ValueError):
        parse_template(hostile)


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("<p>One.</p><p>Two <em>th</em>ree<br>four</p>", "One. Two three four"),
        ("a &lt;b&gt; &amp;amp; &#8212;", "a <b> &amp; —"),
        ("<script>alert(1)</script>x<style>p{}</style>", "x"),
        ("5 < 6 and 7 > 3", "5 < 6 and 7 > 3"),
        ('<a href="javascript:x">go</a>!', "go!"),
        ("no html", "no html"),
    ],
)
def test_strip_html(html, text):
    assert strip_html(html) == text


@pytest.mark.parametrize(
    ("text", "characters", "kept"),
    [
        ("one two", 7, "one two"),
        ("one two", 6, "one"),
        ("one two", 3, "one"),
        ("one two", 2, "on"),
        ("今天下雨", 3, "今天下"),
    ],
)
def test_cut(text, characters, kept):
    assert cut(text, characters) == kept


@pytest.mark.parametrize(("value", "number"), [("1.5", 1.5), (2, 2.0), (True, 1.0), ("False", 0.0), (" 3 ", 3.0)])
def test_number_of(value, number):
    assert number_of(value, "c") == number


@pytest.mark.parametrize("value", ["1,5", "inf", None, "", "1" * 5000 + "e", [1]])
def test_number_of_refuses(value):
    with pytest.raises(BadCell):
        number_of(value, "c")


def test_transcript():
    turns = read_transcript("\n\nHuman: Hi\n\nthere\n\nAssistant: Yes?\n\nAssistant: Well?\n\nHuman: x", "c")
    assert [(t.role, t.content) for t in turns] == [
        ("user", "Hi\n\nthere"), ("assistant", "Yes?\n\nWell?"), ("user", "x"),
    ]  # fmt: skip


def test_messages_in_their_dialects():
    expected = [("system", "s"), ("user", "u"), ("assistant", "a")]
    plain = [{"role": role, "content": content} for role, content in expected]
    sharegpt = [{"from": role, "value": c} for role, c in zip(("system", "human", "gpt"), "sua", strict=True)]
    for value in (plain, sharegpt, json.dumps(plain)):
        assert [(t.role, t.content) for t in read_messages(value, "c")] == expected


@pytest.mark.parametrize(
    "value", ["not json", "[]", [], 3, ["x"], [{"role": "tool", "content": "x"}], [{"role": "user"}]]
)
def test_messages_refuses(value):
    with pytest.raises(BadCell):
        read_messages(value, "c")
