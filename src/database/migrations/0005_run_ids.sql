-- Runs by their id alone: clients of chats know nothing else of theirs.
CREATE INDEX jobs_id ON jobs (collection, id);
