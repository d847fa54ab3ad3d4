-- How long the parts of a large file were, as runs of equal sizes, so that one part can be read.
ALTER TABLE files ADD COLUMN part_sizes TEXT;

-- Checksums that S3 clients sent along: algorithm, value in base64, and what it is over.
ALTER TABLE files ADD COLUMN checksum TEXT;
ALTER TABLE parts ADD COLUMN checksum TEXT;
