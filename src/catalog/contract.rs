//! The suite every SQL engine must pass.
