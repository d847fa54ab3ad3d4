//! Starts and ends the server under test and the servers it is compared with.
//!
//! Each is a process of its own, listens on loopback, and is ended by its process id when its
//! handle is dropped, also on a failure in the middle of a workload.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::b2::Account;
use crate::process::{self, Watch};
use crate::{Bench, Fallible};

/// The master application key of every server started here.
pub(crate) const KEY_ID: &str = "be9c00000001";
/// Its secret, which protects nothing: the server lives for one workload on loopback.
pub(crate) const KEY: &str = "measured-on-loopback-only";

/// How long a server may take to start or to stop before the workload is given up.
const PATIENCE: Duration = Duration::from_mins(1);

/// A child process that is not left behind.
struct Owned {
    child: Child,
    /// The traced process when the child is a tracer, whose death alone would set it free.
    traced: Option<Pid>,
}

impl Owned {
    fn spawn(command: &mut Command) -> Fallible<Self> {
        let child = command
            .spawn()
            .map_err(|failure| format!("{}: {failure}", command.get_program().display()))?;
        Ok(Self { child, traced: None })
    }

    fn signal(&self, signal: Signal) -> Fallible<()> {
        Ok(kill_process(Pid::from_child(&self.child), signal)?)
    }

    /// Waits for a condition while the process lives.
    fn until<T>(
        &mut self,
        what: &str,
        mut ready: impl FnMut() -> Fallible<Option<T>>,
    ) -> Fallible<T> {
        let start = Instant::now();
        loop {
            if let Some(value) = ready()? {
                return Ok(value);
            }
            if let Some(status) = self.child.try_wait()? {
                return Err(format!("{what} ended with {status}").into());
            }
            if start.elapsed() > PATIENCE {
                return Err(format!("{what} did not start in time").into());
            }
            sleep(Duration::from_millis(1));
        }
    }

    fn wait(&mut self) -> Fallible<ExitStatus> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if start.elapsed() > PATIENCE {
                return Err("a server did not stop in time".into());
            }
            sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        // What fails here fails because the process has already ended.
        if let Some(traced) = self.traced
            && matches!(self.child.try_wait(), Ok(None))
        {
            kill_process(traced, Signal::KILL).ok();
        }
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// The server under test with a data folder of its own.
pub(crate) struct Kiln {
    process: Owned,
    /// The id of the server itself, which is not the child's when a tracer stands between.
    pid: Pid,
    address: SocketAddr,
    folder: TempDir,
}

impl Kiln {
    /// Starts a server in an empty folder and waits until it answers.
    pub(crate) fn start(bench: &Bench) -> Fallible<Self> {
        Self::start_under(bench, |_| Command::new(&bench.kiln))
    }

    /// As [`Kiln::start`], with a command that is given the folder for its own files and that takes
    /// the server's arguments last.
    pub(crate) fn start_under(
        bench: &Bench,
        command: impl FnOnce(&Path) -> Command,
    ) -> Fallible<Self> {
        let folder = bench.folder()?;
        let ready_file = folder.path().join("ready.json");
        let mut command = command(folder.path());
        arrange(&mut command, folder.path(), "127.0.0.1:0")?;
        command.arg("--ready-file").arg(&ready_file);
        let mut process = Owned::spawn(&mut command)?;
        let ready = process
            .until("kiln", || read_ready(&ready_file))
            .map_err(|failure| format!("{failure}: {}", last_lines(folder.path())))?;
        let endpoint = crate::b2::text(&ready, "endpoint")?;
        let address = endpoint.trim_start_matches("http://").parse()?;
        let pid = ready["pid"]
            .as_i64()
            .and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?))
            .ok_or("a ready file without pid")?;
        process.traced = (pid != Pid::from_child(&process.child)).then_some(pid);
        Ok(Self { process, pid, address, folder })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn watch(&self) -> Watch {
        Watch::new(&[self.pid()])
    }

    pub(crate) async fn account(&self) -> Fallible<Account> {
        Account::authorize(self.address, KEY_ID, KEY).await
    }

    /// A file beside the data folder.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Asks the server to stop, waits until it has, and returns the folder with its data.
    pub(crate) fn stop(mut self) -> Fallible<(TempDir, PathBuf)> {
        kill_process(self.pid, Signal::TERM)?;
        let status = self.process.wait()?;
        if !status.success() {
            let said = last_lines(self.folder.path());
            return Err(format!("kiln stopped with {status}: {said}").into());
        }
        let data = data_folder(self.folder.path());
        Ok((self.folder, data))
    }
}

fn data_folder(folder: &Path) -> PathBuf {
    folder.join("data")
}

/// Gives a command the arguments and the surroundings of a server.
fn arrange(command: &mut Command, folder: &Path, listen: &str) -> Fallible<()> {
    let data = data_folder(folder);
    fs::create_dir(&data)?;
    for (name, _) in std::env::vars_os() {
        // What the surroundings set for another server must not change what is measured.
        if name.to_string_lossy().starts_with("KILN_") {
            command.env_remove(name);
        }
    }
    command
        .arg("serve")
        .arg("--data-dir")
        .arg(data)
        .args(["--listen", listen, "--admin-listen", "127.0.0.1:0"])
        .env("KILN_MASTER_KEY_ID", KEY_ID)
        .env("KILN_MASTER_KEY", KEY);
    quiet(command, folder)
}

/// Sends what a command prints to a file, from which a failure is explained.
fn quiet(command: &mut Command, folder: &Path) -> Fallible<()> {
    let log = File::create(folder.join("log"))?;
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    Ok(())
}

fn last_lines(folder: &Path) -> String {
    let log = fs::read(folder.join("log")).unwrap_or_default();
    let log = String::from_utf8_lossy(&log);
    let mut lines: Vec<&str> = log.lines().rev().take(5).collect();
    lines.reverse();
    lines.join(" | ")
}

fn read_ready(path: &Path) -> Fallible<Option<Value>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
        Err(failure) if failure.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(failure) => Err(failure.into()),
    }
}

/// Starts a server in an empty folder and returns how long its first successful answer took, from
/// before the program was executed.
pub(crate) fn first_answer(bench: &Bench) -> Fallible<Duration> {
    let folder = bench.folder()?;
    let address = free_address()?;
    let request = crate::b2::authorize_request(address, KEY_ID, KEY);
    let mut command = Command::new(&bench.kiln);
    arrange(&mut command, folder.path(), &address.to_string())?;
    let start = Instant::now();
    let mut process = Owned::spawn(&mut command)?;
    let took = process
        .until("kiln", || Ok(ask_blocking(address, &request).then(|| start.elapsed())))
        .map_err(|failure| format!("{failure}: {}", last_lines(folder.path())))?;
    process.signal(Signal::TERM)?;
    process.wait()?;
    Ok(took)
}

/// Whether a server answers this request with a success now.
fn ask_blocking(address: SocketAddr, request: &str) -> bool {
    use std::io::{Read as _, Write as _};
    let Ok(mut stream) = std::net::TcpStream::connect(address) else { return false };
    let mut start_of_answer = [0; 12];
    stream.set_read_timeout(Some(PATIENCE)).is_ok()
        && stream.write_all(request.as_bytes()).is_ok()
        && stream.read_exact(&mut start_of_answer).is_ok()
        && start_of_answer.ends_with(b" 200")
}

/// An address nobody listens on. Another process could take it before the server does; then the
/// server says so and the workload fails by name.
fn free_address() -> Fallible<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// Whether a program of the system can be started.
pub(crate) fn installed(program: &str, version_flag: &str) -> bool {
    Command::new(program)
        .arg(version_flag)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// nginx serving a folder with sendfile.
pub(crate) struct Nginx {
    process: Owned,
    address: SocketAddr,
    _folder: TempDir,
}

impl Nginx {
    /// Starts nginx on a folder that `fill` puts the files into.
    pub(crate) fn start(bench: &Bench, fill: impl FnOnce(&Path) -> Fallible<()>) -> Fallible<Self> {
        let folder = bench.folder()?;
        let here = folder.path();
        let files = here.join("files");
        fs::create_dir(&files)?;
        fill(&files)?;
        let address = free_address()?;
        let configuration = here.join("nginx.conf");
        fs::write(&configuration, nginx_configuration(here, address))?;
        let mut command = Command::new("nginx");
        command.arg("-c").arg(&configuration).arg("-p").arg(here).arg("-e").arg("stderr");
        quiet(&mut command, here)?;
        let mut process = Owned::spawn(&mut command)?;
        process
            .until("nginx", || Ok(std::net::TcpStream::connect(address).is_ok().then_some(())))
            .map_err(|failure| format!("{failure}: {}", last_lines(here)))?;
        Ok(Self { process, address, _folder: folder })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn watch(&self) -> Fallible<Watch> {
        let master = self.process.child.id();
        let mut pids = process::children(master)?;
        pids.push(master);
        Ok(Watch::new(&pids))
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // A master that is killed leaves its workers behind, so it is always asked first.
        if self.process.signal(Signal::TERM).is_ok() {
            self.process.wait().ok();
        }
    }
}

fn nginx_configuration(here: &Path, address: SocketAddr) -> String {
    // A master started by root would hand the files to another user, who may not enter the folder.
    let user = if rustix::process::geteuid().is_root() { "user root root;" } else { "" };
    let here = here.display();
    format!(
        "{user}
daemon off;
worker_processes 2;
pid {here}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    sendfile on;
    tcp_nopush on;
    tcp_nodelay on;
    keepalive_requests 1000000000;
    keepalive_timeout 1h;
    client_body_temp_path {here}/body;
    proxy_temp_path {here}/proxy;
    fastcgi_temp_path {here}/fastcgi;
    uwsgi_temp_path {here}/uwsgi;
    scgi_temp_path {here}/scgi;
    server {{
        listen {address};
        root {here}/files;
    }}
}}
"
    )
}

/// The sink of [`crate::sink`] as a process of its own.
pub(crate) struct Sink {
    process: Owned,
    address: SocketAddr,
    _folder: TempDir,
}

impl Sink {
    pub(crate) fn start(bench: &Bench) -> Fallible<Self> {
        let folder = bench.folder()?;
        let ready_file = folder.path().join("ready");
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(OsStr::new("--sink")).arg(&ready_file);
        quiet(&mut command, folder.path())?;
        let mut process = Owned::spawn(&mut command)?;
        let address = process.until("the sink", || match fs::read_to_string(&ready_file) {
            Ok(address) => Ok(Some(address.parse()?)),
            Err(_) => Ok(None),
        })?;
        Ok(Self { process, address, _folder: folder })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn watch(&self) -> Watch {
        Watch::new(&[self.process.child.id()])
    }
}
