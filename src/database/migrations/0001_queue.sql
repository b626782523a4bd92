-- Runs waiting, running and ended: the queue and the index of the results directory.
-- Times are epoch milliseconds. The text runs on SQLite and on PostgreSQL.
CREATE TABLE jobs (
    collection TEXT NOT NULL,
    task TEXT NOT NULL,
    id TEXT NOT NULL,
    workflow_id TEXT NOT NULL,
    -- run | ingested | chat
    kind TEXT NOT NULL,
    -- queued | leased | running | finishing | completed | failed | cancelled | archived
    status TEXT NOT NULL,
    reason TEXT,
    priority BIGINT NOT NULL,
    run_at BIGINT NOT NULL,
    -- Names the sandbox: grows with every lease.
    attempt BIGINT NOT NULL,
    -- How often it went back to the queue for a failure before its agent started.
    retries BIGINT NOT NULL,
    max_attempts BIGINT NOT NULL,
    -- Names the writer: grows with every grant, lease and adoption alike.
    fence BIGINT NOT NULL,
    -- Bytes of the agent's output that are recorded.
    next_off BIGINT NOT NULL,
    lease_owner TEXT,
    lease_expires BIGINT,
    -- The request that the lease answered, and the fence that it was answered with.
    claim_req TEXT,
    claim_fence BIGINT,
    cancel_requested BIGINT NOT NULL,
    session_id TEXT,
    exit_code BIGINT,
    idempotency_key TEXT,
    fingerprint TEXT,
    triggered_by_routine TEXT,
    input_tokens BIGINT NOT NULL,
    output_tokens BIGINT NOT NULL,
    cache_read_tokens BIGINT NOT NULL,
    cache_write_tokens BIGINT NOT NULL,
    -- NULL where nobody knows it.
    cost_micros BIGINT,
    -- reported | estimated | unknown
    cost_basis TEXT NOT NULL,
    duration_ms BIGINT,
    created_at BIGINT NOT NULL,
    started_at BIGINT,
    finished_at BIGINT,
    updated_at BIGINT NOT NULL,
    -- What is long stands last, so that sums and lists do not read past it.
    spec TEXT NOT NULL,
    -- Encrypted, and gone when the run has ended.
    sealed TEXT,
    -- What was saved before the sandbox was removed.
    ending TEXT,
    PRIMARY KEY (collection, task, id),
    UNIQUE (collection, idempotency_key)
);
-- Whose turn it is (with all that is asked about those that wait, so that a full collection with
-- thousands of them is passed over quickly), who is at work, how many there are of each.
CREATE INDEX jobs_status ON jobs (status, priority DESC, created_at, id, collection, task, run_at);
-- Lists, newest first, with what they are filtered by.
CREATE INDEX jobs_list ON jobs (collection, created_at, id, task, status, triggered_by_routine);
CREATE INDEX jobs_workflow ON jobs (workflow_id);
CREATE UNIQUE INDEX jobs_claim ON jobs (claim_req);

-- Who takes runs out of the queue.
CREATE TABLE workers (
    id TEXT NOT NULL PRIMARY KEY,
    -- One process of it.
    session TEXT NOT NULL,
    slots BIGINT NOT NULL,
    version TEXT NOT NULL,
    started_at BIGINT NOT NULL,
    last_seen BIGINT NOT NULL
);
