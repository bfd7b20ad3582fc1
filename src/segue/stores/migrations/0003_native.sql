-- A turn of another API in that API's own words: the name of the API, a line feed, and its messages. NULL for all others.
ALTER TABLE records ADD COLUMN native BLOB;
