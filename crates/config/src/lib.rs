//! bulkhead.toml and where everything lives.
