-- Files again, with room for unfinished large files, locks and encryption.
-- action: 0 upload, 1 hide, 2 start (an unfinished large file, which no name shows).
-- sha1_state: 0 none (a large file has no SHA-1 of its own), 1 verified, 2 unverified.
-- parts_md5 and part_count: of a finished large file, the MD5 over the MD5s of its parts.
-- retention_mode: 0 none, 1 governance, 2 compliance. legal_hold: 0 never set, 1 off, 2 on.
-- sse: 0 none, 1 SSE-B2, 2 SSE-C. sse_key_check tells whether a customer key is the right one.
CREATE TABLE files_rebuilt (
  bucket_no BIGINT NOT NULL,
  name TEXT {byte_order} NOT NULL,
  sort_upload BIGINT NOT NULL,
  sort_origin BIGINT NOT NULL,
  file_no BIGINT NOT NULL,
  action BIGINT NOT NULL CHECK (action IN (0, 1, 2)),
  is_head BIGINT NOT NULL CHECK (is_head IN (0, 1)),
  written_at_ms BIGINT NOT NULL,
  size BIGINT NOT NULL,
  sha1_state BIGINT NOT NULL CHECK (sha1_state IN (0, 1, 2)),
  sha1 {bytes},
  md5 {bytes},
  parts_md5 {bytes},
  part_count BIGINT,
  content_type TEXT NOT NULL,
  info TEXT NOT NULL,
  blob_id BIGINT,
  replication BIGINT NOT NULL CHECK (replication BETWEEN 0 AND 4),
  retention_mode BIGINT NOT NULL CHECK (retention_mode IN (0, 1, 2)),
  retain_until_ms BIGINT,
  legal_hold BIGINT NOT NULL CHECK (legal_hold IN (0, 1, 2)),
  sse BIGINT NOT NULL CHECK (sse IN (0, 1, 2)),
  sse_key_check {bytes},
  CHECK ((retention_mode = 0) = (retain_until_ms IS NULL)),
  CHECK ((sse = 2) = (sse_key_check IS NOT NULL)),
  PRIMARY KEY (bucket_no, name, sort_upload, sort_origin)
) {clustered};
INSERT INTO files_rebuilt (bucket_no, name, sort_upload, sort_origin, file_no, action, is_head,
                           written_at_ms, size, sha1_state, sha1, md5, content_type, info, blob_id,
                           replication, retention_mode, legal_hold, sse)
  SELECT bucket_no, name, sort_upload, sort_origin, file_no, action, is_head,
         written_at_ms, size, sha1_state, sha1, md5, content_type, info, blob_id,
         replication, 0, 0, 0
    FROM files;
DROP TABLE files;
ALTER TABLE files_rebuilt RENAME TO files;
CREATE UNIQUE INDEX files_by_number ON files (file_no);
CREATE INDEX files_heads ON files (bucket_no, name) WHERE is_head = 1;
CREATE INDEX files_unfinished ON files (bucket_no, name, sort_upload DESC, sort_origin DESC)
  WHERE action = 2;

-- Parts of unfinished large files, the latest upload of each number.
CREATE TABLE parts (
  file_no BIGINT NOT NULL,
  part_number BIGINT NOT NULL CHECK (part_number BETWEEN 1 AND 10000),
  blob_id BIGINT NOT NULL,
  size BIGINT NOT NULL,
  sha1_state BIGINT NOT NULL CHECK (sha1_state IN (1, 2)),
  sha1 {bytes} NOT NULL,
  md5 {bytes} NOT NULL,
  uploaded_at_ms BIGINT NOT NULL,
  PRIMARY KEY (file_no, part_number)
) {clustered};

-- Blobs again, with blobs that are made of pieces of other blobs.
-- place: 0 blob_data, 1 blob store, 2 blob_pieces.
-- seal: 0 plain, 1 with a data key under the key ring, 2 with a data key under a customer's key.
CREATE TABLE blobs_rebuilt (
  blob_id BIGINT PRIMARY KEY,
  refs BIGINT NOT NULL CHECK (refs >= 0),
  size BIGINT NOT NULL,
  place BIGINT NOT NULL CHECK (place IN (0, 1, 2)),
  checks {bytes} NOT NULL,
  freed_at_ms BIGINT,
  seal BIGINT NOT NULL CHECK (seal IN (0, 1, 2)),
  sealed_key {bytes},
  CHECK ((seal = 0) = (sealed_key IS NULL))
);
INSERT INTO blobs_rebuilt (blob_id, refs, size, place, checks, freed_at_ms, seal)
  SELECT blob_id, refs, size, place, checks, freed_at_ms, 0 FROM blobs;
DROP TABLE blobs;
ALTER TABLE blobs_rebuilt RENAME TO blobs;
CREATE INDEX blobs_freed ON blobs (freed_at_ms) WHERE freed_at_ms IS NOT NULL;

-- What a blob with place 2 is made of, in order. Each row counts as one reference to its piece,
-- and a piece is never itself made of pieces.
CREATE TABLE blob_pieces (
  blob_id BIGINT NOT NULL,
  start_at BIGINT NOT NULL,
  size BIGINT NOT NULL CHECK (size > 0),
  piece_id BIGINT NOT NULL,
  piece_start BIGINT NOT NULL,
  PRIMARY KEY (blob_id, start_at)
) {clustered};
