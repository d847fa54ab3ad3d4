//! Step tests of the engine: see `docs/testing.md`.
