-- When a queue was last changed, on the time line of waits: after a restart that line begins no
-- earlier, so that a clock that was set back holds no event back. Of rows from before it is only
-- known that no wait is longer than an hour, or than a day while the rule is suspended.
ALTER TABLE notification_queues ADD COLUMN noted_at_ms BIGINT NOT NULL DEFAULT 0;
UPDATE notification_queues
   SET noted_at_ms = next_attempt_at_ms
                     - CASE WHEN suspension_reason = '' THEN 3600000 ELSE 86400000 END;

-- Attempts are counted instead: time in which this server was down says nothing about a target.
ALTER TABLE notification_events DROP COLUMN failing_since_ms;
