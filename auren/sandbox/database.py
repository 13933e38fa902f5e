"""The sandbox's own small database: what must outlive a restart, so that links made yesterday still work."""

import sqlite3
from datetime import date
from pathlib import Path

SCHEMA = """
CREATE TABLE IF NOT EXISTS code (
    code TEXT PRIMARY KEY, vendor TEXT, user_id TEXT, redirect_uri TEXT, scopes TEXT, challenge TEXT,
    issuer TEXT, expires_at REAL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS authorization (
    id INTEGER PRIMARY KEY, vendor TEXT, user_id TEXT, scopes TEXT, issuer TEXT
);
CREATE INDEX IF NOT EXISTS authorization_user ON authorization (vendor, user_id);
CREATE TABLE IF NOT EXISTS access (
    token TEXT PRIMARY KEY, authorization_id INTEGER, expires_at REAL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS access_authorization ON access (authorization_id);
CREATE TABLE IF NOT EXISTS refresh (
    token TEXT PRIMARY KEY, authorization_id INTEGER, spent INTEGER
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS refresh_authorization ON refresh (authorization_id);
CREATE TABLE IF NOT EXISTS change (
    vendor TEXT, user_id TEXT, kind TEXT, record TEXT, document TEXT, PRIMARY KEY (vendor, user_id, kind, record)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS subscription (
    id TEXT PRIMARY KEY, callback_url TEXT, event_type TEXT, data_type TEXT, verification_token TEXT,
    expires_at REAL, UNIQUE (event_type, data_type)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS fact (name TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
"""


def open_database(state: str) -> sqlite3.Connection:
    """The database in the folder `state`, made where there is none; `:memory:` keeps nothing.

    One event loop uses it, not always in the thread that opened it. A crash of the machine may lose the last commits
    (synchronous=NORMAL): the sandbox promises nothing beyond its process.
    """
    if state != ":memory:":
        folder = Path(state)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        state = str(folder / "sandbox.sqlite3")
    database = sqlite3.connect(state, check_same_thread=False)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = NORMAL")
    database.executescript(SCHEMA)
    return database


def first_day(database: sqlite3.Connection, proposed: date) -> date:
    """The day everyone's history begins with: what was stored at the first start, so that no day ever drops out."""
    with database:
        database.execute("INSERT OR IGNORE INTO fact VALUES ('first_day', ?)", (proposed.isoformat(),))
    (stored,) = database.execute("SELECT value FROM fact WHERE name = 'first_day'").fetchone()
    return date.fromisoformat(stored)
