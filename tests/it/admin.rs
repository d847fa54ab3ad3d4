//! Running the program: start and stop, health, administration, test controls.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::native::upload::{finish_held, hold_token};
use crate::support::http::call;
use crate::support::server::{MASTER_ID, MASTER_KEY, Server, Session};
use crate::support::wait_for;

fn kiln(data_dir: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_kiln"))
        .args(arguments)
        .arg("--data-dir")
        .arg(data_dir)
        .env_remove("KILN_MASTER_KEY")
        .env_remove("KILN_MASTER_KEY_ID")
        .envs(variables.iter().copied())
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

const MASTER: [(&str, &str); 2] =
    [("KILN_MASTER_KEY_ID", MASTER_ID), ("KILN_MASTER_KEY", MASTER_KEY)];

#[test]
fn health_is_public_and_controls_exist_only_when_asked_for() {
    let server = Server::start_with(&[]);
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(server.control("GET", path).status, 200, "{path}");
    }
    for path in ["/admin/replication/hold", "/admin/replication/step", "/admin/clock/advance?ms=1"]
    {
        assert_eq!(server.control("POST", path).status, 404, "{path} (statement 228)");
    }
    assert_eq!(server.control("GET", "/admin/accounts").status, 401);
    let with = Server::start();
    assert_eq!(with.control("POST", "/admin/replication/hold").json(), json!({"held": true}));
    assert_eq!(with.control("POST", "/admin/replication/step?n=3").json(), json!({"steps": 0}));
    assert_eq!(with.control("POST", "/admin/replication/release").json(), json!({"held": false}));
    assert_eq!(
        with.control("POST", "/admin/replication/drain?timeout=1000").json(),
        json!({"drained": true})
    );
    for beyond in ["-1", "9223372036854775807", "4000000000000"] {
        let target = format!("/admin/clock/advance?ms={beyond}");
        assert_eq!(with.control("POST", &target).status, 400, "{beyond}");
    }
}

#[test]
fn a_second_server_on_the_same_folder_is_refused_and_told_why() {
    let server = Server::start();
    let second = kiln(
        server.data_dir(),
        &["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"],
        &MASTER,
    );
    assert_eq!(second.status.code(), Some(1));
    let said = text(&second.stderr);
    assert!(said.contains("another kiln is running") && said.contains(&server.address), "{said}");
}

#[test]
fn wrong_settings_end_with_code_2_and_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let loopback: &[&str] = &["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
    for (arguments, variables) in [
        (loopback, vec![("KILN_MASTER_KEY_ID", MASTER_ID)]),
        (loopback, vec![("KILN_MASTER_KEY_ID", "XYZ"), ("KILN_MASTER_KEY", MASTER_KEY)]),
        (loopback, vec![("KILN_MASTER_KEY_ID", MASTER_ID), ("KILN_MASTER_KEY", "tooshort")]),
        (
            loopback,
            vec![
                ("KILN_MASTER_KEY_ID", MASTER_ID),
                ("KILN_MASTER_KEY", "aaaaaaaaaaaaaaaaaaaaaaaa"),
            ],
        ),
        (loopback, vec![("KILN_NOT_A_SETTING", "1")]),
        (&["serve", "--listen", "0.0.0.0:0", "--admin-listen", "127.0.0.1:0"], vec![]),
        (
            &[
                "serve",
                "--listen",
                "0.0.0.0:0",
                "--admin-listen",
                "127.0.0.1:0",
                "--insecure-http",
                "--test-controls",
            ],
            vec![],
        ),
    ] {
        let ended = kiln(&data, arguments, &variables);
        let said = text(&ended.stderr);
        assert_eq!(ended.status.code(), Some(2), "{arguments:?} {variables:?}: {said}");
        assert_eq!(said.trim().lines().count(), 1, "{said}");
        assert!(!said.contains(MASTER_KEY) && !said.contains("tooshort"), "{said}");
    }
    assert!(!data.exists(), "nothing was made");
}

#[test]
fn a_new_folder_is_private_and_its_key_is_not_printed_to_a_pipe() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let ready = folder.path().join("ready");
    let mut child = Command::new(env!("CARGO_BIN_EXE_kiln"))
        .args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--data-dir"])
        .arg(&data)
        .arg("--ready-file")
        .arg(&ready)
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let started = std::time::Instant::now();
    while !ready.exists() {
        assert!(started.elapsed().as_secs() < 20 && child.try_wait().unwrap().is_none());
        std::thread::yield_now();
    }
    let facts: Value = serde_json::from_slice(&std::fs::read(&ready).unwrap()).unwrap();
    let members: Vec<&String> = facts.as_object().unwrap().keys().collect();
    assert_eq!(members, ["accountId", "adminEndpoint", "endpoint", "pid"]);
    assert_eq!(facts["pid"], child.id());
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&data), 0o700);
    for name in ["initial-key.env", "sealing.key", "meta.db", "LOCK"] {
        assert_eq!(mode(&data.join(name)), 0o600, "{name}");
    }
    let listed = kiln(&data, &["account", "list", "--json"], &[]);
    assert!(listed.status.success(), "the key file is enough: {}", text(&listed.stderr));
    let pid = rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let key_file = std::fs::read_to_string(data.join("initial-key.env")).unwrap();
    let secret =
        key_file.lines().find_map(|line| line.strip_prefix("B2_APPLICATION_KEY=")).unwrap();
    let shown = text(&output.stdout);
    assert!(shown.contains("b2 account authorize") && !shown.contains(secret), "{shown}");
    assert!(!data.join("running.json").exists());
}

#[test]
fn the_first_key_is_in_its_file_before_the_account_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let listeners = ["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
    // A folder in the place of the file ends the start where a power cut could end it too.
    std::fs::create_dir_all(data.join("initial-key.env")).unwrap();
    let ended = kiln(&data, &listeners, &[]);
    assert_eq!(ended.status.code(), Some(1), "{}", text(&ended.stderr));
    std::fs::remove_dir(data.join("initial-key.env")).unwrap();
    // The second start fails at its listener, after the account is made.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let ended = kiln(&data, &["serve", "--listen", &address], &[]);
    assert_eq!(ended.status.code(), Some(1), "{}", text(&ended.stderr));
    let key_file = std::fs::read_to_string(data.join("initial-key.env")).unwrap();
    let value = |name: &str| key_file.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    let (id, key) = (value("B2_APPLICATION_KEY_ID="), value("B2_APPLICATION_KEY="));
    let accounts = kiln(&data, &["account", "list", "--json"], &[]);
    let accounts: Value = serde_json::from_slice(&accounts.stdout).unwrap();
    assert_eq!(accounts["accounts"].as_array().unwrap().len(), 1);
    assert_eq!(accounts["accounts"][0]["accountId"], id);
    let ready = data.with_extension("ready");
    let mut child = Command::new(env!("CARGO_BIN_EXE_kiln"))
        .args(listeners)
        .arg("--data-dir")
        .arg(&data)
        .arg("--ready-file")
        .arg(&ready)
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let facts = wait_for("a server gets ready", || std::fs::read(&ready).ok());
    let facts: Value = serde_json::from_slice(&facts).unwrap();
    let address = facts["endpoint"].as_str().unwrap().strip_prefix("http://").unwrap();
    let entered = Session::authorize(address, id, key);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(entered.unwrap().account, id);
}

#[test]
fn another_master_key_voids_the_old_one_and_every_token() {
    let mut server = Server::start();
    let old = server.master();
    let bucket = old.create_bucket("rotated-bucket");
    old.upload(&bucket, "f", b"x");
    let share =
        json!({"bucketId": bucket, "fileNamePrefix": "", "validDurationInSeconds": 600_000});
    let shared = old.ok("b2_get_download_authorization", &share);
    let shared = shared["authorizationToken"].as_str().unwrap().to_owned();
    let (target, upload_token) = old.upload_url(&bucket);
    let (id, key) = old.create_key(&["listFiles"], None, None);
    assert_eq!(server.terminate(), Some(0));
    server.restart();
    let list = json!({"bucketId": bucket});
    let at = |server: &Server, session: &Session| Session {
        address: server.address.clone(),
        ..session.clone()
    };
    let answer = at(&server, &old).call("b2_list_file_names", &list);
    assert_eq!(answer.status, 200, "a restart with the same key voids nothing");
    assert_eq!(server.terminate(), Some(0));
    server.restart_with_master_key("K000AnotherMasterOfTheTestHouse");
    let refused = Session::authorize(&server.address, MASTER_ID, MASTER_KEY).unwrap_err();
    assert_eq!((refused.status, refused.code().as_str()), (401, "bad_auth_token"));
    let answer = at(&server, &old).call("b2_list_file_names", &list);
    assert_eq!((answer.status, answer.code().as_str()), (401, "bad_auth_token"));
    let upload = call(&server.address, "POST", &target, &[("Authorization", &upload_token)], b"");
    assert_eq!((upload.status, upload.code().as_str()), (401, "bad_auth_token"));
    let shared = format!("/file/rotated-bucket/f?Authorization={shared}");
    assert_eq!(call(&server.address, "GET", &shared, &[], b"").code(), "bad_auth_token");
    let other = Session::authorize(&server.address, &id, &key).unwrap();
    assert_eq!(other.call("b2_list_file_names", &list).status, 200, "other keys authorize again");
    let new = server.master();
    assert_eq!(server.terminate(), Some(0));
    server.restart();
    let answer = at(&server, &new).call("b2_list_file_names", &list);
    assert_eq!(answer.status, 200, "the new signing keys are kept");
}

#[test]
fn commands_do_the_same_while_the_server_runs_and_when_it_does_not() {
    let mut server = Server::start();
    let bucket = server.master().create_bucket("admin-bucket");
    let run = |server: &Server, arguments: &[&str]| -> Value {
        let ended = kiln(server.data_dir(), &[arguments, &["--json"]].concat(), &MASTER);
        assert!(ended.status.success(), "{arguments:?}: {}", text(&ended.stderr));
        serde_json::from_slice(&ended.stdout).unwrap()
    };
    for running in [true, false] {
        if !running {
            assert_eq!(server.terminate(), Some(0));
        }
        let key = run(
            &server,
            &[
                "key",
                "create",
                "--name",
                "cli-key",
                "--capabilities",
                "listFiles,readFiles",
                "--bucket",
                "admin-bucket",
                "--name-prefix",
                "in/",
            ],
        );
        assert_eq!((&key["bucketIds"], &key["namePrefix"]), (&json!([bucket]), &json!("in/")));
        assert!(key["applicationKey"].is_string());
        let id = key["applicationKeyId"].as_str().unwrap();
        let listed = run(&server, &["key", "list"]);
        assert_eq!(listed["keys"].as_array().unwrap().len(), 1);
        run(&server, &["key", "delete", id]);
        assert_eq!(run(&server, &["key", "list"])["keys"], json!([]));
        let account = run(&server, &["account", "create", "--name", "second"]);
        assert_eq!(account["accountId"], account["applicationKeyId"]);
        assert_eq!(run(&server, &["replication", "jobs", "--state", "failed"])["jobs"], json!([]));
        assert_eq!(run(&server, &["replication", "retry", "--all"])["retried"], 0);
        let arguments = ["key", "create", "--name", "shown", "--capabilities", "listFiles"];
        let ended = kiln(server.data_dir(), &arguments, &MASTER);
        let page = text(&ended.stdout);
        let hint = format!("b2 account authorize --environment http://{} ", server.address);
        assert_eq!(page.contains(&hint), running, "the address that it really has: {page}");
        let made = page.split_once("--environment ").unwrap().1.split_whitespace().nth(1).unwrap();
        run(&server, &["key", "delete", made]);
        let looked = run(&server, &["lifecycle", "preview", "admin-bucket"]);
        assert_eq!((&looked["acts"], &looked["hasLifecycleRules"]), (&json!([]), &json!(false)));
        let ran = run(&server, &["lifecycle", "run", "admin-bucket"]);
        assert_eq!(ran["counts"], json!({"canceled": 0, "deleted": 0, "hidden": 0}));
        let unknown = kiln(server.data_dir(), &["key", "delete", "nothing"], &MASTER);
        assert_eq!(unknown.status.code(), Some(1));
        assert!(text(&unknown.stderr).contains("Key not present"), "{}", text(&unknown.stderr));
    }
    server.restart();
    let accounts = run(&server, &["account", "list"]);
    assert_eq!(accounts["accounts"].as_array().unwrap().len(), 3);
    assert_eq!(accounts["accounts"][0]["buckets"], 1);
}

#[test]
fn a_preview_of_lifecycle_rules_lists_what_a_run_then_does() {
    let server = Server::start();
    let master = server.master();
    let bucket = master.create_bucket("ruled-bucket");
    let older = master.upload(&bucket, "f", b"older");
    let newer = master.upload(&bucket, "f", b"newer one");
    let large = json!({"bucketId": bucket, "fileName": "h", "contentType": "text/plain"});
    let large = master.ok("b2_start_large_file", &large);
    server.control("POST", "/admin/clock/advance?ms=100000000");
    // Rules that come now are walked by tomorrow, so what is due is left to the commands.
    let master = server.master();
    let body = json!({"accountId": MASTER_ID, "bucketId": bucket, "lifecycleRules": [
        {"daysFromUploadingToHiding": 1, "daysFromHidingToDeleting": 1,
            "daysFromStartingToCancelingUnfinishedLargeFiles": 1, "fileNamePrefix": ""}]});
    master.ok("b2_update_bucket", &body);
    let run = |arguments: &[&str]| {
        let ended = kiln(server.data_dir(), &[&["lifecycle"], arguments].concat(), &MASTER);
        assert!(ended.status.success(), "{arguments:?}: {}", text(&ended.stderr));
        text(&ended.stdout)
    };
    let look =
        || -> Value { serde_json::from_str(&run(&["preview", "ruled-bucket", "--json"])).unwrap() };
    let act = |action: &str, file: &Value| {
        json!({"action": action, "contentLength": file["contentLength"], "fileId": file["fileId"],
            "fileName": file["fileName"], "uploadTimestamp": file["uploadTimestamp"]})
    };
    let due = json!({
        "acts": [act("hide", &newer), act("delete", &older), act("cancel", &large)],
        "bucketName": "ruled-bucket", "counts": {"canceled": 1, "deleted": 1, "hidden": 1},
        "deletedContentLength": 5, "hasLifecycleRules": true,
    });
    assert_eq!(look(), due);
    let page = run(&["preview", "ruled-bucket", "--limit", "1"]);
    assert!(page.contains("hide") && !page.contains("cancel  "), "{page}");
    let total = "1 name hidden, 1 version deleted, 1 large file canceled";
    assert!(page.ends_with(&format!("Due now: {total} (5 bytes).\n")), "{page}");
    assert_eq!(look(), due, "looking changes nothing");
    assert_eq!(run(&["run", "ruled-bucket"]), format!("Done: {total}.\n"));
    assert_eq!(look()["acts"], json!([]));
    let versions = master.ok("b2_list_file_versions", &json!({"bucketId": bucket}));
    let actions: Vec<&Value> =
        versions["files"].as_array().unwrap().iter().map(|file| &file["action"]).collect();
    assert_eq!(actions, ["hide", "upload"]);
    let unknown = kiln(server.data_dir(), &["lifecycle", "preview", "no-such-bucket"], &MASTER);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(text(&unknown.stderr).contains("no-such-bucket"), "{}", text(&unknown.stderr));
}

#[test]
fn replication_219_failed_jobs_say_why() {
    let server = Server::start();
    let master = server.master();
    let (source, target) = (master.create_bucket("job-source"), master.create_bucket("job-target"));
    let (reader, _) =
        master.create_key(&["readFiles", "readFileLegalHolds", "readFileRetentions"], None, None);
    master.ok("b2_update_bucket", &json!({"accountId": MASTER_ID, "bucketId": source,
        "replicationConfiguration": {"asReplicationSource": {"sourceApplicationKeyId": reader,
            "replicationRules": [{"destinationBucketId": target, "fileNamePrefix": "", "isEnabled": true,
                "includeExistingFiles": false, "priority": 1, "replicationRuleName": "job-rule"}]}}}));
    let file = master.upload(&source, "dir/f", b"x");
    assert_eq!(file["replicationStatus"], "pending");
    assert_eq!(
        server.control("POST", "/admin/replication/drain?timeout=20000").json()["drained"],
        true
    );
    let ended =
        kiln(server.data_dir(), &["replication", "jobs", "--state", "failed", "--json"], &MASTER);
    let jobs: Value = serde_json::from_slice(&ended.stdout).unwrap();
    let job = &jobs["jobs"][0];
    assert_eq!(
        (&job["reason"], &job["fileName"], &job["replicationRuleName"]),
        (&json!("mapping_missing"), &json!("dir/f"), &json!("job-rule"))
    );
    assert_eq!(
        (&job["sourceBucketName"], &job["destinationBucketName"]),
        (&json!("job-source"), &json!("job-target"))
    );
    let info = master.call("b2_get_file_info", &json!({"fileId": file["fileId"]})).json();
    assert_eq!(info["replicationStatus"], "failed");
    let head = master.download("job-source/dir/f", &[]);
    assert_eq!(head.header("x-bz-replication-status"), Some("FAILED"), "60: upper case in headers");
}

#[test]
fn a_request_in_flight_ends_before_the_server_does() {
    let mut server = Server::start();
    let master = server.master();
    let bucket = master.create_bucket("drain-bucket");
    let (target, token) = master.upload_url(&bucket);
    let (slow, _) = hold_token(&server.address, &target, &token);
    let pid = rustix::process::Pid::from_raw(i32::try_from(server.pid()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(finish_held(slow), 1);
    assert_eq!(server.terminate(), Some(0));
    server.restart();
    assert_eq!(server.master().download("drain-bucket/slow", &[]).body, b"ab");
}

#[test]
fn completions_and_help_are_there() {
    let folder = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish"] {
        let ended = kiln(folder.path(), &["completions", shell], &[]);
        assert!(ended.status.success() && text(&ended.stdout).contains("kiln"), "{shell}");
    }
    let help = kiln(folder.path(), &["--help"], &[]);
    assert!(text(&help.stdout).contains("replication"));
    let none = kiln(&folder.path().join("nothing"), &["account", "list"], &[]);
    assert_eq!(none.status.code(), Some(1));
    assert!(text(&none.stderr).contains("there is no data folder"), "{}", text(&none.stderr));
}
