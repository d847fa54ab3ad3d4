//! The rights matrix: every operation against every capability, restriction and credential.
//!
//! What is expected comes from `fixtures/rights.toml`; what is asked comes from the server's own
//! table of operations and list of capabilities, so that neither can grow without the other.
//! Reliability section 5, statements R63 and A1 to A18; native section 4.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};

use kiln::manifest::{OperationRow, capabilities, operations};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::support::http::{Answer, Connection};
use crate::support::server::{MASTER_ID, MASTER_KEY, Server, basic, sha1_hex};

const FIXTURE: &str = include_str!("../../fixtures/rights.toml");

/// Fewer cases of any operation than these mean that a part of the matrix has dropped out silently: a
/// key of each set of capabilities with each restriction; one of each set that is deleted, one that is
/// over, and one of another account; each wrong credential.
const MATRIX_CASES_MIN: usize = 591;
const GONE_CASES_MIN: usize = 183;
const CREDENTIAL_CASES_MIN: usize = 24;
/// Of all operations: how many fields, headers and members have rights of their own differs.
const FIELD_CASES_MIN: usize = 114;

/// The names that requests are about.
const PREFIX: &str = "a/";
const SEEN_NAME: &str = "a/seen.txt";
const RIGHT_BUCKET: &str = "rights-right";
const OTHER_BUCKET: &str = "rights-other";

/// Life of the keys that are to expire, in seconds, and a moment behind it in milliseconds.
const KEY_LIFE_S: i64 = 1000;
const PAST_KEY_LIFE_MS: i64 = 1_001_000;
/// Longer than any token lives but download tokens of a week.
const PAST_TOKEN_LIFE_MS: i64 = 25 * 60 * 60 * 1000;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rights {
    never_on_bucket_keys: BTreeSet<String>,
    operations: BTreeMap<String, Right>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Right {
    needs: Vec<String>,
    scope: String,
    foreign: String,
    #[serde(default = "bad_auth_token")]
    anonymous: String,
    /// Capabilities of which any one will do, where `needs` is empty.
    #[serde(default)]
    any: Vec<String>,
    #[serde(default)]
    conditional: BTreeMap<String, String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    lacking: Option<String>,
    #[serde(default)]
    reveals: BTreeMap<String, String>,
}

fn bad_auth_token() -> String {
    "bad_auth_token".to_owned()
}

fn rights() -> Rights {
    toml::from_str(FIXTURE).unwrap()
}

/// What an answer must be.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Expected {
    Allowed,
    /// 401 with this code.
    Refused(String),
    /// Status and code: a refusal that does not tell that there is something to be refused.
    Exactly(String),
}

/// A restriction of keys, seen from the bucket and the names that the requests are about.
struct Restriction {
    label: &'static str,
    buckets: Option<&'static [&'static str]>,
    prefix: Option<&'static str>,
}

const RESTRICTIONS: [Restriction; 11] = [
    Restriction { label: "anywhere", buckets: None, prefix: None },
    Restriction { label: "right bucket", buckets: Some(&[RIGHT_BUCKET]), prefix: None },
    Restriction { label: "other bucket", buckets: Some(&[OTHER_BUCKET]), prefix: None },
    Restriction { label: "both", buckets: Some(&[RIGHT_BUCKET, OTHER_BUCKET]), prefix: None },
    Restriction { label: "right prefix", buckets: Some(&[RIGHT_BUCKET]), prefix: Some("a/") },
    Restriction { label: "shorter prefix", buckets: Some(&[RIGHT_BUCKET]), prefix: Some("a") },
    Restriction { label: "other prefix", buckets: Some(&[RIGHT_BUCKET]), prefix: Some("b/") },
    Restriction { label: "sibling prefix", buckets: Some(&[RIGHT_BUCKET]), prefix: Some("ab") },
    Restriction { label: "case prefix", buckets: Some(&[RIGHT_BUCKET]), prefix: Some("A/") },
    Restriction { label: "prefix only", buckets: None, prefix: Some("a/") },
    Restriction { label: "other prefix only", buckets: None, prefix: Some("b/") },
];

impl Restriction {
    fn reaches_bucket(&self) -> bool {
        self.buckets.is_none_or(|buckets| buckets.contains(&RIGHT_BUCKET))
    }

    fn reaches_names(&self) -> bool {
        self.prefix.is_none_or(|prefix| PREFIX.starts_with(prefix))
    }
}

impl Right {
    fn expected(&self, held: &BTreeSet<&str>, restriction: &Restriction) -> Expected {
        let holds = self.needs.iter().all(|need| held.contains(need.as_str()))
            && (self.any.is_empty() || self.any.iter().any(|one| held.contains(one.as_str())));
        let reaches = match self.scope.as_str() {
            "nothing" => true,
            "account" => restriction.buckets.is_none(),
            "bucket" => restriction.reaches_bucket(),
            "prefix" | "name" => restriction.reaches_bucket() && restriction.reaches_names(),
            unknown => panic!("unknown scope {unknown}"),
        };
        match &self.lacking {
            Some(answer) if !holds => Expected::Exactly(answer.clone()),
            _ if holds && reaches => Expected::Allowed,
            _ => refused("unauthorized"),
        }
    }
}

fn refused(code: &str) -> Expected {
    Expected::Refused(code.to_owned())
}

/// An upload URL (its path) with its token.
type Pair = (String, String);

/// The doors that are opened with tokens of their own, and not with account tokens.
const UPLOAD_DOORS: [&str; 2] = ["b2_upload_file", "b2_upload_part"];

fn is_upload(operation: &str) -> bool {
    UPLOAD_DOORS.contains(&operation)
}

/// A key with its account token and, where it may have them, its upload URLs and tokens.
struct Key {
    label: String,
    capabilities: BTreeSet<&'static str>,
    id: String,
    secret: String,
    token: String,
    pairs: BTreeMap<&'static str, Pair>,
}

/// One server with two accounts, and what the requests are about.
struct World {
    server: Server,
    connection: RefCell<Connection>,
    /// Tokens of the first account's and the other account's master keys.
    master: RefCell<String>,
    stranger: String,
    stranger_account: String,
    stranger_key: (String, String),
    buckets: BTreeMap<&'static str, String>,
    seen_file: String,
    /// Things that allowed requests use up; each is made anew after use.
    doomed_bucket: RefCell<String>,
    doomed_key: RefCell<String>,
    doomed_file: RefCell<String>,
    doomed_name: RefCell<String>,
    /// Unfinished large files: one that stays, one to be finished, one to be canceled.
    large: RefCell<String>,
    complete_large: RefCell<String>,
    doomed_large: RefCell<String>,
    made: Cell<u32>,
}

impl World {
    fn new() -> Self {
        let server = Server::start_with(&["--test-controls", "--limits-part-size-min", "1"]);
        let connection = RefCell::new(Connection::open(&server.address).unwrap());
        let mut world = Self {
            connection,
            server,
            master: RefCell::default(),
            stranger: String::new(),
            stranger_account: String::new(),
            stranger_key: Default::default(),
            buckets: BTreeMap::new(),
            seen_file: String::new(),
            doomed_bucket: RefCell::default(),
            doomed_key: RefCell::default(),
            doomed_file: RefCell::default(),
            doomed_name: RefCell::default(),
            large: RefCell::default(),
            complete_large: RefCell::default(),
            doomed_large: RefCell::default(),
            made: Cell::new(0),
        };
        world.enter();
        let mut admin = Connection::open(&world.server.admin).unwrap();
        let credentials = basic(MASTER_ID, MASTER_KEY);
        let headers = [("Authorization", credentials.as_str())];
        let made =
            admin.call("POST", "/admin/accounts", &headers, b"{\"name\":\"other\"}").unwrap();
        assert_eq!(made.status, 200, "{made:?}");
        let made = made.json();
        let text = |name: &str| made[name].as_str().unwrap().to_owned();
        world.stranger_account = text("accountId");
        world.stranger_key = (text("applicationKeyId"), text("applicationKey"));
        world.stranger = world.enter_stranger();
        for name in [RIGHT_BUCKET, OTHER_BUCKET] {
            let id = world.make_bucket(name);
            world.buckets.insert(name, id);
        }
        world.seen_file = world.upload(SEEN_NAME);
        let large = world.begin_large("a/large.bin");
        world.large.replace(large);
        for operation in operations() {
            world.renew(operation.name);
        }
        world
    }

    /// Authorizes the master key, again after time has passed.
    fn enter(&self) {
        let entered = self.authorize(MASTER_ID, MASTER_KEY).json();
        self.master.replace(entered["authorizationToken"].as_str().unwrap().to_owned());
    }

    fn enter_stranger(&self) -> String {
        let (id, secret) = &self.stranger_key;
        let entered = self.authorize(id, secret).json();
        entered["authorizationToken"].as_str().unwrap().to_owned()
    }

    fn send(&self, request: &Request) -> Answer {
        let headers: Vec<(&str, &str)> =
            request.headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let mut connection = self.connection.borrow_mut();
        let answer =
            connection.call(request.method, &request.target, &headers, &request.body).unwrap();
        if answer.header("connection") == Some("close") {
            *connection = Connection::open(&self.server.address).unwrap();
        }
        answer
    }

    fn authorize(&self, id: &str, secret: &str) -> Answer {
        let credentials = basic(id, secret);
        self.send(&Request::json("b2_authorize_account", Some(&credentials), &json!({})))
    }

    fn ok(&self, operation: &str, token: &str, fields: &Value) -> Value {
        let answer = self.send(&Request::json(operation, Some(token), fields));
        assert_eq!(answer.status, 200, "{operation} {fields}: {answer:?}");
        answer.json()
    }

    fn as_master(&self, operation: &str, fields: &Value) -> Value {
        let token = self.master.borrow().clone();
        self.ok(operation, &token, fields)
    }

    fn fresh(&self, stem: &str) -> String {
        self.made.set(self.made.get() + 1);
        format!("{stem}-{}", self.made.get())
    }

    fn right(&self) -> &str {
        &self.buckets[RIGHT_BUCKET]
    }

    fn make_bucket(&self, name: &str) -> String {
        let fields = json!({
            "accountId": MASTER_ID, "bucketName": name, "bucketType": "allPrivate",
            "fileLockEnabled": true,
        });
        self.as_master("b2_create_bucket", &fields)["bucketId"].as_str().unwrap().to_owned()
    }

    fn upload(&self, name: &str) -> String {
        let pair = self.pair("b2_upload_file", &self.master.borrow()).unwrap();
        let answer = self.send(&upload_request("b2_upload_file", &pair.0, Some(&pair.1), name));
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()["fileId"].as_str().unwrap().to_owned()
    }

    /// Begins a large file and gives it the two parts it needs.
    fn begin_large(&self, name: &str) -> String {
        let fields =
            json!({"bucketId": self.right(), "fileName": name, "contentType": "text/plain"});
        let started = self.as_master("b2_start_large_file", &fields);
        let id = started["fileId"].as_str().unwrap().to_owned();
        for number in [1, 2] {
            let part = json!({
                "sourceFileId": self.seen_file, "largeFileId": id, "partNumber": number,
            });
            self.as_master("b2_copy_part", &part);
        }
        id
    }

    /// An upload URL (its path) and token for the right bucket or the large file in it, when the
    /// token may have them.
    fn pair(&self, door: &str, token: &str) -> Option<Pair> {
        let (operation, fields) = match door {
            "b2_upload_file" => ("b2_get_upload_url", json!({"bucketId": self.right()})),
            "b2_upload_part" => ("b2_get_upload_part_url", json!({"fileId": *self.large.borrow()})),
            other => panic!("{other} has no upload URL"),
        };
        let answer = self.send(&Request::json(operation, Some(token), &fields));
        if answer.status != 200 {
            return None;
        }
        let pair = answer.json();
        let url = pair["uploadUrl"].as_str().unwrap();
        let path = url.splitn(4, '/').nth(3).unwrap();
        Some((format!("/{path}"), pair["authorizationToken"].as_str().unwrap().to_owned()))
    }

    fn pairs(&self, token: &str) -> BTreeMap<&'static str, Pair> {
        UPLOAD_DOORS.into_iter().filter_map(|door| Some((door, self.pair(door, token)?))).collect()
    }

    fn try_key(
        &self,
        maker: (&str, &str),
        capabilities: &BTreeSet<&'static str>,
        restriction: &Restriction,
        life_s: Option<i64>,
    ) -> Answer {
        let (token, account) = maker;
        let ids: Option<Vec<&String>> =
            restriction.buckets.map(|names| names.iter().map(|name| &self.buckets[name]).collect());
        let fields = json!({
            "accountId": account, "keyName": "matrix", "capabilities": capabilities,
            "bucketIds": ids, "namePrefix": restriction.prefix, "validDurationInSeconds": life_s,
        });
        self.send(&Request::json("b2_create_key", Some(token), &fields))
    }

    fn key_of(
        &self,
        maker: (&str, &str),
        capabilities: BTreeSet<&'static str>,
        restriction: &Restriction,
        life_s: Option<i64>,
    ) -> Key {
        let made = self.try_key(maker, &capabilities, restriction, life_s);
        assert_eq!(made.status, 200, "{capabilities:?} {}: {made:?}", restriction.label);
        let made = made.json();
        let text = |name: &str| made[name].as_str().unwrap().to_owned();
        let (id, secret) = (text("applicationKeyId"), text("applicationKey"));
        let entered = self.authorize(&id, &secret);
        assert_eq!(entered.status, 200, "{entered:?}");
        let token = entered.json()["authorizationToken"].as_str().unwrap().to_owned();
        let pairs = self.pairs(&token);
        let label = if capabilities.len() == 1 {
            format!("only {:?}", capabilities.first().unwrap())
        } else {
            let all = kiln::manifest::capabilities();
            let lacking: Vec<_> = all.iter().filter(|one| !capabilities.contains(*one)).collect();
            format!("all but {lacking:?}")
        };
        Key {
            label: format!("{label}, {}", restriction.label),
            capabilities,
            id,
            secret,
            token,
            pairs,
        }
    }

    fn key(&self, capabilities: BTreeSet<&'static str>, restriction: &Restriction) -> Key {
        let master = self.master.borrow().clone();
        self.key_of((&master, MASTER_ID), capabilities, restriction, None)
    }

    /// Makes anew what an allowed request has used up.
    fn renew(&self, operation: &str) {
        match operation {
            "b2_delete_bucket" => {
                *self.doomed_bucket.borrow_mut() = self.make_bucket(&self.fresh("rights-doomed"));
            }
            "b2_delete_key" => {
                let fields = json!({
                    "accountId": MASTER_ID, "keyName": "doomed", "capabilities": ["listFiles"],
                });
                let made = self.as_master("b2_create_key", &fields);
                self.doomed_key.replace(made["applicationKeyId"].as_str().unwrap().to_owned());
            }
            "b2_delete_file_version" => {
                *self.doomed_file.borrow_mut() = self.upload("a/doomed.txt");
            }
            "b2_hide_file" => {
                let name = self.fresh("a/hidden");
                self.upload(&name);
                *self.doomed_name.borrow_mut() = name;
            }
            "b2_finish_large_file" => {
                let large = self.begin_large("a/complete.bin");
                self.complete_large.replace(large);
            }
            "b2_cancel_large_file" => {
                let large = self.begin_large("a/canceled.bin");
                self.doomed_large.replace(large);
            }
            _ => {}
        }
    }

    /// Undoes what would pile up, and makes anew what was used up.
    fn tidy(&self, operation: &str, answer: &Answer) {
        if operation == "b2_create_bucket" {
            let fields = json!({"accountId": MASTER_ID, "bucketId": answer.json()["bucketId"]});
            self.as_master("b2_delete_bucket", &fields);
        }
        if operation == "b2_start_large_file" {
            self.as_master("b2_cancel_large_file", &json!({"fileId": answer.json()["fileId"]}));
        }
        if operation == "b2_update_bucket" {
            let fields = json!({
                "accountId": MASTER_ID, "bucketId": self.right(),
                "defaultRetention": {"mode": null},
            });
            self.as_master("b2_update_bucket", &fields);
        }
        self.renew(operation);
    }

    /// The fields that make a JSON operation succeed; None where the door is another.
    fn fields(&self, operation: &str, account: &str) -> Option<Value> {
        let bucket = self.right();
        Some(match operation {
            "b2_cancel_large_file" => json!({"fileId": *self.doomed_large.borrow()}),
            "b2_copy_file" => json!({"sourceFileId": self.seen_file, "fileName": "a/copied.txt"}),
            "b2_copy_part" => json!({
                "sourceFileId": self.seen_file, "largeFileId": *self.large.borrow(),
                "partNumber": 1,
            }),
            "b2_create_bucket" => json!({
                "accountId": account, "bucketName": self.fresh("rights-made"),
                "bucketType": "allPrivate",
            }),
            "b2_create_key" => json!({
                "accountId": account, "keyName": "made", "capabilities": ["listFiles"],
            }),
            "b2_delete_bucket" => {
                json!({"accountId": account, "bucketId": *self.doomed_bucket.borrow()})
            }
            "b2_delete_file_version" => {
                json!({"fileId": *self.doomed_file.borrow(), "fileName": "a/doomed.txt"})
            }
            "b2_delete_key" => json!({"applicationKeyId": *self.doomed_key.borrow()}),
            "b2_finish_large_file" => json!({
                "fileId": *self.complete_large.borrow(),
                "partSha1Array": [sha1_hex(b"sent"), sha1_hex(b"sent")],
            }),
            "b2_set_bucket_notification_rules" => {
                let rule = json!({
                    "name": self.fresh("rights"), "eventTypes": ["b2:ObjectCreated:Copy"],
                    "isEnabled": false, "objectNamePrefix": "", "targetConfiguration":
                    {"targetType": "webhook", "url": "https://hooks.example/"},
                });
                json!({"bucketId": bucket, "eventNotificationRules": [rule]})
            }
            "b2_get_download_authorization" => json!({
                "bucketId": bucket, "fileNamePrefix": PREFIX, "validDurationInSeconds": 60,
            }),
            "b2_get_file_info" => json!({"fileId": self.seen_file}),
            "b2_get_upload_part_url" | "b2_list_parts" => {
                json!({"fileId": *self.large.borrow()})
            }
            "b2_get_bucket_notification_rules" | "b2_get_upload_url" => {
                json!({"bucketId": bucket})
            }
            "b2_hide_file" => {
                json!({"bucketId": bucket, "fileName": *self.doomed_name.borrow()})
            }
            "b2_list_buckets" => json!({"accountId": account, "bucketId": bucket}),
            "b2_list_file_names" | "b2_list_file_versions" => {
                json!({"bucketId": bucket, "prefix": PREFIX, "maxFileCount": 1})
            }
            "b2_list_unfinished_large_files" => {
                json!({"bucketId": bucket, "namePrefix": PREFIX, "maxFileCount": 1})
            }
            "b2_start_large_file" => json!({
                "bucketId": bucket, "fileName": "a/begun.bin", "contentType": "text/plain",
            }),
            "b2_list_keys" => json!({"accountId": account, "maxKeyCount": 1}),
            "b2_update_file_legal_hold" => {
                json!({"fileId": self.seen_file, "fileName": SEEN_NAME, "legalHold": "off"})
            }
            "b2_update_file_retention" => json!({
                "fileId": self.seen_file, "fileName": SEEN_NAME,
                "fileRetention": value_of("fileRetention"),
            }),
            "b2_update_bucket" => {
                json!({"accountId": account, "bucketId": bucket, "bucketType": "allPrivate"})
            }
            _ => return None,
        })
    }

    /// The request for an operation at its door, with whatever credentials.
    fn request(
        &self,
        operation: &str,
        method: &'static str,
        account: &str,
        credentials: Option<&str>,
        upload_target: &str,
    ) -> Request {
        let mut request = match operation {
            "b2_authorize_account" => Request::json(operation, credentials, &json!({})),
            door if is_upload(door) => {
                return upload_request(door, upload_target, credentials, "a/sent.txt");
            }
            "b2_download_file_by_name" => {
                Request::plain(format!("/file/{RIGHT_BUCKET}/{SEEN_NAME}"), credentials)
            }
            "b2_download_file_by_id" if method == "POST" => {
                Request::json(operation, credentials, &json!({"fileId": self.seen_file}))
            }
            "b2_download_file_by_id" => {
                let target = format!("/b2api/v4/{operation}?fileId={}", self.seen_file);
                Request::plain(target, credentials)
            }
            _ => {
                let fields = self.fields(operation, account);
                let fields =
                    fields.unwrap_or_else(|| panic!("{operation}: no request is written for it"));
                if method == "GET" {
                    Request::query(operation, credentials, &fields)
                } else {
                    Request::json(operation, credentials, &fields)
                }
            }
        };
        if operation == "b2_authorize_account" && method == "GET" {
            request.body.clear();
        }
        request.method = method;
        request
    }

    /// Everything that requests could have changed.
    fn fingerprint(&self) -> Vec<Value> {
        let account = json!({"accountId": MASTER_ID, "maxKeyCount": 10_000});
        let mut seen = vec![
            self.as_master("b2_list_keys", &account),
            self.as_master("b2_list_buckets", &json!({"accountId": MASTER_ID})),
        ];
        for id in self.buckets.values() {
            let fields = json!({"bucketId": id, "maxFileCount": 10_000});
            seen.push(self.as_master("b2_list_file_versions", &fields));
            let fields = json!({"bucketId": id});
            seen.push(self.as_master("b2_get_bucket_notification_rules", &fields));
        }
        let strangers = json!({"accountId": self.stranger_account});
        seen.push(self.ok("b2_list_buckets", &self.stranger, &strangers));
        seen
    }
}

/// A request, ready to be sent.
struct Request {
    method: &'static str,
    target: String,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

impl Request {
    fn plain(target: String, credentials: Option<&str>) -> Self {
        let headers =
            credentials.map(|text| ("Authorization", text.to_owned())).into_iter().collect();
        Self { method: "GET", target, headers, body: Vec::new() }
    }

    fn json(operation: &str, credentials: Option<&str>, fields: &Value) -> Self {
        let request = Self::plain(format!("/b2api/v4/{operation}"), credentials);
        Self { method: "POST", body: fields.to_string().into_bytes(), ..request }
    }

    fn query(operation: &str, credentials: Option<&str>, fields: &Value) -> Self {
        let pairs: Vec<String> = fields
            .as_object()
            .unwrap()
            .iter()
            .map(|(name, value)| {
                let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                let encoded: String = text.bytes().map(|byte| format!("%{byte:02X}")).collect();
                format!("{name}={encoded}")
            })
            .collect();
        Self::plain(format!("/b2api/v4/{operation}?{}", pairs.join("&")), credentials)
    }
}

fn upload_request(door: &str, target: &str, credentials: Option<&str>, name: &str) -> Request {
    let request = Request::plain(target.to_owned(), credentials);
    let mut headers = request.headers;
    let body = b"sent".to_vec();
    if door == "b2_upload_part" {
        headers.push(("X-Bz-Part-Number", "1".to_owned()));
    } else {
        headers.push(("X-Bz-File-Name", name.to_owned()));
        headers.push(("Content-Type", "text/plain".to_owned()));
    }
    headers.push(("X-Bz-Content-Sha1", sha1_hex(&body)));
    Request { method: "POST", target: request.target, headers, body }
}

/// Counts cases and keeps what was not as expected.
#[derive(Default)]
struct Tally {
    /// By operation.
    cases: BTreeMap<String, usize>,
    mismatches: Vec<String>,
}

impl Tally {
    fn count(&mut self, operation: &str) {
        *self.cases.entry(operation.to_owned()).or_default() += 1;
    }

    /// `case` begins with the name of the operation.
    fn compare(&mut self, case: &str, method: &str, answer: &Answer, expected: &Expected) {
        let operation = case.split(|letter: char| !letter.is_alphanumeric() && letter != '_');
        self.count(operation.into_iter().next().unwrap());
        let fits = match expected {
            Expected::Allowed => (200..300).contains(&answer.status),
            // An answer to HEAD has no body that could carry a code.
            Expected::Refused(code) => {
                answer.status == 401 && (method == "HEAD" || answer.code() == *code)
            }
            Expected::Exactly(wanted) if wanted == "200" => answer.status == 200,
            Expected::Exactly(wanted) => *wanted == format!("{} {}", answer.status, answer.code()),
        };
        if !fits {
            let body = String::from_utf8_lossy(&answer.body);
            self.mismatches.push(format!(
                "{method} {case}: expected {expected:?}, got {} {body}",
                answer.status
            ));
        }
    }

    /// A refusal must not repeat what proves anything.
    fn names_no_secret(&mut self, case: &str, answer: &Answer, secrets: &[&str]) {
        let body = String::from_utf8_lossy(&answer.body);
        if secrets.iter().any(|secret| secret.len() > 8 && body.contains(secret)) {
            self.mismatches.push(format!("{case}: the refusal repeats a secret: {body}"));
        }
    }

    fn unchanged(&mut self, block: &str, before: &[Value], after: &[Value]) {
        if before != after {
            self.mismatches.push(format!("{block}: a refused request has changed the store"));
        }
    }

    #[track_caller]
    #[expect(clippy::print_stdout, reason = "the number of cases is part of the result")]
    fn finish(self, what: &str, least: usize, of_each: usize) {
        let cases: usize = self.cases.values().sum();
        println!("{what}: {cases} cases");
        let shown: Vec<&String> = self.mismatches.iter().take(40).collect();
        assert!(
            shown.is_empty(),
            "{} of {} {what} cases are wrong:\n{shown:#?}",
            self.mismatches.len(),
            cases
        );
        assert!(cases >= least, "{what}: only {cases} cases, {least} are the least");
        for operation in operations() {
            let cases = self.cases.get(operation.name).copied().unwrap_or_default();
            let name = operation.name;
            assert!(cases >= of_each, "{what}: {name} has only {cases} cases, not {of_each}");
        }
    }
}

/// Every single capability, all but each, and all of those that may go together.
fn capability_sets(usable: &[&'static str]) -> Vec<BTreeSet<&'static str>> {
    let all: BTreeSet<&'static str> = usable.iter().copied().collect();
    let single = usable.iter().map(|&one| BTreeSet::from([one]));
    let without = usable.iter().map(|one| {
        let mut most = all.clone();
        most.remove(one);
        most
    });
    single.chain(without).chain([all.clone()]).collect()
}

/// What a key of the matrix sends to an operation's door.
fn credentials_at<'k>(operation: &str, key: &'k Key, basic: &'k str) -> &'k str {
    match (operation, key.pairs.get(operation)) {
        ("b2_authorize_account", _) => basic,
        (_, Some((_, token))) => token,
        _ => &key.token,
    }
}

/// Sends one operation with each key. Refusals come first and between two fingerprints, since
/// allowed requests change the store.
fn walk(
    world: &World,
    tally: &mut Tally,
    operation: &OperationRow,
    account: &str,
    keys: Vec<(&Key, Expected)>,
) {
    let name = operation.name;
    // Downloads are looked at by GET; all methods have their turn with the credentials.
    let is_download = name.starts_with("b2_download");
    let method = if is_download { "GET" } else { "POST" };
    let spare = is_upload(name).then(|| world.pair(name, &world.master.borrow()).unwrap());
    let (spare_target, _) = spare.unwrap_or_default();
    let (allowed, refused): (Vec<_>, Vec<_>) =
        keys.into_iter().partition(|(_, expected)| is_success(expected));
    let mut ask = |(key, expected): (&Key, Expected)| {
        let credentials = basic(&key.id, &key.secret);
        let proof = credentials_at(name, key, &credentials);
        let target = key.pairs.get(name).map_or(&spare_target, |(target, _)| target);
        let answer = world.send(&world.request(name, method, account, Some(proof), target));
        let case = format!("{name}, {}", key.label);
        tally.compare(&case, method, &answer, &expected);
        if answer.status < 300 {
            world.tidy(name, &answer);
        } else {
            tally.names_no_secret(&case, &answer, &[&key.token, &key.secret, &credentials]);
        }
    };
    let before = world.fingerprint();
    refused.into_iter().for_each(&mut ask);
    let after = world.fingerprint();
    allowed.into_iter().for_each(&mut ask);
    tally.unchanged(name, &before, &after);
}

fn is_success(expected: &Expected) -> bool {
    match expected {
        Expected::Allowed => true,
        Expected::Exactly(answer) => answer == "200",
        Expected::Refused(_) => false,
    }
}

/// Whether the account is named in the request, so that a stranger can name the wrong one.
fn names_account(operation: &str) -> bool {
    ["b2_create_bucket", "b2_create_key", "b2_list_buckets", "b2_list_keys"].contains(&operation)
}

#[test]
fn reliability_r63_every_operation_of_the_table_stands_in_the_rights_file_and_nothing_else() {
    let rights = rights();
    let table = operations();
    let in_table: BTreeSet<&str> = table.iter().map(|row| row.name).collect();
    let in_file: BTreeSet<&str> = rights.operations.keys().map(String::as_str).collect();
    assert_eq!(in_table, in_file);
    for row in table {
        let right = &rights.operations[row.name];
        assert_eq!(row.capability, right.needs.first().map(String::as_str), "{}", row.name);
        let reads_too = row.name.starts_with("b2_copy_") && right.needs[1..] == ["readFiles"];
        assert!(right.needs.len() <= 1 || reads_too, "{}: the table holds one", row.name);
        assert_eq!(row.scope, right.scope, "{}", row.name);
    }
    let known: BTreeSet<String> = capabilities().into_iter().map(str::to_owned).collect();
    assert_eq!(known.len(), 30);
    let named = rights.operations.values().flat_map(|right| {
        right
            .needs
            .iter()
            .chain(right.conditional.values())
            .chain(right.headers.values())
            .chain(right.reveals.values())
    });
    for capability in named.chain(&rights.never_on_bucket_keys) {
        assert!(known.contains(capability), "no capability is called {capability}");
    }
}

#[test]
fn native_400_401_every_right_opens_its_operations_where_it_reaches_and_nothing_else() {
    let rights = rights();
    let world = World::new();
    let every = capabilities();
    let fitting: Vec<&'static str> =
        every.iter().copied().filter(|one| !rights.never_on_bucket_keys.contains(*one)).collect();
    let mut tally = Tally::default();

    let master = world.master.borrow().clone();
    let nothing = BTreeSet::new();
    let none = world.try_key((&master, MASTER_ID), &nothing, &RESTRICTIONS[0], None);
    assert_eq!(none.status, 400, "a key without capabilities: {none:?}");
    for misfit in every.iter().filter(|one| rights.never_on_bucket_keys.contains(**one)) {
        let set = BTreeSet::from([*misfit]);
        let answer = world.try_key((&master, MASTER_ID), &set, &RESTRICTIONS[1], None);
        let expected = Expected::Exactly("400 bad_request".to_owned());
        tally.compare(&format!("b2_create_key of {misfit}"), "POST", &answer, &expected);
    }

    let mut keys = Vec::new();
    for restriction in &RESTRICTIONS {
        let usable = if restriction.buckets.is_some() { &fitting } else { &every };
        for set in capability_sets(usable) {
            keys.push((world.key(set, restriction), restriction));
        }
    }
    for operation in operations() {
        let right = &rights.operations[operation.name];
        let asked = keys.iter().map(|(key, restriction)| {
            let expected = right.expected(&key.capabilities, restriction);
            let has_no_pair = is_upload(operation.name) && !key.pairs.contains_key(operation.name);
            // Without an upload token the account token is tried: the wrong kind for the door.
            let expected = match expected {
                Expected::Refused(_) if has_no_pair => refused("bad_auth_token"),
                expected => expected,
            };
            (key, expected)
        });
        walk(&world, &mut tally, &operation, MASTER_ID, asked.collect());
    }
    tally.finish("rights", 0, MATRIX_CASES_MIN);
}

#[test]
fn reliability_a13_to_a15_keys_that_are_gone_over_or_another_accounts_open_nothing() {
    let rights = rights();
    let world = World::new();
    let every = capabilities();
    let anywhere = &RESTRICTIONS[0];
    let mut tally = Tally::default();
    let master = world.master.borrow().clone();
    let own = (master.as_str(), MASTER_ID);
    let strangers_hands = (world.stranger.as_str(), world.stranger_account.as_str());
    let made = |maker, life_s| -> Vec<Key> {
        let sets = capability_sets(&every);
        sets.into_iter().map(|set| world.key_of(maker, set, anywhere, life_s)).collect()
    };
    let (deleted, expired) = (made(own, None), made(own, Some(KEY_LIFE_S)));
    let foreign = made(strangers_hands, None);
    for key in &deleted {
        world.as_master("b2_delete_key", &json!({"applicationKeyId": key.id}));
    }
    for operation in operations() {
        let right = &rights.operations[operation.name];
        let keys = deleted.iter().map(|key| (key, refused("bad_auth_token")));
        walk(&world, &mut tally, &operation, MASTER_ID, keys.collect());
        let account = if names_account(operation.name) { MASTER_ID } else { strangers_hands.1 };
        let keys = foreign.iter().map(|key| {
            let found = Expected::Exactly(right.foreign.clone());
            // The account named in a request is compared before the capability.
            let by_kind = is_upload(operation.name) || names_account(operation.name);
            match right.expected(&key.capabilities, anywhere) {
                Expected::Allowed => (key, found),
                _ if by_kind => (key, found),
                refused => (key, refused),
            }
        });
        walk(&world, &mut tally, &operation, account, keys.collect());
    }
    let advance = format!("/admin/clock/advance?ms={PAST_KEY_LIFE_MS}");
    assert_eq!(world.server.control("POST", &advance).status, 200);
    for operation in operations() {
        let keys = expired.iter().map(|key| {
            let has_no_pair = is_upload(operation.name) && !key.pairs.contains_key(operation.name);
            let is_basic = operation.name == "b2_authorize_account";
            let code =
                if has_no_pair || is_basic { "bad_auth_token" } else { "expired_auth_token" };
            (key, refused(code))
        });
        walk(&world, &mut tally, &operation, MASTER_ID, keys.collect());
    }
    tally.finish("gone, expired and foreign keys", 0, GONE_CASES_MIN);
}

/// Credentials by the name of what is wrong with them; None sends no header.
fn wrong_credentials(good: &str, spare: &str) -> Vec<(&'static str, Option<String>)> {
    let middle = good.len() / 2;
    let flip = |(at, letter): (usize, char)| match (at == middle, letter) {
        (true, '0') => '1',
        (true, _) => '0',
        (false, letter) => letter,
    };
    let flipped: String = good.chars().enumerate().map(flip).collect();
    let (head, _) = good.split_at(good.len() - 1);
    vec![
        ("nothing", None),
        ("an empty header", Some(String::new())),
        ("garbage", Some("garbage".to_owned())),
        ("a truncated token", Some(head.to_owned())),
        ("an altered token", Some(flipped)),
        ("a token twice", Some(format!("{good}{good}"))),
        ("upper case", Some(good.to_uppercase())),
        ("a bearer token", Some(format!("Bearer {good}"))),
        ("another scheme", Some(format!("Digest {good}"))),
        ("no algorithm", Some("eyJhbGciOiJub25lIn0.eyJzdWIiOiIxIn0.".to_owned())),
        ("an empty id", Some(basic("", MASTER_KEY))),
        ("an empty secret", Some(basic(MASTER_ID, ""))),
        ("a wrong secret", Some(basic(MASTER_ID, "K000WrongSecretOfTheTestHouse00"))),
        ("an unknown id", Some(basic("ffffffffffff", MASTER_KEY))),
        ("a token as secret", Some(basic(MASTER_ID, spare))),
    ]
}

#[test]
fn reliability_a1_to_a18_only_the_right_kind_of_credential_opens_a_door() {
    let rights = rights();
    let mut world = World::new();
    let mut tally = Tally::default();
    let account_token = world.master.borrow().clone();
    let (pairs, others) = (world.pairs(&account_token), world.pairs(&account_token));
    for door in UPLOAD_DOORS {
        assert_ne!(pairs[door].0, others[door].0);
    }
    // What is sent to doors that are not for uploads.
    let usual = "b2_upload_file";
    let door_of = |name: &'static str| if is_upload(name) { name } else { usual };
    let share = |prefix: &str, life_s: i64| {
        let fields = json!({
            "bucketId": world.right(), "fileNamePrefix": prefix, "validDurationInSeconds": life_s,
        });
        let shared = world.as_master("b2_get_download_authorization", &fields);
        shared["authorizationToken"].as_str().unwrap().to_owned()
    };
    let (download_token, sibling_token) = (share(PREFIX, 60), share("ab", 60));
    let before = world.fingerprint();
    for operation in operations() {
        let (name, right) = (operation.name, &rights.operations[operation.name]);
        let (upload_target, upload_token) = &pairs[door_of(name)];
        let (_, other_upload_token) = &others[door_of(name)];
        let good = match name {
            "b2_authorize_account" => basic(MASTER_ID, MASTER_KEY),
            door if is_upload(door) => upload_token.clone(),
            _ => account_token.clone(),
        };
        for &method in operation.methods {
            let mut ask = |what: &str, credentials: Option<&str>, expected: &Expected| {
                let request = world.request(name, method, MASTER_ID, credentials, upload_target);
                let answer = world.send(&request);
                tally.compare(&format!("{name} with {what}"), method, &answer, expected);
                if !is_success(expected) {
                    let secrets = [account_token.as_str(), upload_token, MASTER_KEY];
                    tally.names_no_secret(name, &answer, &secrets);
                }
            };
            for (what, credentials) in wrong_credentials(&good, &account_token) {
                let code = if credentials.is_none() { &right.anonymous } else { "bad_auth_token" };
                ask(what, credentials.as_deref(), &refused(code));
            }
            let by_name = name == "b2_download_file_by_name";
            let download_may = if by_name { Expected::Allowed } else { refused("bad_auth_token") };
            let sibling_code = if by_name { "unauthorized" } else { "bad_auth_token" };
            ask("a download token", Some(&download_token), &download_may);
            ask("a sibling's download token", Some(&sibling_token), &refused(sibling_code));
            ask("another URL's token", Some(other_upload_token), &refused("bad_auth_token"));
            if is_upload(name) || name == "b2_authorize_account" {
                ask("an account token", Some(&account_token), &refused("bad_auth_token"));
            }
            for door in UPLOAD_DOORS.into_iter().filter(|door| *door != name) {
                ask("an upload token", Some(&pairs[door].1), &refused("bad_auth_token"));
            }
            if name != "b2_authorize_account" {
                let keys = basic(MASTER_ID, MASTER_KEY);
                ask("a key instead of a token", Some(&keys), &refused("bad_auth_token"));
            }
        }
    }
    tally.unchanged("wrong credentials", &before, &world.fingerprint());

    // Time passes; what was good is told apart from what never was.
    let advance = format!("/admin/clock/advance?ms={PAST_TOKEN_LIFE_MS}");
    assert_eq!(world.server.control("POST", &advance).status, 200);
    world.enter();
    world.stranger = world.enter_stranger();
    let before = world.fingerprint();
    for operation in operations() {
        let name = operation.name;
        for &method in operation.methods {
            let by_account = name != "b2_authorize_account" && !is_upload(name);
            let (upload_target, upload_token) = &pairs[door_of(name)];
            for (what, token, opens) in [
                ("account", &account_token, by_account),
                ("upload", upload_token, is_upload(name)),
                ("download", &download_token, name == "b2_download_file_by_name"),
            ] {
                let code = if opens { "expired_auth_token" } else { "bad_auth_token" };
                let request = world.request(name, method, MASTER_ID, Some(token), upload_target);
                let answer = world.send(&request);
                let case = format!("{name} with an expired {what} token");
                tally.compare(&case, method, &answer, &refused(code));
            }
        }
    }
    tally.unchanged("expired credentials", &before, &world.fingerprint());
    tally.finish("credentials", 0, CREDENTIAL_CASES_MIN);
}

/// A value for a request field that asks for what the field is there for.
fn value_of(field: &str) -> Value {
    match field {
        "fileLockEnabled" | "bypassGovernance" => json!(true),
        "fileRetention" => {
            json!({"mode": "governance", "retainUntilTimestamp": 4_102_444_800_000_i64})
        }
        "legalHold" => json!("off"),
        "defaultRetention" => {
            json!({"mode": "governance", "period": {"duration": 1, "unit": "days"}})
        }
        "defaultServerSideEncryption" => json!({"mode": "SSE-B2", "algorithm": "AES256"}),
        "replicationConfiguration" => json!({"asReplicationDestination": {
            "sourceToDestinationKeyMapping": {"no-such-key": "no-such-key"}}}),
        unknown => panic!("{unknown}: no value is written for it"),
    }
}

/// A request header that asks for what it is there for, with those it cannot go without.
fn headers_with(header: &str) -> Vec<(&'static str, String)> {
    match header {
        "X-Bz-File-Legal-Hold" => vec![("X-Bz-File-Legal-Hold", "off".to_owned())],
        "X-Bz-File-Retention-Mode" => vec![
            ("X-Bz-File-Retention-Mode", "governance".to_owned()),
            ("X-Bz-File-Retention-Retain-Until-Timestamp", "4102444800000".to_owned()),
        ],
        unknown => panic!("{unknown}: no value is written for it"),
    }
}

/// The object of an answer that has the member: the answer itself or the first one listed.
fn bearer<'a>(answer: &'a Value, member: &str) -> &'a Value {
    [answer, &answer["buckets"][0], &answer["files"][0]]
        .into_iter()
        .find(|object| object.get(member).is_some())
        .unwrap_or_else(|| panic!("{member} is missing in {answer}"))
}

#[test]
fn reliability_b13_fields_need_and_show_what_their_own_rights_say() {
    let rights = rights();
    let world = World::new();
    let anywhere = &RESTRICTIONS[0];
    let mut tally = Tally::default();
    let every: BTreeSet<&'static str> = capabilities().into_iter().collect();
    let named = |name: &str| every.iter().copied().find(|one| *one == name).unwrap();
    for (operation, right) in &rights.operations {
        let needs: BTreeSet<&'static str> = right.needs.iter().map(|one| named(one)).collect();
        // For each field: the fewest rights with and without its own, and all others without it.
        let keys_for = |capability: &str| {
            let own = named(capability);
            let (mut with, mut others) = (needs.clone(), every.clone());
            with.insert(own);
            others.remove(own);
            [(with, true), (needs.clone(), false), (others, false)]
        };
        let fields = right.conditional.iter().map(|(name, own)| (name, own, true));
        let headers = right.headers.iter().map(|(name, own)| (name, own, false));
        for (name, capability, is_field) in fields.chain(headers) {
            for (set, holds) in keys_for(capability) {
                let key = world.key(set, anywhere);
                let request = if is_field {
                    let mut fields = world.fields(operation, MASTER_ID).unwrap();
                    fields[name] = value_of(name);
                    Request::json(operation, Some(&key.token), &fields)
                } else {
                    let (target, token) = &key.pairs[operation.as_str()];
                    let mut request =
                        world.request(operation, "POST", MASTER_ID, Some(token), target);
                    request.headers.extend(headers_with(name));
                    request
                };
                let before = world.fingerprint();
                let answer = world.send(&request);
                let case = format!("{operation} with {name}, {}", key.label);
                if holds {
                    // Whether the feature is there is another question than the right to it.
                    tally.count(operation);
                    if answer.status == 401 || answer.status == 403 {
                        tally.mismatches.push(format!("{case}: refused in spite of {capability}"));
                    }
                    if answer.status == 200 {
                        world.tidy(operation, &answer);
                    }
                } else {
                    tally.compare(&case, "POST", &answer, &refused("unauthorized"));
                    tally.unchanged(&case, &before, &world.fingerprint());
                }
            }
        }
        for (member, capability) in &right.reveals {
            for (set, holds) in keys_for(capability) {
                let key = world.key(set, anywhere);
                let target = key.pairs.get(operation.as_str()).map_or("", |(target, _)| target);
                let proof = credentials_at(operation, &key, "");
                let request = world.request(operation, "POST", MASTER_ID, Some(proof), target);
                let answer = world.send(&request);
                let case = format!("{operation} shows {member}, {}", key.label);
                tally.compare(&case, "POST", &answer, &Expected::Allowed);
                world.tidy(operation, &answer);
                let answer = answer.json();
                let shown = &bearer(&answer, member)[member];
                let may = shown["isClientAuthorizedToRead"].as_bool();
                if may != Some(holds) || (!holds && !shown["value"].is_null()) {
                    tally.mismatches.push(format!("{case}: {shown}"));
                }
            }
        }
    }
    tally.finish("fields", FIELD_CASES_MIN, 0);
}
