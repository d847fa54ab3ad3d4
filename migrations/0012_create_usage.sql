-- What each bucket stores: kept equal to its rows in files, and to the parts of its unfinished large
-- files, by the transactions that change those.
CREATE TABLE bucket_usage (
  bucket_no BIGINT PRIMARY KEY,
  account_id TEXT NOT NULL REFERENCES accounts (account_id),
  versions BIGINT NOT NULL,
  bytes BIGINT NOT NULL
);
CREATE INDEX bucket_usage_of_account ON bucket_usage (account_id);
INSERT INTO bucket_usage (bucket_no, account_id, versions, bytes)
SELECT b.bucket_no, b.account_id,
       (SELECT CAST(COUNT(*) AS BIGINT) FROM files f WHERE f.bucket_no = b.bucket_no),
       (SELECT CAST(COALESCE(SUM(f.size), 0) AS BIGINT) FROM files f WHERE f.bucket_no = b.bucket_no)
       + (SELECT CAST(COALESCE(SUM(p.size), 0) AS BIGINT)
            FROM files f JOIN parts p ON p.file_no = f.file_no
           WHERE f.bucket_no = b.bucket_no AND f.action = 2)
  FROM buckets b;

-- What an account did on a day (days since 1970 in UTC). Written in batches, a crash loses the
-- last seconds.
CREATE TABLE daily_usage (
  account_id TEXT NOT NULL REFERENCES accounts (account_id),
  day BIGINT NOT NULL,
  class_a BIGINT NOT NULL,
  class_b BIGINT NOT NULL,
  class_c BIGINT NOT NULL,
  downloaded_bytes BIGINT NOT NULL,
  uploaded_bytes BIGINT NOT NULL,
  PRIMARY KEY (account_id, day)
) {clustered};

-- What an account may use, no row or null is without limit.
CREATE TABLE account_caps (
  account_id TEXT PRIMARY KEY REFERENCES accounts (account_id),
  storage_bytes BIGINT,
  download_bytes_per_day BIGINT,
  class_a_per_day BIGINT,
  class_b_per_day BIGINT,
  class_c_per_day BIGINT
);
