//! The pinned agent CLIs: which package, version and integrity, and the cache.
