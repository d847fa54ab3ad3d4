//! The rights matrix: every operation of the table, every capability, every restriction, every
//! wrong credential.
//!
//! Generated from the operation table and `fixtures/operation_rights.toml`; an operation missing
//! on either side fails. Nothing a case asks for changes what is there, so that one comparison at
//! the end shows that no refusal had an effect.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::support::http::{Answer, Connection, call};
use crate::support::server::{MASTER_ID, MASTER_KEY, Server, Session, basic};

/// What the fixture says of an operation.
struct Right {
    capability: Option<String>,
    scope: String,
}

fn rights() -> BTreeMap<String, Right> {
    let mut all: BTreeMap<String, Right> = BTreeMap::new();
    let mut operation = String::new();
    for line in include_str!("../../fixtures/operation_rights.toml").lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            name.clone_into(&mut operation);
            all.insert(operation.clone(), Right { capability: None, scope: String::new() });
        } else if let Some((name, value)) = line.split_once(" = ") {
            let value = value.trim_matches('"').to_owned();
            let right = all.get_mut(&operation).unwrap();
            match name {
                "capability" => right.capability = Some(value),
                _ => right.scope = value,
            }
        }
    }
    all
}

/// Operations whose door is not a JSON call with an account token; they have tests of their own.
const OTHER_DOORS: [&str; 2] = ["b2_authorize_account", "b2_upload_file"];

fn tried() -> Vec<(String, Right)> {
    rights().into_iter().filter(|(name, _)| !OTHER_DOORS.contains(&name.as_str())).collect()
}

/// The house in which the matrix is tried: two buckets with files inside and outside of `in/`.
struct Stage {
    server: Server,
    master: Session,
    own: String,
    other: String,
    /// File ids by bucket id and name.
    files: BTreeMap<(String, String), String>,
}

const NAMES: [&str; 3] = ["in/f", "out/f", "inn/f"];

fn stage() -> Stage {
    let server = Server::start();
    let master = server.master();
    let (own, other) = (master.create_bucket("own-bucket"), master.create_bucket("other-bucket"));
    let mut files = BTreeMap::new();
    for bucket in [&own, &other] {
        for name in NAMES {
            let id = master.upload(bucket, name, b"x")["fileId"].as_str().unwrap().to_owned();
            files.insert((bucket.clone(), name.to_owned()), id);
        }
    }
    Stage { server, master, own, other, files }
}

impl Stage {
    /// A request that a caller with all rights may make, and that changes nothing.
    fn call(&self, operation: &str, token: &str, bucket: &str, name: &str) -> Answer {
        let mut connection = Connection::open(&self.server.address).unwrap();
        let id = &self.files[&(bucket.to_owned(), name.to_owned())];
        let bucket_name = if bucket == self.own { "own-bucket" } else { "other-bucket" };
        let prefix = name.strip_suffix('f').unwrap();
        let body = match operation {
            "b2_create_bucket" => {
                json!({"accountId": MASTER_ID, "bucketName": "x", "bucketType": "allPrivate"})
            }
            "b2_create_key" => {
                json!({"accountId": MASTER_ID, "keyName": "", "capabilities": ["listFiles"]})
            }
            "b2_delete_bucket" | "b2_list_buckets" => {
                json!({"accountId": MASTER_ID, "bucketId": bucket})
            }
            "b2_update_bucket" => {
                json!({"accountId": MASTER_ID, "bucketId": bucket, "ifRevisionIs": 0})
            }
            "b2_delete_file_version" => {
                // Almost the id of a file: well-formed, of the right bucket, of no version.
                let (head, last) = id.split_at(id.len() - 1);
                let other = if last == "0" { "1" } else { "0" };
                json!({"fileId": format!("{head}{other}"), "fileName": name})
            }
            "b2_delete_key" => json!({"applicationKeyId": "nothing"}),
            "b2_get_download_authorization" => {
                json!({"bucketId": bucket, "fileNamePrefix": prefix, "validDurationInSeconds": 60})
            }
            "b2_get_file_info" => json!({"fileId": id}),
            "b2_get_upload_url" => json!({"bucketId": bucket}),
            "b2_hide_file" => {
                json!({"bucketId": bucket, "fileName": format!("{prefix}never-there")})
            }
            "b2_list_file_names" | "b2_list_file_versions" => {
                json!({"bucketId": bucket, "prefix": prefix})
            }
            "b2_list_keys" => json!({"accountId": MASTER_ID}),
            "b2_download_file_by_id" => {
                let target = format!("/b2api/v4/b2_download_file_by_id?fileId={id}");
                return connection.call("GET", &target, &[("Authorization", token)], b"").unwrap();
            }
            "b2_download_file_by_name" => {
                let target = format!("/file/{bucket_name}/{name}");
                return connection.call("GET", &target, &[("Authorization", token)], b"").unwrap();
            }
            other => panic!("no request for {other}: add one"),
        };
        let (target, auth) = (format!("/b2api/v4/{operation}"), [("Authorization", token)]);
        connection.call("POST", &target, &auth, body.to_string().as_bytes()).unwrap()
    }

    /// Everything there is, as the master key sees it now.
    fn fingerprint(&self) -> Value {
        let master = self.server.master();
        let list = |bucket: &str| {
            master.ok("b2_list_file_versions", &json!({"bucketId": bucket, "maxFileCount": 1000}))
        };
        let buckets = master.ok("b2_list_buckets", &json!({"accountId": MASTER_ID}));
        json!([buckets, list(&self.own), list(&self.other)])
    }
}

fn allowed(answer: &Answer) -> bool {
    answer.status != 401 && answer.status != 403
}

#[test]
fn native_401_the_rights_file_and_the_operation_table_name_the_same_operations() {
    let rights = rights();
    let table = kiln::manifest::operations();
    let in_table: Vec<&str> = table.iter().map(|row| row.name).collect();
    let in_file: Vec<&str> = rights.keys().map(String::as_str).collect();
    assert_eq!(in_table, in_file);
    for row in &table {
        let right = &rights[row.name];
        assert_eq!(row.capability, right.capability.as_deref(), "{}", row.name);
        assert_eq!(row.scope, right.scope, "{}", row.name);
    }
}

#[test]
fn native_400_401_each_operation_needs_its_capability_and_no_other() {
    let stage = stage();
    let before = stage.fingerprint();
    let capabilities = kiln::manifest::capabilities();
    let mut cases = 0;
    for capability in &capabilities {
        let with_only = stage.master.with_key(&[capability], None, None);
        let rest: Vec<&str> =
            capabilities.iter().copied().filter(|one| one != capability).collect();
        let with_rest = stage.master.with_key(&rest, None, None);
        for (operation, right) in tried() {
            let needed = right.capability.as_deref() == Some(*capability);
            for (session, may) in [(&with_only, needed), (&with_rest, !needed)] {
                let answer = stage.call(&operation, &session.token, &stage.own, "in/f");
                let case = format!("{operation} with {capability}: {}", answer.status);
                assert_eq!(allowed(&answer), may, "{case}");
                if !may {
                    assert_eq!(answer.code(), "unauthorized", "{case}");
                }
                cases += 1;
            }
        }
    }
    assert_eq!(stage.fingerprint(), before, "nothing was changed");
    assert!(cases >= 30 * 16 * 2, "{cases} cases");
}

#[test]
fn native_400_reliability_b1_b2_b6_a_restricted_key_reaches_its_bucket_and_prefix_only() {
    let stage = stage();
    let before = stage.fingerprint();
    let account_wide = ["deleteBuckets", "deleteKeys", "listKeys", "writeBuckets", "writeKeys"];
    let fitting: Vec<&str> = kiln::manifest::capabilities()
        .into_iter()
        .filter(|one| !account_wide.contains(one))
        .collect();
    let on_bucket = stage.master.with_key(&fitting, Some(&[&stage.own]), None);
    let on_prefix = stage.master.with_key(&fitting, Some(&[&stage.own]), Some("in/"));
    let on_names = stage.master.with_key(&fitting, None, Some("in/"));
    let mut cases = 0;
    for (operation, right) in tried() {
        let holds = right.capability.as_deref().is_none_or(|needed| fitting.contains(&needed));
        for (session, bound, prefixed) in
            [(&on_bucket, true, false), (&on_prefix, true, true), (&on_names, false, true)]
        {
            for bucket in [&stage.own, &stage.other] {
                for name in NAMES {
                    let in_bucket = !bound || *bucket == stage.own;
                    let in_prefix = !prefixed || name.starts_with("in/");
                    let in_scope = match right.scope.as_str() {
                        "nothing" => true,
                        "account" => !bound,
                        "bucket" => in_bucket,
                        _ => in_bucket && in_prefix,
                    };
                    let answer = stage.call(&operation, &session.token, bucket, name);
                    let case =
                        format!("{operation}, bucket {in_bucket}, {name}: {}", answer.status);
                    assert_eq!(allowed(&answer), holds && in_scope, "{case}");
                    cases += 1;
                }
            }
        }
    }
    assert_eq!(stage.fingerprint(), before, "nothing was changed");
    assert!(cases >= 16 * 18, "{cases} cases");
}

#[test]
fn reliability_a1_to_a16_no_credential_but_the_right_one_opens_anything() {
    let stage = stage();
    let before = stage.fingerprint();
    let master = &stage.master;
    let (deleted_id, deleted_key) = master.create_key(&["listFiles", "readFiles"], None, None);
    let authorize = |id: &str, key: &str| Session::authorize(&stage.server.address, id, key);
    let deleted = authorize(&deleted_id, &deleted_key).unwrap();
    master.ok("b2_delete_key", &json!({"applicationKeyId": deleted_id}));
    let short = master.ok(
        "b2_create_key",
        &json!({"accountId": MASTER_ID, "keyName": "short", "validDurationInSeconds": 3600,
                "capabilities": ["listFiles", "readFiles"]}),
    );
    let text = |name: &str| short[name].as_str().unwrap().to_owned();
    let expired = authorize(&text("applicationKeyId"), &text("applicationKey")).unwrap();
    let (_, upload_token) = master.upload_url(&stage.own);
    let elsewhere = json!({"bucketId": stage.own, "fileNamePrefix": "out/",
                           "validDurationInSeconds": 604_800});
    let shared = master.ok("b2_get_download_authorization", &elsewhere);
    let download_token = shared["authorizationToken"].as_str().unwrap().to_owned();
    let old = stage.server.master();
    assert_eq!(stage.server.control("POST", "/admin/clock/advance?ms=3600001").status, 200);
    let truncated = old.token.split_at(old.token.len() - 1).0.to_owned();
    let basic = basic(MASTER_ID, MASTER_KEY);
    let mut cases = 0;
    for (operation, _) in tried() {
        for (credential, code) in [
            ("garbage", "bad_auth_token"),
            (truncated.as_str(), "bad_auth_token"),
            (upload_token.as_str(), "bad_auth_token"),
            (deleted.token.as_str(), "bad_auth_token"),
            (expired.token.as_str(), "expired_auth_token"),
            (basic.as_str(), "bad_auth_token"),
        ] {
            let answer = stage.call(&operation, credential, &stage.own, "in/f");
            let found = (answer.status, answer.code());
            assert_eq!(found, (401, code.to_owned()), "{operation} with {credential}");
            cases += 1;
        }
        let answer = stage.call(&operation, &download_token, &stage.own, "in/f");
        assert_eq!(answer.status, 401, "{operation} with a download token for another prefix");
    }
    assert_eq!(stage.server.control("POST", "/admin/clock/advance?ms=86400000").status, 200);
    for (operation, _) in tried() {
        let answer = stage.call(&operation, &old.token, &stage.own, "in/f");
        assert_eq!((answer.status, answer.code().as_str()), (401, "expired_auth_token"));
        cases += 1;
    }
    assert_eq!(stage.fingerprint(), before, "nothing was changed");
    assert!(cases >= 16 * 7, "{cases} cases");
}

#[test]
fn reliability_a13_another_account_reaches_nothing() {
    let stage = stage();
    let before = stage.fingerprint();
    let operator = basic(MASTER_ID, MASTER_KEY);
    let (target, body) = ("/admin/accounts", b"{\"name\":\"second\"}");
    let made = call(&stage.server.admin, "POST", target, &[("Authorization", &operator)], body);
    let made = made.json();
    let text = |name: &str| made[name].as_str().unwrap().to_owned();
    let (id, key) = (text("applicationKeyId"), text("applicationKey"));
    let second = Session::authorize(&stage.server.address, &id, &key).unwrap();
    for (operation, _) in tried() {
        let answer = stage.call(&operation, &second.token, &stage.own, "in/f");
        let told = String::from_utf8_lossy(&answer.body).into_owned();
        assert!(answer.status >= 400 || told.contains("\"buckets\":[]"), "{operation}: {told}");
        assert!(!told.contains("own-bucket"), "{operation} tells the name");
    }
    assert_eq!(stage.fingerprint(), before, "nothing was changed");
    let refused =
        call(&stage.server.admin, "GET", target, &[("Authorization", &basic(&id, &key))], b"");
    assert_eq!(refused.status, 401, "only the first account administers");
}
