INSERT INTO counters (name, next) VALUES ('notification_queue', 1);
INSERT INTO counters (name, next) VALUES ('notification_event', 1);

-- One row per event notification rule of a bucket, its settings hold the rest of the rule.
-- sealed_target is address, headers and signing secret, encrypted with the sealing key.
-- waiting is kept equal to the number of rows in notification_events, in the transactions that
-- change those. failures counts attempts in a row, failing_since_ms is when the first of them was.
-- That and next_attempt_at_ms are on the time line of waits, the other times are wall time. For a
-- suspended rule next_attempt_at_ms is when what waits for it is given up.
-- A queue is retired when its rule is gone or switched off, its events are then removed in steps.
-- generation grows with each change of the rule, so that an attempt of before is known as such.
CREATE TABLE notification_queues (
  queue_no BIGINT PRIMARY KEY,
  bucket_id TEXT NOT NULL,
  rule_name TEXT {byte_order} NOT NULL,
  sealed_target {bytes} NOT NULL,
  generation BIGINT NOT NULL,
  is_retired BIGINT NOT NULL CHECK (is_retired IN (0, 1)),
  suspension_reason TEXT NOT NULL,
  waiting BIGINT NOT NULL CHECK (waiting >= 0),
  delivered BIGINT NOT NULL,
  dropped BIGINT NOT NULL,
  failures BIGINT NOT NULL,
  failing_since_ms BIGINT,
  next_attempt_at_ms BIGINT NOT NULL,
  delivered_at_ms BIGINT,
  last_error TEXT
);
CREATE INDEX notification_queues_due ON notification_queues (next_attempt_at_ms) WHERE waiting > 0 AND is_retired = 0 AND suspension_reason = '';
CREATE INDEX notification_queues_retired ON notification_queues (queue_no) WHERE is_retired = 1;
CREATE INDEX notification_queues_suspended ON notification_queues (queue_no) WHERE suspension_reason <> '';

-- The outbox. A row is written by the transaction that changes the file and goes once the target
-- has answered 200. file_no, file_id, object_name and size are null for a test event.
CREATE TABLE notification_events (
  queue_no BIGINT NOT NULL,
  event_no BIGINT NOT NULL,
  event_type TEXT NOT NULL,
  occurred_at_ms BIGINT NOT NULL,
  file_no BIGINT,
  file_id TEXT,
  object_name TEXT {byte_order},
  size BIGINT,
  failures BIGINT NOT NULL,
  failing_since_ms BIGINT,
  next_attempt_at_ms BIGINT NOT NULL,
  PRIMARY KEY (queue_no, event_no)
) {clustered};
CREATE INDEX notification_events_due ON notification_events (queue_no, next_attempt_at_ms, event_no);
