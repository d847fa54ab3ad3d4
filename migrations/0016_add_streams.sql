-- Shown as 16 hex digits, 0b... and 0c..., so that the two are told apart at a glance.
INSERT INTO counters (name, next) VALUES ('remote', 792633534417207297);
INSERT INTO counters (name, next) VALUES ('stream', 864691128455135233);

-- Connections to other stores. sealed_token is encrypted with the sealing key. options is the JSON of
-- what is optional. org_id is the organization as its maker wrote it, account_id what it means. The
-- times of being online are wall time, and offline_since is null while the remote answers.
CREATE TABLE remotes (
  remote_no BIGINT PRIMARY KEY,
  account_id TEXT NOT NULL,
  org_id TEXT NOT NULL,
  name TEXT {byte_order} NOT NULL,
  description TEXT,
  url TEXT NOT NULL,
  sealed_token {bytes} NOT NULL,
  remote_org_id TEXT,
  allow_insecure_tls BIGINT NOT NULL CHECK (allow_insecure_tls IN (0, 1)),
  options TEXT NOT NULL,
  last_online_at_ms BIGINT,
  offline_since_ms BIGINT,
  created_at_ms BIGINT NOT NULL,
  updated_at_ms BIGINT NOT NULL,
  UNIQUE (account_id, name)
);

-- Replication streams: what a bucket holds is carried on to a bucket of a remote. queue_entries,
-- queue_bytes and remaining_bytes are kept equal to what the unfinished jobs of the stream come to,
-- in the transactions that change those, and spilled counts the jobs that wait outside of the queue.
-- latest_code and latest_error are null before the first attempt.
CREATE TABLE streams (
  stream_no BIGINT PRIMARY KEY,
  account_id TEXT NOT NULL,
  org_id TEXT NOT NULL,
  name TEXT {byte_order} NOT NULL,
  description TEXT,
  remote_no BIGINT NOT NULL,
  local_bucket_id TEXT NOT NULL,
  remote_bucket_id TEXT,
  remote_bucket_name TEXT NOT NULL,
  max_queue_bytes BIGINT NOT NULL,
  max_age_s BIGINT NOT NULL,
  drop_non_retryable BIGINT NOT NULL CHECK (drop_non_retryable IN (0, 1)),
  is_paused BIGINT NOT NULL CHECK (is_paused IN (0, 1)),
  options TEXT NOT NULL,
  queue_entries BIGINT NOT NULL CHECK (queue_entries >= 0),
  queue_bytes BIGINT NOT NULL CHECK (queue_bytes >= 0),
  remaining_bytes BIGINT NOT NULL CHECK (remaining_bytes >= 0),
  spilled BIGINT NOT NULL CHECK (spilled >= 0),
  latest_code BIGINT,
  latest_error TEXT,
  created_at_ms BIGINT NOT NULL,
  updated_at_ms BIGINT NOT NULL,
  UNIQUE (account_id, name),
  CHECK (remote_bucket_id IS NOT NULL OR remote_bucket_name <> '')
);
CREATE INDEX streams_of_bucket ON streams (local_bucket_id);
CREATE INDEX streams_of_remote ON streams (remote_no);

-- Walks of streams over files that were there before. The cursor is the last version looked at.
CREATE TABLE stream_scans (
  scan_id BIGINT PRIMARY KEY,
  stream_no BIGINT NOT NULL,
  prefix TEXT {byte_order} NOT NULL,
  before_ms BIGINT,
  carries_again BIGINT NOT NULL CHECK (carries_again IN (0, 1)),
  cursor_name TEXT {byte_order},
  cursor_upload_ms BIGINT,
  cursor_origin BIGINT,
  seen BIGINT NOT NULL,
  enqueued BIGINT NOT NULL,
  skipped BIGINT NOT NULL,
  started_at_ms BIGINT NOT NULL,
  finished_at_ms BIGINT
);
CREATE INDEX stream_scans_running ON stream_scans (scan_id) WHERE finished_at_ms IS NULL;
CREATE INDEX stream_scans_of_stream ON stream_scans (stream_no);

-- Buckets of peers that rules of this server may name as their destination, and the remote through
-- which each is reached.
CREATE TABLE remote_buckets (
  bucket_id TEXT PRIMARY KEY,
  remote_no BIGINT NOT NULL
);
CREATE INDEX remote_buckets_of_remote ON remote_buckets (remote_no);

-- Replicas that a peer has sent, or is sending: which version of which server each is a copy of
-- ('instance.file id'), and the ids of the servers it has been through, with commas between them.
CREATE TABLE replica_hops (
  file_no {row_number} PRIMARY KEY,
  origin TEXT NOT NULL,
  hops TEXT NOT NULL
);

-- Files of one piece that a peer sends bit by bit: each is an unfinished file whose parts are all of
-- part_bytes, but the last, and become one content of size bytes.
CREATE TABLE replica_sessions (
  file_no {row_number} PRIMARY KEY,
  bucket_id TEXT NOT NULL,
  size BIGINT NOT NULL CHECK (size >= 0),
  part_bytes BIGINT NOT NULL CHECK (part_bytes > 0),
  used_at_ms BIGINT NOT NULL
);
CREATE INDEX replica_sessions_idle ON replica_sessions (used_at_ms);

-- Jobs again, now of rules and of streams: a job has either a source key and the name of a rule, or
-- the number of a stream. A job of a stream that is spilled waits until its queue has room. confirmed
-- counts bytes that the other side has acknowledged, session names what it has begun there, parts_*
-- say how far that is (0 of 0: nothing is sent in parts),
-- last_status is what it answered last (0: no answer). last_reason of a job that is ready says why
-- its last attempt failed.
CREATE TABLE replication_jobs_rebuilt (
  job_id BIGINT PRIMARY KEY,
  lane TEXT {byte_order} NOT NULL,
  target TEXT NOT NULL,
  dest_key TEXT NOT NULL,
  source_bucket_id TEXT NOT NULL,
  source_file_no BIGINT NOT NULL,
  source_file_id TEXT NOT NULL,
  source_file_name TEXT {byte_order} NOT NULL,
  source_key_id TEXT,
  rule_name TEXT,
  stream_no BIGINT,
  origin TEXT NOT NULL CHECK (origin IN ('upload', 'scan')),
  size BIGINT NOT NULL,
  confirmed BIGINT NOT NULL CHECK (confirmed >= 0 AND confirmed <= size),
  session TEXT,
  parts_done BIGINT NOT NULL DEFAULT 0,
  parts_total BIGINT NOT NULL DEFAULT 0,
  state TEXT NOT NULL CHECK (state IN ('ready', 'leased', 'done', 'failed', 'cancelled', 'spilled',
                                       'parked', 'dropped')),
  attempts BIGINT NOT NULL,
  crashes BIGINT NOT NULL,
  next_attempt_at_ms BIGINT NOT NULL,
  enqueued_at_ms BIGINT NOT NULL,
  finished_at_ms BIGINT,
  lease_owner TEXT,
  lease_until_ms BIGINT,
  lease_epoch BIGINT NOT NULL,
  last_reason TEXT,
  last_status BIGINT,
  last_error TEXT,
  dest_file_id TEXT,
  UNIQUE (dest_key, source_file_no),
  CHECK ((stream_no IS NULL) = (source_key_id IS NOT NULL)),
  CHECK ((stream_no IS NULL) = (rule_name IS NOT NULL))
);
INSERT INTO replication_jobs_rebuilt (job_id, lane, target, dest_key, source_bucket_id,
    source_file_no, source_file_id, source_file_name, source_key_id, rule_name, origin, size,
    confirmed, state, attempts, crashes, next_attempt_at_ms, enqueued_at_ms, finished_at_ms,
    lease_owner, lease_until_ms, lease_epoch, last_reason, last_error, dest_file_id)
  SELECT job_id, lane, target, dest_key, source_bucket_id, source_file_no, source_file_id,
         source_file_name, source_key_id, rule_name, origin, size, 0, state, attempts, crashes,
         next_attempt_at_ms, enqueued_at_ms, finished_at_ms, lease_owner, lease_until_ms,
         lease_epoch, last_reason, last_error, dest_file_id
    FROM replication_jobs;
DROP TABLE replication_jobs;
ALTER TABLE replication_jobs_rebuilt RENAME TO replication_jobs;
CREATE INDEX replication_jobs_claim ON replication_jobs (lane, origin, next_attempt_at_ms, job_id) WHERE state = 'ready';
CREATE INDEX replication_jobs_leased ON replication_jobs (lease_until_ms) WHERE state = 'leased';
CREATE INDEX replication_jobs_of_file ON replication_jobs (source_file_no);
CREATE INDEX replication_jobs_by_state ON replication_jobs (state, job_id);
CREATE INDEX replication_jobs_of_stream ON replication_jobs (stream_no, state, job_id) WHERE stream_no IS NOT NULL;
CREATE INDEX replication_jobs_begun ON replication_jobs (stream_no, job_id) WHERE stream_no IS NOT NULL AND session IS NOT NULL;
CREATE INDEX replication_jobs_of_name ON replication_jobs (dest_key, source_file_name, job_id) WHERE stream_no IS NOT NULL AND state IN ('ready', 'leased');

-- What was begun at a remote and is to be cancelled there: the job that began it is gone.
CREATE TABLE remote_orphans (
  orphan_no BIGINT PRIMARY KEY,
  remote_no BIGINT NOT NULL,
  bucket TEXT NOT NULL,
  file_name TEXT NOT NULL,
  session TEXT NOT NULL,
  attempts BIGINT NOT NULL,
  next_attempt_at_ms BIGINT NOT NULL,
  give_up_at_ms BIGINT NOT NULL
);
CREATE INDEX remote_orphans_due ON remote_orphans (next_attempt_at_ms);
INSERT INTO counters (name, next) VALUES ('remote_orphan', 1)
