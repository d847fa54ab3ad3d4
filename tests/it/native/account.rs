//! `b2_authorize_account`.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::http::{Answer, call};
use crate::support::server::{MASTER_ID, MASTER_KEY, Server, Session, basic};

fn members(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn native_1_to_4_31_36_to_42_44_45_62_each_version_has_its_own_shape() {
    let server = Server::start();
    let header = basic(MASTER_ID, MASTER_KEY);
    let auth = [("Authorization", header.as_str())];
    let of = |version: u8| {
        let target = format!("/b2api/v{version}/b2_authorize_account");
        let mut shapes = Vec::new();
        for (method, body) in [("POST", &b"{}"[..]), ("POST", b""), ("GET", b"")] {
            let answer = call(&server.address, method, &target, &auth, body);
            assert_eq!(answer.status, 200, "{method} {target}");
            let mut shape = answer.json();
            assert!(shape["authorizationToken"].is_string());
            shape["authorizationToken"] = json!(null);
            shapes.push(shape);
        }
        assert!(shapes.iter().all(|shape| *shape == shapes[0]), "one shape for all forms");
        shapes.swap_remove(0)
    };
    let check_base = |storage: &Value| {
        for url in ["apiUrl", "downloadUrl", "s3ApiUrl"] {
            assert_eq!(storage[url], "http://localhost", "{url} has no trailing slash");
        }
        assert_eq!(storage["recommendedPartSize"], 100_000_000);
        assert_eq!(storage["absoluteMinimumPartSize"], 5_000_000);
    };
    let check_capabilities = |listed: &Value| {
        let listed: Vec<String> = serde_json::from_value(listed.clone()).unwrap();
        let set: BTreeSet<&String> = listed.iter().collect();
        assert_eq!((listed.len(), set.len()), (30, 30), "all of them, none twice");
    };
    let flat_members = [
        "absoluteMinimumPartSize",
        "accountId",
        "allowed",
        "apiUrl",
        "authorizationToken",
        "downloadUrl",
        "minimumPartSize",
        "recommendedPartSize",
        "s3ApiUrl",
    ];
    for version in [1, 2] {
        let flat = of(version);
        let mut expected = flat_members.to_vec();
        expected.retain(|name| version == 1 || *name != "minimumPartSize");
        assert_eq!(members(&flat), expected);
        check_base(&flat);
        assert!(version == 2 || flat["minimumPartSize"] == flat["recommendedPartSize"]);
        let allowed = &flat["allowed"];
        assert_eq!(members(allowed), ["bucketId", "bucketName", "capabilities", "namePrefix"]);
        assert!(["bucketId", "bucketName", "namePrefix"].iter().all(|one| allowed[one].is_null()));
        check_capabilities(&allowed["capabilities"]);
    }
    let outer = ["accountId", "apiInfo", "applicationKeyExpirationTimestamp", "authorizationToken"];
    let third = of(3);
    assert_eq!(members(&third), outer);
    let storage = &third["apiInfo"]["storageApi"];
    assert_eq!(
        members(storage),
        [
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
        ]
    );
    check_base(storage);
    check_capabilities(&storage["capabilities"]);
    assert_eq!(storage["infoType"], "storageApi");
    let fourth = of(4);
    assert_eq!(members(&fourth), outer);
    let storage = &fourth["apiInfo"]["storageApi"];
    assert_eq!(
        members(storage),
        [
            "absoluteMinimumPartSize",
            "allowed",
            "apiUrl",
            "downloadUrl",
            "recommendedPartSize",
            "s3ApiUrl",
        ]
    );
    check_base(storage);
    assert_eq!(members(&storage["allowed"]), ["buckets", "capabilities", "namePrefix"]);
    assert!(storage["allowed"]["buckets"].is_null(), "42: unrestricted");
    check_capabilities(&storage["allowed"]["capabilities"]);
}

#[test]
fn native_46_to_50_52_53_93_only_right_credentials_are_authorized() {
    let server = Server::start();
    let master = server.master();
    for (header, what) in [
        (basic(MASTER_ID, "wrong"), "wrong secret"),
        (basic("ffffffffffff", MASTER_KEY), "unknown id"),
        (basic("", MASTER_KEY), "empty id"),
        (basic(MASTER_ID, ""), "empty secret"),
        ("Bearer x".to_owned(), "another scheme"),
    ] {
        let target = "/b2api/v4/b2_authorize_account";
        let answer = call(&server.address, "POST", target, &[("Authorization", &header)], b"{}");
        assert_eq!((answer.status, answer.code().as_str()), (401, "bad_auth_token"), "{what}");
        assert_eq!(answer.message(), "");
        let challenge = answer.header("www-authenticate");
        assert_eq!(challenge, Some("BASIC realm=\"authorize_account\""));
    }
    let answer = call(&server.address, "POST", "/b2api/v4/b2_authorize_account", &[], b"{}");
    assert_eq!(answer.status, 401);
    let (id, key) = master.create_key(&["listFiles"], None, None);
    let one = Session::authorize(&server.address, &id, &key).unwrap();
    let two = Session::authorize(&server.address, &id, &key).unwrap();
    assert_ne!(one.token, two.token);
    for session in [&one, &two] {
        assert_eq!(
            session.call("b2_get_file_info", &json!({"fileId": "x"})).code(),
            "unauthorized"
        );
    }
    master.ok("b2_delete_key", &json!({"applicationKeyId": id}));
    assert_eq!(Session::authorize(&server.address, &id, &key).unwrap_err().status, 401);
    let answer = one.call("b2_get_file_info", &json!({"fileId": "x"}));
    assert_eq!((answer.status, answer.code().as_str()), (401, "bad_auth_token"), "93: at once");
}

#[test]
fn native_43_57_to_61_restricted_keys_show_their_buckets_by_version() {
    let server = Server::start();
    let master = server.master();
    let (one, two) = (master.create_bucket("first-bucket"), master.create_bucket("second-bucket"));
    let (single, single_key) = master.create_key(&["listFiles"], Some(&[&one]), None);
    let (multi, multi_key) = master.create_key(&["listFiles"], Some(&[&one, &two]), None);
    let of = |version: u8, id: &str, key: &str| {
        let target = format!("/b2api/v{version}/b2_authorize_account");
        call(&server.address, "POST", &target, &[("Authorization", &basic(id, key))], b"{}")
    };
    let named =
        |answer: &Answer| answer.json()["apiInfo"]["storageApi"]["allowed"]["buckets"].clone();
    let mut both =
        [json!({"id": one, "name": "first-bucket"}), json!({"id": two, "name": "second-bucket"})];
    both.sort_by_key(|bucket| bucket["id"].to_string());
    assert_eq!(named(&of(4, &multi, &multi_key)), json!(both));
    assert_eq!(named(&of(4, &single, &single_key)), json!([{"id": one, "name": "first-bucket"}]));
    let older = json!({"accountId": MASTER_ID, "keyName": "older", "capabilities": ["listFiles"],
        "bucketId": one});
    let older = master.call_version(3, "b2_create_key", &older).json();
    let text = |name: &str| older[name].as_str().unwrap();
    let shown = of(4, text("applicationKeyId"), text("applicationKey"));
    assert_eq!(named(&shown), json!([{"id": one, "name": "first-bucket"}]), "60: made by v3");
    let refused = of(3, &multi, &multi_key);
    assert_eq!(refused.status, 400);
    assert_eq!(
        refused.message(),
        "This request is not currently supported on API version number 3"
    );
    assert_eq!(
        of(3, &single, &single_key).json()["apiInfo"]["storageApi"]["bucketName"],
        "first-bucket"
    );
    master.ok("b2_delete_bucket", &json!({"accountId": MASTER_ID, "bucketId": one}));
    assert!(of(3, &single, &single_key).json()["apiInfo"]["storageApi"]["bucketName"].is_null());
    let flat = of(2, &single, &single_key).json();
    assert_eq!(
        (&flat["allowed"]["bucketId"], &flat["allowed"]["bucketName"]),
        (&json!(one), &json!(null))
    );
    assert_eq!(named(&of(4, &single, &single_key)), json!([{"id": one, "name": null}]));
    let strict = Server::start_with(&["--auth-strict-v4-keys"]);
    let master = strict.master();
    let bucket = master.create_bucket("strict-bucket");
    let (id, key) = master.create_key(&["listFiles"], Some(&[&bucket]), None);
    let target = "/b2api/v3/b2_authorize_account";
    let answer =
        call(&strict.address, "POST", target, &[("Authorization", &basic(&id, &key))], b"{}");
    assert_eq!(answer.status, 400);
}

#[test]
fn native_54_55_56_tokens_live_a_day_and_cannot_be_made_up() {
    let server = Server::start();
    let master = server.master();
    let body = json!({"accountId": MASTER_ID});
    let ask = |headers: &[(&str, &str)]| {
        let target = "/b2api/v4/b2_list_buckets";
        let body = body.to_string();
        let answer = call(&server.address, "POST", target, headers, body.as_bytes());
        (answer.status, answer.code())
    };
    let refused = |code: &str| (401, code.to_owned());
    let tag = master.token.rsplit('_').next().unwrap();
    let other_tag: String = tag.chars().rev().collect();
    for made_up in ["x", "4_0123456789ab_acct", &master.token.replace(tag, &other_tag)] {
        assert_eq!(ask(&[("Authorization", made_up)]), refused("bad_auth_token"), "{made_up}");
    }
    assert_eq!(ask(&[]), refused("bad_auth_token"), "no token at all");
    server.control("POST", "/admin/clock/advance?ms=86390000");
    assert_eq!(ask(&[("Authorization", &master.token)]).0, 200, "ten seconds before its end");
    server.control("POST", "/admin/clock/advance?ms=10001");
    assert_eq!(ask(&[("Authorization", &master.token)]), refused("expired_auth_token"));
    let answer = master.call("b2_list_buckets", &body);
    assert_eq!(answer.message(), "Authorization token has expired");
}

#[test]
fn native_51_63_64_a_key_and_its_tokens_end_together() {
    let server = Server::start();
    let master = server.master();
    let body = json!({"accountId": MASTER_ID, "keyName": "short", "capabilities": ["listBuckets"],
        "validDurationInSeconds": 100});
    let key = master.ok("b2_create_key", &body);
    let text = |name: &str| key[name].as_str().unwrap();
    let credentials = basic(text("applicationKeyId"), text("applicationKey"));
    let authorize = |version: u8| {
        let target = format!("/b2api/v{version}/b2_authorize_account");
        call(&server.address, "POST", &target, &[("Authorization", &credentials)], b"{}")
    };
    for version in [3, 4] {
        let shown = authorize(version).json();
        assert_eq!(shown["applicationKeyExpirationTimestamp"], key["expirationTimestamp"]);
    }
    let session = Session {
        token: authorize(4).json()["authorizationToken"].as_str().unwrap().to_owned(),
        ..master.clone()
    };
    let list = json!({"accountId": MASTER_ID});
    assert_eq!(session.call("b2_list_buckets", &list).status, 200);
    server.control("POST", "/admin/clock/advance?ms=100000");
    let ended = session.call("b2_list_buckets", &list);
    assert_eq!((ended.status, ended.code().as_str()), (401, "expired_auth_token"));
    for version in 1..=4 {
        let refused = authorize(version);
        assert_eq!((refused.status, refused.code().as_str()), (401, "bad_auth_token"));
    }
}
