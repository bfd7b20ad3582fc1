-- A conversation points at the newest turn of its history. That turn stays, as a tombstone if need be, and so do those
-- before it. Items that were added without a response are a row of `records` without a head, like a tombstone.
CREATE TABLE conversations (
    seq INTEGER PRIMARY KEY,
    turn INTEGER REFERENCES records (seq), -- NULL while it has no items
    created_at REAL NOT NULL, -- unix seconds
    changed_at REAL NOT NULL, -- unix seconds
    tenant TEXT NOT NULL,
    id TEXT NOT NULL,
    metadata BLOB NOT NULL, -- JSON object
    UNIQUE (tenant, id)
);

CREATE INDEX conversations_by_turn ON conversations (turn);
