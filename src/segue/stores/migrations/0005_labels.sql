-- What a list of responses is searched by: their model, and the pairs of their metadata. Each of these labels stands here
-- as a digest of 16 bytes, and so does the label that all responses have.
ALTER TABLE echoes ADD COLUMN labels BLOB NOT NULL DEFAULT x''; -- the digests of its labels, one after the other

CREATE TABLE labels (
    tenant TEXT NOT NULL,
    label BLOB NOT NULL,
    created_at REAL NOT NULL, -- that of the record
    record INTEGER NOT NULL REFERENCES records (seq),
    PRIMARY KEY (tenant, label, created_at, record)
) WITHOUT ROWID;

-- Responses of an older file are found too: `label_digests` is a function of segue (`sqlite_labels`).
UPDATE echoes SET labels = label_digests(echo);

WITH RECURSIVE digests (echo, labels, at) AS (
    SELECT seq, labels, 1 FROM echoes
     UNION ALL
    SELECT echo, labels, at + 16 FROM digests WHERE at + 16 < length(labels)
)
INSERT INTO labels (tenant, label, created_at, record)
SELECT records.tenant, substr(digests.labels, digests.at, 16), records.created_at, records.seq
  FROM digests JOIN records ON records.echo = digests.echo
 WHERE records.head IS NOT NULL;
