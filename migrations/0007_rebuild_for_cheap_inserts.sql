-- Files, blobs and small bodies again, the same rows in tables that cost less to insert into. A list
-- of three or more values after IN is made into a table of its own at each insert, a range is not.
-- A key that is the row's own number needs no index beside its table.
CREATE TABLE files_rebuilt (
  bucket_no BIGINT NOT NULL,
  name TEXT {byte_order} NOT NULL,
  sort_upload BIGINT NOT NULL,
  sort_origin BIGINT NOT NULL,
  file_no BIGINT NOT NULL,
  action BIGINT NOT NULL CHECK (action BETWEEN 0 AND 2),
  is_head BIGINT NOT NULL CHECK (is_head BETWEEN 0 AND 1),
  written_at_ms BIGINT NOT NULL,
  size BIGINT NOT NULL,
  sha1_state BIGINT NOT NULL CHECK (sha1_state BETWEEN 0 AND 2),
  sha1 {bytes},
  md5 {bytes},
  parts_md5 {bytes},
  part_count BIGINT,
  content_type TEXT NOT NULL,
  info TEXT NOT NULL,
  blob_id BIGINT,
  replication BIGINT NOT NULL CHECK (replication BETWEEN 0 AND 4),
  retention_mode BIGINT NOT NULL CHECK (retention_mode BETWEEN 0 AND 2),
  retain_until_ms BIGINT,
  legal_hold BIGINT NOT NULL CHECK (legal_hold BETWEEN 0 AND 2),
  sse BIGINT NOT NULL CHECK (sse BETWEEN 0 AND 2),
  sse_key_check {bytes},
  CHECK ((retention_mode = 0) = (retain_until_ms IS NULL)),
  CHECK ((sse = 2) = (sse_key_check IS NOT NULL)),
  PRIMARY KEY (bucket_no, name, sort_upload, sort_origin)
) {clustered};
INSERT INTO files_rebuilt (bucket_no, name, sort_upload, sort_origin, file_no, action, is_head,
                           written_at_ms, size, sha1_state, sha1, md5, parts_md5, part_count,
                           content_type, info, blob_id, replication, retention_mode,
                           retain_until_ms, legal_hold, sse, sse_key_check)
  SELECT bucket_no, name, sort_upload, sort_origin, file_no, action, is_head,
         written_at_ms, size, sha1_state, sha1, md5, parts_md5, part_count,
         content_type, info, blob_id, replication, retention_mode,
         retain_until_ms, legal_hold, sse, sse_key_check
    FROM files;
DROP TABLE files;
ALTER TABLE files_rebuilt RENAME TO files;
CREATE UNIQUE INDEX files_by_number ON files (file_no);
CREATE INDEX files_heads ON files (bucket_no, name) WHERE is_head = 1;
CREATE INDEX files_unfinished ON files (bucket_no, name, sort_upload DESC, sort_origin DESC)
  WHERE action = 2;

CREATE TABLE blobs_rebuilt (
  blob_id {row_number} PRIMARY KEY,
  refs BIGINT NOT NULL CHECK (refs >= 0),
  size BIGINT NOT NULL,
  place BIGINT NOT NULL CHECK (place BETWEEN 0 AND 2),
  checks {bytes} NOT NULL,
  freed_at_ms BIGINT,
  seal BIGINT NOT NULL CHECK (seal BETWEEN 0 AND 2),
  sealed_key {bytes},
  CHECK ((seal = 0) = (sealed_key IS NULL))
);
INSERT INTO blobs_rebuilt (blob_id, refs, size, place, checks, freed_at_ms, seal, sealed_key)
  SELECT blob_id, refs, size, place, checks, freed_at_ms, seal, sealed_key FROM blobs;
DROP TABLE blobs;
ALTER TABLE blobs_rebuilt RENAME TO blobs;
CREATE INDEX blobs_freed ON blobs (freed_at_ms) WHERE freed_at_ms IS NOT NULL;

CREATE TABLE blob_data_rebuilt (
  blob_id {row_number} PRIMARY KEY,
  data {bytes} NOT NULL
);
INSERT INTO blob_data_rebuilt (blob_id, data) SELECT blob_id, data FROM blob_data;
DROP TABLE blob_data;
ALTER TABLE blob_data_rebuilt RENAME TO blob_data
