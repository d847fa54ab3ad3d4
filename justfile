# The index of commands; each is one plain line that works without just.

# Everything that must hold before a change is offered.
all:
    tests/run

# Form and lints.
check:
    cargo fmt --check && cargo clippy --all-targets -- -D warnings

# Unit and integration tests.
test *filter:
    cargo nextest run {{ filter }}

# Checks with real clients whose names contain the filter.
clients filter="":
    cargo build && target/clients/bin/python -B tests/clients/run.py --binary target/debug/kiln --filter "{{ filter }}"

# Write pages and stored forms that follow from the source anew, then read the difference.
accept:
    KILN_TEST_ACCEPT=1 cargo nextest run

doc:
    RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --document-private-items

bench *arguments:
    cargo bench -- {{ arguments }}

# A server on the default addresses with test controls, for trying clients.
serve:
    cargo run -- serve --test-controls
