"""Writes the tables of inputs and outputs into each module's README.md, below the line that says so.

`python infra/module_docs.py` writes; `--check` only says (by its exit status) whether something is out of date.
What stands above the line is written by people: why the module is as it is.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

MODULES = Path(__file__).resolve().parent / "terraform" / "modules"
LINE = "<!-- below this line: written by infra/module_docs.py -->"
_BLOCK = re.compile(r'^(variable|output) "(\w+)" \{\n(.*?)^\}', re.M | re.S)


def _one(pattern: str, body: str) -> str:
    found = re.search(pattern, body, re.M)
    return found[1].strip() if found else ""


def tables(folder: Path) -> str:
    """The two tables as Markdown."""
    text = (folder / "variables.tf").read_text(encoding="utf-8") + (folder / "outputs.tf").read_text(
        encoding="utf-8"
    )
    rows: dict[str, list[str]] = {"variable": [], "output": []}
    for kind, name, body in _BLOCK.findall(text):
        about = _one(r'^  description\s*= "(.*)"$', body)
        if kind == "output":
            rows[kind].append(f"| `{name}` | {about} |")
            continue
        what = re.split(r"[({]", _one(r"^  type\s*= (.*)$", body))[0] or "object"
        needed = "no" if re.search(r"^  default\s*=", body, re.M) else "yes"
        rows[kind].append(f"| `{name}` | {what} | {needed} | {about} |")
    return "\n".join(
        [
            "## Inputs",
            "",
            "| name | type | required | meaning |",
            "| --- | --- | --- | --- |",
            *rows["variable"],
            "",
            "## Outputs",
            "",
            "| name | meaning |",
            "| --- | --- |",
            *rows["output"],
            "",
        ]
    )


def main(words: list[str]) -> int:
    stale: list[str] = []
    for folder in sorted(p for p in MODULES.iterdir() if p.is_dir()):
        readme = folder / "README.md"
        before = readme.read_text(encoding="utf-8")
        after = before.split(LINE)[0].rstrip() + f"\n\n{LINE}\n\n{tables(folder)}"
        if after != before:
            stale.append(folder.name)
            if "--check" not in words:
                readme.write_text(after, encoding="utf-8")
    if "--check" in words and stale:
        print("run python infra/module_docs.py: out of date: " + ", ".join(stale))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
