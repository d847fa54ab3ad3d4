-- Above every number that was ever drawn for a version or a blob (without the tag in the top digit
-- of file numbers), whatever has become of its row.
INSERT INTO counters (name, next)
  SELECT 'version_or_blob', COALESCE(MAX(number), 0) + 1
    FROM (SELECT file_no % 1152921504606846976 AS number FROM files
          UNION ALL SELECT source_file_no % 1152921504606846976 FROM replication_jobs
          UNION ALL SELECT blob_id FROM blobs) AS drawn;
DELETE FROM server_facts WHERE name = 'largest_deleted_file_number';

-- Scans of one bucket, of which the last that ended is kept.
CREATE INDEX replication_scans_of_bucket ON replication_scans (bucket_id, state);
