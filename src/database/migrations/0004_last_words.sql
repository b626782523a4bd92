-- When somebody is to tell the end of a run that ended without a worker; NULL where there is nothing
-- to tell. What is sealed of such a run stays until then: it has the key that signs the telling.
ALTER TABLE jobs ADD COLUMN tell_at BIGINT;
CREATE INDEX jobs_untold ON jobs (tell_at) WHERE tell_at IS NOT NULL;
