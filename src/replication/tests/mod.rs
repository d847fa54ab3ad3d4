//! Step tests of the engine: the fault matrix, scans, configuration, and random runs
//! against a model.
//!
//! Time stands still unless a test moves it, and one step is one job from claim to outcome.

mod damage;
mod encryption;
mod fairness;
mod locks;
mod matrix;
mod random;
mod scans;
mod shapes;
mod sharing;
mod stream_acts;
mod streams;
