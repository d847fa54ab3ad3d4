//! Large files and their parts.

use serde_json::{Value, json};

use crate::support::http::{Answer, call};
use crate::support::server::{Server, Session, sha1_hex};
use crate::support::wait_for;

/// A server on which parts may be small, so that tests need not send much.
fn server() -> Server {
    Server::start_with(&["--limits-part-size-min", "100", "--test-controls"])
}

fn start(session: &Session, bucket: &str, name: &str) -> String {
    let fields = json!({"bucketId": bucket, "fileName": name, "contentType": "text/plain"});
    session.ok("b2_start_large_file", &fields)["fileId"].as_str().unwrap().to_owned()
}

/// The path of a URL for the parts of a file, and its token.
fn part_url(session: &Session, file: &str) -> (String, String) {
    let pair = session.ok("b2_get_upload_part_url", &json!({"fileId": file}));
    let url = pair["uploadUrl"].as_str().unwrap();
    let target = url.splitn(4, '/').nth(3).unwrap();
    (format!("/{target}"), pair["authorizationToken"].as_str().unwrap().to_owned())
}

fn send_part(
    session: &Session,
    pair: &(String, String),
    number: &str,
    body: &[u8],
    sha1: &str,
) -> Answer {
    let headers = [
        ("Authorization", pair.1.as_str()),
        ("X-Bz-Part-Number", number),
        ("X-Bz-Content-Sha1", sha1),
    ];
    call(&session.address, "POST", &pair.0, &headers, body)
}

fn part(session: &Session, file: &str, number: i64, body: &[u8]) -> Value {
    let pair = part_url(session, file);
    let answer = send_part(session, &pair, &number.to_string(), body, &sha1_hex(body));
    assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
    answer.json()
}

fn finish(session: &Session, file: &str, bodies: &[&[u8]]) -> Answer {
    let sha1s: Vec<String> = bodies.iter().map(|body| sha1_hex(body)).collect();
    session.call("b2_finish_large_file", &json!({"fileId": file, "partSha1Array": sha1s}))
}

fn refused(answer: &Answer, code: &str) {
    assert_eq!((answer.status, answer.code().as_str()), (400, code), "{answer:?}");
}

fn names(session: &Session, bucket: &str) -> Vec<Value> {
    let page = session.ok("b2_list_file_names", &json!({"bucketId": bucket}));
    page["files"].as_array().unwrap().clone()
}

#[test]
fn native_241_to_246_257_259_260_304_a_large_file_is_begun_filled_and_finished() {
    let server = server();
    let master = server.master();
    let bucket = master.create_bucket("large-bucket");
    let fields = json!({
        "bucketId": bucket, "fileName": "big.bin", "contentType": "b2/x-auto",
        "fileInfo": {"large_file_sha1": "0".repeat(40), "Src": "café +"},
    });
    let started = master.ok("b2_start_large_file", &fields);
    assert_eq!(started["action"], "start");
    assert_eq!(started["contentSha1"], "none");
    assert_eq!(started["contentMd5"], Value::Null);
    assert_eq!(started["contentLength"], 0);
    assert_eq!(started["contentType"], "application/octet-stream");
    assert_eq!(started["fileInfo"], json!({"large_file_sha1": "0".repeat(40), "src": "café +"}));
    let id = started["fileId"].as_str().unwrap();
    assert!(id.contains("_f2"), "the number of a large file begins with 2: {id}");
    let without_info = json!({
        "bucketId": bucket, "fileName": "x", "contentType": "text/plain", "fileInfo": null,
    });
    assert_eq!(master.ok("b2_start_large_file", &without_info)["fileInfo"], json!({}));

    assert!(names(&master, &bucket).is_empty(), "no name shows what is unfinished");
    let pair = master.ok("b2_get_upload_part_url", &json!({"fileId": id}));
    assert_eq!(pair["fileId"], id);
    assert!(pair["uploadUrl"].as_str().unwrap().contains("/b2_upload_part/"));
    let (one, two) = (vec![b'1'; 30_000], vec![b'2'; 200]);
    // In any order, and the last one small.
    let second = part(&master, id, 2, &two);
    let first = part(&master, id, 1, &one);
    assert_eq!(first["contentLength"], 30_000);
    assert_eq!(second["contentMd5"].as_str().map(str::len), Some(32));
    assert_eq!(first["contentSha1"], sha1_hex(&one));
    assert_eq!((&first["fileId"], &first["partNumber"]), (&json!(id), &json!(1)));
    assert_eq!(first["serverSideEncryption"], json!({"algorithm": null, "mode": null}));
    assert!(first["uploadTimestamp"].as_i64() >= started["uploadTimestamp"].as_i64());

    let finished = finish(&master, id, &[&one, &two]).json();
    assert_eq!(
        (&finished["action"], &finished["contentLength"]),
        (&json!("upload"), &json!(30_200))
    );
    assert_eq!((&finished["contentSha1"], &finished["contentMd5"]), (&json!("none"), &Value::Null));
    assert_eq!(finished["fileId"], id);
    assert_eq!(finished["uploadTimestamp"], started["uploadTimestamp"]);
    assert_eq!(finished["fileInfo"], started["fileInfo"]);
    assert_eq!(master.ok("b2_get_file_info", &json!({"fileId": id}))["action"], "upload");

    let whole = [one.as_slice(), &two].concat();
    let got = master.download("large-bucket/big.bin", &[]);
    assert_eq!((got.status, got.header("x-bz-content-sha1")), (200, Some("none")));
    assert_eq!(got.body, whole);
    for (first, last) in [(0, 0), (29_999, 30_000), (29_990, 30_199), (30_000, 30_000), (5, 30_100)]
    {
        let range = format!("bytes={first}-{last}");
        let got = master.download("large-bucket/big.bin", &[("Range", &range)]);
        assert_eq!(got.status, 206);
        assert_eq!(got.body, &whole[first..=last], "{range}");
    }
}

#[test]
fn native_245_262_ids_that_are_not_unfinished_files_are_refused() {
    let server = server();
    let master = server.master();
    let bucket = master.create_bucket("large-bucket");
    let canceled = start(&master, &bucket, "canceled");
    let done = start(&master, &bucket, "done");
    let (one, two) = ([b'a'; 100], [b'b'; 1]);
    part(&master, &done, 1, &one);
    part(&master, &done, 2, &two);
    assert_eq!(finish(&master, &done, &[&one, &two]).status, 200);
    master.ok("b2_cancel_large_file", &json!({"fileId": canceled}));
    let small = master.upload(&bucket, "small", b"x")["fileId"].as_str().unwrap().to_owned();
    let unknown = canceled.replace("_f2", "_f3");
    for id in [&canceled, &done, &small, &unknown, &"malformed".to_owned()] {
        for operation in ["b2_get_upload_part_url", "b2_list_parts", "b2_cancel_large_file"] {
            refused(&master.call(operation, &json!({"fileId": id})), "bad_request");
        }
        let fields = json!({"fileId": id, "partSha1Array": [sha1_hex(b"a")]});
        refused(&master.call("b2_finish_large_file", &fields), "bad_request");
    }
}

#[test]
fn native_247_248_249_250_parts_are_checked_replaced_and_come_in_any_order() {
    let server = server();
    let master = server.master();
    let bucket = master.create_bucket("large-bucket");
    let id = start(&master, &bucket, "parts");
    let (one_url, other_url) = (part_url(&master, &id), part_url(&master, &id));
    assert_ne!(one_url, other_url);
    let body = [b'x'; 200];
    for number in ["0", "10001", "-1", "1.5", "", "x"] {
        refused(&send_part(&master, &one_url, number, &body, &sha1_hex(&body)), "bad_request");
    }
    refused(&send_part(&master, &one_url, "1", b"", &sha1_hex(b"")), "bad_request");
    assert_eq!(send_part(&master, &one_url, "10000", &body, &sha1_hex(&body)).status, 200);
    refused(&send_part(&master, &one_url, "7", &body, &sha1_hex(b"other")), "bad_request");
    let unverified = send_part(&master, &other_url, "3", &body, "do_not_verify").json();
    assert_eq!(unverified["contentSha1"], sha1_hex(&body), "what it is finished with");
    let trailer = [body.as_slice(), sha1_hex(&body).as_bytes()].concat();
    let at_end = send_part(&master, &other_url, "2", &trailer, "hex_digits_at_end").json();
    assert_eq!(
        (&at_end["contentLength"], &at_end["contentSha1"]),
        (&json!(200), &json!(sha1_hex(&body)))
    );

    let listed = |fields: Value| master.ok("b2_list_parts", &fields);
    let numbers = |page: &Value| -> Vec<i64> {
        page["parts"]
            .as_array()
            .unwrap()
            .iter()
            .map(|p| p["partNumber"].as_i64().unwrap())
            .collect()
    };
    let all = listed(json!({"fileId": id}));
    assert_eq!((numbers(&all), &all["nextPartNumber"]), (vec![2, 3, 10_000], &Value::Null));
    assert_eq!(listed(json!({"fileId": id, "startPartNumber": 0})), all);
    let page = listed(json!({"fileId": id, "startPartNumber": 3, "maxPartCount": 1}));
    assert_eq!((numbers(&page), &page["nextPartNumber"]), (vec![3], &json!(10_000)));
    refused(
        &master.call("b2_list_parts", &json!({"fileId": id, "maxPartCount": 10_001})),
        "out_of_range",
    );

    let again = [b'y'; 300];
    part(&master, &id, 2, &again);
    let replaced = listed(json!({"fileId": id, "maxPartCount": 1}));
    assert_eq!(replaced["parts"][0]["contentSha1"], sha1_hex(&again));
    assert_eq!(numbers(&listed(json!({"fileId": id}))), [2, 3, 10_000]);
}

#[test]
fn native_251_a_part_token_fits_its_own_address_and_file_only() {
    let server = server();
    let master = server.master();
    let bucket = master.create_bucket("large-bucket");
    let (one, two) = (start(&master, &bucket, "one"), start(&master, &bucket, "two"));
    let (of_one, of_two) = (part_url(&master, &one), part_url(&master, &two));
    let upload = master.upload_url(&bucket);
    for (target, token) in [(&of_two.0, &of_one.1), (&of_one.0, &upload.1), (&upload.0, &of_one.1)]
    {
        let pair = (target.clone(), token.clone());
        let answer = send_part(&master, &pair, "1", b"x", &sha1_hex(b"x"));
        assert_eq!((answer.status, answer.code().as_str()), (401, "bad_auth_token"));
    }
}

#[test]
fn native_252_to_256_an_incomplete_file_is_not_finished() {
    let server = server();
    let master = server.master();
    let bucket = master.create_bucket("large-bucket");
    let id = start(&master, &bucket, "incomplete");
    let (full, small) = ([b'a'; 100], [b'b'; 99]);
    let nothing = master.call("b2_finish_large_file", &json!({"fileId": id, "partSha1Array": []}));
    refused(&nothing, "bad_request");
    part(&master, &id, 1, &full);
    let one = finish(&master, &id, &[&full]);
    refused(&one, "bad_request");
    assert!(
        one.json()["message"].as_str().unwrap().contains("large files must have at least 2 parts")
    );
    part(&master, &id, 3, &full);
    refused(&finish(&master, &id, &[&full, &full]), "missing_part");
    part(&master, &id, 2, &small);
    refused(&finish(&master, &id, &[&full, &full, &full]), "part_sha1_mismatch");
    refused(&finish(&master, &id, &[&full, &small]), "bad_request");
    refused(&finish(&master, &id, &[&full, &small, &full, &full]), "missing_part");
    let too_small = finish(&master, &id, &[&full, &small, &full]);
    refused(&too_small, "bad_request");
    assert!(too_small.json()["message"].as_str().unwrap().contains("part number 2"));
    part(&master, &id, 2, &full);
    assert_eq!(finish(&master, &id, &[&full, &full, &full]).status, 200);
}

#[test]
fn native_258_sixteen_finishers_make_one_version() {
    let server = server();
    let master = server.master();
    let bucket = master.create_bucket("large-bucket");
    let id = start(&master, &bucket, "once");
    let body = [b'a'; 100];
    part(&master, &id, 1, &body);
    part(&master, &id, 2, &body);
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let (master, id) = (&master, &id);
        let finishers: Vec<_> = (0..16)
            .map(|_| scope.spawn(move || finish(master, id, &[&body, &body]).status))
            .collect();
        finishers.into_iter().map(|one| one.join().unwrap()).collect()
    });
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 1, "{statuses:?}");
    assert!(statuses.iter().all(|status| [200, 400].contains(status)), "{statuses:?}");
    let versions = master.ok("b2_list_file_versions", &json!({"bucketId": bucket}));
    assert_eq!(versions["files"].as_array().unwrap().len(), 1);
}

#[test]
fn native_261_263_268_canceling_leaves_nothing_and_an_unfinished_file_keeps_its_bucket() {
    let server = server();
    let master = server.master();
    let bucket = master.create_bucket("large-bucket");
    let id = start(&master, &bucket, "given-up");
    let pair = part_url(&master, &id);
    part(&master, &id, 1, &[b'a'; 100]);
    let gone = json!({"accountId": master.account, "bucketId": bucket});
    let answer = master.call("b2_delete_bucket", &gone);
    assert_eq!(answer.code(), "cannot_delete_non_empty_bucket");
    let info = master.call("b2_get_file_info", &json!({"fileId": id}));
    assert_eq!((info.status, info.code().as_str()), (404, "not_found"));
    let canceled = master.ok("b2_cancel_large_file", &json!({"fileId": id}));
    assert_eq!(
        canceled,
        json!({
            "accountId": master.account, "bucketId": bucket, "fileId": id, "fileName": "given-up",
        })
    );
    let late = send_part(&master, &pair, "2", b"x", &sha1_hex(b"x"));
    assert_eq!(late.status, 400);
    // Deleting an unfinished file as a version is another word for canceling it: rclone does.
    let other = start(&master, &bucket, "deleted");
    part(&master, &other, 1, &[b'a'; 100]);
    master.ok("b2_delete_file_version", &json!({"fileId": other, "fileName": "deleted"}));
    let listed = master.ok("b2_list_unfinished_large_files", &json!({"bucketId": bucket}));
    assert_eq!(listed["files"], json!([]));
    assert_eq!(master.call("b2_delete_bucket", &gone).status, 200);
}

#[test]
fn native_222_224_234_to_236_unfinished_files_are_listed_in_pages_and_stand_among_versions() {
    let server = server();
    let master = server.master();
    let bucket = master.create_bucket("large-bucket");
    master.upload(&bucket, "b/2", b"shown");
    let ids: Vec<(String, String)> = ["b/2", "a/1", "b/1", "b/2", "c"]
        .into_iter()
        .map(|name| (name.to_owned(), start(&master, &bucket, name)))
        .collect();
    let listed = |fields: Value| {
        let page = master.ok("b2_list_unfinished_large_files", &fields);
        let files = page["files"].as_array().unwrap().clone();
        for file in &files {
            let shape = [&file["action"], &file["contentLength"], &file["contentSha1"]];
            assert_eq!(shape, [&json!("start"), &json!(0), &json!("none")]);
        }
        let found: Vec<String> =
            files.iter().map(|file| file["fileId"].as_str().unwrap().to_owned()).collect();
        (found, page["nextFileId"].clone())
    };
    let id = |at: usize| ids[at].1.clone();
    let all = listed(json!({"bucketId": bucket}));
    assert_eq!(
        all,
        (vec![id(1), id(2), id(0), id(3), id(4)], Value::Null),
        "oldest first in a name"
    );
    let prefixed = listed(json!({"bucketId": bucket, "namePrefix": "b/"}));
    assert_eq!(prefixed, (vec![id(2), id(0), id(3)], Value::Null));
    let (page, next) = listed(json!({"bucketId": bucket, "maxFileCount": 2}));
    assert_eq!((page, &next), (vec![id(1), id(2)], &json!(id(0))));
    let rest = listed(json!({"bucketId": bucket, "startFileId": next}));
    assert_eq!(rest.0, [id(0), id(3), id(4)], "the start counts in");
    for count in [101, -1] {
        let fields = json!({"bucketId": bucket, "maxFileCount": count});
        refused(&master.call("b2_list_unfinished_large_files", &fields), "out_of_range");
    }
    let versions =
        master.ok("b2_list_file_versions", &json!({"bucketId": bucket, "prefix": "b/2"}));
    let actions: Vec<&str> = versions["files"]
        .as_array()
        .unwrap()
        .iter()
        .map(|file| file["action"].as_str().unwrap())
        .collect();
    assert_eq!(actions, ["start", "start", "upload"]);
    let shown = names(&master, &bucket);
    assert_eq!(shown.len(), 1);
    assert_eq!(shown[0]["action"], "upload");
    assert_eq!(master.download("large-bucket/b/2", &[]).body, b"shown");
    // Hiding looks past what is unfinished, and finishing takes the place of the start.
    master.ok("b2_hide_file", &json!({"bucketId": bucket, "fileName": "b/2"}));
    assert!(names(&master, &bucket).is_empty());
    let unfinished_only = json!({"bucketId": bucket, "fileName": "c"});
    refused(&master.call("b2_hide_file", &unfinished_only), "no_such_file");
}

#[test]
fn native_264_to_267_parts_are_copied_whole_and_by_ranges_across_buckets() {
    let server = server();
    let master = server.master();
    let (bucket, other) =
        (master.create_bucket("large-bucket"), master.create_bucket("other-bucket"));
    let content: Vec<u8> = (0..60_000_u32).map(|at| u8::try_from(at % 251).unwrap()).collect();
    let source = master.upload(&other, "source", &content)["fileId"].as_str().unwrap().to_owned();
    let id = start(&master, &bucket, "joined");
    let copy = |number: i64, source: &str, range: Option<&str>| {
        master.call(
            "b2_copy_part",
            &json!({
                "sourceFileId": source, "largeFileId": id, "partNumber": number, "range": range,
            }),
        )
    };
    let ranged = copy(1, &source, Some("bytes=100-40099")).json();
    assert_eq!(ranged["contentLength"], 40_000);
    assert_eq!(ranged["contentSha1"], sha1_hex(&content[100..40_100]));
    assert_eq!((&ranged["fileId"], &ranged["partNumber"]), (&json!(id), &json!(1)));
    assert_eq!(copy(2, &source, None).json()["contentSha1"], sha1_hex(&content));
    assert_eq!(copy(3, &source, Some("bytes=59990-99999")).json()["contentLength"], 10);
    let beyond = copy(3, &source, Some("bytes=60000-60001"));
    assert_eq!((beyond.status, beyond.code().as_str()), (416, "range_not_satisfiable"));
    for bad in ["bytes=5-", "bytes=-5", "5-6", "bytes=9-5"] {
        refused(&copy(3, &source, Some(bad)), "bad_request");
    }
    let joined = [&content[100..40_100], &content, &content[59_990..]].concat();
    let finished = finish(&master, &id, &[&content[100..40_100], &content, &content[59_990..]]);
    assert_eq!(finished.status, 200, "{finished:?}");
    assert_eq!(master.download("large-bucket/joined", &[]).body, joined);

    // A large file as the source: its pieces are shared, also when its parts are cut.
    let again = start(&master, &bucket, "again");
    let copy = |number: i64, range: Option<&str>| {
        master.ok(
            "b2_copy_part",
            &json!({
                "sourceFileId": id, "largeFileId": again, "partNumber": number, "range": range,
            }),
        )
    };
    assert_eq!(copy(1, None)["contentSha1"], sha1_hex(&joined));
    assert_eq!(
        copy(2, Some("bytes=39000-100009"))["contentSha1"],
        sha1_hex(&joined[39_000..100_010])
    );
    assert_eq!(finish(&master, &again, &[&joined, &joined[39_000..100_010]]).status, 200);
    master.ok("b2_delete_file_version", &json!({"fileId": id, "fileName": "joined"}));
    master.ok("b2_delete_file_version", &json!({"fileId": source, "fileName": "source"}));
    let twice = [joined.as_slice(), &joined[39_000..100_010]].concat();
    assert_eq!(master.download("large-bucket/again", &[]).body, twice);
}

#[test]
fn native_237_to_240_parts_are_listed_in_pages_of_an_unfinished_file_only() {
    let server = server();
    let master = server.master();
    let bucket = master.create_bucket("large-bucket");
    let id = start(&master, &bucket, "big");
    let pair = part_url(&master, &id);
    // In the wrong order, and with a number that is left out.
    let numbers: Vec<i64> = (1..=103).rev().filter(|number| *number != 50).collect();
    for number in &numbers {
        let body = vec![b'p'; 100 + usize::try_from(*number).unwrap()];
        let sent = send_part(&master, &pair, &number.to_string(), &body, &sha1_hex(&body));
        assert_eq!(sent.status, 200, "{sent:?}");
    }
    let listed = |fields: Value| {
        let mut wanted = json!({"fileId": id});
        wanted.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let page = master.ok("b2_list_parts", &wanted);
        let parts = page["parts"].as_array().unwrap().clone();
        let found: Vec<i64> =
            parts.iter().map(|part| part["partNumber"].as_i64().unwrap()).collect();
        for part in parts {
            let number = part["partNumber"].as_i64().unwrap();
            assert_eq!(
                (&part["fileId"], &part["contentLength"]),
                (&json!(id), &json!(100 + number))
            );
        }
        (found, page["nextPartNumber"].clone())
    };
    let all: Vec<i64> = numbers.into_iter().rev().collect();
    assert_eq!(listed(json!({})), (all[..100].to_vec(), json!(102)), "240: a hundred at a time");
    assert_eq!(listed(json!({"maxPartCount": 1000})), (all.clone(), Value::Null), "237");
    for (from, first) in [(2, 2), (50, 51), (103, 103)] {
        let expected: Vec<i64> = all.iter().copied().filter(|number| *number >= first).collect();
        let fields = json!({"startPartNumber": from, "maxPartCount": 1000});
        assert_eq!(listed(fields), (expected, Value::Null), "238: from {from}");
    }
    assert_eq!(listed(json!({"startPartNumber": 104})), (vec![], Value::Null));
    let (mut walked, mut from) = (Vec::new(), json!(null));
    loop {
        let (page, next) = listed(json!({"startPartNumber": from, "maxPartCount": 7}));
        walked.extend(page);
        from = next;
        if from.is_null() {
            break;
        }
    }
    assert_eq!(walked, all, "each once in pages of seven");

    let done = start(&master, &bucket, "done");
    let body = vec![b'd'; 100];
    for number in [1, 2] {
        part(&master, &done, number, &body);
    }
    assert_eq!(finish(&master, &done, &[&body, &body]).status, 200);
    let small = master.upload(&bucket, "small", b"x")["fileId"].as_str().unwrap().to_owned();
    let canceled = start(&master, &bucket, "canceled");
    master.ok("b2_cancel_large_file", &json!({"fileId": canceled}));
    for other in [done.as_str(), &small, &canceled, "nonsense"] {
        refused(&master.call("b2_list_parts", &json!({"fileId": other})), "bad_request");
    }
}

#[test]
fn native_136_198_203_an_unfinished_file_is_no_file_yet_and_is_deleted_with_its_parts() {
    let server = server();
    let master = server.master();
    let bucket = master.create_bucket("large-bucket");
    let id = start(&master, &bucket, "big");
    let body = vec![b'x'; 50_000];
    part(&master, &id, 1, &body);
    let delete_bucket = json!({"accountId": master.account, "bucketId": bucket});
    refused(&master.call("b2_delete_bucket", &delete_bucket), "cannot_delete_non_empty_bucket");
    let info = master.call("b2_get_file_info", &json!({"fileId": id}));
    assert_eq!((info.status, info.code().as_str()), (404, "not_found"), "203");
    let by_id = format!("/b2api/v4/b2_download_file_by_id?fileId={id}");
    let auth = [("Authorization", master.token.as_str())];
    assert_eq!(call(&master.address, "GET", &by_id, &auth, b"").status, 404);
    let version = json!({"fileId": id, "fileName": "big"});
    assert_eq!(master.ok("b2_delete_file_version", &version), version, "198");
    refused(&master.call("b2_list_parts", &json!({"fileId": id})), "bad_request");
    refused(&finish(&master, &id, &[&body, &body]), "bad_request");
    let unfinished = master.ok("b2_list_unfinished_large_files", &json!({"bucketId": bucket}));
    assert_eq!(unfinished["files"], json!([]));
    assert_eq!(
        master.ok("b2_list_file_versions", &json!({"bucketId": bucket}))["files"],
        json!([])
    );
    // What the part held leaves the disk once its grace is over.
    server.control("POST", "/admin/clock/advance?ms=61000");
    let figure = || {
        let figures = String::from_utf8(server.control("GET", "/metrics").body).unwrap();
        figures.contains("\nkiln_blobs_removed_total 1\n").then_some(())
    };
    master.upload(&bucket, "wakes-the-sweep", b"x");
    let file = master.upload(&bucket, "removed", b"x");
    let removed = json!({"fileId": file["fileId"], "fileName": "removed"});
    master.ok("b2_delete_file_version", &removed);
    wait_for("the bytes of the part are removed", figure);
}

#[test]
fn native_264_265_a_file_is_finished_with_the_digests_that_its_parts_were_answered_with() {
    let server = server();
    let master = server.master();
    let bucket = master.create_bucket("large-bucket");
    let body = [b'u'; 200];
    let more = [("X-Bz-Content-Sha1", "do_not_verify")];
    let source = master.try_upload(&bucket, "source", &body, &more).json();
    assert_eq!(source["contentSha1"], format!("unverified:{}", sha1_hex(&body)));
    let id = start(&master, &bucket, "large");
    let copied = master.ok(
        "b2_copy_part",
        &json!({"sourceFileId": source["fileId"], "largeFileId": id, "partNumber": 1}),
    );
    let sent = send_part(&master, &part_url(&master, &id), "2", &body, "do_not_verify").json();
    let answered = [&copied["contentSha1"], &sent["contentSha1"]];
    assert_eq!(answered, [&json!(sha1_hex(&body)); 2]);
    let null = json!({"fileId": id, "partSha1Array": null});
    refused(&master.call("b2_finish_large_file", &null), "bad_request");
    // So say those who were answered by an older server.
    let older = format!("unverified:{}", sha1_hex(&body));
    let finish = json!({"fileId": id, "partSha1Array": [older, sent["contentSha1"]]});
    assert_eq!(master.ok("b2_finish_large_file", &finish)["contentLength"], 400);
}
