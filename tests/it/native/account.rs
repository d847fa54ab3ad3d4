//! `b2_authorize_account`.

use serde_json::json;

use crate::support::http::call;
use crate::support::server::{MASTER_ID, MASTER_KEY, Server, Session, basic};

#[test]
fn native_1_2_3_4_36_to_45_each_version_has_its_own_shape() {
    let server = Server::start();
    let header = basic(MASTER_ID, MASTER_KEY);
    let auth = [("Authorization", header.as_str())];
    let of = |version: u8, method: &str, body: &[u8]| {
        let target = format!("/b2api/v{version}/b2_authorize_account");
        let answer = call(&server.address, method, &target, &auth, body);
        assert_eq!(answer.status, 200);
        answer.json()
    };
    let url = "http://localhost";
    for version in 1..=2 {
        let flat = of(version, "POST", b"{}");
        assert_eq!(flat["apiUrl"], url, "no trailing slash (31)");
        assert_eq!(flat["minimumPartSize"].is_number(), version == 1);
        assert_eq!(flat["recommendedPartSize"], 100_000_000);
        assert_eq!(flat["absoluteMinimumPartSize"], 5_000_000);
        assert!(flat["allowed"]["bucketId"].is_null() && flat["allowed"]["namePrefix"].is_null());
        assert!(flat["s3ApiUrl"].is_string() && flat["downloadUrl"].is_string());
    }
    let third = of(3, "GET", b"");
    let storage = &third["apiInfo"]["storageApi"];
    assert_eq!(storage["infoType"], "storageApi");
    assert!(
        storage["capabilities"].is_array() && third["applicationKeyExpirationTimestamp"].is_null()
    );
    let fourth = of(4, "POST", b"");
    let storage = &fourth["apiInfo"]["storageApi"];
    assert!(storage["allowed"]["buckets"].is_null() && storage.get("capabilities").is_none());
    let mut capabilities: Vec<String> =
        serde_json::from_value(storage["allowed"]["capabilities"].clone()).unwrap();
    let count = capabilities.len();
    capabilities.dedup();
    assert_eq!((count, capabilities.len()), (30, 30));
}

#[test]
fn native_46_to_53_only_right_credentials_are_authorized() {
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
fn native_57_to_61_restricted_keys_show_their_buckets_by_version() {
    let server = Server::start();
    let master = server.master();
    let (one, two) = (master.create_bucket("first-bucket"), master.create_bucket("second-bucket"));
    let (single, single_key) = master.create_key(&["listFiles"], Some(&[&one]), None);
    let (multi, multi_key) = master.create_key(&["listFiles"], Some(&[&one, &two]), None);
    let of = |version: u8, id: &str, key: &str| {
        let target = format!("/b2api/v{version}/b2_authorize_account");
        call(&server.address, "POST", &target, &[("Authorization", &basic(id, key))], b"{}")
    };
    let shown = of(4, &multi, &multi_key).json();
    assert_eq!(shown["apiInfo"]["storageApi"]["allowed"]["buckets"].as_array().unwrap().len(), 2);
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
    let gone = of(4, &single, &single_key).json();
    assert!(gone["apiInfo"]["storageApi"]["allowed"]["buckets"][0]["name"].is_null());
    let strict = Server::start_with(&["--auth-strict-v4-keys"]);
    let master = strict.master();
    let bucket = master.create_bucket("strict-bucket");
    let (id, key) = master.create_key(&["listFiles"], Some(&[&bucket]), None);
    let target = "/b2api/v3/b2_authorize_account";
    let answer =
        call(&strict.address, "POST", target, &[("Authorization", &basic(&id, &key))], b"{}");
    assert_eq!(answer.status, 400);
}
