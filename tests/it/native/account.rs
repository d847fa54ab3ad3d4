//! `b2_authorize_account` and what becomes of its tokens.

use serde_json::{Value, json};

use super::{Stage, members, refused, text};
use crate::support::http::{Answer, call};
use crate::support::server::{MASTER_ID, MASTER_KEY, Session, basic};

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

fn authorize(stage: &Stage, version: u8, key_id: &str, key: &str) -> Answer {
    let header = basic(key_id, key);
    authorize_with(stage, version, &[("Authorization", &header)])
}

fn authorize_with(stage: &Stage, version: u8, headers: &[(&str, &str)]) -> Answer {
    let target = format!("/b2api/v{version}/b2_authorize_account");
    call(&stage.server.address, "POST", &target, headers, b"")
}

/// Makes a key by a version of the API.
fn make_key(stage: &Stage, version: u8, body: &Value) -> (String, String) {
    let mut body = body.clone();
    body["accountId"] = stage.master.account.clone().into();
    body["keyName"] = "a-key".into();
    let answer = stage.master.call_version(version, "b2_create_key", &body);
    assert_eq!(answer.status, 200, "{}", answer.message());
    let key = answer.json();
    (text(&key, "applicationKeyId").to_owned(), text(&key, "applicationKey").to_owned())
}

#[test]
fn native_36_37_44_45_versions_1_and_2_are_flat() {
    let stage = Stage::new();
    let first = authorize(&stage, 1, MASTER_ID, MASTER_KEY).json();
    let second = authorize(&stage, 2, MASTER_ID, MASTER_KEY).json();
    let common = [
        "absoluteMinimumPartSize",
        "accountId",
        "allowed",
        "apiUrl",
        "authorizationToken",
        "downloadUrl",
        "recommendedPartSize",
        "s3ApiUrl",
    ];
    assert_eq!(members(&second), common);
    let mut with_minimum = common.to_vec();
    with_minimum.insert(6, "minimumPartSize");
    assert_eq!(members(&first), with_minimum);
    assert_eq!(first["minimumPartSize"], 100_000_000);
    for answer in [first, second] {
        assert_eq!(answer["recommendedPartSize"], 100_000_000);
        assert_eq!(answer["absoluteMinimumPartSize"], 5_000_000);
        assert_eq!(answer["accountId"], MASTER_ID);
        let url = format!("http://{}", "localhost");
        assert_eq!(answer["apiUrl"], url);
        assert_eq!(answer["downloadUrl"], url);
    }
}

#[test]
fn native_38_version_2_shows_what_the_key_is_allowed() {
    let stage = Stage::new();
    let whole = authorize(&stage, 2, MASTER_ID, MASTER_KEY).json();
    let allowed = &whole["allowed"];
    assert_eq!(members(allowed), ["bucketId", "bucketName", "capabilities", "namePrefix"]);
    assert!(["bucketId", "bucketName", "namePrefix"].iter().all(|one| allowed[*one].is_null()));
    let wish = json!({
        "capabilities": ["listFiles", "readFiles"], "bucketId": stage.bucket, "namePrefix": "a/",
    });
    let (id, key) = make_key(&stage, 2, &wish);
    let restricted = authorize(&stage, 2, &id, &key).json();
    assert_eq!(
        restricted["allowed"],
        json!({
            "bucketId": stage.bucket, "bucketName": "first-bucket",
            "capabilities": ["listFiles", "readFiles"], "namePrefix": "a/",
        })
    );
}

#[test]
fn native_39_40_44_45_version_3_nests_the_storage_api() {
    let stage = Stage::new();
    let answer = authorize(&stage, 3, MASTER_ID, MASTER_KEY).json();
    let outer = ["accountId", "apiInfo", "applicationKeyExpirationTimestamp", "authorizationToken"];
    assert_eq!(members(&answer), outer);
    assert!(answer["applicationKeyExpirationTimestamp"].is_null());
    let storage = &answer["apiInfo"]["storageApi"];
    let inner = [
        "absoluteMinimumPartSize",
        "apiUrl",
        "bucketId",
        "bucketName",
        "capabilities",
        "downloadUrl",
        "infoType",
        "namePrefix",
        "recommendedPartSize",
        "s3ApiUrl",
    ];
    assert_eq!(members(storage), inner);
    assert_eq!(storage["infoType"], "storageApi");
    assert_eq!(storage["recommendedPartSize"], 100_000_000);
    assert_eq!(storage["absoluteMinimumPartSize"], 5_000_000);
}

#[test]
fn native_41_42_43_44_45_version_4_lists_the_buckets_of_the_key() {
    let stage = Stage::new();
    let answer = authorize(&stage, 4, MASTER_ID, MASTER_KEY).json();
    let storage = &answer["apiInfo"]["storageApi"];
    let inner = [
        "absoluteMinimumPartSize",
        "allowed",
        "apiUrl",
        "downloadUrl",
        "recommendedPartSize",
        "s3ApiUrl",
    ];
    assert_eq!(members(storage), inner);
    assert_eq!(members(&storage["allowed"]), ["buckets", "capabilities", "namePrefix"]);
    assert!(storage["allowed"]["buckets"].is_null());
    assert_eq!(storage["recommendedPartSize"], 100_000_000);
    assert_eq!(storage["absoluteMinimumPartSize"], 5_000_000);

    let wish = json!({"capabilities": ["listFiles"], "bucketIds": [stage.bucket]});
    let (id, key) = make_key(&stage, 4, &wish);
    let restricted = authorize(&stage, 4, &id, &key).json();
    assert_eq!(
        restricted["apiInfo"]["storageApi"]["allowed"]["buckets"],
        json!([{"id": stage.bucket, "name": "first-bucket"}])
    );
}

#[test]
fn native_46_47_48_49_reliability_a2_a3_a4_a24_wrong_credentials_are_all_refused_alike() {
    let stage = Stage::new();
    let huge = format!("Basic {}", "QUJD".repeat(7000));
    let wrong = [
        basic(MASTER_ID, "K000WrongSecretOfTheTestHouse00"),
        basic("ba9876543210", MASTER_KEY),
        basic(MASTER_ID, ""),
        basic("", MASTER_KEY),
        basic("", ""),
        basic("' OR 1=1 --", "x"),
        "Basic ".to_owned(),
        "Basic".to_owned(),
        "Basic not*base64".to_owned(),
        // Bytes that are no UTF-8, and text without a colon.
        "Basic //79".to_owned(),
        "Basic eHh4".to_owned(),
        basic(MASTER_ID, MASTER_KEY).replace("Basic", "Bearer"),
        format!("{MASTER_ID}:{MASTER_KEY}"),
        "eyJhbGciOiJub25lIn0.eyJzdWIiOiIwMTIzNDU2Nzg5YWIifQ.".to_owned(),
        stage.master.token.clone(),
        huge,
    ];
    for version in 1..=4 {
        for header in &wrong {
            let answer = authorize_with(&stage, version, &[("Authorization", header)]);
            assert_eq!(refused(&answer, 401, "bad_auth_token"), "", "{header}");
            let challenge = answer.header("www-authenticate");
            assert_eq!(challenge, Some("BASIC realm=\"authorize_account\""));
        }
        let answer = authorize_with(&stage, version, &[]);
        assert_eq!(refused(&answer, 401, "bad_auth_token"), "");
    }
    assert_eq!(authorize(&stage, 4, MASTER_ID, MASTER_KEY).status, 200);
}

#[test]
fn native_50_the_account_id_is_the_id_of_the_master_key() {
    let stage = Stage::new();
    let answer = authorize(&stage, 4, &stage.master.account, MASTER_KEY);
    assert_eq!(answer.json()["accountId"], stage.master.account);
}

#[test]
fn native_51_63_64_a_key_and_its_tokens_end_at_its_expiration() {
    let stage = Stage::new();
    let wish = json!({"capabilities": ["listBuckets"], "validDurationInSeconds": 60});
    let (id, key) = make_key(&stage, 4, &wish);
    let answer = authorize(&stage, 4, &id, &key).json();
    let keys = stage.master.ok("b2_list_keys", &json!({"accountId": stage.master.account}));
    let expires = &keys["keys"][0]["expirationTimestamp"];
    assert!(expires.is_i64(), "{keys}");
    assert_eq!(answer["applicationKeyExpirationTimestamp"], *expires);

    let token = text(&answer, "authorizationToken").to_owned();
    let session = Session { token, ..stage.master.clone() };
    let list = json!({"accountId": stage.master.account});
    session.ok("b2_list_buckets", &list);
    stage.advance(60_000);
    refused(&authorize(&stage, 4, &id, &key), 401, "bad_auth_token");
    refused(&session.call("b2_list_buckets", &list), 401, "expired_auth_token");
}

#[test]
fn native_52_reliability_a14_a_deleted_key_and_all_its_tokens_are_refused_at_once() {
    let stage = Stage::new();
    stage.master.upload(&stage.bucket, "file", b"content");
    let rights = ["listBuckets", "readFiles", "shareFiles", "writeFiles"];
    let (id, key) = stage.master.create_key(&rights, None, None);
    let session = Session::authorize(&stage.server.address, &id, &key).unwrap();
    let (target, upload_token) = session.upload_url(&stage.bucket);
    let share = json!({
        "bucketId": stage.bucket, "fileNamePrefix": "", "validDurationInSeconds": 600,
    });
    let shared = session.ok("b2_get_download_authorization", &share);
    let shared = Session { token: text(&shared, "authorizationToken").to_owned(), ..session.clone() };
    assert_eq!(shared.download("first-bucket/file", &[]).status, 200);

    stage.master.ok("b2_delete_key", &json!({"applicationKeyId": id}));
    refused(&authorize(&stage, 4, &id, &key), 401, "bad_auth_token");
    let list = session.call("b2_list_buckets", &json!({"accountId": stage.master.account}));
    refused(&list, 401, "bad_auth_token");
    refused(&shared.download("first-bucket/file", &[]), 401, "bad_auth_token");
    let headers = [
        ("Authorization", upload_token.as_str()),
        ("X-Bz-File-Name", "late"),
        ("Content-Type", "text/plain"),
        ("X-Bz-Content-Sha1", "do_not_verify"),
    ];
    let late = call(&stage.server.address, "POST", &target, &headers, b"late");
    refused(&late, 401, "bad_auth_token");
    assert_eq!(super::versions(&stage.master, &stage.bucket).len(), 1);
}

#[test]
fn native_53_every_authorization_gives_a_token_of_its_own() {
    let stage = Stage::new();
    let (one, two) = (stage.server.master(), stage.server.master());
    assert_ne!(one.token, two.token);
    for session in [one, two] {
        session.ok("b2_list_buckets", &json!({"accountId": session.account}));
    }
}

#[test]
fn native_54_an_account_token_lives_24_hours() {
    let stage = Stage::new();
    let list = json!({"accountId": stage.master.account});
    stage.advance(DAY_MS - 60_000);
    stage.master.ok("b2_list_buckets", &list);
    stage.advance(60_000);
    refused(&stage.master.call("b2_list_buckets", &list), 401, "expired_auth_token");
    stage.server.master().ok("b2_list_buckets", &list);
}

#[test]
fn native_55_56_reliability_a1_a2_a16_a18_only_the_exact_token_is_taken() {
    let stage = Stage::new();
    let token = stage.master.token.clone();
    let list = |token: &str| {
        let body = json!({"accountId": stage.master.account}).to_string();
        let target = "/b2api/v4/b2_list_buckets";
        let headers = [("Authorization", token)];
        call(&stage.server.address, "POST", target, &headers, body.as_bytes())
    };
    assert_eq!(list(&token).status, 200);
    let mut wrong: Vec<String> = Vec::new();
    for at in 0..token.len() {
        let mut bytes = token.clone().into_bytes();
        bytes[at] = if bytes[at] == b'1' { b'2' } else { b'1' };
        wrong.push(String::from_utf8(bytes).unwrap());
        wrong.push(token[..at].to_owned());
    }
    wrong.extend([
        format!("{token}{token}"),
        format!("{token}_"),
        format!("{token}="),
        format!("{token} x"),
        format!("Bearer {token}"),
        token.to_uppercase(),
        "random".to_owned(),
        "eyJhbGciOiJub25lIn0.e30.".to_owned(),
    ]);
    for wrong in &wrong {
        refused(&list(wrong), 401, "bad_auth_token");
    }
    let target = "/b2api/v4/b2_list_buckets";
    let nobody = call(&stage.server.address, "POST", target, &[], b"{}");
    refused(&nobody, 401, "bad_auth_token");
    let twice = [("Authorization", token.as_str()), ("Authorization", "other")];
    let twice = call(&stage.server.address, "POST", target, &twice, b"{}");
    refused(&twice, 400, "bad_request");
}

#[test]
fn native_57_58_60_multi_bucket_keys_need_version_4() {
    let stage = Stage::new();
    let second = stage.master.create_bucket("second-bucket");
    let wish = json!({"capabilities": ["listFiles"], "bucketIds": [stage.bucket, second]});
    let (id, key) = make_key(&stage, 4, &wish);
    for version in 1..=3 {
        let answer = authorize(&stage, version, &id, &key);
        let message = refused(&answer, 400, "unsupported");
        assert!(message.contains("API version"), "{message}");
    }
    let answer = authorize(&stage, 4, &id, &key).json();
    let mut shown: Vec<Value> =
        answer["apiInfo"]["storageApi"]["allowed"]["buckets"].as_array().unwrap().clone();
    shown.sort_by_key(|bucket| text(bucket, "name").to_owned());
    assert_eq!(
        shown,
        [
            json!({"id": stage.bucket, "name": "first-bucket"}),
            json!({"id": second, "name": "second-bucket"}),
        ]
    );
    let (id, key) =
        make_key(&stage, 3, &json!({"capabilities": ["listFiles"], "bucketId": stage.bucket}));
    let answer = authorize(&stage, 4, &id, &key).json();
    let buckets = &answer["apiInfo"]["storageApi"]["allowed"]["buckets"];
    assert_eq!(*buckets, json!([{"id": stage.bucket, "name": "first-bucket"}]));
}

#[test]
fn native_59_a_single_bucket_key_of_version_4_works_on_version_3_unless_strict() {
    for (arguments, status) in
        [(&["--test-controls"][..], 200), (&["--auth-strict-v4-keys"][..], 400)]
    {
        let stage = Stage::with(arguments);
        let wish = json!({"capabilities": ["listFiles"], "bucketIds": [stage.bucket]});
        let (id, key) = make_key(&stage, 4, &wish);
        assert_eq!(authorize(&stage, 3, &id, &key).status, status);
        assert_eq!(authorize(&stage, 4, &id, &key).status, 200);
        let (id, key) =
            make_key(&stage, 3, &json!({"capabilities": ["listFiles"], "bucketId": stage.bucket}));
        assert_eq!(authorize(&stage, 3, &id, &key).status, 200);
    }
}

#[test]
fn native_61_the_name_of_a_deleted_bucket_is_null() {
    let stage = Stage::new();
    let wish = json!({"capabilities": ["listFiles"], "bucketId": stage.bucket});
    let (id, key) = make_key(&stage, 3, &wish);
    let body = json!({"accountId": stage.master.account, "bucketId": stage.bucket});
    stage.master.ok("b2_delete_bucket", &body);
    let second = authorize(&stage, 2, &id, &key).json();
    assert_eq!(second["allowed"]["bucketId"], stage.bucket);
    assert!(second["allowed"]["bucketName"].is_null());
    let third = authorize(&stage, 3, &id, &key).json();
    assert!(third["apiInfo"]["storageApi"]["bucketName"].is_null());
    let fourth = authorize(&stage, 4, &id, &key).json();
    let buckets = &fourth["apiInfo"]["storageApi"]["allowed"]["buckets"];
    assert_eq!(*buckets, json!([{"id": stage.bucket, "name": null}]));
}

#[test]
fn native_62_capabilities_are_listed_once_each() {
    let stage = Stage::new();
    let wish = json!({"capabilities": ["readFiles", "listFiles", "readFiles"]});
    let (id, key) = make_key(&stage, 4, &wish);
    let answer = authorize(&stage, 4, &id, &key).json();
    let capabilities = &answer["apiInfo"]["storageApi"]["allowed"]["capabilities"];
    assert_eq!(*capabilities, json!(["listFiles", "readFiles"]));
}

#[test]
fn native_400_a_key_of_one_bucket_is_refused_everything_about_another() {
    let stage = Stage::new();
    let other = stage.master.create_bucket("other-bucket");
    let file = stage.master.upload(&other, "file", b"content");
    let rights = [
        "deleteFiles", "listBuckets", "listFiles", "readFiles", "shareFiles", "writeFiles",
    ];
    let session = stage.master.with_key(&rights, Some(&[&stage.bucket]), None);
    let requests = [
        ("b2_get_upload_url", json!({"bucketId": other})),
        ("b2_hide_file", json!({"bucketId": other, "fileName": "file"})),
        ("b2_list_file_names", json!({"bucketId": other})),
        ("b2_list_file_versions", json!({"bucketId": other})),
        ("b2_list_buckets", json!({"accountId": session.account, "bucketId": other})),
        ("b2_list_buckets", json!({"accountId": session.account, "bucketName": "other-bucket"})),
        ("b2_get_file_info", json!({"fileId": file["fileId"]})),
        ("b2_delete_file_version", json!({"fileId": file["fileId"], "fileName": "file"})),
        ("b2_download_file_by_id", json!({"fileId": file["fileId"]})),
        ("b2_get_download_authorization",
            json!({"bucketId": other, "fileNamePrefix": "", "validDurationInSeconds": 60})),
    ];
    let before = stage.snapshot();
    for (operation, request) in requests {
        refused(&session.call(operation, &request), 401, "unauthorized");
        assert_eq!(stage.master.call(operation, &request).status == 401, false, "{operation}");
        if matches!(operation, "b2_hide_file" | "b2_delete_file_version") {
            // The master key just did it; that it could shows that the request was right.
            assert_ne!(stage.snapshot(), before, "{operation}");
        }
    }
    refused(&session.download("other-bucket/file", &[]), 401, "unauthorized");
}
