-- One job per destination and source version, the row is the queue, and later the memory that the
-- version was replicated. dest_key names the destination ('b:' and a bucket id).
CREATE TABLE replication_jobs (
  job_id BIGINT PRIMARY KEY,
  lane TEXT {byte_order} NOT NULL,
  target TEXT NOT NULL,
  dest_key TEXT NOT NULL,
  source_bucket_id TEXT NOT NULL,
  source_file_no BIGINT NOT NULL,
  source_file_id TEXT NOT NULL,
  source_file_name TEXT {byte_order} NOT NULL,
  source_key_id TEXT NOT NULL,
  rule_name TEXT NOT NULL,
  origin TEXT NOT NULL CHECK (origin IN ('upload', 'scan')),
  size BIGINT NOT NULL,
  state TEXT NOT NULL CHECK (state IN ('ready', 'leased', 'done', 'failed', 'cancelled')),
  attempts BIGINT NOT NULL,
  crashes BIGINT NOT NULL,
  next_attempt_at_ms BIGINT NOT NULL,
  enqueued_at_ms BIGINT NOT NULL,
  finished_at_ms BIGINT,
  lease_owner TEXT,
  lease_until_ms BIGINT,
  lease_epoch BIGINT NOT NULL,
  last_reason TEXT,
  last_error TEXT,
  dest_file_id TEXT,
  UNIQUE (dest_key, source_file_no)
);
CREATE INDEX replication_jobs_claim ON replication_jobs (lane, origin, next_attempt_at_ms, job_id) WHERE state = 'ready';
CREATE INDEX replication_jobs_leased ON replication_jobs (lease_until_ms) WHERE state = 'leased';
CREATE INDEX replication_jobs_of_file ON replication_jobs (source_file_no);
CREATE INDEX replication_jobs_by_state ON replication_jobs (state, job_id);

-- Which replica in a bucket came from which version (server instance and file id): at most one.
CREATE TABLE replication_origins (
  dest_bucket_id TEXT NOT NULL,
  origin TEXT NOT NULL,
  dest_file_id TEXT NOT NULL,
  PRIMARY KEY (dest_bucket_id, origin)
) {clustered};

-- Circuit breaker of each target.
CREATE TABLE replication_targets (
  target TEXT PRIMARY KEY,
  failures BIGINT NOT NULL,
  open_until_ms BIGINT NOT NULL
);

-- Walks over files that were there before a rule. The cursor is the last version looked at.
CREATE TABLE replication_scans (
  scan_id BIGINT PRIMARY KEY,
  bucket_id TEXT NOT NULL,
  bucket_revision BIGINT NOT NULL,
  state TEXT NOT NULL CHECK (state IN ('running', 'done', 'superseded')),
  cursor_name TEXT {byte_order},
  cursor_upload_ms BIGINT,
  cursor_origin BIGINT,
  seen BIGINT NOT NULL,
  enqueued BIGINT NOT NULL,
  skipped BIGINT NOT NULL,
  started_at_ms BIGINT NOT NULL,
  finished_at_ms BIGINT
);
CREATE INDEX replication_scans_running ON replication_scans (scan_id) WHERE state = 'running';
