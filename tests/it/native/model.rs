//! Random acts on the real server beside a model of a few maps: after each act both have given the
//! same answer, and again and again both hold the same versions, parts and bytes. The seed of a
//! failing run is in its message. Lifecycle rules have a model of their own beside their worker.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use md5::{Digest as _, Md5};
use serde_json::{Value, json};

use crate::support::http::{Answer, call};
use crate::support::server::{Server, Session, sha1_hex};

const SEEDS: u64 = 24;
const ACTS: u64 = 120;
/// Acts between two comparisons of everything.
const ACTS_UNSEEN: u64 = 20;
const PART_BYTES_MIN: usize = 100;
const HOUR_MS: i64 = 60 * 60 * 1000;
const NAMES: [&str; 5] = ["a", "a/b", "a/c", "b", "c"];

/// How a body is encrypted; a customer's key is known by a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cipher {
    None,
    Managed,
    Customer(u8),
}

impl Cipher {
    /// The form that JSON operations take.
    fn json(self) -> Value {
        match self {
            Self::None => Value::Null,
            Self::Managed => json!({"mode": "SSE-B2", "algorithm": "AES256"}),
            Self::Customer(number) => {
                let (key, md5) = key_of(number);
                json!({"mode": "SSE-C", "algorithm": "AES256", "customerKey": key,
                       "customerKeyMd5": md5})
            }
        }
    }

    fn mode(self) -> Value {
        match self {
            Self::None => Value::Null,
            Self::Managed => json!("SSE-B2"),
            Self::Customer(_) => json!("SSE-C"),
        }
    }

    fn headers(self) -> Vec<(String, String)> {
        let name = |rest: &str| format!("X-Bz-Server-Side-Encryption{rest}");
        match self {
            Self::None => Vec::new(),
            Self::Managed => vec![(name(""), "AES256".to_owned())],
            Self::Customer(number) => {
                let (key, md5) = key_of(number);
                vec![
                    (name("-Customer-Algorithm"), "AES256".to_owned()),
                    (name("-Customer-Key"), key),
                    (name("-Customer-Key-Md5"), md5),
                ]
            }
        }
    }

    /// What opens the body: nothing, unless a customer has the key.
    fn opening(self) -> Self {
        if let Self::Customer(_) = self { self } else { Self::None }
    }
}

fn key_of(number: u8) -> (String, String) {
    let key = [number; 32];
    (STANDARD.encode(key), STANDARD.encode(Md5::digest(key)))
}

#[derive(Clone, Debug)]
struct Version {
    id: String,
    name: &'static str,
    /// None for a hide marker.
    body: Option<Vec<u8>>,
    cipher: Cipher,
    /// Mode (1 governance, 2 compliance) and end.
    retention: Option<(u8, i64)>,
    is_held: bool,
}

impl Version {
    fn is_kept(&self, now: i64, bypass: bool) -> bool {
        let retained =
            self.retention.is_some_and(|(mode, until)| until > now && !(bypass && mode == 1));
        retained || self.is_held
    }
}

#[derive(Clone, Debug)]
struct Unfinished {
    id: String,
    name: &'static str,
    cipher: Cipher,
    parts: BTreeMap<usize, Vec<u8>>,
}

struct Run {
    server: Server,
    master: Session,
    bucket: String,
    now: i64,
    /// In the order in which they came.
    versions: Vec<Version>,
    unfinished: Vec<Unfinished>,
    seed: u64,
    at: u64,
    state: u64,
    /// How many acts of each kind were answered with success.
    done: BTreeMap<&'static str, u64>,
}

fn more(fields: &mut Value, name: &str, value: Value) {
    if !value.is_null() {
        fields[name] = value;
    }
}

impl Run {
    fn start(seed: u64) -> Self {
        let least = PART_BYTES_MIN.to_string();
        let server = Server::start_with(&["--limits-part-size-min", &least, "--test-controls"]);
        let master = server.master();
        let made = master.ok(
            "b2_create_bucket",
            &json!({"accountId": master.account, "bucketName": "model-bucket",
                    "bucketType": "allPrivate", "fileLockEnabled": true}),
        );
        let bucket = made["bucketId"].as_str().unwrap().to_owned();
        let mut run = Self {
            server,
            master,
            bucket,
            now: 0,
            versions: Vec::new(),
            unfinished: Vec::new(),
            seed,
            at: 0,
            state: seed,
            done: BTreeMap::new(),
        };
        run.advance(0);
        run
    }

    fn draw(&mut self, below: usize) -> usize {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % u64::try_from(below).unwrap()).unwrap()
    }

    fn draw_name(&mut self) -> &'static str {
        NAMES[self.draw(NAMES.len())]
    }

    fn draw_cipher(&mut self) -> Cipher {
        match self.draw(6) {
            0 => Cipher::Managed,
            1 => Cipher::Customer(1),
            2 => Cipher::Customer(2),
            _ => Cipher::None,
        }
    }

    /// Sometimes in the catalog, sometimes in a file, sometimes of several sealed segments.
    fn draw_body(&mut self, least: usize) -> Vec<u8> {
        let bytes = match self.draw(8) {
            0 => least,
            1 => 70_000 + self.draw(70_000),
            2 => 20_000,
            _ => least + self.draw(300),
        };
        let salt = self.draw(251);
        (0..bytes).map(|at| u8::try_from((at * 7 + salt) % 251).unwrap()).collect()
    }

    /// Whose seed, which act: for messages.
    fn whence(&self) -> String {
        format!("seed {} act {}", self.seed, self.at)
    }

    #[track_caller]
    fn refused(&self, answer: &Answer, status: u16, codes: &[&str]) {
        let known = codes.contains(&answer.code().as_str());
        assert!(answer.status == status && known, "{}: {answer:?}, not {codes:?}", self.whence());
    }

    #[track_caller]
    fn answered(&mut self, act: &'static str, answer: &Answer) -> Value {
        assert_eq!(answer.status, 200, "{}: {act}: {answer:?}", self.whence());
        *self.done.entry(act).or_default() += 1;
        answer.json()
    }

    fn advance(&mut self, by_ms: i64) {
        let answer = self.server.control("POST", &format!("/admin/clock/advance?ms={by_ms}"));
        self.now = answer.json()["now"].as_i64().unwrap();
    }

    fn text(answer: &Value, field: &str) -> String {
        answer[field].as_str().unwrap().to_owned()
    }

    fn act(&mut self) {
        match self.draw(26) {
            0..=5 => self.upload(),
            6 | 7 => self.hide(),
            8..=10 => self.delete(),
            11 => self.begin(),
            12..=15 => self.send_part(),
            16 => self.copy_part(),
            17 | 18 => self.finish(),
            19 => self.cancel(),
            20 | 21 => self.copy(),
            22 => self.retain(),
            23 => self.hold(),
            24 => {
                let hours = i64::try_from(self.draw(20)).unwrap();
                self.advance(hours * HOUR_MS);
                self.master = self.server.master();
            }
            _ => {
                // Whatever was answered is there after a kill.
                if self.draw(4) == 0 {
                    self.server.kill();
                    self.server.restart();
                    self.advance(0);
                }
                self.master = self.server.master();
            }
        }
    }

    fn upload(&mut self) {
        let (name, cipher, body) = (self.draw_name(), self.draw_cipher(), self.draw_body(0));
        let mut headers = cipher.headers();
        let retention = (self.draw(5) == 0).then(|| {
            let mode = u8::try_from(1 + self.draw(2)).unwrap();
            (mode, self.now + HOUR_MS * i64::try_from(1 + self.draw(48)).unwrap())
        });
        if let Some((mode, until)) = retention {
            headers.push(("X-Bz-File-Retention-Mode".into(), mode_name(mode).into()));
            let end = "X-Bz-File-Retention-Retain-Until-Timestamp";
            headers.push((end.into(), until.to_string()));
        }
        let is_held = self.draw(12) == 0;
        if is_held {
            headers.push(("X-Bz-File-Legal-Hold".into(), "on".into()));
        }
        let headers: Vec<(&str, &str)> =
            headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let answer = self.master.try_upload(&self.bucket, name, &body, &headers);
        let stored = self.answered("upload", &answer);
        let id = Self::text(&stored, "fileId");
        self.versions.push(Version { id, name, body: Some(body), cipher, retention, is_held });
    }

    fn newest(&self, name: &str) -> Option<&Version> {
        self.versions.iter().rfind(|version| version.name == name)
    }

    fn hide(&mut self) {
        let name = self.draw_name();
        let fields = json!({"bucketId": self.bucket, "fileName": name});
        let answer = self.master.call("b2_hide_file", &fields);
        match self.newest(name) {
            None => self.refused(&answer, 400, &["no_such_file"]),
            Some(Version { body: None, .. }) => self.refused(&answer, 400, &["already_hidden"]),
            Some(_) => {
                let id = Self::text(&self.answered("hide", &answer), "fileId");
                let (body, cipher, retention) = (None, Cipher::None, None);
                self.versions.push(Version { id, name, body, cipher, retention, is_held: false });
            }
        }
    }

    fn delete(&mut self) {
        if self.versions.is_empty() {
            return;
        }
        let at = self.draw(self.versions.len());
        let bypass = self.draw(3) == 0;
        let version = &self.versions[at];
        let fields = json!({
            "fileName": version.name, "fileId": version.id, "bypassGovernance": bypass,
        });
        let answer = self.master.call("b2_delete_file_version", &fields);
        if version.is_kept(self.now, bypass) {
            self.refused(&answer, 401, &["access_denied"]);
        } else {
            self.answered("delete", &answer);
            let gone = self.versions.remove(at);
            let again = self.master.call("b2_delete_file_version", &fields);
            self.refused(&again, 400, &["file_not_present"]);
            let id = json!({"fileId": gone.id});
            self.refused(&self.master.call("b2_get_file_info", &id), 404, &["not_found"]);
        }
    }

    fn begin(&mut self) {
        let (name, cipher) = (self.draw_name(), self.draw_cipher());
        let mut fields =
            json!({"bucketId": self.bucket, "fileName": name, "contentType": "text/plain"});
        more(&mut fields, "serverSideEncryption", cipher.json());
        let answer = self.master.call("b2_start_large_file", &fields);
        let id = Self::text(&self.answered("begin", &answer), "fileId");
        self.unfinished.push(Unfinished { id, name, cipher, parts: BTreeMap::new() });
    }

    /// One of the unfinished files, and a number for a part of it.
    fn draw_unfinished(&mut self) -> Option<(usize, usize)> {
        let count = self.unfinished.len();
        let at = (count > 0).then(|| self.draw(count))?;
        // Mostly in order, so that some become whole.
        let next = self.unfinished[at].parts.len() + 1;
        Some((at, if self.draw(4) == 0 { 1 + self.draw(4) } else { next }))
    }

    fn send_part(&mut self) {
        let Some((at, number)) = self.draw_unfinished() else { return };
        let least = if self.draw(8) == 0 { 1 } else { PART_BYTES_MIN };
        let body = self.draw_body(least);
        let of = &self.unfinished[at];
        let pair = self.master.ok("b2_get_upload_part_url", &json!({"fileId": of.id}));
        let (url, token) =
            (Self::text(&pair, "uploadUrl"), Self::text(&pair, "authorizationToken"));
        let target = format!("/{}", url.splitn(4, '/').nth(3).unwrap());
        let key = of.cipher.opening().headers();
        let (text, sha1) = (number.to_string(), sha1_hex(&body));
        let mut headers = vec![
            ("Authorization", token.as_str()),
            ("X-Bz-Part-Number", &text),
            ("X-Bz-Content-Sha1", &sha1),
        ];
        headers.extend(key.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        let answer = call(&self.master.address, "POST", &target, &headers, &body);
        self.answered("send part", &answer);
        self.unfinished[at].parts.insert(number, body);
    }

    /// Something to copy: its place, the range asked for, and the bytes of that.
    fn draw_source(&mut self) -> Option<(usize, Option<String>, Vec<u8>)> {
        let count = self.versions.len();
        let at = (count > 0).then(|| self.draw(count))?;
        let body = self.versions[at].body.clone()?;
        if body.len() < 2 || self.draw(2) == 0 {
            return Some((at, None, body));
        }
        let first = self.draw(body.len());
        let last = first + self.draw(body.len() - first);
        Some((at, Some(format!("bytes={first}-{last}")), body[first..=last].to_vec()))
    }

    fn copy_part(&mut self) {
        let Some((at, number)) = self.draw_unfinished() else { return };
        let Some((from, range, body)) = self.draw_source() else { return };
        let (of, source) = (&self.unfinished[at], &self.versions[from]);
        let mut fields =
            json!({"sourceFileId": source.id, "largeFileId": of.id, "partNumber": number});
        more(&mut fields, "range", range.map_or(Value::Null, Value::String));
        more(&mut fields, "sourceServerSideEncryption", source.cipher.opening().json());
        more(&mut fields, "destinationServerSideEncryption", of.cipher.opening().json());
        let answer = self.master.call("b2_copy_part", &fields);
        if body.is_empty() {
            self.refused(&answer, 400, &["bad_request"]);
        } else {
            self.answered("copy part", &answer);
            self.unfinished[at].parts.insert(number, body);
        }
    }

    fn finish(&mut self) {
        let Some((at, _)) = self.draw_unfinished() else { return };
        let of = &self.unfinished[at];
        let sha1s: Vec<String> = of.parts.values().map(|body| sha1_hex(body)).collect();
        let fields = json!({"fileId": of.id, "partSha1Array": sha1s});
        let answer = self.master.call("b2_finish_large_file", &fields);
        let has_gap = of.parts.keys().copied().ne(1..=of.parts.len());
        let has_small = of.parts.values().rev().skip(1).any(|body| body.len() < PART_BYTES_MIN);
        if of.parts.len() < 2 || has_gap || has_small {
            self.refused(&answer, 400, &["bad_request", "missing_part", "part_sha1_mismatch"]);
            return;
        }
        let stored = self.answered("finish", &answer);
        let Unfinished { id, name, cipher, parts } = self.unfinished.remove(at);
        assert_eq!(stored["fileId"], id.as_str(), "{}", self.whence());
        let body = Some(parts.into_values().collect::<Vec<_>>().concat());
        // Among the versions of its name it stands where it began; other names may have other times.
        let is_newer = |one: &Version| one.name == name && order_of(&one.id) > order_of(&id);
        let place = self.versions.iter().position(is_newer);
        let finished = Version { id, name, body, cipher, retention: None, is_held: false };
        self.versions.insert(place.unwrap_or(self.versions.len()), finished);
    }

    fn cancel(&mut self) {
        let Some((at, _)) = self.draw_unfinished() else { return };
        let fields = json!({"fileId": self.unfinished[at].id});
        let answer = self.master.call("b2_cancel_large_file", &fields);
        self.answered("cancel", &answer);
        self.unfinished.remove(at);
        let again = self.master.call("b2_cancel_large_file", &fields);
        self.refused(&again, 400, &["bad_request"]);
    }

    fn copy(&mut self) {
        let Some((from, range, body)) = self.draw_source() else { return };
        let (name, cipher) = (self.draw_name(), self.draw_cipher());
        let source = &self.versions[from];
        let mut fields = json!({"sourceFileId": source.id, "fileName": name});
        more(&mut fields, "range", range.map_or(Value::Null, Value::String));
        more(&mut fields, "sourceServerSideEncryption", source.cipher.opening().json());
        more(&mut fields, "destinationServerSideEncryption", cipher.json());
        let answer = self.master.call("b2_copy_file", &fields);
        let id = Self::text(&self.answered("copy", &answer), "fileId");
        let (body, retention) = (Some(body), None);
        self.versions.push(Version { id, name, body, cipher, retention, is_held: false });
    }

    fn retain(&mut self) {
        let Some((at, _, _)) = self.draw_source() else { return };
        let wanted = (self.draw(4) > 0).then(|| {
            let mode = u8::try_from(1 + self.draw(2)).unwrap();
            (mode, self.now + HOUR_MS * i64::try_from(1 + self.draw(48)).unwrap())
        });
        let bypass = self.draw(2) == 0;
        let version = &self.versions[at];
        let asked = match wanted {
            Some((mode, until)) => json!({"mode": mode_name(mode), "retainUntilTimestamp": until}),
            None => json!({"mode": null, "retainUntilTimestamp": null}),
        };
        let fields = json!({
            "fileName": version.name, "fileId": version.id, "fileRetention": asked,
            "bypassGovernance": bypass,
        });
        let answer = self.master.call("b2_update_file_retention", &fields);
        let current = version.retention.filter(|(_, until)| *until > self.now);
        let is_allowed = current.is_none_or(|(mode, until)| {
            let keeps = wanted.is_some_and(|(to, end)| to >= mode && end >= until);
            keeps || (bypass && mode == 1)
        });
        if is_allowed {
            self.answered("retain", &answer);
            self.versions[at].retention = wanted;
        } else {
            self.refused(&answer, 403, &["access_denied"]);
        }
    }

    fn hold(&mut self) {
        let Some((at, _, _)) = self.draw_source() else { return };
        let version = &self.versions[at];
        let to = if version.is_held { "off" } else { "on" };
        let fields = json!({"fileName": version.name, "fileId": version.id, "legalHold": to});
        let answer = self.master.call("b2_update_file_legal_hold", &fields);
        self.answered("hold", &answer);
        self.versions[at].is_held = to == "on";
    }

    /// Everything that can be seen is as the model has it.
    fn compare(&self) {
        let whence = self.whence();
        let page = self
            .master
            .ok("b2_list_file_versions", &json!({"bucketId": self.bucket, "maxFileCount": 10_000}));
        let listed = page["files"].as_array().unwrap();
        let mut wanted: Vec<(&str, &str)> = Vec::new();
        for name in NAMES {
            let mut ids: Vec<&str> = (self.versions.iter().filter(|one| one.name == name))
                .map(|one| one.id.as_str())
                .chain(self.unfinished.iter().filter(|one| one.name == name).map(|one| &*one.id))
                .collect();
            ids.sort_unstable_by_key(|id| std::cmp::Reverse(order_of(id)));
            wanted.extend(ids.into_iter().map(|id| (name, id)));
        }
        let shown: Vec<(&str, &str)> = listed
            .iter()
            .map(|file| (file["fileName"].as_str().unwrap(), file["fileId"].as_str().unwrap()))
            .collect();
        assert_eq!(shown, wanted, "{whence}");
        for version in &self.versions {
            let file = listed.iter().find(|file| file["fileId"] == version.id.as_str()).unwrap();
            let Some(body) = &version.body else {
                assert_eq!(file["action"], "hide", "{whence}");
                continue;
            };
            assert_eq!(file["action"], "upload", "{whence}");
            assert_eq!(file["contentLength"], body.len(), "{whence}: {file}");
            assert_eq!(file["serverSideEncryption"]["mode"], version.cipher.mode(), "{whence}");
            assert_eq!(file["legalHold"]["value"] == "on", version.is_held, "{whence}: {file}");
            let until = version.retention.map(|(_, until)| until);
            let shown = &file["fileRetention"]["value"]["retainUntilTimestamp"];
            assert_eq!(shown.as_i64(), until, "{whence}: {file}");
            let key = version.cipher.opening().headers();
            let mut headers = vec![("Authorization", self.master.token.as_str())];
            headers.extend(key.iter().map(|(name, value)| (name.as_str(), value.as_str())));
            let target = format!("/b2api/v4/b2_download_file_by_id?fileId={}", version.id);
            let answer = call(&self.master.address, "GET", &target, &headers, b"");
            assert!(answer.status == 200 && answer.body == *body, "{whence}: {version:?}");
        }
        for of in &self.unfinished {
            let page = self.master.ok("b2_list_parts", &json!({"fileId": of.id}));
            let parts: Vec<(u64, &str)> = (page["parts"].as_array().unwrap().iter())
                .map(|part| {
                    let sha1 = part["contentSha1"].as_str().unwrap();
                    (part["partNumber"].as_u64().unwrap(), sha1)
                })
                .collect();
            let wanted: Vec<(u64, String)> = (of.parts.iter())
                .map(|(number, body)| (u64::try_from(*number).unwrap(), sha1_hex(body)))
                .collect();
            let wanted: Vec<(u64, &str)> =
                wanted.iter().map(|(number, sha1)| (*number, sha1.as_str())).collect();
            assert_eq!(parts, wanted, "{whence}");
        }
    }
}

fn mode_name(mode: u8) -> &'static str {
    if mode == 1 { "governance" } else { "compliance" }
}

/// The time and the counter at the end of a file id, which order the versions of a name.
fn order_of(id: &str) -> &str {
    id.rsplit_once("_u").unwrap().1
}

fn run(seed: u64) -> BTreeMap<&'static str, u64> {
    let mut run = Run::start(seed);
    for at in 1..=ACTS {
        run.at = at;
        run.act();
        if at % ACTS_UNSEEN == 0 {
            run.compare();
        }
    }
    run.done
}

#[test]
fn random_acts_have_the_effects_of_a_model() {
    let mut done: BTreeMap<&str, u64> = BTreeMap::new();
    for seed in 0..SEEDS {
        for (act, count) in run(seed) {
            *done.entry(act).or_default() += count;
        }
    }
    // Nothing is proved of an act that always ended in a refusal.
    assert_eq!(done.len(), 11, "{done:?}");
    assert!(done.values().all(|count| *count > 20), "{done:?}");
    eprintln!("{done:?}");
}
