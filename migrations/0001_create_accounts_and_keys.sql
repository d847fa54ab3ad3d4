-- Facts of the server itself (instance id) and its sealed token keys.
CREATE TABLE server_facts (
  name TEXT PRIMARY KEY,
  value {bytes} NOT NULL
);

-- Next free numbers, for rows whose numbers must never come again.
CREATE TABLE counters (
  name TEXT PRIMARY KEY,
  next BIGINT NOT NULL
);
INSERT INTO counters (name, next) VALUES ('bucket', 1);
INSERT INTO counters (name, next) VALUES ('replication_job', 1);
INSERT INTO counters (name, next) VALUES ('replication_scan', 1);

-- Grows with each change of a bucket, a key or an account, for caches.
CREATE TABLE config_versions (
  scope TEXT PRIMARY KEY,
  version BIGINT NOT NULL
);
INSERT INTO config_versions (scope, version) VALUES ('all', 1);

CREATE TABLE accounts (
  account_id TEXT PRIMARY KEY,
  name TEXT NOT NULL,
  next_key_number BIGINT NOT NULL,
  created_at_ms BIGINT NOT NULL
);

-- sealed_secret is encrypted with the sealing key, which is kept outside of this database.
CREATE TABLE keys (
  key_id TEXT {byte_order} PRIMARY KEY,
  account_id TEXT NOT NULL REFERENCES accounts (account_id),
  name TEXT NOT NULL,
  sealed_secret {bytes} NOT NULL,
  capabilities TEXT NOT NULL,
  bucket_ids TEXT,
  name_prefix TEXT {byte_order},
  expires_at_ms BIGINT,
  is_master BIGINT NOT NULL CHECK (is_master IN (0, 1)),
  made_by_version BIGINT NOT NULL,
  created_at_ms BIGINT NOT NULL
);
CREATE INDEX keys_of_account ON keys (account_id, key_id);
