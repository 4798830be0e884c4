"""Queries as people and attackers write them."""

from __future__ import annotations

import sqlite3

import pytest

from mmpt_plugin.search.phrases import LONGEST_QUERY, Query, match_expression, parse_query, words_of


@pytest.mark.parametrize(
    "text, expected",
    [
        ("add the onions", Query(("add the onions",))),
        ("  add\tthe\n onions\x00 ", Query(("add the onions",))),
        ('"stir the soup" - "spoon"', Query(("stir the soup",), ("spoon",))),
        ('"a" + "b" -"c"', Query(("a", "b"), ("c",))),
        ("“stir” − “spoon”", Query(("“stir” − “spoon”",))),  # a minus sign that no keyboard has
        ("“stir” - “spoon”", Query(("stir",), ("spoon",))),
        ('say "hello" - quickly', Query(('say "hello" - quickly',))),
        ('"unclosed - "', Query(("unclosed -",))),
        ('"one" "two"', Query(('"one" "two"',))),
        ("well-known - dish", Query(("well-known - dish",))),
    ],
)
def test_parsing(text, expected):
    assert parse_query(text) == expected


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "empty"),
        (" \t\x00", "empty"),
        ("a" * (LONGEST_QUERY + 1), "10001 characters"),
        ('- "spoon"', "only subtracts"),
    ],
)
def test_what_is_no_query(text, message):
    with pytest.raises(ValueError, match=message):
        parse_query(text)


def test_words():
    assert words_of("Don't STIR, the crème-brûlée!") == ["Don't", "STIR", "the", "crème", "brûlée"]
    assert words_of("洋葱を切る ok") == ["洋", "葱", "を", "切", "る", "ok"]
    assert words_of("🍅 🧅") == []


SPECIAL = [
    *('"', "*", "a*", "NEAR", "NEAR(a b)", "a AND b", "NOT", "-", "- a", "a:b", "^a", "(", ")", "{a}"),
    "'; DROP TABLE video; --",
]


@pytest.mark.parametrize("text", [*SPECIAL, "🍅", "ا ب ج", "洋葱", "x" * 5000, "a " * 5000, '"a" - "b"', "\\", "%"])
def test_no_query_is_an_error_or_an_operator_for_sqlite(text):
    database = sqlite3.connect(":memory:")
    database.execute("CREATE VIRTUAL TABLE spoken USING fts5 (words)")
    database.execute("INSERT INTO spoken VALUES ('a b c')")
    try:
        expression = match_expression(parse_query(text))
    except ValueError as error:
        assert "subtracts" in str(error)
        return
    if expression:
        database.execute("SELECT * FROM spoken WHERE spoken MATCH ?", (expression,)).fetchall()


def test_subtracted_words_are_left_out():
    assert match_expression(parse_query('"stir soup" - "spoon"')) == '("stir" OR "soup") NOT ("spoon")'
    assert match_expression(parse_query("Put THE soup in a bowl")) == '"Put" OR "soup" OR "bowl"'
    assert match_expression(parse_query('"to be" - "the soup"')) == '("to" OR "be") NOT ("soup")'
    assert match_expression(parse_query("soup soup")) == '"soup"'
    assert match_expression(parse_query("🍅")) == ""
