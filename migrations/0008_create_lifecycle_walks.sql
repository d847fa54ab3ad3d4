-- The daily walks over buckets that have lifecycle rules, one row for each such bucket.
-- started_at_ms is set while a walk is under way, and names it.
-- after_name is the last name that the walk is done with.
-- The counts are those of the walk under way, or of the last one.
CREATE TABLE lifecycle_walks (
  bucket_id TEXT PRIMARY KEY,
  next_at_ms BIGINT NOT NULL,
  started_at_ms BIGINT,
  after_name TEXT {byte_order} NOT NULL,
  hidden BIGINT NOT NULL,
  deleted BIGINT NOT NULL,
  canceled BIGINT NOT NULL
);
