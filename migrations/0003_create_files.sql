-- One row per version. The key puts the versions of a name together, newest first: both sort
-- columns hold negated values. action: 0 upload, 1 hide. sha1_state: 1 verified, 2 unverified.
-- is_head marks the newest version of a name when it is an upload: what listings of names show.
-- replication: 0 none, 1 pending, 2 completed, 3 failed, 4 replica, kept equal to what follows
-- from the jobs, in the transactions that change jobs.
CREATE TABLE files (
  bucket_no BIGINT NOT NULL,
  name TEXT {byte_order} NOT NULL,
  sort_upload BIGINT NOT NULL,
  sort_origin BIGINT NOT NULL,
  file_no BIGINT NOT NULL,
  action BIGINT NOT NULL CHECK (action IN (0, 1)),
  is_head BIGINT NOT NULL CHECK (is_head IN (0, 1)),
  written_at_ms BIGINT NOT NULL,
  size BIGINT NOT NULL,
  sha1_state BIGINT NOT NULL,
  sha1 {bytes} NOT NULL,
  md5 {bytes} NOT NULL,
  content_type TEXT NOT NULL,
  info TEXT NOT NULL,
  blob_id BIGINT,
  replication BIGINT NOT NULL CHECK (replication BETWEEN 0 AND 4),
  PRIMARY KEY (bucket_no, name, sort_upload, sort_origin)
) {clustered};
CREATE UNIQUE INDEX files_by_number ON files (file_no);
CREATE INDEX files_heads ON files (bucket_no, name) WHERE is_head = 1;

-- One row per blob, with the number of versions that show it. Small content is in blob_data,
-- larger content is a file, place: 0 blob_data, 1 blob store.
-- freed_at_ms is set when the last version has gone, the sweep removes it after a grace.
CREATE TABLE blobs (
  blob_id BIGINT PRIMARY KEY,
  refs BIGINT NOT NULL CHECK (refs >= 0),
  size BIGINT NOT NULL,
  place BIGINT NOT NULL CHECK (place IN (0, 1)),
  checks {bytes} NOT NULL,
  freed_at_ms BIGINT
);
CREATE INDEX blobs_freed ON blobs (freed_at_ms) WHERE freed_at_ms IS NOT NULL;

CREATE TABLE blob_data (
  blob_id BIGINT PRIMARY KEY,
  data {bytes} NOT NULL
);
