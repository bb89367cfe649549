#!/usr/bin/env python3
"""Checks the dependencies against deny.toml: licences, sources, duplicate versions.

A part of what `cargo deny` does, with nothing to install. Only what is built for the target
in deny.toml counts.
"""

import json
import re
import subprocess
import sys
import tomllib
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    rules = tomllib.loads((ROOT / "deny.toml").read_text())
    packages = built_packages(rules["graph"]["targets"])
    foreign = [package for package in packages if package["source"] is not None]
    problems = [
        *unknown_sources(foreign, rules["sources"]["allow-registry"]),
        *bad_licences(foreign, rules["licenses"]),
        *duplicates(foreign, rules["bans"]["skip"]),
    ]
    for problem in problems:
        print(f"dependencies: {problem}", file=sys.stderr)
    print(f"{len(foreign)} packages of others, {len(problems)} problems")
    return 1 if problems else 0


def built_packages(targets: list[str]) -> list[dict]:
    """The packages that are reached from the workspace on these targets, tests included."""
    command = ["cargo", "metadata", "--format-version", "1", "--locked"]
    for target in targets:
        command += ["--filter-platform", target]
    metadata = json.loads(subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout)
    reached, waiting = set(), list(metadata["workspace_members"])
    edges = {node["id"]: [dep["pkg"] for dep in node["deps"]] for node in metadata["resolve"]["nodes"]}
    while waiting:
        package = waiting.pop()
        if package not in reached:
            reached.add(package)
            waiting += edges[package]
    named = compiled(targets)
    return [
        package
        for package in metadata["packages"]
        if package["id"] in reached and (package["name"], package["version"]) in named
    ]


def compiled(targets: list[str]) -> set[tuple[str, str]]:
    """Names and versions of what is compiled: `cargo metadata` also has what an optional feature would bring."""
    command = ["cargo", "tree", "--workspace", "--locked", "--edges", "normal,build,dev", "--prefix", "none", "--format", "{p}"]
    for target in targets:
        command += ["--target", target]
    lines = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    words = (line.split() for line in lines if line.strip())
    return {(name, version.removeprefix("v")) for name, version, *_ in words}


def unknown_sources(packages: list[dict], registries: list[str]) -> list[str]:
    allowed = {f"registry+{registry}" for registry in registries}
    return [f"{named(p)} comes from {p['source']}" for p in packages if p["source"] not in allowed]


def bad_licences(packages: list[dict], rules: dict) -> list[str]:
    exceptions = {entry["crate"]: entry["allow"] for entry in rules.get("exceptions", [])}
    problems = []
    for package in packages:
        allowed = {*rules["allow"], *exceptions.get(package["name"], [])}
        expression = package["license"]
        if expression is None:
            problems.append(f"{named(package)} names no licence")
        elif not Spdx(expression, allowed).holds():
            problems.append(f"{named(package)} is under {expression}")
    return problems


def duplicates(packages: list[dict], skips: list[dict]) -> list[str]:
    skipped = [entry["crate"].split("@") for entry in skips]
    versions, used = defaultdict(set), set()
    for package in packages:
        for name, prefix in skipped:
            if package["name"] == name and (package["version"] + ".").startswith(prefix + "."):
                used.add((name, prefix))
                break
        else:
            versions[package["name"]].add(package["version"])
    problems = [f"{name} is there in several versions: {', '.join(sorted(found))}"
                for name, found in sorted(versions.items()) if len(found) > 1]
    problems += [f"deny.toml skips {name}@{prefix}, which is not there"
                 for name, prefix in skipped if (name, prefix) not in used]
    return problems


def named(package: dict) -> str:
    return f"{package['name']} {package['version']}"


class Spdx:
    """An SPDX licence expression, true if the allowed licences satisfy it. `/` is an old `OR`."""

    def __init__(self, expression: str, allowed: set[str]):
        self.words = re.findall(r"[()]|[^\s()]+", expression.replace("/", " OR "))
        self.allowed = allowed

    def holds(self) -> bool:
        result = self.any_of()
        if self.words:
            raise ValueError(f"left over in a licence expression: {self.words}")
        return result

    def any_of(self) -> bool:
        result = self.all_of()
        while self.take("OR"):
            result = self.all_of() or result
        return result

    def all_of(self) -> bool:
        result = self.one()
        while self.take("AND"):
            result = self.one() and result
        return result

    def one(self) -> bool:
        if self.take("("):
            result = self.any_of()
            if not self.take(")"):
                raise ValueError("a bracket of a licence expression is not closed")
            return result
        licence = self.words.pop(0)
        if self.take("WITH"):
            licence += f" WITH {self.words.pop(0)}"
        return licence in self.allowed

    def take(self, word: str) -> bool:
        if self.words and self.words[0] == word:
            self.words.pop(0)
            return True
        return False


if __name__ == "__main__":
    sys.exit(main())
