-- A run may have several steps, one after the other: each has a lease, a sandbox and an agent of its
-- own. Which one it is at.
ALTER TABLE jobs ADD COLUMN step BIGINT NOT NULL DEFAULT 0;
-- When the agent of its first step was started; NULL while it is at that step. Of the step that it is
-- at, `started_at` tells.
ALTER TABLE jobs ADD COLUMN begun_at BIGINT;
-- A list that is filtered by status looks at the step too: a run that waits between two steps goes on.
DROP INDEX jobs_list;
CREATE INDEX jobs_list ON jobs (collection, created_at, id, task, status, triggered_by_routine, step);
