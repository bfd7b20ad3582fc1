-- To which response an item belongs, where the item's id does not tell it: whoever made the item gave it that id.
-- Rows are there for living responses that were written since this schema; an older file begins without any.
CREATE TABLE item_ids (
    tenant TEXT NOT NULL,
    id TEXT NOT NULL,
    record INTEGER NOT NULL REFERENCES records (seq),
    PRIMARY KEY (tenant, id, record)
) WITHOUT ROWID;

CREATE INDEX item_ids_by_record ON item_ids (record);
