//! What the server needs of memory.

use std::path::Path;

use serde_json::{Value, json};

use crate::support::http::{Connection, call};
use crate::support::server::{MASTER_ID, MASTER_KEY, Server, Session, replicated_buckets};

/// Kilobytes that the process had in memory at most since the last reset, or has now.
fn kilobytes(pid: u32, field: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.trim_start_matches(':').trim().strip_suffix(" kB").unwrap().parse().unwrap()
}

const PART: usize = 16 * 1024 * 1024;
const PARTS: usize = 64;

/// Makes a file of a gibibyte while replication is held, lets it go, and compares the most memory that
/// took with what there was before.
fn gibibyte(server: &Server, master: &Session, source: &str) -> Value {
    let body: Vec<u8> = (0..PART).map(|at| u8::try_from(at % 251).unwrap()).collect();
    let large = large_of(master, source, [&body, &body], PARTS);
    assert_eq!(large["contentLength"], 1_u64 << 30);

    // From here on the peak is counted anew.
    let pid = server.pid();
    std::fs::write(format!("/proc/{pid}/clear_refs"), "5").unwrap();
    let before = kilobytes(pid, "VmRSS");
    let drained = server.control("POST", "/admin/replication/drain?timeout=300000").json();
    assert_eq!(drained["drained"], true);
    let peak = kilobytes(pid, "VmHWM");
    assert!(peak < before + 64 * 1024, "{before} kB before, {peak} kB at most");
    large
}

#[test]
fn replication_213_a_gibibyte_is_replicated_in_a_few_mebibytes_of_memory() {
    let server = Server::start();
    let master = server.master();
    let (source, _) = replicated_buckets(&master);
    assert_eq!(server.control("POST", "/admin/replication/hold").status, 200);
    let large = gibibyte(&server, &master, &source);
    let info = master.ok("b2_get_file_info", &json!({"fileId": large["fileId"]}));
    assert_eq!(info["replicationStatus"], "completed");
}

#[test]
fn replication_213_a_gibibyte_is_carried_to_stores_of_others_in_a_few_mebibytes_of_memory() {
    for (kind, parameters) in [("b2", ""), ("s3", "?region=us-west-000")] {
        let (server, far) = (Server::start(), Server::start());
        let (master, owner) = (server.master(), far.master());
        let (source, copies) =
            (master.create_bucket("carried-source"), owner.create_bucket("carried-copies"));
        let rights = ["listBuckets", "listFiles", "readFiles", "writeFiles"];
        let (id, secret) = owner.create_key(&rights, None, None);
        assert_eq!(server.control("POST", "/admin/replication/hold").status, 200);
        let token = format!("Token {MASTER_ID}:{MASTER_KEY}");
        let make = |what: &str, body: Value| {
            let headers = [("Authorization", token.as_str())];
            let target = format!("/api/v2/{what}");
            let answer =
                call(&server.admin, "POST", &target, &headers, body.to_string().as_bytes());
            assert_eq!(answer.status, 201, "{}", String::from_utf8_lossy(&answer.body));
            answer.json()
        };
        let organization = format!("0000{MASTER_ID}");
        let remote = make(
            "remotes",
            json!({"name": "far", "orgID": organization, "allowInsecureTLS": false,
                "remoteURL": format!("{kind}+http://{}{parameters}", far.address),
                "remoteAPIToken": format!("{id}:{secret}")}),
        );
        make(
            "replications",
            json!({"name": "carry", "orgID": organization, "remoteID": remote["id"],
                "localBucketID": source, "remoteBucketName": "carried-copies"}),
        );
        let large = gibibyte(&server, &master, &source);
        let listed = owner.ok("b2_list_file_versions", &json!({"bucketId": copies}));
        let copies: Vec<&Value> = listed["files"].as_array().unwrap().iter().collect();
        // The other file is the one whose content the parts are copies of.
        let found: Vec<&&Value> =
            copies.iter().filter(|copy| copy["fileName"] == large["fileName"]).collect();
        assert_eq!(found.len(), 1, "{kind}: {listed}");
        assert_eq!(found[0]["contentLength"], large["contentLength"], "{kind}");
        assert_eq!(found[0]["action"], "upload", "{kind}");
    }
}

/// A large file of `parts` parts of equal size whose contents alternate between two uploaded ones;
/// all but those are copied.
fn large_of(master: &Session, bucket: &str, contents: [&[u8]; 2], parts: usize) -> Value {
    let stored = contents.map(|content| master.upload(bucket, "part", content));
    let begun = master.ok(
        "b2_start_large_file",
        &json!({"bucketId": bucket, "fileName": "large", "contentType": "b2/x-auto"}),
    );
    let mut sha1s = Vec::with_capacity(parts);
    for at in 0..parts {
        let part = &stored[at % 2];
        master.ok(
            "b2_copy_part",
            &json!({"sourceFileId": part["fileId"], "largeFileId": begun["fileId"],
                    "partNumber": at + 1}),
        );
        sha1s.push(part["contentSha1"].as_str().unwrap());
    }
    master.ok("b2_finish_large_file", &json!({"fileId": begun["fileId"], "partSha1Array": sha1s}))
}

#[test]
fn native_259_ten_gigabytes_of_parts_are_read_whole_and_across_their_borders() {
    const PART: usize = 100_000_000;
    const PARTS: usize = 100;
    let server = Server::start();
    let master = server.master();
    let bucket = master.create_bucket("ten-gigabytes");
    let (holes, bytes) = (vec![0_u8; PART], (0..PART).map(|at| u8::try_from(at % 251).unwrap()));
    let bytes: Vec<u8> = bytes.collect();
    let large = large_of(&master, &bucket, [&bytes, &holes], PARTS);
    assert_eq!(large["contentLength"], 10_000_000_000_u64);
    let stored = walk(server.data_dir());
    assert!(stored < 220_000_000, "{stored} bytes in the data folder for 200,000,000 uploaded");

    let pid = server.pid();
    std::fs::write(format!("/proc/{pid}/clear_refs"), "5").unwrap();
    let before = kilobytes(pid, "VmRSS");
    let mut connection = Connection::open(&master.address).unwrap();
    let authorization = [("Authorization", master.token.as_str())];
    connection.send("GET", "/file/ten-gigabytes/large", &authorization, b"").unwrap();
    let (status, headers) = connection.read_head().unwrap();
    assert_eq!((status, headers["content-length"].as_str()), (200, "10000000000"));
    let mut read = vec![0; PART];
    for at in 0..PARTS {
        connection.read_exact(&mut read).unwrap();
        assert!(read == if at % 2 == 0 { &*bytes } else { &*holes }, "part {}", at + 1);
    }
    let peak = kilobytes(pid, "VmHWM");
    assert!(peak < before + 32 * 1024, "{before} kB before, {peak} kB at most");

    for border in (1..PARTS).map(|at| at * PART) {
        let range = format!("bytes={}-{}", border - 3, border + 4);
        let answer = master.download("ten-gigabytes/large", &[("Range", &range)]);
        let is_behind_bytes = border / PART % 2 == 1;
        let (left, right) = if is_behind_bytes { (&bytes, &holes) } else { (&holes, &bytes) };
        let wanted = [&left[PART - 3..], &right[..5]].concat();
        assert_eq!((answer.status, answer.body), (206, wanted), "{range}");
    }
    let over_three = format!("bytes={}-{}", PART - 2, 2 * PART + 1);
    let answer = master.download("ten-gigabytes/large", &[("Range", &over_three)]);
    assert!(answer.body == [&bytes[PART - 2..], &holes, &bytes[..2]].concat(), "{over_three}");
}

/// The bytes of all files below a folder.
fn walk(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    entries
        .map(|entry| {
            let kind = entry.file_type().unwrap();
            if kind.is_dir() { walk(&entry.path()) } else { entry.metadata().unwrap().len() }
        })
        .sum()
}
