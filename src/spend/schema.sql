-- What is spent. Amounts of money are millionths of a dollar, instants are epoch milliseconds.
CREATE TABLE IF NOT EXISTS spend_schema (
    version BIGINT NOT NULL
);

-- What was taken in a span: what was spent, and what requests in flight may take.
CREATE TABLE IF NOT EXISTS spend_totals (
    span TEXT NOT NULL,
    name TEXT NOT NULL,
    cost_micros BIGINT NOT NULL DEFAULT 0,
    tokens BIGINT NOT NULL DEFAULT 0,
    requests BIGINT NOT NULL DEFAULT 0,
    -- Why a run may ask for nothing more.
    closed TEXT,
    at_ms BIGINT NOT NULL,
    PRIMARY KEY (span, name)
);

-- What requests in flight may take. Removed once, when it is known or given up.
CREATE TABLE IF NOT EXISTS spend_reservations (
    id TEXT PRIMARY KEY,
    collection TEXT NOT NULL,
    run TEXT NOT NULL,
    day TEXT NOT NULL,
    month TEXT NOT NULL,
    model TEXT NOT NULL,
    cost_micros BIGINT NOT NULL,
    tokens BIGINT NOT NULL,
    requests BIGINT NOT NULL,
    -- What of the tokens was taken out of the bucket, and its size.
    rate_tokens BIGINT NOT NULL,
    rate_limit BIGINT NOT NULL,
    at_ms BIGINT NOT NULL
);
CREATE INDEX IF NOT EXISTS spend_reservations_run ON spend_reservations (run);
CREATE INDEX IF NOT EXISTS spend_reservations_day ON spend_reservations (collection, day);

-- How full the buckets of a collection are.
CREATE TABLE IF NOT EXISTS spend_rates (
    collection TEXT NOT NULL,
    measure TEXT NOT NULL,
    level_milli BIGINT NOT NULL,
    at_ms BIGINT NOT NULL,
    PRIMARY KEY (collection, measure)
);

-- What a collection used of a model in a day.
CREATE TABLE IF NOT EXISTS spend_counters (
    collection TEXT NOT NULL,
    day TEXT NOT NULL,
    model TEXT NOT NULL,
    requests BIGINT NOT NULL DEFAULT 0,
    input_tokens BIGINT NOT NULL DEFAULT 0,
    output_tokens BIGINT NOT NULL DEFAULT 0,
    cache_read_tokens BIGINT NOT NULL DEFAULT 0,
    cache_write_tokens BIGINT NOT NULL DEFAULT 0,
    cost_micros BIGINT NOT NULL DEFAULT 0,
    -- Requests of which it is not known what they took, and what was set aside for them.
    unsettled_requests BIGINT NOT NULL DEFAULT 0,
    unsettled_cost_micros BIGINT NOT NULL DEFAULT 0,
    -- Requests for a model without a known price.
    unpriced_requests BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY (collection, day, model)
);

-- The runs without a gateway that were counted at their end.
CREATE TABLE IF NOT EXISTS spend_counted (
    run TEXT PRIMARY KEY,
    at_ms BIGINT NOT NULL
);
