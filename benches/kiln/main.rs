//! Measures kiln against the limits of the machine it runs on.
//!
//! The server runs as a process of its own and is driven over loopback; every limit it is compared
//! with is measured in the same run, by the same client where there is something to drive, and in
//! turns with the server, so that a disturbance meets both. `docs/benchmarks.md` tells how to read
//! the outcome.

#![expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "figures are estimates: counts become floats to be divided, and quantiles and sizes \
              computed as floats become places again"
)]
#![expect(
    clippy::disallowed_methods,
    reason = "it measures with the machine's own clock, and waits for other processes"
)]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "it is a program that prints")]
#![expect(clippy::float_arithmetic, reason = "rates and ratios are what it is for")]

mod b2;
mod bodies;
mod bulk;
mod http;
mod large;
mod limits;
mod listing;
mod load;
mod process;
mod report;
mod sealed;
mod server;
mod sink;
mod small;
mod whole;

use std::fs;
use std::future::Future;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::LocalSet;

use crate::report::{Missing, Row};

/// A failure ends a workload and is told by its message alone.
type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

/// Measures kiln against the limits of this machine.
#[derive(Parser)]
#[command(bin_name = "cargo bench --bench kiln --")]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
struct Arguments {
    /// Workloads to run, separated by commas; all without it
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    only: Vec<String>,
    /// How long each timed round takes
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// How often each side of a comparison is measured; the best round counts
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// One round of half a second each, listings over few files: to see that everything runs
    #[arg(long, conflicts_with_all = ["seconds", "rounds", "full"])]
    quick: bool,
    /// List 100,000 against 1,000,000 files instead of 10,000 against 100,000
    #[arg(long)]
    full: bool,
    /// Also write the JSON document to this file
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Keep data under this folder while measuring
    #[arg(long, value_name = "FOLDER", default_value = env!("CARGO_TARGET_TMPDIR"),
        hide_default_value = true)]
    folder: PathBuf,
    /// Measure this program instead of the one just built
    #[arg(long, value_name = "PROGRAM", default_value = env!("CARGO_BIN_EXE_kiln"),
        hide_default_value = true)]
    server: PathBuf,
    /// Fail when a goal is missed, not only when a workload fails
    #[arg(long)]
    check: bool,
    /// What cargo passes to every bench
    #[arg(long, hide = true)]
    bench: bool,
    /// Be the sink and write its address to this file
    #[arg(long, hide = true, value_name = "FILE")]
    sink: Option<PathBuf>,
}

/// What every workload needs to know.
struct Bench {
    kiln: PathBuf,
    base: PathBuf,
    time: Duration,
    rounds: u32,
    /// How many files the smaller and the larger listed bucket hold.
    listed: (u64, u64),
}

impl Bench {
    /// A new folder that is removed when it is dropped.
    fn folder(&self) -> Fallible<TempDir> {
        Ok(tempfile::Builder::new().prefix("kiln-bench-").tempdir_in(&self.base)?)
    }
}

/// All workloads, in the order in which they run: what is sensitive to a full page cache first.
#[derive(Clone, Copy)]
enum Workload {
    StartUp,
    PutsAlone,
    PutsSideBySide,
    Syncs,
    SmallGets,
    MiddlingGets,
    Metadata,
    Replication,
    Listings,
    GetsBesidePuts,
    LargePuts,
    Parts,
    Copies,
    Sealed,
    Mixed,
    Memory,
}

impl Workload {
    const ALL: [(&str, Self); 16] = [
        ("start_up", Self::StartUp),
        ("put4k_c1", Self::PutsAlone),
        ("put4k_c64", Self::PutsSideBySide),
        ("syncs", Self::Syncs),
        ("get4k_c16", Self::SmallGets),
        ("get1m_c16", Self::MiddlingGets),
        ("metadata", Self::Metadata),
        ("replication", Self::Replication),
        ("listings", Self::Listings),
        ("get4k_beside_puts", Self::GetsBesidePuts),
        ("put64m_c4", Self::LargePuts),
        ("large1g", Self::Parts),
        ("copy_c16", Self::Copies),
        ("sealed", Self::Sealed),
        ("mixed_c32", Self::Mixed),
        ("memory_c64", Self::Memory),
    ];

    /// About how long it takes on a machine with two idle processors: once, for each round, and for
    /// the measured times of each round.
    fn seconds(self, bench: &Bench) -> f64 {
        let time = bench.time.as_secs_f64();
        let (once, each, times) = match self {
            Self::StartUp => (1.0, 0.0, 0.0),
            Self::PutsAlone | Self::PutsSideBySide => (0.0, 0.5, 3.2),
            Self::Syncs => (1.0 + 2.0 * time, 0.0, 0.0),
            Self::SmallGets | Self::MiddlingGets => (1.0, 0.0, 2.2),
            Self::Metadata => (4.0, 0.0, 0.0),
            Self::Replication => (10.0, 0.0, 0.0),
            Self::Listings => (bench.listed.1 as f64 / 5000.0, 0.0, 5.4),
            Self::GetsBesidePuts => (7.0 + 2.0 * time, 0.0, 0.0),
            Self::LargePuts => (1.0, 3.0, 1.0),
            Self::Parts => (2.0, 6.0, 0.0),
            Self::Copies => (0.0, 0.5, 2.2),
            Self::Sealed => (1.0, 6.0, 7.0),
            Self::Mixed => (0.0, 1.0, 3.2),
            Self::Memory => (12.0, 0.0, 0.0),
        };
        once + f64::from(bench.rounds) * (each + times * time)
    }

    async fn run(self, bench: &Bench) -> Fallible<Vec<Row>> {
        match self {
            Self::StartUp => whole::start_up(bench),
            Self::PutsAlone => small::puts_alone(bench).await,
            Self::PutsSideBySide => small::puts_side_by_side(bench).await,
            Self::Syncs => small::syncs(bench).await,
            Self::SmallGets => small::small_gets(bench).await,
            Self::MiddlingGets => small::middling_gets(bench).await,
            Self::Metadata => whole::metadata(bench).await,
            Self::Replication => whole::replication(bench).await,
            Self::Listings => listing::listings(bench).await,
            Self::GetsBesidePuts => bulk::gets_beside_puts(bench).await,
            Self::LargePuts => bulk::puts(bench).await,
            Self::Parts => large::parts(bench).await,
            Self::Copies => large::copies(bench).await,
            Self::Sealed => sealed::sealed(bench).await,
            Self::Mixed => large::mixed(bench).await,
            Self::Memory => bulk::memory(bench).await,
        }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match &arguments.sink {
        Some(ready_file) => sink::serve(ready_file).map(|()| true),
        // Test runners start every target once; measuring is not what they ask for.
        None if !arguments.bench => {
            eprintln!("Nothing is measured except by `cargo bench --bench kiln`.");
            Ok(true)
        }
        None => measure(&arguments),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::FAILURE
        }
    }
}

/// Runs what was asked for; false means that a workload failed or, if that matters, missed a goal.
fn measure(arguments: &Arguments) -> Fallible<bool> {
    let bench = Bench {
        kiln: fs::canonicalize(&arguments.server)
            .map_err(|failure| format!("{}: {failure}", arguments.server.display()))?,
        base: fs::canonicalize(&arguments.folder)
            .map_err(|failure| format!("{}: {failure}", arguments.folder.display()))?,
        time: Duration::try_from_secs_f64(if arguments.quick { 0.5 } else { arguments.seconds })?,
        rounds: if arguments.quick { 1 } else { arguments.rounds },
        listed: match (arguments.quick, arguments.full) {
            (true, _) => (2_000, 20_000),
            (false, false) => (10_000, 100_000),
            (false, true) => (100_000, 1_000_000),
        },
    };
    let wanted = wanted(&arguments.only)?;
    let expected: f64 = wanted.iter().map(|(_, workload)| workload.seconds(&bench)).sum();
    let names: Vec<_> = wanted.iter().map(|(name, _)| *name).collect();
    eprintln!("about {expected:.0} s on two idle processors: {}", names.join(", "));
    let rows = in_runtime(measured(&bench, wanted))?;
    let document = report::document(&settings(&bench), &machine()?, &rows);
    let text = serde_json::to_string_pretty(&document)?;
    if let Some(out) = &arguments.out {
        fs::write(out, format!("{text}\n"))?;
    }
    println!("{text}");
    eprintln!("{}", report::table(&rows));
    Ok(!rows.iter().any(|row| row.failed() || (arguments.check && row.missed())))
}

/// Runs workloads and tells what each found, and how long it took, as soon as it has.
async fn measured(bench: &Bench, wanted: Vec<(&'static str, Workload)>) -> Fallible<Vec<Row>> {
    let mut rows = Vec::new();
    for (name, workload) in wanted {
        let start = Instant::now();
        let found = workload.run(bench).await.unwrap_or_else(|failure| {
            vec![Row { name, what: "", result: Err(Missing::Failed(failure.to_string())) }]
        });
        eprintln!("{name}: {:.0} s", start.elapsed().as_secs_f64());
        for row in found {
            eprintln!("  {}", row.line());
            rows.push(row);
        }
    }
    Ok(rows)
}

fn wanted(only: &[String]) -> Fallible<Vec<(&'static str, Workload)>> {
    if only.is_empty() {
        return Ok(Workload::ALL.to_vec());
    }
    only.iter()
        .map(|name| {
            Workload::ALL.into_iter().find(|(known, _)| known == name).ok_or_else(|| {
                let known = Workload::ALL.map(|(known, _)| known).join(", ");
                format!("no workload is called {name}; there are {known}").into()
            })
        })
        .collect()
}

/// Runs a future and the tasks it spawns on this thread alone, which leaves the other processors
/// to the server.
fn in_runtime<T>(future: impl Future<Output = Fallible<T>>) -> Fallible<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, future)
}

fn settings(bench: &Bench) -> Value {
    let (few, many) = bench.listed;
    json!({
        "roundSeconds": bench.time.as_secs_f64(),
        "rounds": bench.rounds,
        "listedFiles": [few, many],
    })
}

fn machine() -> Fallible<Value> {
    Ok(json!({
        "processors": process::cores(),
        "availableMebibytes": process::available_memory()?.round(),
        "kernel": fs::read_to_string("/proc/sys/kernel/osrelease")?.trim(),
    }))
}
