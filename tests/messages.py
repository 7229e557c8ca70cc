"""Which messages the code can give: its strings, as templates that a quoted message is held against.

A quoted message is made up of whole templates, of what is filled into them, and of values; only its beginning and its
end may be cut out of one. So a word that was left out, added or changed shows.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

FILLED = "\0"
"""Stands in a template for what is filled in."""

_MOST_WORDS = 16
"""That are filled in at one place."""

_FEWEST_WORDS = 2
"""Of a template's own: one with fewer fits what it has nothing to do with."""

_VALUE = re.compile(r"[^a-z]+|.*\d.*|blue|green|shards|warning|error|\S*…\S*|[\"'].*")
"""Numbers, names of parts, capitals: what nobody writes into a template."""

_PERCENT = re.compile(r"%[-\d.]*[sdfr]")

Words = tuple[str, ...]


def templates(source: str) -> Iterator[str]:
    """Give the strings of a program, but for its docstrings; `FILLED` where something is filled in."""
    tree = ast.parse(source)
    apart = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    apart |= {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else FILLED for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str | bytes) and id(node) not in apart:
            text = node.value if isinstance(node.value, str) else node.value.decode(errors="replace")
            yield _PERCENT.sub(FILLED, text)


class Messages:
    """The messages of all programs in a directory.

    Args:
        directory: of them.
        more: what others say that they run.
    """

    def __init__(self, directory: Path, more: Sequence[str] = ()) -> None:
        said = {text for path in directory.rglob("*.py") for text in templates(path.read_text())}
        found = {_words(text) for text in (*said, *more)}
        self._templates = [words for words in found if sum(FILLED not in word for word in words) >= _FEWEST_WORDS]
        self._given = cache(self._is_given)

    def given(self, message: str) -> bool:
        """Tell whether a message is one that is given; ``…`` stands for what a page leaves out."""
        pieces = [_words(piece) for piece in re.split(r"(?:^|\s)…(?=\s|$)", message)]
        return all(self._given(words, True) for words in pieces if len(words) > _FEWEST_WORDS)

    def _is_given(self, words: Words, cut: bool) -> bool:
        """Tell whether words are made up of templates; `cut`: the first and the last may be cut off."""
        reached, there = {0}, set(words)
        possible = [one for one in self._templates if sum(word in there for word in one) >= _FEWEST_WORDS]
        for at in range(len(words)):
            if at not in reached:
                continue
            if _VALUE.fullmatch(words[at]):
                reached.add(at + 1)
            for template in possible:
                for begin in range(len(template) if cut and at == 0 else 1):
                    reached |= self._ends(words, at, template[begin:], cut)
        return len(words) in reached

    def _ends(self, words: Words, at: int, template: Words, cut: bool) -> set[int]:
        """Give where in `words` a template may end that begins at `at`."""
        ends, places = set(), {(at, 0)}
        for part in template:
            places = {
                (end, own + (FILLED not in part)) for place, own in places for end in self._after(words, place, part)
            }
            if cut:
                ends |= {place for place, own in places if place == len(words) and own >= _FEWEST_WORDS}
            if not places:
                return ends
        return ends | {place for place, own in places if own >= _FEWEST_WORDS}

    def _after(self, words: Words, at: int, part: str) -> Iterator[int]:
        """Give where one may be in `words` after a template's word that begins at `at`."""
        if part == FILLED:
            yield at
        for end in range(at + 1, min(len(words), at + (_MOST_WORDS if FILLED in part else 1)) + 1):
            found = _pattern(part).fullmatch(" ".join(words[at:end]))
            if found and all(self._may_be_filled_in(_words(text), len(words)) for text in found.groups()):
                yield end

    def _may_be_filled_in(self, words: Words, most: int) -> bool:
        """Tell whether words may be what is filled into a template of fewer than `most` words in all."""
        if len(words) <= 1 or all(map(_VALUE.fullmatch, words)):
            return True
        return len(words) <= most - _FEWEST_WORDS and self._given(words, False)


def _words(text: str) -> Words:
    """Give the words of a text; how it marks commands, and what parts of it end with, is no matter."""
    return tuple(word.replace("`", "").rstrip(":;,.") for word in text.split())


@cache
def _pattern(word: str) -> re.Pattern[str]:
    """Give the pattern of a template's word, with a group for each thing that is filled in."""
    return re.compile("(.*)".join(map(re.escape, word.split(FILLED))), re.DOTALL)
