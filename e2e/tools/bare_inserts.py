"""The limit of row g: entries into SQLite by nothing but prepared inserts, in the schema of a server's own database.

bare_inserts.py <a server's database> <a new database> <entries> <entries per transaction>; prints the seconds it took.
"""

import os
import sqlite3
import sys
import time
import uuid


def main():
    source, target, total, batch = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    known = sqlite3.connect(f"file:{source}?mode=ro", uri=True)
    schema = [sql for (sql,) in known.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%'")]
    columns = [name for (_, name, *_) in known.execute("PRAGMA table_info(entries)")]
    known.close()
    database = sqlite3.connect(target, isolation_level=None)
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
        database.execute(f"PRAGMA {pragma}")
    for statement in schema:
        database.execute(statement)
    entry = f"INSERT INTO entries ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"
    started = time.perf_counter()
    for first in range(1, total + 1, batch):
        rows = range(first, first + batch)
        database.execute("BEGIN IMMEDIATE")
        database.executemany(entry, [row(number, columns) for number in rows])
        members = sorted((selector, number) for number in rows for selector in selectors(number))
        database.executemany("INSERT INTO entry_selectors (member, owner) VALUES (?, ?)", members)
        changes = [(number, 1, str(uuid.uuid4())) for number in rows]
        database.executemany("INSERT INTO changes (sequence, kind, subject) VALUES (?, ?, ?)", changes)
        database.execute("COMMIT")
    print(time.perf_counter() - started)


def selectors(number):
    return (f"unix:uid:{number}", "unix:gid:1000", "unix:path:/usr/bin/workload")


def row(number, columns):
    known = {
        "id": number,
        "entry_id": str(uuid.uuid4()),
        "fingerprint": os.urandom(32),
        "spiffe_id": f"spiffe://example.org/bench/{number}",
        "parent_id": "spiffe://example.org/spire/agent/join_token/bench",
        "selectors": "\n".join(selectors(number)),
        "selector_count": 3,
        "x509_svid_ttl": None,
        "jwt_svid_ttl": None,
        "expires_at": None,
        "created_at": 1_800_000_000,
        "federates_with": "",
        "dns_names": "",
        "hint": "",
    }
    return [known.get(column, 0) for column in columns]


main()
