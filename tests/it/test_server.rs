//! The server that other programs start in their tests.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::support::http::{Connection, call};
use crate::support::server::{Session, sha1_hex};

// The example of the library and of docs/testing.md, word for word, between these two lines.
// begin of the example
use std::time::Duration;

use kiln::testing::TestServer;

#[tokio::test]
async fn a_client_tries_again() -> Result<(), Box<dyn std::error::Error>> {
    let server = TestServer::start()?;
    server.plan_fault(r#"{"operation": "b2_authorize_account", "status": 503, "times": 1}"#)?;

    // Stands for the client under test: it needs the endpoint, the key id and the key.
    let client = reqwest::Client::builder().no_proxy().build()?;
    let url = format!("{}/b2api/v4/b2_authorize_account", server.endpoint());
    let authorize =
        || client.get(&url).basic_auth(TestServer::KEY_ID, Some(TestServer::KEY)).send();
    assert_eq!(authorize().await?.status(), 503);
    assert_eq!(authorize().await?.status(), 200);

    server.advance_clock(Duration::from_hours(25))?; // Every token has expired.
    server.reset()?; // Nothing is stored, and the key is the same.
    assert_eq!(authorize().await?.status(), 200);
    Ok(())
}
// end of the example

#[test]
fn the_example_stands_in_the_library_and_on_the_page_as_it_is_run() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |name: &str| std::fs::read_to_string(root.join(name)).unwrap();
    let own = read("tests/it/test_server.rs");
    let (_, rest) = own.split_once("// begin of the example\n").unwrap();
    let (example, _) = rest.split_once("// end of the example\n").unwrap();
    let documented: String =
        example.lines().map(|line| format!("/// {line}").trim_end().to_owned() + "\n").collect();
    assert!(read("src/testing/mod.rs").contains(&documented), "the doc comment of TestServer");
    assert!(read("docs/testing.md").contains(&format!("```rust\n{example}```")), "docs/testing.md");
}

fn address(url: &str) -> &str {
    url.strip_prefix("http://").unwrap()
}

fn master(server: &TestServer) -> Session {
    Session::authorize(address(server.endpoint()), TestServer::KEY_ID, TestServer::KEY).unwrap()
}

#[test]
fn a_server_starts_within_milliseconds() {
    let mut took: Vec<_> = (0..20)
        .map(|_| {
            let started = Instant::now();
            let server = TestServer::start().unwrap();
            let ready = started.elapsed();
            drop(server);
            ready
        })
        .collect();
    took.sort();
    println!("start of a TestServer: median {:?}, all {took:?}", took[10]);
    // Twenty times what a machine that does nothing else needs.
    assert!(took[10].as_millis() < 1_000, "{took:?}");
}

#[test]
fn a_server_leaves_nothing_behind() {
    let parent = tempfile::tempdir().unwrap();
    let entries = || std::fs::read_dir(parent.path()).unwrap().count();
    let server = TestServer::options().inside(parent.path()).start().unwrap();
    assert_eq!(entries(), 1);
    let bucket = master(&server).create_bucket("left-behind");
    master(&server).upload(&bucket, "f", &vec![7; 100_000]);
    let gone = address(server.endpoint()).to_owned();
    let half = format!(
        "POST /b2api/v4/b2_list_buckets HTTP/1.1\r\nHost: {gone}\r\n\
                        Content-Length: 100\r\n\r\n{{"
    );
    let mut waiting = Connection::open(&gone).unwrap();
    waiting.send_raw(half.as_bytes()).unwrap();
    let started = Instant::now();
    server.stop().unwrap();
    assert!(started.elapsed().as_secs() < 10, "who sends half a request is not waited for");
    assert_eq!(entries(), 0);
    assert!(Connection::open(&gone).is_err(), "nobody listens any more");
    drop(TestServer::options().inside(parent.path()).start().unwrap());
    assert_eq!(entries(), 0);
}

#[test]
fn many_servers_stand_side_by_side() {
    let servers: Vec<TestServer> = std::thread::scope(|scope| {
        let starting: Vec<_> =
            (0..8).map(|_| scope.spawn(|| TestServer::start().unwrap())).collect();
        starting.into_iter().map(|one| one.join().unwrap()).collect()
    });
    for (number, server) in servers.iter().enumerate() {
        master(server).create_bucket(&format!("side-by-side-{number}"));
    }
    for (number, server) in servers.iter().enumerate() {
        let listed =
            master(server).ok("b2_list_buckets", &json!({"accountId": TestServer::KEY_ID}));
        let names: Vec<&Value> =
            listed["buckets"].as_array().unwrap().iter().map(|one| &one["bucketName"]).collect();
        assert_eq!(names, [&json!(format!("side-by-side-{number}"))]);
    }
}

#[test]
fn settings_are_checked_and_a_wrong_one_is_explained() {
    let start = |name: &str, value: &str| {
        TestServer::options().setting(name, value).start().err().map(|error| error.to_string())
    };
    assert_eq!(start("limits.part_size_min", "1"), None);
    let unknown = start("limits.part_size_mn", "1").unwrap();
    assert_eq!(
        unknown,
        "\"limits.part_size_mn\" is not a setting; the nearest is limits.part_size_min"
    );
    let wrong = start("http.workers", "many").unwrap();
    assert!(wrong.starts_with("http.workers (the program): must be a whole number"), "{wrong}");
    let open = start("listen", "0.0.0.0:0").unwrap();
    assert!(open.contains("not loopback"), "{open}");
    let server = TestServer::options().setting("test_controls", false).start().unwrap();
    let refused = server.reset().unwrap_err().to_string();
    assert!(refused.starts_with("POST /admin/reset answered 404"), "{refused}");
}

#[test]
fn the_clock_stands_until_it_is_moved() {
    let moment = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    let server = TestServer::options().clock_at(moment).start().unwrap();
    let session = master(&server);
    let bucket = session.create_bucket("standing-clock");
    let stored = session.upload(&bucket, "f", b"x");
    assert_eq!(stored["uploadTimestamp"], 1_700_000_000_000_i64);
    assert_eq!(server.clock(), Some(moment));
    server.advance_clock(Duration::from_hours(24)).unwrap();
    assert_eq!(server.clock(), Some(moment + Duration::from_hours(24)));
    let expired = session.call("b2_list_buckets", &json!({"accountId": TestServer::KEY_ID}));
    assert_eq!(expired.code(), "expired_auth_token");
    assert!(TestServer::start().unwrap().clock().is_none(), "by default it is the machine's");
    assert!(moment < SystemTime::now());
}

#[test]
fn native_394_a_seed_makes_the_test_mode_the_same_on_every_run() {
    let run = |seed: u64| -> Vec<u16> {
        let server = TestServer::options().seed(seed).start().unwrap();
        let session = master(&server);
        let bucket = session.create_bucket("seeded-bucket");
        let tries = (0..24).map(|number| {
            let more = [("X-Bz-Test-Mode", "fail_some_uploads")];
            session.try_upload(&bucket, &format!("f{number}"), b"x", &more).status
        });
        tries.collect()
    };
    let (first, second) = (run(1), run(1));
    assert_eq!(first, second);
    assert_eq!(first.iter().filter(|status| **status == 503).count(), 6);
    assert!((2..10).map(run).any(|other| other != first), "other seeds differ");
}

#[test]
fn a_dropped_server_cuts_off_what_is_in_flight() {
    let server = TestServer::start().unwrap();
    let session = master(&server);
    let bucket = session.create_bucket("cut-off");
    let (target, token) = session.upload_url(&bucket);
    let mut upload = Connection::open(&session.address).unwrap();
    let head = format!(
        "POST {target} HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\nX-Bz-File-Name: f\r\n\
         Content-Type: text/plain\r\nX-Bz-Content-Sha1: {}\r\nContent-Length: 2\r\n\r\na",
        sha1_hex(b"ab")
    );
    upload.send_raw(head.as_bytes()).unwrap();
    let answer = call(&session.address, "GET", "/", &[], b"");
    assert_eq!(answer.status, 403);
    let started = Instant::now();
    drop(server);
    assert!(started.elapsed().as_secs() < 10);
    assert!(upload.read(false).is_err(), "no answer any more");
}
