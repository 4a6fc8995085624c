"""Check the English of docstrings, comments and documents against the patterns of the style guide.

Usage: ``python docs/check_prose.py [PATH …]``. Without paths it checks the package, the tests and the documents. Prints
each hit as ``file:line: reason: text`` and ends with status 1 if there is one.
"""

from __future__ import annotations

import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
PATTERNS = {
    "preposition before 'who'": r"\b(?:about|at|by|for|from|of|on|than|to|with) who\b(?!se)",
    "'for ever': write 'indefinitely', or nothing": r"\bfor ever\b",
    "'anew': write 'again'": r"\banew\b",
    "'so many': write a count or 'limit'": r"\bso many\b",
    "'by itself': write 'automatically'": r"\b(?:by itself|by themselves)\b",
    "'is another': write 'changed'": r"\bis another(?: one)?\b[.,;:]",
    "'the meanwhile'": r"\b(?:in the|the) meanwhile\b",
    "'it is told', 'is asked for'": r"\b(?:it is told|is told of|is asked for)\b",
    "sentence that begins with 'What' or 'Who'": r"(?:^|[.!?] )(?:What|Who|Whoever)\b(?:(?!\?)[^.])*\.(?:\s|$)",
    "person for a process": r"\b(?:hears|speaks|tells) (?:of|the (?:client|server|worker|hub|room))\b",
}
COMPILED = {reason: re.compile(pattern) for reason, pattern in PATTERNS.items()}
WHAT = "sentence that begins with 'What' or 'Who'"


def texts_of(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the docstrings and comments of a Python file, or the paragraphs of a document, with their lines."""
    source = path.read_text()
    if path.suffix == ".py":
        for token in tokenize.generate_tokens(io.StringIO(source).readline):
            if token.type == tokenize.COMMENT:
                yield token.start[0], token.string.lstrip("# ")
            elif token.type == tokenize.STRING and '"""' in token.string[:5]:
                line = token.start[0]
                for paragraph in re.split(r"(\n\s*\n)", token.string.strip('rf"')):
                    if paragraph.strip():
                        yield line, " ".join(paragraph.split())
                    line += paragraph.count("\n")
        return
    line, fenced = 1, False
    for paragraph in re.split(r"(\n)", source):
        if paragraph.startswith("```"):
            fenced = not fenced
        if paragraph.strip() and not fenced and not paragraph.startswith("#"):
            yield line, paragraph.strip()
        line += paragraph.count("\n")


def hits(path: Path) -> Iterator[str]:
    """Yield a line for each breach of the style guide in a file."""
    for line, text in texts_of(path):
        for reason, pattern in COMPILED.items():
            found = pattern.search(text)
            if found and not (reason == WHAT and path.suffix != ".py"):
                excerpt = text[max(0, found.start() - 20) : found.end() + 40]
                yield f"{path.relative_to(ROOT)}:{line}: {reason}: {excerpt}"


def main() -> int:
    """Print all hits, and return the exit status."""
    files = subprocess.run(["git", "ls-files", *sys.argv[1:]], cwd=ROOT, check=True, capture_output=True, text=True)
    paths = [ROOT / name for name in files.stdout.split("\n") if name.endswith((".py", ".md"))]
    found = [hit for path in paths if path.exists() and path != Path(__file__) for hit in hits(path)]
    print("\n".join([*found, f"{len(found)} hits in {len(paths)} files"]))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
