//! `kiln remote` and `kiln replication`, with the server running and without it.

use serde_json::{Value, json};

use super::{Client, NOWHERE, SECRET};
use crate::support::server::{MASTER_ID, MASTER_KEY, Server, kiln};

fn run(server: &Server, arguments: &[&str]) -> Result<String, String> {
    let ended = kiln()
        .args(arguments)
        .arg("--data-dir")
        .arg(server.data_dir())
        .env("KILN_MASTER_KEY_ID", MASTER_ID)
        .env("KILN_MASTER_KEY", MASTER_KEY)
        .env("KILN_REMOTE_API_TOKEN", format!("id:{SECRET}"))
        .output()
        .unwrap();
    let (out, err) = (String::from_utf8(ended.stdout), String::from_utf8(ended.stderr));
    if ended.status.success() { Ok(out.unwrap()) } else { Err(err.unwrap()) }
}

fn json_of(server: &Server, arguments: &[&str]) -> Value {
    let printed = run(server, &[arguments, &["--json"]].concat()).unwrap();
    assert!(!printed.contains(SECRET));
    serde_json::from_str(&printed).unwrap()
}

#[test]
fn streams_are_looked_after_from_the_command_line_with_a_server_and_without() {
    let mut server = Server::start();
    server.control("POST", "/admin/replication/hold");
    server.master().create_bucket("commanded-bucket");
    for running in [true, false] {
        if !running {
            assert_eq!(server.terminate(), Some(0));
        }
        let create = ["remote", "create", "--name", "offsite", "--remote-url", NOWHERE];
        let remote = json_of(&server, &create);
        let remote_id = remote["id"].as_str().unwrap();
        let taken = run(&server, &create).unwrap_err();
        assert!(taken.starts_with("kiln: ") && taken.contains("offsite"), "{taken}");
        let update = ["remote", "update", "--id", remote_id, "--max-concurrency", "9"];
        assert_eq!(json_of(&server, &update)["maxConcurrency"], 9);
        let bucket = "4a48fe8875c6214145260818";
        let buckets = ["remote", "buckets", "--id", remote_id];
        let named = json_of(&server, &[&buckets[..], &["--add", bucket]].concat());
        assert_eq!(named["bucketIDs"], json!([bucket]));
        assert_eq!(run(&server, &buckets).unwrap(), format!("BUCKET ID\n{bucket}\n"));
        let none = run(&server, &[&buckets[..], &["--remove", bucket]].concat()).unwrap();
        assert_eq!(none, "No buckets.\n");
        let create = [
            "replication",
            "create",
            "--name",
            "stream",
            "--remote-id",
            remote_id,
            "--local-bucket",
            "commanded-bucket",
            "--remote-bucket",
            "far-bucket",
        ];
        let stream = json_of(&server, &create);
        let id = stream["id"].as_str().unwrap();
        assert_eq!(json_of(&server, &["replication", "list"])["replications"], json!([stream]));
        let page = run(&server, &["replication", "list"]).unwrap();
        assert!(page.contains("Max Queue Bytes") && page.contains("63.9 MiB"), "{page}");
        let update = ["replication", "update", "--id", id, "--max-age", "0"];
        assert_eq!(json_of(&server, &update)["maxAgeSeconds"], 0);
        assert_eq!(json_of(&server, &["replication", "pause", "--id", id])["paused"], true);
        assert_eq!(json_of(&server, &["replication", "resume", "--id", id])["paused"], false);
        assert_eq!(json_of(&server, &["replication", "files", "--id", id])["files"], json!([]));
        assert_eq!(json_of(&server, &["replication", "purge", "--id", id])["purged"], 0);
        assert_eq!(json_of(&server, &["replication", "retry", "--id", id])["retried"], 0);
        let resync = ["replication", "resync", "--id", id, "--dry-run"];
        assert_eq!(json_of(&server, &resync)["files"], 0);
        // Nobody listens there; without a server nobody could even try.
        let said = run(&server, &["replication", "validate", "--id", id]).unwrap_err();
        assert_eq!(said.contains("only a running server"), !running, "{said}");
        let kept = run(&server, &["remote", "delete", "--id", remote_id]).unwrap_err();
        assert!(kept.contains("a replication references it"), "{kept}");
        let deleted =
            run(&server, &["remote", "delete", "--id", remote_id, "--delete-replications"]);
        let deleted = deleted.unwrap();
        assert!(deleted.contains("offsite") && deleted.contains("stream"), "{deleted}");
        assert_eq!(run(&server, &["remote", "list"]).unwrap(), "No remote connections.\n");
        assert_eq!(run(&server, &["replication", "list"]).unwrap(), "No replication streams.\n");
    }
}

#[test]
fn another_account_is_named_by_its_organization() {
    let server = Server::start();
    let account = json_of(&server, &["account", "create", "--name", "second"]);
    let (org, key) = (account["accountId"].as_str().unwrap(), account["applicationKey"].as_str());
    let create = ["remote", "create", "--name", "theirs", "--remote-url", NOWHERE, "--org-id", org];
    let id = json_of(&server, &create)["id"].as_str().unwrap().to_owned();
    assert_eq!(run(&server, &["remote", "list"]).unwrap(), "No remote connections.\n");
    let second = Client::with(&server, &format!("Token {org}:{}", key.unwrap()));
    assert_eq!(second.get(&format!("/api/v2/remotes/{id}"))["name"], "theirs");
    let said = run(&server, &["remote", "delete", "--id", &id]).unwrap_err();
    assert!(said.contains("remote connection not found"), "{said}");
    run(&server, &["remote", "delete", "--id", &id, "--org-id", org]).unwrap();
}
