//! The command line: what can be asked of `kiln`, and how the answers look on a terminal.
//!
//! Kept here: commands, help, tables. Not here: what the commands do, which is the house's. The
//! program's `main` calls this room. The promise that would break first: with `--json` the output
//! is one JSON value with B2's field names, and without it nothing is printed that a script needs.

mod streams;

use std::ffi::OsString;
use std::io;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use clap::builder::PossibleValuesParser;
use clap::{ArgMatches, Command, CommandFactory, FromArgMatches, Parser, Subcommand, value_parser};
use clap_complete::Shell;
use serde_json::{Value, json};

use crate::api::admin::command::AdminCommand;
use crate::cli::streams::{Ask, Done, RemoteAction, RetryFlags, StreamAction};
use crate::config::{self, Config, ConfigError, Given};
use crate::domain::capability::Capability;
use crate::domain::key::KEY_DURATION_S_END;
use crate::domain::replication::JobState;
use crate::domain::time::Millis;
use crate::domain::usage::CapChange;
use crate::house::{self, AdminError, Desk};

const EXAMPLES: &str = "\
First run, in an empty folder:
  kiln                                     serve ./kiln-data on 127.0.0.1:9700
  . ./kiln-data/initial-key.env            the key that the first start made
  export B2_APPLICATION_KEY_ID B2_APPLICATION_KEY
  b2 account authorize --environment http://127.0.0.1:9700
  b2 bucket create photos allPrivate
  b2 file upload photos cat.jpg cat.jpg

Carry every upload on to a second bucket:
  b2 bucket create photos-copy allPrivate
  b2 replication setup photos photos-copy
  kiln replication jobs --bucket photos    what was copied, what waits, what failed

Carry every upload on to another server:
  export KILN_REMOTE_API_TOKEN=KEYID:KEY   a key of the other server
  kiln remote create --name offsite --remote-url https://kiln.example.org
  kiln replication create --name to-offsite --remote-id ID --local-bucket photos \
    --remote-bucket photos-copy
  kiln replication list                    what waits, what the other server said last

A setting a.b_c is the flag --a-b-c, the environment variable KILN_A_B_C, or b_c in table [a] of
./kiln.toml; the flag wins over the variable, the variable over the file.

Exit codes: 0 done, 1 failed, 2 wrong command line or setting, 3 the storage failed.";

/// Backblaze B2 at home: serves the B2 and S3 APIs from a folder and replicates what it stores.
#[derive(Debug, Parser)]
#[command(name = "kiln", version, after_help = EXAMPLES)]
struct Line {
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Serve until stopped; what `kiln` alone does too.
    #[command(after_help = "\
Examples:
  kiln serve --data-dir /srv/kiln
  kiln serve --listen 127.0.0.1:0 --admin-listen 127.0.0.1:0 --ready-file ready.json
  kiln serve --listen 0.0.0.0:9700 --insecure-http --public-url https://b2.example.org")]
    Serve,
    /// Make and list accounts.
    #[command(subcommand)]
    Account(AccountAction),
    /// Make, list and delete application keys.
    #[command(subcommand)]
    Key(KeyAction),
    /// Look after the keys behind SSE-B2.
    #[command(subcommand)]
    KeyRing(KeyRingAction),
    /// Show what accounts store and did.
    #[command(after_help = "\
Examples:
  kiln usage
  kiln usage --days 1 --json
  kiln usage --recount                     exit code 1 when the books are wrong")]
    Usage {
        /// Only this account; without it, every account.
        #[arg(long, value_name = "ID", conflicts_with = "recount")]
        account_id: Option<String>,
        /// Days to show, today counted, 1 to 400 [default: 30].
        #[arg(
            long,
            value_name = "N",
            value_parser = value_parser!(i64).range(1..=400),
            conflicts_with = "recount"
        )]
        days: Option<i64>,
        /// Count what is stored anew, from every version, and compare.
        #[arg(long)]
        recount: bool,
        #[command(flatten)]
        form: Form,
    },
    /// Make and look after connections to other servers.
    #[command(subcommand)]
    Remote(RemoteAction),
    /// Carry buckets on to other servers, look at replication, and try failed jobs again.
    #[command(subcommand)]
    Replication(ReplicationAction),
    /// See what lifecycle rules would do now, and let them.
    #[command(subcommand)]
    Lifecycle(LifecycleAction),
    /// Look at event notification rules and what waits for them.
    #[command(subcommand)]
    Notification(NotificationAction),
    /// See by what time locks run out, and say that the clock is right.
    #[command(subcommand)]
    Clock(ClockAction),
    /// Show and check settings without serving.
    #[command(subcommand)]
    Config(ConfigAction),
    /// Print a completion script for a shell.
    #[command(after_help = "\
Examples:
  kiln completions bash > ~/.local/share/bash-completion/completions/kiln
  kiln completions fish > ~/.config/fish/completions/kiln.fish")]
    Completions {
        /// The shell to complete in.
        #[arg(value_enum)]
        shell: Shell,
    },
    /// Print the version.
    Version(Form),
}

/// How an answer is printed.
#[derive(Clone, Copy, Debug, clap::Args)]
struct Form {
    /// Print one JSON value instead of text for people.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum AccountAction {
    /// Make an account and its master application key; the secret is printed once.
    #[command(after_help = "Example:\n  kiln account create --name \"Team photos\"")]
    Create {
        /// A name for people.
        #[arg(long, default_value = "", hide_default_value = true)]
        name: String,
        #[command(flatten)]
        form: Form,
    },
    /// List the accounts.
    List(Form),
    /// Show or set what an account may use; without a cap to set, show them.
    #[command(after_help = "\
Examples:
  kiln account cap
  kiln account cap --storage-bytes 50000000000 --class-c-per-day 2500
  kiln account cap --account-id 0123456789ab --storage-bytes none

Days begin at midnight UTC. What is above a cap is refused as Backblaze refuses it.")]
    Cap {
        /// Account whose caps are meant; without it, the first account.
        #[arg(long, value_name = "ID")]
        account_id: Option<String>,
        /// Bytes of all versions and unfinished parts.
        #[arg(long, value_name = "N|none", value_parser = cap)]
        storage_bytes: Option<CapChange>,
        /// Bytes sent in downloads.
        #[arg(long, value_name = "N|none", value_parser = cap)]
        download_bytes_per_day: Option<CapChange>,
        /// Transactions of class A, which are free at Backblaze.
        #[arg(long, value_name = "N|none", value_parser = cap)]
        class_a_per_day: Option<CapChange>,
        /// Transactions of class B: downloads and looking at one file.
        #[arg(long, value_name = "N|none", value_parser = cap)]
        class_b_per_day: Option<CapChange>,
        /// Transactions of class C: authorizing, listing, copying.
        #[arg(long, value_name = "N|none", value_parser = cap)]
        class_c_per_day: Option<CapChange>,
        #[command(flatten)]
        form: Form,
    },
}

/// Reads what becomes of a cap.
fn cap(text: &str) -> Result<CapChange, String> {
    CapChange::parse(text).ok_or_else(|| "must be a whole number or none".to_owned())
}

#[derive(Debug, Subcommand)]
enum KeyAction {
    /// Make an application key; the secret is printed once.
    #[command(after_help = "\
Examples:
  kiln key create --name backup --bucket photos \\
    --capabilities listBuckets,listFiles,readFiles,writeFiles
  kiln key create --name one-day --valid-duration-s 86400 --capabilities listBuckets,readFiles")]
    Create {
        /// Name of the key: letters, digits and dashes.
        #[arg(long)]
        name: String,
        /// What the key may do, separated by commas.
        #[arg(
            long,
            required = true,
            value_delimiter = ',',
            value_name = "LIST",
            value_parser = capability_names()
        )]
        capabilities: Vec<String>,
        /// Account the key belongs to; without it, the first account.
        #[arg(long, value_name = "ID")]
        account_id: Option<String>,
        /// Bucket the key is restricted to; may be given several times.
        #[arg(long, value_name = "NAME")]
        bucket: Vec<String>,
        /// Restrict the key to files whose names begin so.
        #[arg(long, value_name = "PREFIX")]
        name_prefix: Option<String>,
        /// Seconds until the key expires, less than 1000 days; without it, never.
        #[arg(
            long,
            value_name = "SECONDS",
            value_parser = value_parser!(i64).range(1..KEY_DURATION_S_END)
        )]
        valid_duration_s: Option<i64>,
        #[command(flatten)]
        form: Form,
    },
    /// List application keys; secrets are never shown again.
    List {
        /// Account whose keys to list; without it, the first account.
        #[arg(long, value_name = "ID")]
        account_id: Option<String>,
        #[command(flatten)]
        form: Form,
    },
    /// Delete an application key; whoever uses it is refused from then on.
    Delete {
        /// The key's id, as `kiln key list` shows it.
        #[arg(value_name = "KEYID")]
        key_id: String,
        #[command(flatten)]
        form: Form,
    },
}

#[derive(Debug, Subcommand)]
enum KeyRingAction {
    /// List the keys, and how many bodies are encrypted under each.
    List(Form),
    /// Make a new key and put everything under it; goes on where it was cut short.
    #[command(after_help = "\
The new key is in the key ring file before anything is under it: copy that file again.
Bodies are not written anew, only the small keys that each of them has, so this takes seconds for a
million of them, while the server runs or while it does not. Cut short, it leaves everything
readable; `kiln key-ring rewrap` does the rest. Old keys stay until `kiln key-ring retire`.

Example:
  kiln key-ring rotate && kiln key-ring retire")]
    Rotate(Form),
    /// Put what is still under older keys under the newest one.
    Rewrap(Form),
    /// Take keys that nothing is under any more out of the key ring file.
    #[command(after_help = "\
A copy of the data folder from before the last rotation needs the old keys: keep a copy of the key
ring file from that time as long as you keep such copies.")]
    Retire(Form),
}

#[derive(Debug, Subcommand)]
enum ReplicationAction {
    #[command(flatten)]
    Stream(StreamAction),
    #[command(flatten)]
    Job(JobAction),
}

#[derive(Debug, Subcommand)]
enum JobAction {
    /// List replication jobs, oldest first.
    #[command(after_help = "\
Examples:
  kiln replication jobs --state failed
  kiln replication jobs --bucket photos --limit 1000 --json")]
    Jobs {
        /// Only jobs in this state.
        #[arg(long, value_parser = state_names())]
        state: Option<String>,
        /// Only jobs whose source is this bucket.
        #[arg(long, value_name = "NAME")]
        bucket: Option<String>,
        /// Most jobs to list, 1 to 1000 [default: 100].
        #[arg(long, value_name = "N", value_parser = value_parser!(u16).range(1..=1000))]
        limit: Option<u16>,
        /// Only jobs after this one: the last id of the page before.
        #[arg(long, value_name = "ID", value_parser = value_parser!(i64).range(0..))]
        after: Option<i64>,
        #[command(flatten)]
        form: Form,
    },
    /// Try failed jobs again: one of them, all that fit, or those of a stream.
    #[command(
        group = clap::ArgGroup::new("which").required(true).args(["job_id", "all", "id"]),
        after_help = "\
Examples:
  kiln replication retry 4711
  kiln replication retry --all --bucket photos --reason source_key_deleted
  kiln replication retry --id 0c00000000000001 --state parked"
    )]
    Retry {
        /// The job to try again.
        #[arg(value_name = "JOB_ID", value_parser = value_parser!(i64).range(0..))]
        job_id: Option<i64>,
        /// Every failed job that fits the other flags.
        #[arg(long)]
        all: bool,
        /// With --all: only jobs whose source is this bucket.
        #[arg(long, value_name = "NAME", requires = "all", conflicts_with = "job_id")]
        bucket: Option<String>,
        /// With --all: only jobs that failed for this reason, such as `source_key_deleted`.
        #[arg(long, requires = "all", conflicts_with = "job_id")]
        reason: Option<String>,
        /// Files of this stream.
        #[arg(short, long)]
        id: Option<String>,
        /// With --id: account the stream belongs to; without it, the first account.
        #[arg(long, value_name = "ID", requires = "id")]
        org_id: Option<String>,
        #[command(flatten)]
        files: RetryFlags,
        #[command(flatten)]
        form: Form,
    },
}

#[derive(Debug, Subcommand)]
enum ClockAction {
    /// Show the clock and the time by which locks run out.
    #[command(after_help = "Example:\n  kiln clock show --json")]
    Show(Form),
    /// Let locks run out by the clock as it stands now: after a long stop, a restored backup, or
    /// once a wrong clock has been put right.
    #[command(after_help = "Example:\n  kiln clock confirm")]
    Confirm(Form),
}

#[derive(Debug, Subcommand)]
enum LifecycleAction {
    /// Show what the rules of a bucket make due now; nothing is changed.
    #[command(after_help = "\
Examples:
  kiln lifecycle preview photos
  kiln lifecycle preview photos --limit 10000 --json")]
    Preview {
        /// The bucket.
        #[arg(value_name = "BUCKET")]
        bucket: String,
        /// Most acts to list, 0 to 10000 [default: 100]; the counts are always of all.
        #[arg(long, value_name = "N", value_parser = value_parser!(u16).range(0..=10_000))]
        limit: Option<u16>,
        #[command(flatten)]
        form: Form,
    },
    /// Do now what the rules of a bucket make due, instead of within a day.
    #[command(after_help = "Example:\n  kiln lifecycle run photos")]
    Run {
        /// The bucket.
        #[arg(value_name = "BUCKET")]
        bucket: String,
        #[command(flatten)]
        form: Form,
    },
}

#[derive(Debug, Subcommand)]
enum NotificationAction {
    /// List event notification rules with what waits for them and how delivery goes.
    #[command(after_help = "\
Examples:
  kiln notification list
  kiln notification list --bucket photos --json")]
    List {
        /// Only rules of this bucket.
        #[arg(long, value_name = "NAME")]
        bucket: Option<String>,
        /// Most rules to list, 1 to 1000 [default: 100].
        #[arg(long, value_name = "N", value_parser = value_parser!(u16).range(1..=1000))]
        limit: Option<u16>,
        /// Only rules after this one: the last queue number of the page before.
        #[arg(long, value_name = "ID", value_parser = value_parser!(i64).range(0..))]
        after: Option<i64>,
        #[command(flatten)]
        form: Form,
    },
}

#[derive(Debug, Subcommand)]
enum ConfigAction {
    /// Print every setting with its value and where that came from; secrets are masked.
    Show(Form),
    /// Check the settings and say nothing else.
    Check,
}

fn capability_names() -> PossibleValuesParser {
    PossibleValuesParser::new(Capability::ALL.iter().map(|one| one.as_str()))
}

fn state_names() -> PossibleValuesParser {
    PossibleValuesParser::new(JobState::ALL.map(JobState::as_str))
}

/// How a run ended; the number is the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Done = 0,
    Failed = 1,
    Misused = 2,
    StorageFailed = 3,
}

/// Where the settings come from besides the flags.
struct Surroundings<'a> {
    environment: Vec<(String, OsString)>,
    default_file: &'a Path,
}

/// Runs the program: reads the command line, does what it says, prints the answer.
pub fn main() -> ExitCode {
    let environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
        .filter(|(name, _)| name.starts_with(config::PREFIX));
    let mut surroundings = Surroundings {
        environment: environment.collect(),
        default_file: Path::new(config::DEFAULT_FILE),
    };
    // The same mistake is reported first on every run.
    surroundings.environment.sort();
    // Neither stream is locked here: the server logs to them from its own threads.
    let ending = run(std::env::args_os(), &surroundings, &mut io::stdout(), &mut io::stderr());
    ExitCode::from(ending as u8)
}

fn run(
    line: impl IntoIterator<Item = OsString>,
    surroundings: &Surroundings<'_>,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Ending {
    let matches = match command().try_get_matches_from(line) {
        Ok(matches) => matches,
        Err(help) if !help.use_stderr() => return print(out, &help.render().to_string()),
        Err(error) => return complain(err, &error.render().to_string(), Ending::Misused),
    };
    let line = match Line::from_arg_matches(&matches) {
        Ok(line) => line,
        Err(error) => return complain(err, &error.render().to_string(), Ending::Misused),
    };
    let load =
        || Config::load(last_of(&matches), &surroundings.environment, surroundings.default_file);
    match line.action.unwrap_or(Action::Serve) {
        Action::Serve => match load() {
            Ok(config) => serve(&config, err),
            Err(error) => misconfigured(err, &error),
        },
        Action::Config(ConfigAction::Show(form)) => {
            match show_settings(&matches, surroundings, form) {
                Ok(text) => print(out, &text),
                Err(error) => misconfigured(err, &error),
            }
        }
        Action::Config(ConfigAction::Check) => match load() {
            Ok(_) => print(out, "The settings are right.\n"),
            Err(error) => misconfigured(err, &error),
        },
        Action::Completions { shell } => print_bytes(out, &completions(shell)),
        Action::Version(form) => print(out, &version(form)),
        Action::Account(action) => administer(account_command(action), load, out, err),
        Action::Key(action) => administer(key_command(action), load, out, err),
        Action::KeyRing(action) => key_ring(&action, load, out, err),
        Action::Usage { account_id, days, recount, form } => {
            administer((usage_command(account_id, days, recount), form), load, out, err)
        }
        Action::Remote(action) => {
            let environment = &surroundings.environment;
            let form = action.form();
            let perform = |ask: Ask<'_>| action.perform(environment, ask);
            speak(form, perform, load, out, err)
        }
        Action::Replication(ReplicationAction::Stream(action)) => {
            speak(action.form(), |ask| action.perform(ask), load, out, err)
        }
        Action::Replication(ReplicationAction::Job(JobAction::Retry {
            id: Some(id),
            org_id,
            files,
            form,
            ..
        })) => speak(form, |ask| streams::retry(&id, org_id, files, ask), load, out, err),
        Action::Replication(ReplicationAction::Job(action)) => {
            administer(job_command(action), load, out, err)
        }
        Action::Lifecycle(action) => administer(lifecycle_command(action), load, out, err),
        Action::Notification(action) => administer(notification_command(action), load, out, err),
        Action::Clock(action) => administer(clock_command(&action), load, out, err),
    }
}

fn serve(config: &Config, err: &mut dyn Write) -> Ending {
    match house::serve(config) {
        Ok(()) => Ending::Done,
        Err(error) => {
            let ending =
                if error.is_storage_failure() { Ending::StorageFailed } else { Ending::Failed };
            complain(err, &format!("kiln: {error}\n"), ending)
        }
    }
}

fn administer(
    (command, form): (AdminCommand, Form),
    load: impl FnOnce() -> Result<Config, ConfigError>,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Ending {
    let config = match load() {
        Ok(config) => config,
        Err(error) => return misconfigured(err, &error),
    };
    let by_settings = endpoint(&config);
    let has_public_url = config.public_url.is_some();
    let performed = Desk::open(config).and_then(|desk| {
        let running = desk.endpoint().filter(|_| !has_public_url).map(|at| reachable(&at));
        Ok((desk.perform(command.clone())?, running.unwrap_or(by_settings)))
    });
    match performed {
        Ok((answer, endpoint)) => {
            let text =
                if form.json { pretty(&answer) } else { render(&command, &answer, &endpoint) };
            let differs = answer["differences"].as_array().is_some_and(|found| !found.is_empty());
            let printed = print(out, &text);
            if differs { Ending::Failed } else { printed }
        }
        Err(error) => complain(err, &format!("kiln: {error}\n"), Ending::Failed),
    }
}

/// Makes calls of the API of remotes and streams.
fn speak(
    form: Form,
    perform: impl FnOnce(Ask<'_>) -> Result<Done, AdminError>,
    load: impl FnOnce() -> Result<Config, ConfigError>,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Ending {
    let config = match load() {
        Ok(config) => config,
        Err(error) => return misconfigured(err, &error),
    };
    match Desk::open(config).and_then(|desk| perform(&|call| desk.call(&call))) {
        Ok(Done { value, page }) => print(out, &if form.json { pretty(&value) } else { page }),
        Err(error) => complain(err, &format!("kiln: {error}\n"), Ending::Failed),
    }
}

fn key_ring(
    action: &KeyRingAction,
    load: impl FnOnce() -> Result<Config, ConfigError>,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Ending {
    let (command, form) = match action {
        KeyRingAction::List(form) => (AdminCommand::ListRingKeys, form),
        KeyRingAction::Rotate(form) => (AdminCommand::AddRingKey, form),
        KeyRingAction::Rewrap(form) => (AdminCommand::Rewrap { after: None }, form),
        KeyRingAction::Retire(form) => (AdminCommand::RetireRingKeys, form),
    };
    if matches!(action, KeyRingAction::List(_) | KeyRingAction::Retire(_)) {
        return administer((command, *form), load, out, err);
    }
    let config = match load() {
        Ok(config) => config,
        Err(error) => return misconfigured(err, &error),
    };
    let rotates = command == AdminCommand::AddRingKey;
    match Desk::open(config).and_then(|desk| rewrap(&desk, rotates, *form, err)) {
        Ok(answer) => {
            let text = if form.json { pretty(&answer) } else { rewrapped(&answer) };
            let printed = print(out, &text);
            if answer["failed"] == 0 { printed } else { Ending::Failed }
        }
        Err(error) => complain(err, &format!("kiln: {error}\n"), Ending::Failed),
    }
}

/// How many data keys are wrapped anew between two lines about it.
const REWRAPPED_BETWEEN_LINES: u64 = 20_000;

/// Wraps every data key with the newest key, which is made before if `rotates`.
fn rewrap(
    desk: &Desk,
    rotates: bool,
    form: Form,
    err: &mut dyn Write,
) -> Result<Value, AdminError> {
    if rotates {
        desk.perform(AdminCommand::AddRingKey)?;
    }
    let keys = desk.perform(AdminCommand::ListRingKeys)?;
    let keys = keys["ringKeys"].as_array().cloned().unwrap_or_default();
    let (current, older): (Vec<Value>, Vec<Value>) =
        keys.into_iter().partition(|key| key["isCurrent"] == true);
    let wanted: u64 = older.iter().filter_map(|key| key["blobs"].as_u64()).sum();
    let (mut done, mut told) = (0, 0);
    let failed = loop {
        let (before, mut after, mut failed) = (done, None, 0);
        loop {
            let step = desk.perform(AdminCommand::Rewrap { after })?;
            done += step["rewrapped"].as_u64().unwrap_or_default();
            failed += step["failed"].as_u64().unwrap_or_default();
            if !form.json && done >= told + REWRAPPED_BETWEEN_LINES {
                told = done;
                // When nobody listens, the answer at the end still tells.
                writeln!(err, "{done} of about {wanted}").ok();
            }
            after = step["nextAfter"].as_str().map(str::to_owned);
            if after.is_none() {
                break;
            }
        }
        // An upload that was under way may have come to the old key after this passed by.
        if done == before {
            break failed;
        }
    };
    let current = current.first().map_or(Value::Null, |key| key["ringKey"].clone());
    Ok(json!({ "failed": failed, "rewrapped": done, "ringKey": current }))
}

fn rewrapped(answer: &Value) -> String {
    let (key, done) = (text(&answer["ringKey"]), text(&answer["rewrapped"]));
    let failed = match &answer["failed"] {
        none if none.as_u64() == Some(0) => String::new(),
        some => {
            let some = text(some);
            format!(
                "Bodies whose key cannot be opened: {some}. The log of the server names them.\n"
            )
        }
    };
    format!("Key {key} is the current one. Bodies put under it: {done}.\n{failed}")
}

fn misconfigured(err: &mut dyn Write, error: &ConfigError) -> Ending {
    complain(err, &format!("kiln: {error}\n"), Ending::Misused)
}

fn complain(err: &mut dyn Write, text: &str, ending: Ending) -> Ending {
    // When nobody listens to complaints, the exit code still tells.
    err.write_all(text.as_bytes()).and_then(|()| err.flush()).ok();
    ending
}

fn print(out: &mut dyn Write, text: &str) -> Ending {
    print_bytes(out, text.as_bytes())
}

/// Prints in one go; a reader that went away early, like `head`, is no failure.
fn print_bytes(out: &mut dyn Write, bytes: &[u8]) -> Ending {
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Ok(()) => Ending::Done,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ending::Done,
        Err(_) => Ending::Failed,
    }
}

/// Settings that matter to commands that only talk to a server or open its folder.
const NEEDED_BY_ALL: [&str; 5] =
    ["config", "data_dir", "admin_listen", "master_key_id", "master_key_file"];

/// The whole command line. Every command takes every setting, but shows only those it needs.
fn command() -> Command {
    let mut command = Line::command().args(config::flags());
    for name in [
        "account",
        "key",
        "key-ring",
        "usage",
        "remote",
        "replication",
        "lifecycle",
        "clock",
        "notification",
        "completions",
        "version",
    ] {
        let needs_some = !matches!(name, "completions" | "version");
        let hidden = config::flags()
            .into_iter()
            .filter(move |flag| !(needs_some && NEEDED_BY_ALL.contains(&flag.get_id().as_str())));
        // A command's own flag of that name would otherwise be taken from its parent, in sight.
        command = command.mut_subcommand(name, |sub| sub.args(hidden.map(|flag| flag.hide(true))));
    }
    command
}

/// Global flags reach the matches of the innermost command, wherever they were typed.
fn last_of(matches: &ArgMatches) -> &ArgMatches {
    let mut last = matches;
    while let Some((_, inner)) = last.subcommand() {
        last = inner;
    }
    last
}

fn account_command(action: AccountAction) -> (AdminCommand, Form) {
    match action {
        AccountAction::Create { name, form } => (AdminCommand::CreateAccount { name }, form),
        AccountAction::List(form) => (AdminCommand::ListAccounts, form),
        AccountAction::Cap {
            account_id,
            storage_bytes,
            download_bytes_per_day,
            class_a_per_day,
            class_b_per_day,
            class_c_per_day,
            form,
        } => {
            let given = [
                storage_bytes,
                download_bytes_per_day,
                class_a_per_day,
                class_b_per_day,
                class_c_per_day,
            ];
            if given.iter().all(Option::is_none) {
                return (AdminCommand::ShowCaps { account_id }, form);
            }
            let [
                storage_bytes,
                download_bytes_per_day,
                class_a_per_day,
                class_b_per_day,
                class_c_per_day,
            ] = given.map(Option::unwrap_or_default);
            let command = AdminCommand::ChangeCaps {
                account_id,
                storage_bytes,
                download_bytes_per_day,
                class_a_per_day,
                class_b_per_day,
                class_c_per_day,
            };
            (command, form)
        }
    }
}

fn usage_command(account_id: Option<String>, days: Option<i64>, recount: bool) -> AdminCommand {
    if recount { AdminCommand::RecountUsage } else { AdminCommand::ShowUsage { account_id, days } }
}

fn key_command(action: KeyAction) -> (AdminCommand, Form) {
    match action {
        KeyAction::Create {
            name,
            capabilities,
            account_id,
            bucket,
            name_prefix,
            valid_duration_s,
            form,
        } => {
            let command = AdminCommand::CreateKey {
                account_id,
                key_name: name,
                capabilities,
                bucket_names: bucket,
                name_prefix,
                valid_duration_in_seconds: valid_duration_s,
            };
            (command, form)
        }
        KeyAction::List { account_id, form } => (AdminCommand::ListKeys { account_id }, form),
        KeyAction::Delete { key_id, form } => {
            (AdminCommand::DeleteKey { application_key_id: key_id }, form)
        }
    }
}

fn job_command(action: JobAction) -> (AdminCommand, Form) {
    match action {
        JobAction::Jobs { state, bucket, limit, after, form } => {
            let command = AdminCommand::ListReplicationJobs {
                state,
                bucket_name: bucket,
                after,
                limit: limit.map(usize::from),
            };
            (command, form)
        }
        JobAction::Retry { job_id, bucket, reason, form, .. } => {
            (AdminCommand::RetryReplicationJobs { job_id, bucket_name: bucket, reason }, form)
        }
    }
}

fn lifecycle_command(action: LifecycleAction) -> (AdminCommand, Form) {
    match action {
        LifecycleAction::Preview { bucket, limit, form } => {
            let limit = limit.map(usize::from);
            (AdminCommand::PreviewLifecycle { bucket_name: bucket, limit }, form)
        }
        LifecycleAction::Run { bucket, form } => {
            (AdminCommand::RunLifecycle { bucket_name: bucket }, form)
        }
    }
}

fn notification_command(action: NotificationAction) -> (AdminCommand, Form) {
    let NotificationAction::List { bucket, limit, after, form } = action;
    let limit = limit.map(usize::from);
    (AdminCommand::ListNotifications { bucket_name: bucket, after, limit }, form)
}

fn clock_command(action: &ClockAction) -> (AdminCommand, Form) {
    match action {
        ClockAction::Show(form) => (AdminCommand::ShowClock, *form),
        ClockAction::Confirm(form) => (AdminCommand::ConfirmClock, *form),
    }
}

fn completions(shell: Shell) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command(), "kiln", &mut script);
    script
}

fn version(form: Form) -> String {
    let version = env!("CARGO_PKG_VERSION");
    if form.json {
        return pretty(&json!({ "name": "kiln", "version": version }));
    }
    format!("kiln {version}\n")
}

fn show_settings(
    matches: &ArgMatches,
    surroundings: &Surroundings<'_>,
    form: Form,
) -> Result<String, ConfigError> {
    let given =
        Given::gather(last_of(matches), &surroundings.environment, surroundings.default_file)?;
    let settings = given.explain()?;
    let file = given.file.as_ref().map(|path| path.display().to_string());
    if form.json {
        let rows: Vec<Value> = settings
            .into_iter()
            .map(
                |one| json!({ "key": one.key, "value": one.value, "from": one.origin.to_string() }),
            )
            .collect();
        return Ok(pretty(&json!({ "file": file, "settings": rows })));
    }
    let rows = settings
        .iter()
        .map(|one| vec![one.key.to_owned(), text(&one.value), one.origin.to_string()]);
    let read = file.map_or_else(|| "none was read".to_owned(), |path| safe(&path));
    Ok(format!("{}\nConfiguration file: {read}\n", table(&["SETTING", "VALUE", "FROM"], rows)))
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

/// The answer to `command` as people read it; `endpoint` is where clients connect.
fn render(command: &AdminCommand, answer: &Value, endpoint: &str) -> String {
    match command {
        AdminCommand::CreateAccount { .. } => format!(
            "Account made. Keep the application key now: it is not shown again.\n\n{}\n{}",
            fields(&[
                ("Account", text(&answer["accountId"])),
                ("Name", text(&answer["name"])),
                ("Key id", text(&answer["applicationKeyId"])),
                ("Application key", text(&answer["applicationKey"])),
            ]),
            authorize_hint(answer, endpoint),
        ),
        AdminCommand::CreateKey { .. } => format!(
            "Key made. Keep the application key now: it is not shown again.\n\n{}\n{}",
            fields(&[
                ("Key id", text(&answer["applicationKeyId"])),
                ("Application key", text(&answer["applicationKey"])),
                ("Name", text(&answer["keyName"])),
                ("Account", text(&answer["accountId"])),
                ("Buckets", buckets(answer)),
                ("Name prefix", text(&answer["namePrefix"])),
                ("Expires", expiry(answer)),
                ("Capabilities", text(&answer["capabilities"])),
            ]),
            authorize_hint(answer, endpoint),
        ),
        AdminCommand::DeleteKey { .. } => format!(
            "Key {} ({}) is deleted.\n",
            text(&answer["applicationKeyId"]),
            text(&answer["keyName"])
        ),
        AdminCommand::ListAccounts => {
            let head = ["ACCOUNT", "NAME", "MADE", "BUCKETS"];
            listing("No accounts.", &head, &answer["accounts"], |account| {
                vec![
                    text(&account["accountId"]),
                    text(&account["name"]),
                    moment(&account["createdTimestamp"]),
                    text(&account["buckets"]),
                ]
            })
        }
        AdminCommand::ShowCaps { .. } | AdminCommand::ChangeCaps { .. } => {
            let caps = &answer["caps"];
            let cap = |name: &str| match &caps[name] {
                Value::Null => "none".to_owned(),
                number => text(number),
            };
            fields(&[
                ("Account", text(&answer["accountId"])),
                ("Storage bytes", cap("storageBytes")),
                ("Download bytes per day", cap("downloadBytesPerDay")),
                ("Class A per day", cap("classAPerDay")),
                ("Class B per day", cap("classBPerDay")),
                ("Class C per day", cap("classCPerDay")),
            ])
        }
        AdminCommand::ShowUsage { .. } => usage(answer),
        AdminCommand::RecountUsage => {
            let head = ["BUCKET", "VERSIONS", "RECOUNTED", "BYTES", "RECOUNTED"];
            let found =
                listing("Every bucket is booked right.", &head, &answer["differences"], |one| {
                    let (counted, recounted) = (&one["counted"], &one["recounted"]);
                    vec![
                        text(&counted["bucketName"]),
                        text(&counted["fileVersions"]),
                        text(&recounted["fileVersions"]),
                        text(&counted["storedBytes"]),
                        text(&recounted["storedBytes"]),
                    ]
                });
            format!("Buckets counted: {}\n{found}", text(&answer["buckets"]))
        }
        AdminCommand::ListKeys { .. } => {
            let head = ["KEY", "NAME", "EXPIRES", "BUCKETS", "PREFIX", "CAPABILITIES"];
            listing("No application keys.", &head, &answer["keys"], |key| {
                vec![
                    text(&key["applicationKeyId"]),
                    text(&key["keyName"]),
                    expiry(key),
                    buckets(key),
                    text(&key["namePrefix"]),
                    text(&key["capabilities"]),
                ]
            })
        }
        AdminCommand::ListRingKeys => {
            let head = ["KEY", "MADE", "BODIES", "CURRENT"];
            listing("No keys.", &head, &answer["ringKeys"], |key| {
                let current = if key["isCurrent"] == true { "yes" } else { "no" };
                vec![
                    text(&key["ringKey"]),
                    moment(&key["createdTimestamp"]),
                    text(&key["blobs"]),
                    current.to_owned(),
                ]
            })
        }
        AdminCommand::AddRingKey | AdminCommand::Rewrap { .. } => rewrapped(answer),
        AdminCommand::RetireRingKeys => match answer["retired"].as_array() {
            Some(retired) if !retired.is_empty() => {
                format!("Taken out of the key ring: {}.\n", text(&answer["retired"]))
            }
            _ => "No key can be taken out: see `kiln key-ring list`.\n".to_owned(),
        },
        AdminCommand::ListReplicationJobs { .. } => jobs(answer),
        AdminCommand::ListNotifications { .. } => queues(answer),
        AdminCommand::RetryReplicationJobs { .. } => match &answer["retried"] {
            number if number.as_u64() == Some(1) => "1 job is tried again.\n".to_owned(),
            number => format!("{} jobs are tried again.\n", text(number)),
        },
        AdminCommand::PreviewLifecycle { .. } | AdminCommand::RunLifecycle { .. }
            if answer["hasLifecycleRules"] == false =>
        {
            format!("Bucket {} has no lifecycle rules.\n", text(&answer["bucketName"]))
        }
        AdminCommand::PreviewLifecycle { .. } => preview(answer),
        AdminCommand::RunLifecycle { .. } => format!("Done: {}.\n", counts(answer)),
        AdminCommand::ShowClock | AdminCommand::ConfirmClock => clock(answer),
    }
}

fn clock(answer: &Value) -> String {
    let now = moment(&answer["now"]);
    if answer["isBelieved"] == true {
        return format!("The clock says {now}, and locks run out by it.\n");
    }
    let what = if answer["aheadMillis"] == 0 {
        format!(
            "it is {} s behind what it said before: locks run out by it, but default retentions \
             are counted from what it should say.",
            answer["behindMillis"].as_i64().unwrap_or_default() / 1000
        )
    } else {
        let run_to = moment(&answer["locksRunTo"]);
        format!("so much time has not passed: locks run out by {run_to}.")
    };
    format!(
        "The clock says {now}, but {what}\n\
         If the clock is right, say so with `kiln clock confirm`.\n"
    )
}

fn counts(answer: &Value) -> String {
    let count = |name: &str, one: &str, more: &str| {
        let number = &answer["counts"][name];
        let what = if number.as_u64() == Some(1) { one } else { more };
        format!("{} {what}", text(number))
    };
    [
        count("hidden", "name hidden", "names hidden"),
        count("deleted", "version deleted", "versions deleted"),
        count("canceled", "large file canceled", "large files canceled"),
    ]
    .join(", ")
}

fn preview(answer: &Value) -> String {
    let head = ["ACTION", "UPLOADED", "BYTES", "FILE", "FILE ID"];
    let page = listing("Nothing is listed.", &head, &answer["acts"], |act| {
        vec![
            text(&act["action"]),
            moment(&act["uploadTimestamp"]),
            text(&act["contentLength"]),
            text(&act["fileName"]),
            text(&act["fileId"]),
        ]
    });
    let bytes = text(&answer["deletedContentLength"]);
    let total = format!("\nDue now: {} ({bytes} bytes).\n", counts(answer));
    page + &total
}

/// What is stored now, then what was done day by day.
fn usage(answer: &Value) -> String {
    let rows = |of: &str, row: &dyn Fn(&Value, &Value) -> Vec<String>| {
        let accounts = answer["accounts"].as_array().into_iter().flatten();
        let rows = accounts.flat_map(|account| {
            let inner = account[of].as_array().into_iter().flatten();
            inner.map(|one| row(account, one)).collect::<Vec<_>>()
        });
        rows.collect::<Vec<_>>()
    };
    let stored = rows("buckets", &|account, bucket| {
        vec![
            text(&account["accountId"]),
            text(&bucket["bucketName"]),
            text(&bucket["fileVersions"]),
            text(&bucket["storedBytes"]),
        ]
    });
    let done = rows("days", &|account, day| {
        vec![
            text(&account["accountId"]),
            text(&day["day"]),
            text(&day["classA"]),
            text(&day["classB"]),
            text(&day["classC"]),
            text(&day["uploadedBytes"]),
            text(&day["downloadedBytes"]),
        ]
    });
    let page = |nothing: &str, head: &[&str], rows: Vec<Vec<String>>| {
        if rows.is_empty() { format!("{nothing}\n") } else { table(head, rows.into_iter()) }
    };
    format!(
        "{}\n{}",
        page("No buckets.", &["ACCOUNT", "BUCKET", "VERSIONS", "BYTES"], stored),
        page(
            "Nothing was done.",
            &["ACCOUNT", "DAY (UTC)", "CLASS A", "CLASS B", "CLASS C", "UPLOADED", "DOWNLOADED"],
            done
        )
    )
}

fn jobs(answer: &Value) -> String {
    let head =
        ["JOB", "STATE", "TRIES", "ENQUEUED", "FINISHED", "FROM", "TO", "RULE", "FILE", "REASON"];
    let mut page = listing("No replication jobs.", &head, &answer["jobs"], |job| {
        let to = if job["destinationBucketName"].is_null() {
            &job["destinationBucketId"]
        } else {
            &job["destinationBucketName"]
        };
        let reason = match (&job["reason"], &job["error"]) {
            (reason, Value::Null) => text(reason),
            (Value::Null, error) => text(error),
            (reason, error) => format!("{}: {}", text(reason), text(error)),
        };
        vec![
            text(&job["jobId"]),
            text(&job["state"]),
            text(&job["attempts"]),
            moment(&job["enqueuedTimestamp"]),
            moment(&job["finishedTimestamp"]),
            text(&job["sourceBucketName"]),
            text(to),
            text(&job["replicationRuleName"]),
            text(&job["fileName"]),
            reason,
        ]
    });
    page.push_str(&way_on(answer));
    page
}

fn queues(answer: &Value) -> String {
    let head = [
        "QUEUE",
        "BUCKET",
        "RULE",
        "TARGET",
        "STATE",
        "WAITING",
        "SENT",
        "LOST",
        "TRIES",
        "NEXT TRY",
        "LAST SENT",
        "ERROR",
    ];
    let mut page = listing("No event notification rules.", &head, &answer["rules"], |rule| {
        let is = |name: &str| rule[name].as_bool().unwrap_or_default();
        let state = match (is("isSuspended"), is("isEnabled")) {
            (true, _) => "suspended",
            (false, true) => "enabled",
            (false, false) => "disabled",
        };
        vec![
            text(&rule["queueId"]),
            text(&rule["bucketName"]),
            text(&rule["ruleName"]),
            text(&rule["target"]),
            state.to_owned(),
            text(&rule["waiting"]),
            text(&rule["delivered"]),
            text(&rule["dropped"]),
            text(&rule["failedAttempts"]),
            moment(&rule["nextAttemptTimestamp"]),
            moment(&rule["lastDeliveredTimestamp"]),
            text(&rule["error"]),
        ]
    });
    page.push_str(&way_on(answer));
    page
}

fn way_on(answer: &Value) -> String {
    match &answer["nextAfter"] {
        Value::Null => String::new(),
        after => format!("\nThere are more: add --after {}\n", text(after)),
    }
}

/// Without the secret in it: commands end up in the shell's history.
fn authorize_hint(answer: &Value, endpoint: &str) -> String {
    let id = text(&answer["applicationKeyId"]);
    format!("To use it:\n  b2 account authorize --environment {endpoint} {id}\n")
}

/// An address that a server listens at, as clients on the same machine reach it.
fn reachable(endpoint: &str) -> String {
    endpoint.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:")
}

/// Where clients of this server connect, as far as the settings tell.
fn endpoint(config: &Config) -> String {
    let at = config.listen;
    let scheme = if config.certificate.is_some() { "https" } else { "http" };
    match &config.public_url {
        Some(url) => url.clone(),
        None if at.port() == 0 => "URL".to_owned(),
        None if at.ip().is_unspecified() => format!("{scheme}://127.0.0.1:{}", at.port()),
        None => format!("{scheme}://{at}"),
    }
}

fn buckets(key: &Value) -> String {
    if key["bucketIds"].is_null() { "all".to_owned() } else { text(&key["bucketIds"]) }
}

fn expiry(key: &Value) -> String {
    let at = &key["expirationTimestamp"];
    if at.is_null() { "never".to_owned() } else { moment(at) }
}

fn moment(value: &Value) -> String {
    value.as_i64().map_or_else(|| text(value), |ms| Millis(ms).readable())
}

/// One line of text for any value; nothing is a dash.
fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(empty) if empty.is_empty() => "-".to_owned(),
        Value::String(some) => safe(some),
        Value::Array(several) => several.iter().map(text).collect::<Vec<_>>().join(","),
        Value::Bool(_) | Value::Number(_) | Value::Object(_) => value.to_string(),
    }
}

/// Names may hold what would steer a terminal or turn the reading direction; such characters are
/// shown by their number.
fn safe(name: &str) -> String {
    let steers = |c: char| {
        c.is_control()
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    name.chars().fold(String::with_capacity(name.len()), |mut shown, c| {
        if steers(c) {
            shown.extend(c.escape_unicode());
        } else {
            shown.push(c);
        }
        shown
    })
}

fn fields(pairs: &[(&str, String)]) -> String {
    let rows = pairs.iter().map(|(name, value)| vec![format!("{name}:"), value.clone()]);
    aligned(&rows.collect::<Vec<_>>())
}

fn listing(
    nothing: &str,
    head: &[&str],
    values: &Value,
    row: impl Fn(&Value) -> Vec<String>,
) -> String {
    match values.as_array() {
        Some(values) if !values.is_empty() => table(head, values.iter().map(row)),
        _ => format!("{nothing}\n"),
    }
}

fn table(head: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let head = head.iter().map(|&title| title.to_owned()).collect();
    aligned(&std::iter::once(head).chain(rows).collect::<Vec<_>>())
}

/// Columns as wide as their widest cell, two spaces between them, none at the end of a line.
fn aligned(lines: &[Vec<String>]) -> String {
    let length = |cell: &String| cell.chars().count();
    let columns = lines.iter().map(Vec::len).max().unwrap_or_default();
    let widths: Vec<usize> = (0..columns)
        .map(|at| lines.iter().filter_map(|line| line.get(at)).map(length).max().unwrap_or(0))
        .collect();
    let mut page = String::new();
    for line in lines {
        let mut padded = String::new();
        for (cell, width) in line.iter().zip(&widths) {
            padded.push_str(cell);
            padded.extend(std::iter::repeat_n(' ', width - length(cell) + 2));
        }
        page.push_str(padded.trim_end());
        page.push('\n');
    }
    page
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    const KEY: &str = "K000qW3rTy-uI0p+aS/dF";

    /// The ending, what was printed, and what was complained about.
    fn run_with(variables: &[(&str, &str)], line: &[&str]) -> (Ending, String, String) {
        let variable = |(name, value): &(&str, &str)| ((*name).to_owned(), OsString::from(*value));
        let surroundings = Surroundings {
            environment: variables.iter().map(variable).collect(),
            default_file: Path::new("/nonexistent/kiln.toml"),
        };
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let words = std::iter::once("kiln").chain(line.iter().copied()).map(OsString::from);
        let ending = run(words, &surroundings, &mut out, &mut err);
        (ending, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
    }

    fn parse(line: &str) -> Result<Action, clap::Error> {
        let words = std::iter::once("kiln").chain(line.split_whitespace());
        let matches = command().try_get_matches_from(words)?;
        Ok(Line::from_arg_matches(&matches)?.action.unwrap_or(Action::Serve))
    }

    fn admin_command(line: &str) -> AdminCommand {
        match parse(line).unwrap() {
            Action::Account(action) => account_command(action).0,
            Action::Key(action) => key_command(action).0,
            Action::Replication(ReplicationAction::Job(action)) => job_command(action).0,
            Action::Lifecycle(action) => lifecycle_command(action).0,
            Action::Usage { account_id, days, recount, form: _ } => {
                usage_command(account_id, days, recount)
            }
            Action::Notification(action) => notification_command(action).0,
            Action::Clock(action) => clock_command(&action).0,
            other => unreachable!("{other:?} is no administration command"),
        }
    }

    /// Calls `look` for every command, with the words that lead to it.
    fn each_command(
        command: &mut Command,
        words: &[String],
        look: &mut dyn FnMut(&[String], &str),
    ) {
        look(words, &command.render_long_help().to_string());
        for inner in command.get_subcommands_mut().filter(|inner| inner.get_name() != "help") {
            let words = [words, &[inner.get_name().to_owned()]].concat();
            each_command(inner, &words, look);
        }
    }

    #[test]
    fn the_command_line_is_well_formed() {
        command().debug_assert();
    }

    #[test]
    fn every_command_explains_itself() {
        let mut command = command();
        command.build();
        let mut seen = Vec::new();
        each_command(&mut command, &[], &mut |words, help| {
            let name = words.join(" ");
            assert!(help.contains("Usage: kiln"), "{name}: {help}");
            assert!(!help.lines().next().unwrap_or_default().is_empty(), "{name}");
            let serves =
                matches!(words.first().map(String::as_str), None | Some("serve" | "config"));
            assert_eq!(help.contains("--http-workers"), serves, "{name}");
            let needs_none =
                matches!(words.first().map(String::as_str), Some("completions" | "version"));
            assert_eq!(help.contains("--data-dir"), !needs_none, "{name}");
            seen.push(name);
        });
        for name in [
            "serve",
            "account create",
            "key delete",
            "replication retry",
            "lifecycle run",
            "config show",
        ] {
            assert!(seen.iter().any(|one| one == name), "{name} in {seen:?}");
        }
        let (ending, help, _) = run_with(&[], &["--help"]);
        assert_eq!(ending, Ending::Done);
        for taught in ["First run", "b2 account authorize", "b2 replication setup", "Exit codes"] {
            assert!(help.contains(taught), "{taught}");
        }
        for setting in config::SETTINGS.iter().filter(|one| one.key != "master_key") {
            assert!(help.contains(&format!("[env: {}]", setting.variable())), "{}", setting.key);
        }
    }

    #[test]
    fn serving_is_what_happens_without_a_command() {
        assert!(matches!(parse(""), Ok(Action::Serve)));
        assert!(matches!(parse("serve --listen 127.0.0.1:0"), Ok(Action::Serve)));
        assert!(matches!(parse("--test-controls"), Ok(Action::Serve)));
    }

    #[test]
    fn every_command_takes_settings_before_and_after_its_name() {
        for line in [
            "--region x config show",
            "config --region x show",
            "config show --region x",
            "config show --region=x --json",
        ] {
            let words: Vec<&str> = line.split(' ').collect();
            let (ending, text, _) = run_with(&[], &words);
            assert_eq!(ending, Ending::Done);
            assert!(text.contains("flag --region"), "{line}: {text}");
        }
        for line in ["account list", "key list", "replication jobs", "notification list", "version"]
        {
            assert!(parse(&format!("{line} --http-workers 3 --data-dir x")).is_ok(), "{line}");
            assert!(parse(&format!("--auth-strict-v4-keys {line}")).is_ok(), "{line}");
        }
    }

    #[test]
    fn commands_become_what_the_server_understands() {
        assert_eq!(
            admin_command("account create --name team"),
            AdminCommand::CreateAccount { name: "team".to_owned() }
        );
        assert_eq!(
            admin_command("account create --json"),
            AdminCommand::CreateAccount { name: String::new() }
        );
        assert_eq!(admin_command("account list"), AdminCommand::ListAccounts);
        assert_eq!(
            admin_command(
                "key create --name k --capabilities listBuckets,readFiles --bucket photos \
                 --bucket movies --name-prefix a/ --valid-duration-s 60 --account-id 0123456789ab"
            ),
            AdminCommand::CreateKey {
                account_id: Some("0123456789ab".to_owned()),
                key_name: "k".to_owned(),
                capabilities: vec!["listBuckets".to_owned(), "readFiles".to_owned()],
                bucket_names: vec!["photos".to_owned(), "movies".to_owned()],
                name_prefix: Some("a/".to_owned()),
                valid_duration_in_seconds: Some(60),
            }
        );
        assert_eq!(admin_command("key list"), AdminCommand::ListKeys { account_id: None });
        assert_eq!(
            admin_command("key delete 000abc"),
            AdminCommand::DeleteKey { application_key_id: "000abc".to_owned() }
        );
        assert_eq!(
            admin_command("replication jobs --state failed --limit 7 --after 9"),
            AdminCommand::ListReplicationJobs {
                state: Some("failed".to_owned()),
                bucket_name: None,
                after: Some(9),
                limit: Some(7),
            }
        );
        assert_eq!(
            admin_command("notification list --bucket photos --limit 7 --after 9"),
            AdminCommand::ListNotifications {
                bucket_name: Some("photos".to_owned()),
                after: Some(9),
                limit: Some(7),
            }
        );
        assert_eq!(
            admin_command("replication retry 4711"),
            AdminCommand::RetryReplicationJobs {
                job_id: Some(4711),
                bucket_name: None,
                reason: None
            }
        );
        assert_eq!(
            admin_command("replication retry --all --bucket photos --reason timeout"),
            AdminCommand::RetryReplicationJobs {
                job_id: None,
                bucket_name: Some("photos".to_owned()),
                reason: Some("timeout".to_owned()),
            }
        );
        assert_eq!(
            admin_command("lifecycle preview photos --limit 7"),
            AdminCommand::PreviewLifecycle { bucket_name: "photos".to_owned(), limit: Some(7) }
        );
        assert_eq!(
            admin_command("lifecycle run photos --json"),
            AdminCommand::RunLifecycle { bucket_name: "photos".to_owned() }
        );
        assert_eq!(admin_command("clock show"), AdminCommand::ShowClock);
        assert_eq!(admin_command("clock confirm --json"), AdminCommand::ConfirmClock);
    }

    #[test]
    fn wrong_command_lines_are_refused_with_exit_code_2() {
        for line in [
            "nonsense",
            "key create --name k",
            "key create --name k --capabilities fly",
            "key create --name k --capabilities readFiles --valid-duration-s 0",
            "key create --name k --capabilities readFiles --valid-duration-s 86400000",
            "key delete",
            "replication retry",
            "replication retry 1 --all",
            "replication retry 1 --bucket photos",
            "replication retry --bucket photos",
            "replication jobs --state lost",
            "replication jobs --limit 0",
            "replication jobs --limit 1001",
            "lifecycle preview",
            "lifecycle preview photos --limit 10001",
            "lifecycle run",
            "notification",
            "notification list --limit 0",
            "completions tcsh",
            "--master-key K000qW3rTy-uI0p+aS/dF config check",
        ] {
            let words: Vec<&str> = line.split(' ').collect();
            let (ending, printed, complaint) = run_with(&[], &words);
            assert_eq!(ending, Ending::Misused, "{line}");
            assert!(printed.is_empty() && !complaint.is_empty(), "{line}");
        }
        assert_eq!(Ending::Misused as u8, 2);
    }

    #[test]
    fn wrong_settings_are_one_line_and_exit_code_2() {
        for line in [&["config", "check"][..], &["config", "show"], &["account", "list"], &[]] {
            let (ending, printed, complaint) = run_with(&[("KILN_HTTP_WORKERS", "none")], line);
            assert_eq!((ending, printed.as_str()), (Ending::Misused, ""));
            assert_eq!(
                complaint,
                "kiln: http.workers (environment variable KILN_HTTP_WORKERS): must be a whole \
                 number from 1 to 256, not \"none\"\n"
            );
        }
    }

    #[test]
    fn shown_settings_never_hold_a_secret() {
        let variables = [("KILN_MASTER_KEY_ID", "0123456789ab"), ("KILN_MASTER_KEY", KEY)];
        for line in [&["config", "show"][..], &["config", "show", "--json"]] {
            let (ending, shown, _) = run_with(&variables, line);
            assert_eq!(ending, Ending::Done);
            assert!(shown.contains("0123456789ab") && shown.contains("****"), "{shown}");
            assert!(!shown.contains(KEY), "{shown}");
        }
        let (_, shown, _) = run_with(&variables, &["config", "show", "--json"]);
        let value: Value = serde_json::from_str(&shown).unwrap();
        assert_eq!(value["settings"].as_array().unwrap().len(), config::SETTINGS.len());
    }

    #[test]
    fn completions_exist_for_each_shell() {
        for shell in Shell::value_variants() {
            let (ending, script, _) = run_with(&[], &["completions", &shell.to_string()]);
            assert_eq!(ending, Ending::Done);
            for word in ["replication", "data-dir", "completions"] {
                assert!(script.contains(word), "{word} for {shell}");
            }
        }
    }

    #[test]
    fn the_version_prints_for_people_and_programs() {
        let (_, text, _) = run_with(&[], &["version"]);
        assert_eq!(text, format!("kiln {}\n", env!("CARGO_PKG_VERSION")));
        let (_, text, _) = run_with(&[], &["version", "--json"]);
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["name"], "kiln");
    }

    #[test]
    fn a_reader_that_went_away_is_no_failure() {
        struct Closed(io::ErrorKind);
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(self.0.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        assert_eq!(print(&mut Closed(io::ErrorKind::BrokenPipe), "x"), Ending::Done);
        assert_eq!(print(&mut Closed(io::ErrorKind::StorageFull), "x"), Ending::Failed);
    }

    const AT: &str = "http://127.0.0.1:9700";

    #[test]
    fn a_new_key_is_shown_once_and_kept_out_of_the_example() {
        let command = admin_command("key create --name k --capabilities readFiles");
        let answer = json!({
            "accountId": "0123456789ab", "applicationKeyId": "0000123456789ab0000000001",
            "applicationKey": KEY, "keyName": "k", "capabilities": ["readFiles"],
            "bucketIds": null, "namePrefix": null, "expirationTimestamp": 1_641_308_478_123_i64,
            "options": ["s3"],
        });
        let page = render(&command, &answer, AT);
        assert_eq!(page.matches(KEY).count(), 1);
        assert!(page.contains("not shown again"));
        assert!(page.contains("Expires:          2022-01-04T15:01:18.123Z\n"), "{page}");
        assert!(page.contains("Buckets:          all\n"), "{page}");
        assert!(page.contains(&format!("--environment {AT} 0000123456789ab0000000001\n")));
    }

    #[test]
    fn the_example_names_the_address_clients_use() {
        assert_eq!(reachable("http://0.0.0.0:9700"), "http://127.0.0.1:9700");
        assert_eq!(reachable("https://[::]:9700"), "https://[::1]:9700");
        assert_eq!(reachable("http://192.0.2.1:9700"), "http://192.0.2.1:9700");
        let mut config = Config::on_free_ports(Path::new("x"), &[]).unwrap();
        assert_eq!(endpoint(&config), "URL");
        config.listen = "0.0.0.0:9800".parse().unwrap();
        assert_eq!(endpoint(&config), "http://127.0.0.1:9800");
        config.listen = "[::1]:9800".parse().unwrap();
        assert_eq!(endpoint(&config), "http://[::1]:9800");
        config.public_url = Some("https://b2.example.org".to_owned());
        assert_eq!(endpoint(&config), "https://b2.example.org");
    }

    #[test]
    fn jobs_are_a_table_with_the_way_to_the_next_page() {
        let command = admin_command("replication jobs");
        let job = json!({
            "jobId": 7, "state": "failed", "fileName": "cat\u{1b}[31m\u{202e}.jpg", "fileId": "4_z",
            "sourceBucketName": "photos", "destinationBucketId": "b".repeat(24),
            "destinationBucketName": null, "replicationRuleName": "rule-one",
            "reason": "timeout", "error": "no answer", "attempts": 3, "enqueuedTimestamp": 0,
            "finishedTimestamp": null, "destinationFileId": null, "origin": "upload",
        });
        let page = render(&command, &json!({ "jobs": [job], "nextAfter": 7 }), AT);
        let lines: Vec<&str> = page.lines().collect();
        assert!(lines[0].starts_with("JOB  STATE   TRIES  ENQUEUED"), "{page}");
        assert!(lines[1].starts_with("7    failed  3      1970-01-01T00:00:00.000Z"), "{page}");
        assert!(lines[1].contains(&"b".repeat(24)), "an id where no name is known");
        assert!(lines[1].ends_with("timeout: no answer"), "{page}");
        assert!(!page.contains('\u{1b}') && !page.contains('\u{202e}'), "nothing steers");
        assert_eq!(lines.last(), Some(&"There are more: add --after 7"));
        let none = render(&command, &json!({ "jobs": [], "nextAfter": null }), AT);
        assert_eq!(none, "No replication jobs.\n");
    }

    #[test]
    fn rules_are_a_table_that_says_what_waits_and_why() {
        let command = admin_command("notification list");
        let rule = json!({
            "queueId": 3, "bucketId": "b".repeat(24), "bucketName": "photos", "ruleName": "rule-one",
            "target": "example.com:443", "isEnabled": true, "isSuspended": true, "waiting": 2,
            "suspensionReason": "x", "delivered": 5, "dropped": 1, "failedAttempts": 9,
            "error": "the endpoint answered with status 500", "nextAttemptTimestamp": 0,
            "lastDeliveredTimestamp": null, "failingSinceTimestamp": 0,
        });
        let page = render(&command, &json!({ "rules": [rule], "nextAfter": 3 }), AT);
        let lines: Vec<&str> = page.lines().collect();
        assert!(lines[0].starts_with("QUEUE  BUCKET  RULE      TARGET           STATE"), "{page}");
        assert!(lines[1].contains("example.com:443  suspended  2        5     1     9"), "{page}");
        assert!(lines[1].ends_with("the endpoint answered with status 500"), "{page}");
        assert_eq!(lines.last(), Some(&"There are more: add --after 3"));
        let none = render(&command, &json!({ "rules": [], "nextAfter": null }), AT);
        assert_eq!(none, "No event notification rules.\n");
    }

    #[test]
    fn the_other_answers_are_readable_too() {
        let table = [
            ("account list", json!({ "accounts": [] }), "No accounts.\n"),
            ("key list", json!({ "keys": [] }), "No application keys.\n"),
            ("replication retry 1", json!({ "retried": 1 }), "1 job is tried again.\n"),
            ("replication retry --all", json!({ "retried": 0 }), "0 jobs are tried again.\n"),
            (
                "lifecycle run photos",
                json!({ "bucketName": "photos", "hasLifecycleRules": true,
                    "counts": { "hidden": 1, "deleted": 0, "canceled": 2 } }),
                "Done: 1 name hidden, 0 versions deleted, 2 large files canceled.\n",
            ),
            (
                "lifecycle preview photos",
                json!({ "bucketName": "photos", "hasLifecycleRules": false, "acts": [],
                    "counts": { "hidden": 0, "deleted": 0, "canceled": 0 } }),
                "Bucket photos has no lifecycle rules.\n",
            ),
            (
                "lifecycle preview photos",
                json!({ "bucketName": "photos", "hasLifecycleRules": true,
                    "counts": { "hidden": 0, "deleted": 1, "canceled": 0 },
                    "deletedContentLength": 5, "acts": [{ "action": "delete", "contentLength": 5,
                    "fileId": "4_z", "fileName": "a\u{1b}b", "uploadTimestamp": 1000 }] }),
                "ACTION  UPLOADED                  BYTES  FILE      FILE ID\n\
                 delete  1970-01-01T00:00:01.000Z  5      a\\u{1b}b  4_z\n\n\
                 Due now: 0 names hidden, 1 version deleted, 0 large files canceled (5 bytes).\n",
            ),
            (
                "key delete 000a",
                json!({ "applicationKeyId": "000a", "keyName": "k" }),
                "Key 000a (k) is deleted.\n",
            ),
            (
                "account list",
                json!({ "accounts": [{
                    "accountId": "0123456789ab", "name": "", "createdTimestamp": 1000, "buckets": 2,
                }] }),
                "ACCOUNT       NAME  MADE                      BUCKETS\n\
                 0123456789ab  -     1970-01-01T00:00:01.000Z  2\n",
            ),
            (
                "clock confirm",
                json!({ "now": 1000, "locksRunTo": 1000, "isBelieved": true, "aheadMillis": 0,
                        "behindMillis": 12 }),
                "The clock says 1970-01-01T00:00:01.000Z, and locks run out by it.\n",
            ),
            (
                "clock show",
                json!({ "now": 90_000_000, "locksRunTo": 1000, "isBelieved": false,
                        "aheadMillis": 89_999_000, "behindMillis": 0 }),
                "The clock says 1970-01-02T01:00:00.000Z, but so much time has not passed: locks \
                 run out by 1970-01-01T00:00:01.000Z.\n\
                 If the clock is right, say so with `kiln clock confirm`.\n",
            ),
            (
                "clock show",
                json!({ "now": 1000, "locksRunTo": 1000, "isBelieved": false, "aheadMillis": 0,
                        "behindMillis": 90_000_500 }),
                "The clock says 1970-01-01T00:00:01.000Z, but it is 90000 s behind what it said \
                 before: locks run out by it, but default retentions are counted from what it \
                 should say.\n\
                 If the clock is right, say so with `kiln clock confirm`.\n",
            ),
        ];
        for (line, answer, page) in table {
            assert_eq!(render(&admin_command(line), &answer, AT), page);
        }
        let made = json!({
            "accountId": "0123456789ab", "name": "team", "applicationKeyId": "0123456789ab",
            "applicationKey": KEY,
        });
        let page = render(&admin_command("account create --name team"), &made, AT);
        assert_eq!(page.matches(KEY).count(), 1);
    }
}
