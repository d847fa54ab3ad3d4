//! What the server needs of memory.

use serde_json::json;

use crate::support::server::{Server, replicated_buckets};

/// Kilobytes that the process had in memory at most since the last reset, or has now.
fn kilobytes(pid: u32, field: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.trim_start_matches(':').trim().strip_suffix(" kB").unwrap().parse().unwrap()
}

#[test]
fn replication_213_a_gibibyte_is_replicated_in_a_few_mebibytes_of_memory() {
    const PART: usize = 16 * 1024 * 1024;
    const PARTS: usize = 64;
    let server = Server::start();
    let master = server.master();
    let (source, _) = replicated_buckets(&master);
    assert_eq!(server.control("POST", "/admin/replication/hold").status, 200);
    let body: Vec<u8> = (0..PART).map(|at| u8::try_from(at % 251).unwrap()).collect();
    let part = master.upload(&source, "part", &body);
    let begun = master.ok(
        "b2_start_large_file",
        &json!({"bucketId": source, "fileName": "large", "contentType": "b2/x-auto"}),
    );
    for number in 1..=PARTS {
        master.ok(
            "b2_copy_part",
            &json!({"sourceFileId": part["fileId"], "largeFileId": begun["fileId"],
                    "partNumber": number}),
        );
    }
    let sha1s = vec![part["contentSha1"].as_str().unwrap(); PARTS];
    let finish = json!({"fileId": begun["fileId"], "partSha1Array": sha1s});
    let large = master.ok("b2_finish_large_file", &finish);
    assert_eq!(large["contentLength"], 1_u64 << 30);

    // From here on the peak is counted anew.
    let pid = server.pid();
    std::fs::write(format!("/proc/{pid}/clear_refs"), "5").unwrap();
    let before = kilobytes(pid, "VmRSS");
    let drained = server.control("POST", "/admin/replication/drain?timeout=300000").json();
    assert_eq!(drained["drained"], true);
    let peak = kilobytes(pid, "VmHWM");
    let info = master.ok("b2_get_file_info", &json!({"fileId": large["fileId"]}));
    assert_eq!(info["replicationStatus"], "completed");
    assert!(peak < before + 64 * 1024, "{before} kB before, {peak} kB at most");
    eprintln!("{before} kB before, {peak} kB at most");
}
