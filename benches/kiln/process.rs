//! What the kernel tells about processes and the machine: processor time, memory, who is whose
//! child.

use std::fs;
use std::time::Instant;

use crate::Fallible;

/// Processor times under `/proc` are counted in hundredths of a second on every machine that has
/// the ports this runs on, whatever the kernel's own tick is.
const TICKS_PER_SECOND: f64 = 100.0;

/// The processes that make up the server under test.
pub(crate) struct Watch {
    servers: Vec<u32>,
    cores: f64,
}

/// Processor time so far.
pub(crate) struct Sample {
    at: Instant,
    server: f64,
    client: f64,
    machine: f64,
    cores: f64,
}

/// Processor time between two samples, in seconds.
#[derive(Clone, Copy)]
pub(crate) struct Usage {
    pub server: f64,
    pub client: f64,
    /// The share of the whole machine that neither server nor client used. It includes what the
    /// kernel's own threads did for them, such as writing pages back.
    pub foreign_share: f64,
}

impl Watch {
    pub(crate) fn new(servers: &[u32]) -> Self {
        Self { servers: servers.to_vec(), cores: cores() as f64 }
    }

    pub(crate) fn sample(&self) -> Fallible<Sample> {
        let mut server = 0.0;
        for pid in &self.servers {
            server += processor_seconds(&pid.to_string())?;
        }
        Ok(Sample {
            at: Instant::now(),
            server,
            client: processor_seconds("self")?,
            machine: machine_seconds()?,
            cores: self.cores,
        })
    }
}

impl Sample {
    pub(crate) fn until(&self, later: &Self) -> Usage {
        let server = later.server - self.server;
        let client = later.client - self.client;
        let machine = later.machine - self.machine;
        let available = (later.at - self.at).as_secs_f64() * self.cores;
        let foreign_share = ((machine - server - client) / available).clamp(0.0, 1.0);
        Usage { server, client, foreign_share }
    }
}

pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// User and system time of a process, including its threads that have ended.
fn processor_seconds(pid: &str) -> Fallible<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name in parentheses may hold spaces, so fields are counted from behind it: the first is
    // the state, number 3 of the manual; utime and stime are numbers 14 and 15.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_ascii_whitespace();
    let ticks: Vec<f64> = fields.skip(11).take(2).filter_map(|field| field.parse().ok()).collect();
    match ticks[..] {
        [user, system] => Ok((user + system) / TICKS_PER_SECOND),
        _ => Err(format!("/proc/{pid}/stat has an unknown shape").into()),
    }
}

/// Time all processors were busy, including time taken by the host.
fn machine_seconds() -> Fallible<f64> {
    let stat = fs::read_to_string("/proc/stat")?;
    let first = stat.lines().next().ok_or("/proc/stat is empty")?;
    // user nice system idle iowait irq softirq steal; what follows is contained in user and nice.
    let fields: Vec<f64> =
        first.split_ascii_whitespace().skip(1).filter_map(|field| field.parse().ok()).collect();
    match fields[..] {
        [user, nice, system, _idle, _iowait, irq, softirq, steal, ..] => {
            Ok((user + nice + system + irq + softirq + steal) / TICKS_PER_SECOND)
        }
        _ => Err("/proc/stat has an unknown shape".into()),
    }
}

/// A field of `/proc/<pid>/status` that is given in kB, in MiB.
fn status_mebibytes(pid: u32, field: &str) -> Fallible<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    mebibytes(&status, field).ok_or_else(|| format!("/proc/{pid}/status has no {field}").into())
}

fn mebibytes(text: &str, field: &str) -> Option<f64> {
    let line = text.lines().find(|line| line.starts_with(field))?;
    let kib: f64 = line.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some(kib / 1024.0)
}

/// Memory resident now, in MiB.
pub(crate) fn resident(pid: u32) -> Fallible<f64> {
    status_mebibytes(pid, "VmRSS:")
}

/// The most memory that was resident since [`reset_peak`], in MiB.
pub(crate) fn peak_resident(pid: u32) -> Fallible<f64> {
    status_mebibytes(pid, "VmHWM:")
}

/// Makes the peak start again from what is resident now.
pub(crate) fn reset_peak(pid: u32) -> Fallible<()> {
    Ok(fs::write(format!("/proc/{pid}/clear_refs"), "5")?)
}

/// Memory that can be had without swapping, in MiB.
pub(crate) fn available_memory() -> Fallible<f64> {
    let info = fs::read_to_string("/proc/meminfo")?;
    mebibytes(&info, "MemAvailable:").ok_or_else(|| "/proc/meminfo has no MemAvailable".into())
}

/// The processes whose parent this is.
pub(crate) fn children(parent: u32) -> Fallible<Vec<u32>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // A process may end between being listed and being read.
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        let fields = stat.rsplit(')').next().unwrap_or_default();
        if fields.split_ascii_whitespace().nth(1) == Some(&parent.to_string()) {
            found.push(pid);
        }
    }
    Ok(found)
}

/// Has the host of a virtual machine back this much memory with real pages, as far as it is free.
/// Files written next would otherwise pay for that, and the first contender would pay for all.
pub(crate) fn warm_memory(mebibytes: usize) -> Fallible<()> {
    const PAGE: usize = 4096;
    let affordable = (available_memory()? / 3.0) as usize;
    let mut touched = vec![0_u8; mebibytes.min(affordable) * 1024 * 1024];
    for page in touched.chunks_mut(PAGE) {
        page[0] = 1;
    }
    std::hint::black_box(&touched);
    Ok(())
}
