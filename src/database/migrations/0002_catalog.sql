-- Collections and what belongs to them. Names that are compared without regard to case are kept
-- twice: as they were written, and folded to lower case. Times are epoch milliseconds, flags 0 or 1.
-- The text runs on SQLite and on PostgreSQL.

-- The last number given out of each kind: the wire wants whole numbers, and none is given twice.
CREATE TABLE counters (
    kind TEXT NOT NULL PRIMARY KEY,
    last BIGINT NOT NULL
);
INSERT INTO counters (kind, last) VALUES ('collection', 0), ('task', 0), ('token', 0);

CREATE TABLE collections (
    -- In lower case by its rule.
    name TEXT NOT NULL PRIMARY KEY,
    number BIGINT NOT NULL UNIQUE,
    description TEXT,
    -- Runs at once; NULL leaves it to the server.
    concurrency BIGINT,
    -- A JSON list of texts.
    redacted_param_keys TEXT NOT NULL,
    created_at BIGINT NOT NULL
);

CREATE TABLE environment_variables (
    collection TEXT NOT NULL REFERENCES collections (name) ON DELETE CASCADE,
    name TEXT NOT NULL,
    -- Encrypted.
    sealed TEXT NOT NULL,
    -- Length of the value before it was sealed.
    n_bytes BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    PRIMARY KEY (collection, name)
);

CREATE TABLE tasks (
    collection TEXT NOT NULL REFERENCES collections (name) ON DELETE CASCADE,
    folded TEXT NOT NULL,
    name TEXT NOT NULL,
    number BIGINT NOT NULL UNIQUE,
    description TEXT NOT NULL,
    -- JSON, as it was written.
    workflow TEXT NOT NULL,
    is_private BIGINT NOT NULL,
    is_chat_flow BIGINT NOT NULL,
    has_file_uploads BIGINT NOT NULL,
    version TEXT,
    -- JSON.
    croissant_metadata TEXT,
    created_at BIGINT NOT NULL,
    updated_at BIGINT,
    PRIMARY KEY (collection, folded)
);

CREATE TABLE api_tokens (
    number BIGINT NOT NULL PRIMARY KEY,
    -- A collection's name, or `*` for the whole server.
    scope TEXT NOT NULL,
    name TEXT NOT NULL,
    prefix TEXT NOT NULL,
    -- SHA-256 of the token, in hexadecimal. The token itself is nowhere.
    digest TEXT NOT NULL UNIQUE,
    is_active BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    last_used_at BIGINT,
    UNIQUE (scope, name)
);
CREATE INDEX api_tokens_prefix ON api_tokens (prefix);

CREATE TABLE routines (
    id TEXT NOT NULL PRIMARY KEY,
    collection TEXT NOT NULL,
    -- Folded.
    task TEXT NOT NULL,
    folded TEXT NOT NULL,
    name TEXT NOT NULL,
    -- JSON.
    cadence TEXT NOT NULL,
    -- JSON.
    overrides TEXT NOT NULL,
    -- Encrypted.
    sealed_params TEXT,
    paused BIGINT NOT NULL,
    webhook_url TEXT,
    -- Encrypted.
    sealed_webhook_secret TEXT,
    -- Everything up to here is done with. It never goes back.
    last_slot BIGINT NOT NULL,
    -- NULL where it never runs by itself.
    next_slot BIGINT,
    -- Grows with every change of when it runs, so that a slot of the old rhythm is not claimed.
    revision BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    UNIQUE (collection, task, folded),
    FOREIGN KEY (collection, task) REFERENCES tasks (collection, folded) ON DELETE CASCADE
);
CREATE INDEX routines_due ON routines (next_slot) WHERE paused = 0;

CREATE TABLE webhook_deliveries (
    id TEXT NOT NULL PRIMARY KEY,
    collection TEXT NOT NULL REFERENCES collections (name) ON DELETE CASCADE,
    task TEXT NOT NULL,
    run TEXT NOT NULL,
    url TEXT NOT NULL,
    -- Encrypted.
    sealed_secret TEXT,
    body TEXT NOT NULL,
    -- waiting | delivered | failed
    state TEXT NOT NULL,
    attempts BIGINT NOT NULL,
    next_at BIGINT NOT NULL,
    last_error TEXT,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    UNIQUE (collection, task, run)
);
CREATE INDEX webhook_deliveries_due ON webhook_deliveries (next_at, id) WHERE state = 'waiting';

CREATE TABLE uploads (
    -- `file-…`, or the storage path of a sandbox upload.
    key TEXT NOT NULL PRIMARY KEY,
    collection TEXT NOT NULL REFERENCES collections (name) ON DELETE CASCADE,
    name TEXT NOT NULL,
    n_bytes BIGINT NOT NULL,
    media_type TEXT NOT NULL,
    created_at BIGINT NOT NULL
);
CREATE INDEX uploads_collection ON uploads (collection, created_at, key);
