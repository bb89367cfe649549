#!/usr/bin/env python3
"""Verifies a record of Bulkhead from docs/ledger.md alone. Needs Python 3.8 and nothing else.

    verify_ledger.py LEDGER.DB LEDGER.PUB

Checks numbers, hashes, chains and signatures (points 1 to 4 of docs/ledger.md), prints what
`bulkhead audit verify --json` prints, and exits with 0 if all is right, 1 if not, 2 if used wrongly.
What the events mean is not looked at.
"""

import hashlib
import json
import os
import sqlite3
import sys
from urllib.parse import quote

ZERO = bytes(32)
MAX_UNSIGNED = 256
MAX_PROBLEMS = 1000


def length_prefixed(*parts):
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def number(value):
    return value.to_bytes(8, "big")


def digest(*parts):
    return hashlib.sha256(length_prefixed(*parts)).digest()


# Ed25519 (RFC 8032, section 5.1). A point is (X, Y, Z, T) with x = X/Z, y = Y/Z, x*y = T/Z.

P = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
IDENTITY = (0, 1, 1, 0)


def add(p, q):
    a = (p[1] - p[0]) * (q[1] - q[0]) % P
    b = (p[1] + p[0]) * (q[1] + q[0]) % P
    c = 2 * D * p[3] * q[3] % P
    z = 2 * p[2] * q[2] % P
    e, f, g, h = b - a, z - c, z + c, b + a
    return (e * f % P, g * h % P, f * g % P, e * h % P)


def times(factor, p):
    result = IDENTITY
    for bit in bin(factor)[2:]:
        result = add(result, result)
        if bit == "1":
            result = add(result, p)
    return result


def same(p, q):
    return (p[0] * q[2] - q[0] * p[2]) % P == 0 and (p[1] * q[2] - q[1] * p[2]) % P == 0


def point(encoded):
    """The point with this encoding; None if there is none, or if it is of small order."""
    y = int.from_bytes(encoded, "little")
    odd, y = y >> 255, y & (2**255 - 1)
    if y >= P:
        return None
    square = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * pow(2, (P - 1) // 4, P) % P
    if (x * x - square) % P or (x == 0 and odd):
        return None
    if x & 1 != odd:
        x = P - x
    found = (x, y, 1, x * y % P)
    return None if same(times(8, found), IDENTITY) else found


BASE = point((4 * pow(5, P - 2, P) % P).to_bytes(32, "little"))


def signed(key, statement, signature):
    if len(key) != 32 or len(signature) != 64:
        return False
    owner, r, s = point(key), point(signature[:32]), int.from_bytes(signature[32:], "little")
    if owner is None or r is None or s >= ORDER:
        return False
    hashed = hashlib.sha512(signature[:32] + key + statement).digest()
    challenge = int.from_bytes(hashed, "little") % ORDER
    return same(times(s, BASE), add(r, times(challenge, owner)))


class Record:
    def __init__(self, key):
        self.key = key
        self.rows = self.last = self.covered = 0
        self.running = ZERO
        self.sessions = {}  # name: (row, seq, hash) of its newest row
        self.problems = []

    def problem(self, row, session, what):
        name = session.decode("utf-8", "replace") if isinstance(session, bytes) else None
        self.problems.append({"row": row, "session": name, "what": what})

    def row(self, columns):
        row, time, session, seq, event, prev, hashed, running = columns
        self.rows += 1
        if row <= self.last:
            return self.problem(self.last + 1, session, f"a row has the number {row}")
        if row != self.last + 1:
            self.problem(self.last + 1, None, f"rows are missing before row {row}")
        self.last = row
        typed = all(isinstance(n, int) and n >= 0 for n in (time, seq))
        if not typed or not all(isinstance(b, bytes) for b in (session, event, prev, hashed, running)):
            return self.problem(row, session, "a column is not of its type")
        before = self.sessions.get(session, (0, 0, ZERO))
        own = digest(b"bulkhead/ledger/row/v1", number(row), number(time), session, number(seq), prev, event)
        if own != hashed:
            self.problem(row, session, "its hash is not that of its content")
        if digest(b"bulkhead/ledger/running/v1", number(row), self.running, hashed) != running:
            self.problem(row, session, "the running hash does not continue that of the row before it")
        if seq != before[1] + 1 or prev != before[2]:
            self.problem(row, session, "it does not continue its session's chain")
        # From here on with what is stored, so that one altered row is one problem.
        self.running = running
        self.sessions[session] = (row, seq, hashed)

    def head(self, columns, expected):
        head, session, seq, row, hashed, rows, running, time, signature = columns
        if head != expected:
            self.problem(None, session, f"signature {head} is where {expected} should be")
        typed = all(isinstance(n, int) and n >= 0 for n in (head, seq, row, rows, time))
        if not typed or not all(isinstance(b, bytes) for b in (session, hashed, running, signature)):
            return self.problem(rows if isinstance(rows, int) else None, None, f"signature {head} cannot be read")
        statement = length_prefixed(
            b"bulkhead/ledger/head/v1", number(head), session, number(seq), number(row), hashed,
            number(rows), running, number(time),
        )
        if not signed(self.key, statement, signature):
            self.problem(min(rows, self.last + 1), session, f"signature {head} is not right")
        elif rows > self.last:
            self.problem(self.last + 1, session, f"rows up to {rows} are missing: signature {head} covers them")
        elif rows != self.last or running != self.running:
            self.problem(rows, session, f"signature {head} is of other rows than these")
        elif self.sessions.get(session) != (row, seq, hashed):
            self.problem(rows, session, f"signature {head} is of another chain of its session")
        else:
            self.covered = rows

    def walk(self, db):
        heads = db.execute(
            "SELECT head, session, seq, row, hash, rows, running, time, signature FROM heads ORDER BY head"
        )
        waiting, count = heads.fetchone(), 1
        rows = db.execute("SELECT row, time, session, seq, event, prev, hash, running FROM rows ORDER BY row")
        for columns in rows:
            self.row(columns)
            while waiting is not None and (not isinstance(waiting[5], int) or waiting[5] <= self.last):
                self.head(waiting, count)
                waiting, count = heads.fetchone(), count + 1
            if len(self.problems) >= MAX_PROBLEMS:
                return
        while waiting is not None and len(self.problems) < MAX_PROBLEMS:
            self.head(waiting, count)
            waiting, count = heads.fetchone(), count + 1
        if self.last - self.covered > MAX_UNSIGNED:
            self.problem(self.covered + 1, None, "too many rows follow the last right signature")

    def report(self):
        return {
            "ok": not self.problems,
            "rows": self.rows,
            "sessions": len(self.sessions),
            "tree_size": self.last,
            "head": self.running.hex() if self.rows else None,
            "problems": self.problems,
        }


def main(arguments):
    if len(arguments) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    path, public = arguments
    with open(public, encoding="ascii") as file:
        record = Record(bytes.fromhex(file.read().strip()))
    # Without a log beside it the file is all there is; then SQLite must not make one.
    query = "mode=ro" if os.path.exists(path + "-wal") else "mode=ro&immutable=1"
    try:
        db = sqlite3.connect(f"file:{quote(path)}?{query}", uri=True, isolation_level=None)
        db.text_factory = bytes
        db.execute("BEGIN")  # one snapshot for everything that is read
        record.walk(db)
    except sqlite3.Error as error:
        record.problem(record.last + 1, None, f"the file cannot be read: {error}")
    print(json.dumps(record.report()))
    return 1 if record.problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
