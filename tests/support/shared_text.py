"""Random shared texts for tests."""

from __future__ import annotations

import random

import pycrdt


class Author:
    """One author of a shared text, with their Yjs document and updates."""

    def __init__(self, client: int) -> None:
        self.doc: pycrdt.Doc[pycrdt.Text] = pycrdt.Doc(client_id=client)
        self.text = self.doc.get("content", type=pycrdt.Text)
        self.updates: list[bytes] = []

    def _record(self, before: bytes) -> None:
        self.updates.append(self.doc.get_update(before))

    def act(self, choose: random.Random) -> None:
        """Insert, delete or format a random part of the text."""
        before = self.doc.get_state()
        words = str(self.text)
        places = [0]
        for character in words:
            places.append(places[-1] + len(character.encode()))
        start, end = sorted(choose.choices(places, k=2))
        kind = choose.random()
        if kind < 0.6 or start == end:
            self.text.insert(start, choose.choice(PIECES))
        elif kind < 0.85:
            del self.text[start:end]
        else:
            self.text.format(start, end, {"bold": choose.choice([True, None])})
        self._record(before)


def authored(seed: int, authors: int = 3, acts: int = 25) -> tuple[str, list[bytes]]:
    """Return a text by several authors, and all updates."""
    choose = random.Random(seed)
    people = [Author(choose.randrange(1, 2**32)) for _ in range(authors)]
    for _ in range(acts):
        person = choose.choice(people)
        person.act(choose)
        if choose.random() < 0.3:
            other = choose.choice(people)
            person.doc.apply_update(other.doc.get_update(person.doc.get_state()))
    updates = [update for person in people for update in person.updates]
    for update in updates:
        people[0].doc.apply_update(update)
    return str(people[0].text), updates


PIECES = ["a", "b ", "one", "\n", "🦜", "👩‍👩‍👧", "é", "é", "\u2028", "中"]
