-- The first schema. What each column means is said here and nowhere else.

-- 'segu': tells a store from some other program's database.
PRAGMA application_id = 1936025461;

-- The settings that requests carried. They hardly change from turn to turn, so each distinct one is kept once per tenant.
CREATE TABLE echoes (
    seq INTEGER PRIMARY KEY,
    tenant TEXT NOT NULL,
    digest BLOB NOT NULL, -- SHA-256 of echo
    echo BLOB NOT NULL,
    UNIQUE (tenant, digest)
);

-- One row per turn. Rows are numbered, and a child names its parent by number: new rows land at the end of the file, and
-- walking up a chain compares integers. A row outlives its response as a tombstone while it has children.
-- Small columns come first, so that walking a chain does not read the pages that items overflow to.
CREATE TABLE records (
    seq INTEGER PRIMARY KEY,
    parent INTEGER REFERENCES records (seq),
    echo INTEGER REFERENCES echoes (seq), -- NULL in a tombstone
    created_at REAL NOT NULL, -- unix seconds
    expires_at REAL NOT NULL, -- unix seconds
    tenant TEXT NOT NULL,
    id TEXT NOT NULL,
    calls BLOB NOT NULL, -- JSON array of strings
    head BLOB, -- JSON object; NULL in a tombstone
    input BLOB NOT NULL, -- JSON array: the items as they were sent
    output BLOB NOT NULL, -- JSON array
    UNIQUE (tenant, id)
);

CREATE INDEX records_by_parent ON records (parent);
CREATE INDEX records_by_echo ON records (echo);
CREATE INDEX records_living ON records (expires_at) WHERE head IS NOT NULL;
