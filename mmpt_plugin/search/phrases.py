"""What a query asks for: one sentence, or quoted phrases joined by + and -; and the words that are looked for as words."""

from __future__ import annotations

import re
from dataclasses import dataclass

LONGEST_QUERY = 10_000
"""Characters; more is no sentence."""

MOST_WORDS = 64
"""Words of a query that are looked for in transcripts."""

STOP_WORDS = frozenset({
    "a", "an", "and", "are", "as", "at", "be", "been", "but", "by", "for", "from", "had", "has", "have", "i",
    "if", "in", "into", "is", "it", "its", "of", "on", "or", "our", "so", "that", "the", "their", "then",
    "there", "these", "this", "those", "to", "was", "we", "were", "will", "with", "you", "your"
})  # fmt: skip
"""English words that stand in most lines: a line that shares no other word with a query is no answer to it."""

PHRASE = re.compile(r"""\s*([+-])?\s*(?:"([^"]*)"|“([^”]*)”)""")
WORD = re.compile(r"\w+(?:['’]\w+)*")
# Scripts that put no blanks between words: each character is a word of its own, so that any part of a line is found.
UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)


@dataclass(frozen=True)
class Query:
    """Phrases to add and phrases to subtract; a plain sentence is one phrase to add."""

    plus: tuple[str, ...]
    minus: tuple[str, ...] = ()


def parse_query(text: str) -> Query:
    """Reads `"stir the soup" - "spoon"`; whatever is not wholly of this form is a plain sentence.

    Args:
        text: the query; control characters count as blanks.

    Raises:
        ValueError: if it is empty, too long, or only subtracts.
    """
    plain = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    if not plain:
        raise ValueError('the query is empty: give a sentence, such as "add the onions"')
    if len(plain) > LONGEST_QUERY:
        raise ValueError(f"the query has {len(plain)} characters, at most {LONGEST_QUERY} are taken: shorten it")
    found: dict[str, list[str]] = {"+": [], "-": []}
    position = 0
    while match := PHRASE.match(plain, position):
        sign, straight, curly = match.groups()
        phrase = (straight if straight is not None else curly).strip()
        if not phrase or (position and not sign):
            break
        found[sign or "+"].append(phrase)
        position = match.end()
    if plain[position:].strip() or not position:
        return Query((plain,))
    if not found["+"]:
        raise ValueError(f'the query {plain} only subtracts: begin with what to look for, "stir the soup" - "spoon"')
    return Query(tuple(found["+"]), tuple(found["-"]))


def words_of(text: str) -> list[str]:
    """The words of a text as the index of transcripts knows them."""
    return WORD.findall(UNSPACED.sub(lambda match: f" {match[0]} ", text))


def match_expression(query: Query) -> str:
    """The query in FTS5's language: any of its words, none of those that are subtracted; "" if it has no word.

    Stop words count only in phrases that have no other word.

    Every word is quoted, so that nothing in it is taken for an operator.
    """

    def any_of(phrases: tuple[str, ...]) -> str:
        words = [word for phrase in phrases for word in words_of(phrase)]
        telling = [word for word in words if word.lower() not in STOP_WORDS]
        words = (telling or words)[:MOST_WORDS]
        return " OR ".join(f'"{word}"' for word in dict.fromkeys(words))

    wanted, unwanted = any_of(query.plus), any_of(query.minus)
    return f"({wanted}) NOT ({unwanted})" if wanted and unwanted else wanted
