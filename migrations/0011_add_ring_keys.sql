-- The keys of the key ring that blobs may be wrapped with. The keys themselves are in the key ring
-- file. The fingerprint tells a key from all others without telling it.
CREATE TABLE ring_keys (
  key_no BIGINT PRIMARY KEY,
  made_at_ms BIGINT NOT NULL,
  fingerprint {bytes} NOT NULL
);

-- Which of them wraps the data key of a blob with seal 1.
ALTER TABLE blobs ADD COLUMN ring_key BIGINT;
CREATE INDEX blobs_by_ring_key ON blobs (ring_key, blob_id) WHERE ring_key IS NOT NULL;
