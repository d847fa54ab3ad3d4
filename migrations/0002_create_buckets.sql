-- bucket_no is the short form of the id inside other rows and is never reused.
-- settings is JSON: everything that a call replaces as a whole.
CREATE TABLE buckets (
  bucket_no BIGINT PRIMARY KEY,
  bucket_id TEXT NOT NULL UNIQUE,
  account_id TEXT NOT NULL REFERENCES accounts (account_id),
  name TEXT NOT NULL,
  folded_name TEXT {byte_order} NOT NULL UNIQUE,
  kind TEXT NOT NULL,
  revision BIGINT NOT NULL,
  settings TEXT NOT NULL,
  created_at_ms BIGINT NOT NULL
);
CREATE INDEX buckets_of_account ON buckets (account_id, folded_name);
