//! What all calls have in common: who may call, addresses, methods, bodies.

use serde_json::{Value, json};

use super::{Client, NOWHERE, ORG, SECRET, check_refusal, new_remote, new_stream, prepared};
use crate::support::http::{Connection, call};
use crate::support::server::{MASTER_ID, MASTER_KEY, Server, basic};

#[test]
fn replication_170_a_wrong_or_missing_token_is_answered_in_the_shape_of_influxdb() {
    let server = Server::start();
    let master = server.master();
    let target = format!("/api/v2/remotes?orgID={ORG}");
    let key = format!("{MASTER_ID}:{MASTER_KEY}");
    for right in [
        format!("Token {key}"),
        format!("token {key}"),
        format!("Bearer {key}"),
        format!("Token {}", master.token),
        format!("Bearer {}", master.token),
        basic(MASTER_ID, MASTER_KEY),
    ] {
        assert_eq!(Client::with(&server, &right).get(&target), json!({"remotes": []}), "{right}");
    }
    for wrong in [
        String::new(),
        "Token".to_owned(),
        "Token ".to_owned(),
        "Token x".to_owned(),
        format!("Token {MASTER_ID}:wrong"),
        format!("Token {MASTER_ID}:"),
        format!("Token :{MASTER_KEY}"),
        format!("Digest {key}"),
        key.clone(),
        basic(MASTER_ID, "wrong"),
    ] {
        let answer = Client::with(&server, &wrong).send("GET", &target, b"");
        check_refusal(&answer);
        let said = (answer.status, answer.code(), answer.message());
        assert_eq!(said, (401, "unauthorized".to_owned(), "unauthorized access".to_owned()));
    }
    let answer = call(&server.admin, "GET", &target, &[], b"");
    check_refusal(&answer);
    assert_eq!(answer.status, 401);
    let nobody = Client::with(&server, "Token x:y");
    assert_eq!(nobody.send("GET", "/api/v2/nothing", b"").status, 401, "before any address");
}

#[test]
fn replication_170_a_right_that_is_missing_is_a_401_too() {
    let server = Server::start();
    let master = server.master();
    let (id, key) = master.create_key(&["readBucketReplications"], None, None);
    let reader = Client::with(&server, &format!("Token {id}:{key}"));
    assert_eq!(reader.get(&format!("/api/v2/remotes?orgID={ORG}")), json!({"remotes": []}));
    let (status, code, _) = reader.refused("POST", "/api/v2/remotes", &new_remote("n"));
    assert_eq!((status, code.as_str()), (401, "unauthorized"));
    let (id, key) = master.create_key(&["writeBucketReplications"], None, None);
    let writer = Client::with(&server, &format!("Token {id}:{key}"));
    let (status, ..) = writer.refused("GET", &format!("/api/v2/remotes?orgID={ORG}"), &Value::Null);
    assert_eq!(status, 401);
}

#[test]
fn replication_171_bad_json_and_wrong_types_are_refused_in_the_words_of_influxdb() {
    let server = Server::start();
    let client = Client::of(&server);
    for wrong in ["", "{", "[]", "null", "{\"name\":1}", "{\"name\":\"a\",\"name\":\"b\"}"] {
        for (method, target) in [("POST", "/api/v2/remotes"), ("POST", "/api/v2/replications")] {
            let body = if wrong == "{\"name\":1}" {
                new_remote("x").to_string().replace("\"x\"", "1")
            } else {
                wrong.to_owned()
            };
            let answer = client.send(method, target, body.as_bytes());
            if target.ends_with("replications") && wrong == "{\"name\":1}" {
                continue;
            }
            check_refusal(&answer);
            assert_eq!((answer.status, answer.code().as_str()), (400, "invalid"), "{body}");
            let said = answer.message();
            assert!(said.starts_with("failed to unmarshal json: "), "{body}: {said}");
        }
    }
    for wrong in [
        json!({"name": 5}),
        json!({"description": []}),
        json!({"allowInsecureTLS": "false"}),
        json!({"remoteURL": {}}),
        json!({"remoteAPIToken": 7}),
        json!({"orgID": 1}),
    ] {
        let body = super::with(&new_remote("n"), &wrong);
        let (status, code, said) = client.refused("POST", "/api/v2/remotes", &body);
        assert_eq!((status, code.as_str()), (400, "invalid"), "{wrong}");
        assert!(said.starts_with("failed to unmarshal json: "), "{wrong}: {said}");
    }
    for missing in ["name", "remoteURL", "remoteAPIToken"] {
        let body = super::without(&new_remote("n"), missing);
        let (status, _, said) = client.refused("POST", "/api/v2/remotes", &body);
        assert_eq!((status, said), (400, format!("required field {missing} is missing")));
    }
    let large = json!({"name": "x".repeat(2_000_000)});
    let (status, code, _) = client.refused("POST", "/api/v2/remotes", &large);
    assert_eq!((status, code.as_str()), (413, "request too large"));
}

#[test]
fn addresses_and_methods_that_there_are_not_have_the_same_shape() {
    let server = Server::start();
    let client = Client::of(&server);
    for target in ["/api/v2/buckets", "/api/v2/remotes/", "/api/v2/", "/api/v2/remotes/a/b"] {
        let (status, code, _) = client.refused("GET", target, &Value::Null);
        assert_eq!((status, code.as_str()), (404, "not found"), "{target}");
    }
    let answer = client.send("PUT", "/api/v2/remotes", b"{}");
    check_refusal(&answer);
    assert_eq!((answer.status, answer.code().as_str()), (405, "method not allowed"));
    assert_eq!(answer.header("allow"), Some("GET, POST"));
    let answer = client.send("DELETE", "/api/v2/replications/a/pause", b"");
    assert_eq!((answer.status, answer.header("allow")), (405, Some("POST")));
}

#[test]
fn organizations_are_accounts() {
    let server = Server::start();
    let client = Client::of(&server);
    let orgs = client.get("/api/v2/orgs");
    let first = &orgs["orgs"][0];
    assert_eq!((&first["id"], &first["name"]), (&json!(ORG), &json!(MASTER_ID)));
    for found in [
        format!("/api/v2/orgs?org={MASTER_ID}"),
        format!("/api/v2/orgs?orgID={ORG}"),
        format!("/api/v2/orgs?orgID={MASTER_ID}&limit=20&offset=0&descending=false"),
    ] {
        assert_eq!(client.get(&found)["orgs"][0]["id"], ORG, "{found}");
    }
    let (status, _, said) = client.refused("GET", "/api/v2/orgs?org=nobody", &Value::Null);
    assert_eq!((status, said.as_str()), (404, "organization name \"nobody\" not found"));
    let operator = Client::with(&server, &basic(MASTER_ID, MASTER_KEY));
    let made = operator.expect(200, "POST", "/admin/accounts", &json!({"name": "Second one"}));
    let (id, key) = (made["accountId"].as_str().unwrap(), made["applicationKey"].as_str().unwrap());
    assert_eq!(client.get("/api/v2/orgs")["orgs"].as_array().unwrap().len(), 1, "only his own");
    assert_eq!(operator.get("/api/v2/orgs")["orgs"].as_array().unwrap().len(), 2);
    let second = Client::with(&server, &format!("Token {id}:{key}"));
    let org = &second.get("/api/v2/orgs?org=Second%20one")["orgs"][0]["id"];
    assert_eq!(org, &json!(format!("0000{id}")));
    let (status, ..) = second.refused("GET", &format!("/api/v2/orgs?orgID={ORG}"), &Value::Null);
    assert_eq!(status, 404, "others are not there");
}

#[test]
fn the_operator_acts_for_any_account_and_everybody_else_for_his_own() {
    let server = Server::start();
    let operator = Client::with(&server, &basic(MASTER_ID, MASTER_KEY));
    let made = operator.expect(200, "POST", "/admin/accounts", &json!({"name": "second"}));
    let (id, key) = (made["accountId"].as_str().unwrap(), made["applicationKey"].as_str().unwrap());
    let second = Client::with(&server, &format!("Token {id}:{key}"));
    let theirs = super::with(&new_remote("theirs"), &json!({"orgID": id}));
    let remote = operator.expect(201, "POST", "/api/v2/remotes", &theirs);
    assert_eq!(remote["orgID"], *id, "as it was written");
    let remote = format!("/api/v2/remotes/{}", remote["id"].as_str().unwrap());
    assert_eq!(second.get(&remote)["name"], "theirs");
    let first = Client::of(&server);
    let (status, ..) = first.refused("GET", &remote, &Value::Null);
    assert_eq!(status, 404, "remotes of others are not there");
    let (status, ..) = first.refused("POST", "/api/v2/remotes", &theirs);
    assert_eq!(status, 401, "nor can they be made");
    assert_eq!(operator.get(&format!("{remote}?orgID={id}"))["name"], "theirs");
    let listed = first.call("GET", &format!("/api/v2/remotes?orgID={id}"), &Value::Null);
    assert_ne!(listed.json()["remotes"][0]["name"], "theirs");
}

#[test]
fn the_data_listener_has_these_calls_only_when_the_operator_opens_it() {
    let target = format!("/api/v2/remotes?orgID={ORG}");
    let ask = |server: &Server, target: &str| {
        let header = format!("Token {MASTER_ID}:{MASTER_KEY}");
        call(&server.address, "GET", target, &[("Authorization", &header)], b"")
    };
    let closed = Server::start_with(&[]);
    assert_eq!(ask(&closed, &target).status, 404);
    let open = Server::start_with(&["--streams-on-data-listener"]);
    assert_eq!(ask(&open, &target).json(), json!({"remotes": []}));
    assert_eq!(ask(&open, "/api/v2/orgs").json()["orgs"][0]["id"], ORG);
    assert_eq!(ask(&open, "/api/v2/buckets").status, 404);
    // There it is the name of a bucket, and no such authorization is known to S3.
    assert_eq!(ask(&open, "/health").status, 400, "what belongs to operators stays there");
}

#[test]
fn whoever_asks_is_told_that_the_server_lives() {
    let server = Server::start();
    let health = call(&server.admin, "GET", "/health", &[], b"");
    assert_eq!((health.status, &health.json()["status"]), (200, &json!("pass")));
    let ping = call(&server.admin, "GET", "/ping", &[], b"");
    assert_eq!((ping.status, ping.body.len()), (204, 0));
}

#[test]
fn a_connection_goes_on_after_each_kind_of_answer() {
    let server = Server::start();
    let header = format!("Token {MASTER_ID}:{MASTER_KEY}");
    let headers = [("Authorization", header.as_str())];
    let mut connection = Connection::open(&server.admin).unwrap();
    let body = new_remote("kept").to_string();
    let made = connection.call("POST", "/api/v2/remotes", &headers, body.as_bytes()).unwrap();
    assert_eq!(made.status, 201);
    let id = made.json()["id"].as_str().unwrap().to_owned();
    let target = format!("/api/v2/remotes/{id}");
    assert_eq!(
        connection.call("GET", &target, &headers, b"").unwrap().json()["remoteURL"],
        NOWHERE
    );
    assert_eq!(connection.call("DELETE", &target, &headers, b"").unwrap().status, 204);
    assert_eq!(connection.call("GET", &target, &headers, b"").unwrap().status, 404);
    assert_eq!(connection.call("POST", "/api/v2/remotes", &[], b"{}").unwrap().status, 401);
    assert_eq!(connection.call("GET", "/ping", &[], b"").unwrap().status, 204);
}

#[test]
fn calls_are_counted_under_the_names_of_influxdb() {
    let server = Server::start();
    let client = Client::of(&server);
    client.get(&format!("/api/v2/remotes?orgID={ORG}"));
    client.refused("GET", "/api/v2/remotes", &Value::Null);
    client.refused("POST", "/api/v2/replications?validate=true", &json!({"orgID": ORG}));
    let metrics = String::from_utf8(server.control("GET", "/metrics").body).unwrap();
    for line in [
        "service_remote_call_total{method=\"find_remotes\"} 2",
        "service_remote_error_total{method=\"find_remotes\",code=\"invalid\"} 1",
        "service_remote_duration_count{method=\"find_remotes\"} 2",
        "service_replication_call_total{method=\"validate_create_replication\"} 1",
    ] {
        assert!(metrics.lines().any(|one| one == line), "{line} in {metrics}");
    }
}

#[test]
fn replication_188_221_229_the_figures_of_a_queue_have_the_names_of_influxdb() {
    let (server, client, master, remote, bucket) = prepared();
    let made = client.stream(&new_stream("stream", &remote, &bucket));
    let id = made["id"].as_str().unwrap();
    master.upload(&bucket, "secret-name", b"12345");
    let metrics = String::from_utf8(server.control("GET", "/metrics").body).unwrap();
    for (name, kind, value) in [
        ("replications_queue_total_points_queued", "counter", Some("1")),
        ("replications_queue_total_bytes_queued", "counter", Some("5")),
        ("replications_queue_current_bytes_queued", "gauge", Some("261")),
        ("replications_queue_remote_write_bytes_sent", "counter", Some("0")),
        ("replications_queue_remote_write_bytes_dropped", "counter", Some("0")),
        ("replications_queue_points_failed_to_queue", "counter", Some("0")),
        ("replications_queue_bytes_failed_to_queue", "counter", Some("0")),
        // Its series begin with the first failed attempt.
        ("replications_queue_remote_write_errors", "counter", None),
    ] {
        let kind = format!("# TYPE {name} {kind}");
        assert!(metrics.lines().any(|line| line == kind), "{kind} in {metrics}");
        if let Some(value) = value {
            let series = format!("{name}{{replicationID=\"{id}\"}} {value}");
            assert!(metrics.lines().any(|line| line == series), "{series} in {metrics}");
        }
    }
    let drift = format!("kiln_replication_accounting_drift_bytes{{stream=\"{id}\"}} 0");
    assert!(metrics.lines().any(|line| line == drift), "{drift} in {metrics}");
    assert!(metrics.contains("influxdb_remotes_total 1\n"), "{metrics}");
    assert!(!metrics.contains("secret-name") && !metrics.contains(SECRET), "{metrics}");
}
