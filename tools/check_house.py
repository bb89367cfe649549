#!/usr/bin/env python3
"""Rules of the house that no compiler checks: where `unsafe` may be, how long a file may
get, that nothing is left for later, that words for the log end no program, and that every test a promise names is there."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# No file grows into a hub that everything passes through.
MAX_LINES = 800

UNSAFE_HOME = "crates/sandbox/src/sys/"

# Code, not the names of lints or words in comments.
UNSAFE = re.compile(r"\bunsafe\b(?!_)")
ALLOW_UNSAFE = re.compile(r"#!?\[(allow|expect)\(.*\bunsafe_code\b")
LEFT_FOR_LATER = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b|\b(todo|unimplemented)!\s*\(")
# Where words go to a log that may lie on a full disk. `println!` and its kin end the program then.
KEEPS_RUNNING = re.compile(
    r"crates/(agent|channel|egress|engine|gateway|ledger|sandbox|vault|workspace)/src/(?!probes/)"
    r"|crates/cli/src/commands/up\.rs"
)
PRINTS = re.compile(r"\b(e?print(ln)?|dbg)!")
STRING = re.compile(r'r#".*?"#|"(\\.|[^"\\])*"')
FAULTS = "tools/faults.toml"
# In these, a name of three words or more in backticks is that of a test.
PROMISES = ["SECURITY.md", "docs/incidents.md"]
TEST_NAME = re.compile(r"`([a-z0-9]+(?:_[a-z0-9]+){2,})`")
FUNCTION = re.compile(r"\bfn ([a-z0-9_]+)")
SKIPPED_TEST = re.compile(r"#\[ignore")


def main() -> int:
    listed = subprocess.run(["git", "ls-files", "*.rs"], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    files = [name for name in listed.stdout.splitlines() if (ROOT / name).exists()]
    problems = [problem for name in files for problem in problems_of(name, (ROOT / name).read_text())]
    functions = {name for file in files for name in FUNCTION.findall((ROOT / file).read_text())}
    problems += [problem for name in PROMISES for problem in broken_promises(name, functions)]
    problems += faults_that_hit_nothing()
    for problem in problems:
        print(f"house: {problem}", file=sys.stderr)
    print(f"{len(files)} files, {len(problems)} problems")
    return 1 if problems or not files else 0


def faults_that_hit_nothing() -> list[str]:
    """A fault to be seeded is one change of the code as it is now."""
    faults = tomllib.loads((ROOT / FAULTS).read_text())["fault"]
    return [
        f"{FAULTS}: the old text of {fault['what']!r} does not stand exactly once in {fault['file']}"
        for fault in faults
        if (ROOT / fault["file"]).read_text().count(fault["old"]) != 1
    ]


def problems_of(name: str, text: str) -> list[str]:
    problems = []
    lines = text.splitlines()
    if len(lines) > MAX_LINES:
        problems.append(f"{name} has {len(lines)} lines; split it (at most {MAX_LINES})")
    for number, line in enumerate(lines, 1):
        place = f"{name}:{number}"
        words = without_strings(line)
        code = words.split("//")[0]
        if UNSAFE.search(code) and not name.startswith(UNSAFE_HOME):
            problems.append(f"{place}: unsafe code outside {UNSAFE_HOME}")
        if ALLOW_UNSAFE.search(code) and not allows_unsafe_here(name):
            problems.append(f"{place}: the lint against unsafe code is lifted outside {UNSAFE_HOME}")
        if PRINTS.search(code) and KEEPS_RUNNING.match(name):
            problems.append(f"{place}: ends the program when the disk is full; use protocol::log!")
        if LEFT_FOR_LATER.search(words):
            problems.append(f"{place}: something is left for later")
        if SKIPPED_TEST.search(code):
            problems.append(f"{place}: a test that does not run")
    return problems


def broken_promises(name: str, functions: set[str]) -> list[str]:
    tests = TEST_NAME.findall((ROOT / name).read_text())
    return [f"{name} names the test {test}, which is not there" for test in tests if test not in functions]


def allows_unsafe_here(name: str) -> bool:
    # The line that lifts it stands in the module or at its declaration.
    return name.startswith(UNSAFE_HOME) or name == "crates/sandbox/src/lib.rs"


def without_strings(line: str) -> str:
    return STRING.sub('""', line)


if __name__ == "__main__":
    sys.exit(main())
