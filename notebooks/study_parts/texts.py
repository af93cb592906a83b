"""Passages of books, cut for a study: texts/choose and texts/test, and in texts/short the same
passages as long as a probe's window.

Books alternate between the halves, so nothing that is chosen has seen a book that it is reported
on. A passage starts at a paragraph, far from the book's front matter. Where there are fewer books
than passages, books give several, evenly spaced.
"""

import os

MARGIN = 1.2  # a passage has this many times the characters that its tokens take on average


def books_of(folders):
    """Paths of the .txt files: folders in their order, in each by name."""
    paths = []
    for folder in folders:
        if os.path.isfile(folder):
            paths.append(folder)
            continue
        names = sorted(n for n in os.listdir(folder) if n.endswith(".txt"))
        paths += [os.path.join(folder, n) for n in names]
    return paths


def read(path):
    with open(path, encoding="utf-8") as f:
        return f.read()


def passages(books, documents, characters):
    """[(half, name, text), ...]: `documents` passages of `characters`, half of them in each half.

    Books that are too short for three passages are passed over, while there are others.
    """
    long = [b for b in books if os.path.getsize(b) > 3 * characters] or books
    used = long[:documents]
    found = []
    for i in range(documents):
        book, turn = used[i % len(used)], i // len(used)
        turns = -(-(documents - i % len(used)) // len(used))
        text = read(book)
        at = int((0.1 + 0.8 * (turn + 0.5) / turns) * max(0, len(text) - characters))
        start = text.find("\n", at) + 1
        name = os.path.splitext(os.path.basename(book))[0][:40]
        half = ("choose", "test")[i % len(used) % 2 if len(used) > 1 else i % 2]
        found.append((half, f"{name}_{turn:02d}", text[start : start + characters]))
    return found


def write(folder, books, documents, per_token, tokens, short):
    """Writes the passages: `tokens` long, and `short` tokens of them, at `per_token` characters."""
    long = int(MARGIN * per_token * tokens)
    for half, name, text in passages(books, documents, long):
        for kind, characters in (("", long), ("short", int(MARGIN * per_token * short))):
            where = os.path.join(folder, "texts", kind, half)
            os.makedirs(where, exist_ok=True)
            path = os.path.join(where, name + ".txt")
            if not os.path.exists(path) or read(path) != text[:characters]:
                with open(path, "w", encoding="utf-8") as f:
                    f.write(text[:characters])
