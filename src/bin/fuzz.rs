//! Runs one target of `kiln::fuzzing` under libFuzzer; `tests/fuzz` builds and starts it.

#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    static RUN: std::sync::OnceLock<fn(&[u8])> = std::sync::OnceLock::new();
    let run = RUN.get_or_init(|| {
        let wanted = std::env::var("KILN_FUZZ_TARGET").unwrap_or_default();
        let found = kiln::fuzzing::TARGETS.iter().find(|target| target.name == wanted);
        found.map_or_else(|| panic!("KILN_FUZZ_TARGET names no target: {wanted:?}"), |t| t.run)
    });
    run(bytes);
});

/// Without the fuzzer: says which targets there are.
#[cfg(not(fuzzing))]
fn main() -> std::io::Result<()> {
    use std::io::Write as _;

    let mut out = std::io::stdout();
    kiln::fuzzing::TARGETS.iter().try_for_each(|target| writeln!(out, "{}", target.name))
}
