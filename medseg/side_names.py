"""Left and right in the names of labels: which names tell a side, and which two are the sides of one thing.

A name is cut into words at separators, at capitals ("LeftLung") and between letters and digits, without accents and
case. Words that mean left or right tell the side by themselves. What may mean something else (a letter, "der", "re")
tells it where another label of the same data set differs in nothing but the side, or where its place makes it clear.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

__all__ = ["pairs_of", "pairs_of_version_1", "sides_of"]


def _table(left: str, right: str) -> dict[str, str]:
    return dict.fromkeys(left.split(), "left") | dict.fromkeys(right.split(), "right")


_WORDS = {
    # English, and the hemispheres of FreeSurfer.
    **_table("left lefts leftmost leftsided lefthand lt lft lh lhs", "right rights rightmost rightsided righthand"),
    **_table("", "rt rgt rh rhs"),
    # German (and Dutch): the inflected adjective, the adverb.
    **_table("links linke linken linker linkes linkem lks", "rechts rechte rechten rechter rechtes rechtem"),
    **_table(
        "linksseitig linksseitige linksseitigen linksseitiger linksseitiges",
        "rechtsseitig rechtsseitige rechtsseitigen rechtsseitiger rechtsseitiges",
    ),
    # French.
    **_table("gauche gauches gche", "droit droite droits droites dte"),
    # Spanish.
    **_table("izquierdo izquierda izquierdos izquierdas", "derecho derecha derechos derechas"),
    **_table("izq izqdo izqda izdo izda izqu siniestro siniestra", "dcho dcha dch drcho drcha"),
    # Portuguese.
    **_table("esquerdo esquerda esquerdos esquerdas esq", "direito direita direitos direitas dto dta"),
    # Italian.
    **_table("sinistro sinistra sinistri sinistre sx", "destro destra destri destre dx"),
    # Latin.
    **_table("sinister sinistrum sinistrae sinistram sinistral", "dexter dextra dextrum dextri dextrae dextram"),
    **_table("", "dextro dextral dext"),
}
# Words that mean something else in another place or language, with the kind of their partner. "RT" in capitals is
# radiotherapy, "sin" is Spanish for without, "der" a German article, "li" and "re" are links and rechts.
_DOUBTFUL = {
    "sin": ("left", "latin"),
    "dex": ("right", "latin"),
    "li": ("left", "german"),
    "re": ("right", "german"),
    "der": ("right", "spanish"),
    "dir": ("right", "portuguese"),
    "l": ("left", "letter"),
    "r": ("right", "letter"),
    "g": ("left", "french letter"),
    "d": ("right", "french letter"),
}
# Lobes of the lung.
_CODES = frozenset({"lul", "lll", "rul", "rml", "rll"})
_PHRASES = frozenset({("left", "over"), ("left", "overs"), ("all", "right"), ("right", "angle"), ("up", "right")})
# Beside these, a letter is a part of the spine.
_SPINE = ("vertebr", "wirbel", "spine", "spinal", "lumbar")
# The article of "l'aorte".
_ELIDED = re.compile(r"\b[dl]['\u2019](?=\w)", re.IGNORECASE)
_RUNS = re.compile(r"[^\W\d_]+|\d+")
# Before a capital after a small letter, and before the last capital of several if a word of three letters begins there.
_CAPITALS = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z]{2})")
# Words that begin compounds; what goes on like this is another word: leftover, rightful, righteous.
_COMPOUND = ("left", "right", "links", "rechts")
_NO_COMPOUND = ("over", "ful", "eous")
_GLUED = tuple(sorted((word for word in _WORDS if len(word) >= 4), key=len, reverse=True))


@dataclass(frozen=True, slots=True)
class _Word:
    """A word of a name: as written, and whether it touches a digit."""

    text: str
    beside_digit: bool = False

    @property
    def plain(self) -> str:
        return self.text.casefold()

    @property
    def is_letter(self) -> bool:
        return len(self.text) == 1 and self.text.isalpha()


@dataclass(frozen=True, slots=True)
class _Reading:
    """What a name may mean: a side, the rest of the name, how it is written, and whether it needs no partner."""

    side: str
    stem: tuple[str, ...]
    kind: str
    sure: bool


def sides_of(names: Sequence[str]) -> tuple[str | None, ...]:
    """Per label 'left' or 'right', None where the name tells no side.

    Args:
        names: of all labels of a data set, since a letter is a side where the other one is there too.

    Example:
        >>> sides_of(["LeftAtrium", "kidney_l", "kidney_r", "vertebra_L1", "liver"])
        ('left', 'left', 'right', None, None)
    """
    return _decided(tuple(names))[0]


def pairs_of(names: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """Indices of labels that differ only in the side, `(left, right)`, in the order of the names.

    Example:
        >>> pairs_of(["Lunge rechts", "heart", "linke Lunge"])
        ((2, 0),)
    """
    return _decided(tuple(names))[1]


def pairs_of_version_1(names: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """`pairs_of` as plans and bundles of format_version 1 knew it: words between separators, both sides there.

    Example:
        >>> pairs_of_version_1(["lung_l", "lung_r", "LeftKidney", "RightKidney"])
        ((0, 1),)
    """
    sides: dict[str, dict[str, int]] = {}
    for n, name in enumerate(names):
        words = re.split(r"[\s_\-.]+", name.lower())
        found = [w for w in words if w in ("left", "right", "l", "r", "lt", "rt")]
        if len(found) == 1:
            stem = " ".join("*" if w == found[0] else w for w in words)
            sides.setdefault(stem, {})[found[0][0]] = n
    return tuple((s["l"], s["r"]) for s in sides.values() if len(s) == 2)


@lru_cache(maxsize=64)
def _decided(names: tuple[str, ...]) -> tuple[tuple[str | None, ...], tuple[tuple[int, int], ...]]:
    words = [_words_of(name) for name in names]
    letters = _letters_in_place(words)
    readings = [list(_readings(each, letters)) for each in words]
    by_stem: dict[tuple[str, ...], list[tuple[int, _Reading]]] = defaultdict(list)
    for n, each in enumerate(readings):
        for reading in each:
            by_stem[reading.stem].append((n, reading))
    sides: list[str | None] = [next((r.side for r in each if r.sure), None) for each in readings]
    pairs: dict[int, tuple[int, int]] = {}
    taken: set[int] = set()
    for alike in by_stem.values():
        for place, (one, first) in enumerate(alike):
            for other, second in alike[place + 1 :]:
                if first.side != second.side and _fit(first, second) and not {one, other} & taken:
                    taken |= {one, other}
                    sides[one], sides[other] = first.side, second.side
                    pairs[min(one, other)] = (one, other) if first.side == "left" else (other, one)
    return tuple(sides), tuple(pairs[n] for n in sorted(pairs))


def _fit(first: _Reading, second: _Reading) -> bool:
    return first.kind == second.kind or "word" in (first.kind, second.kind)


def _words_of(name: str) -> list[_Word]:
    """The words of a name; a letter and the number behind it ("L3") are one."""
    bare = "".join(c for c in unicodedata.normalize("NFKD", name) if not unicodedata.combining(c))
    bare = _ELIDED.sub(" ", bare)
    found: list[_Word] = []
    before = None
    for run in _RUNS.finditer(bare):
        touches = before is not None and before.end() == run.start()
        if run[0].isdigit():
            if touches and found[-1].is_letter:
                found[-1] = _Word(found[-1].text + run[0])
            else:
                found.append(_Word(run[0]))
        else:
            first, *rest = _CAPITALS.split(run[0])
            found += [_Word(first, beside_digit=touches), *map(_Word, rest)]
        before = run
    return found


def _letters_in_place(words: Sequence[Sequence[_Word]]) -> Mapping[tuple[str, ...], set[str]]:
    """Rest of a name -> the letters that stand beside it: zone_a to zone_z are an enumeration and no sides."""
    found: dict[tuple[str, ...], set[str]] = defaultdict(set)
    for each in words:
        for n, word in enumerate(each):
            if word.is_letter:
                found[_rest(each, {n})].add(word.plain)
    return found


def _rest(words: Sequence[_Word], without: set[int]) -> tuple[str, ...]:
    return tuple(word.plain for n, word in enumerate(words) if n not in without)


def _readings(words: Sequence[_Word], letters: Mapping[tuple[str, ...], set[str]]) -> Iterator[_Reading]:
    told = {n: _WORDS[w.plain] for n, w in enumerate(words) if w.plain in _WORDS and not _in_phrase(words, n)}
    if len(set(told.values())) > 1:
        return
    if told:
        side = next(iter(told.values()))
        # "Left lung (L)" says it twice.
        again = {n for n, w in enumerate(words) if w.plain == side[0]}
        sure = any(words[n].text != "RT" for n in told)
        yield _Reading(side, _rest(words, set(told) | again), "word", sure)
        return
    doubtful = {n: _DOUBTFUL[w.plain] for n, w in enumerate(words) if w.plain in _DOUBTFUL}
    for n, (side, kind) in doubtful.items():
        stem = _rest(words, {n})
        opposite = any(k == kind and s != side for s, k in doubtful.values())
        if not opposite and not _enumerated(kind, letters.get(stem, set())):
            yield _Reading(side, stem, kind, _clear(words, n))
    for n, word in enumerate(words):
        yield from _inside(words, n, word)


def _in_phrase(words: Sequence[_Word], n: int) -> bool:
    """Whether the word belongs to a phrase that does not mean a side: "left over"."""
    near = [word.plain for word in words[max(0, n - 1) : n + 2]]
    return any(pair in _PHRASES for pair in pairwise(near))


def _enumerated(kind: str, found: set[str]) -> bool:
    # A third letter beside L and R is the middle; French letters have no third.
    return len(found - {"l", "r"}) > 1 if kind == "letter" else len(found) > 2


def _clear(words: Sequence[_Word], n: int) -> bool:
    """Whether a doubtful word tells a side without a partner."""
    word = words[n]
    others = [w for k, w in enumerate(words) if k != n and not w.text.isdigit()]
    following = words[n + 1] if n + 1 < len(words) else None
    if not others:
        return False
    if not word.is_letter:
        return following is None
    if _DOUBTFUL[word.plain][1] != "letter" or word.beside_digit:
        return False
    near = words[max(0, n - 1) : n + 2]
    # A number behind a letter makes it a vertebra; letters in a row are initials.
    if (following is not None and following.text.isdigit()) or sum(w.is_letter for w in near) > 1:
        return False
    if any(w.plain.startswith(_SPINE) for w in others):
        return False
    if word.text.isupper():
        return True
    # "lKidney", but not "rCBV", which is relative, nor "l kidney", which may be a class.
    return n == 0 and following is not None and following.text.istitle() and len(following.text) > 2


def _inside(words: Sequence[_Word], n: int, word: _Word) -> Iterator[_Reading]:
    """Sides at the beginning or end of a word; most need a partner: lkidney, KIDNEYR, LV, lungleft."""
    plain = word.plain
    before, behind = _rest(words[:n], set()), _rest(words[n + 1 :], set())
    for start in (True, False):
        whole = next(
            (w for w in _GLUED if len(plain) >= len(w) + 3 and (plain.startswith(w) if start else plain.endswith(w))),
            None,
        )
        if whole is not None:
            rest = plain[len(whole) :] if start else plain[: -len(whole)]
            marked = rest + "$" if start else "^" + rest
            sure = start and whole in _COMPOUND and not rest.startswith(_NO_COMPOUND)
            yield _Reading(_WORDS[whole], (*before, marked, *behind), "glued", sure)
        letter = plain[:1] if start else plain[-1:]
        rest = plain[1:] if start else plain[:-1]
        if letter in ("l", "r") and len(rest) >= (1 if start else 2):
            side, _ = _DOUBTFUL[letter]
            written = word.text[0] if start else word.text[-1]
            kind = f"{'first' if start else 'last'} {'capital' if written.isupper() else 'small'}"
            marked = "." + rest if start else rest + "."
            yield _Reading(side, (*before, marked, *behind), kind, sure=start and plain in _CODES)
