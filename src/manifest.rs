//! The table of operations for readers outside of the crate: tests and tools.

use crate::api::influx;
use crate::api::native::{OPERATIONS, Scope};
use crate::api::s3;
use crate::domain::capability::Capability;

/// One operation of the Native API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperationRow {
    /// `b2_...`
    pub name: &'static str,
    /// HTTP methods it answers.
    pub methods: &'static [&'static str],
    /// The capability every caller needs, if there is one.
    pub capability: Option<&'static str>,
    /// Transaction class: `A`, `B` or `C`.
    pub class: &'static str,
    /// What restrictions of a key matter: `nothing`, `account`, `bucket`, `prefix` or `name`.
    pub scope: &'static str,
}

/// Every operation there is, in the order of their names.
pub fn operations() -> Vec<OperationRow> {
    OPERATIONS
        .iter()
        .map(|operation| OperationRow {
            name: operation.name,
            methods: operation.methods(),
            capability: operation.capability.map(Capability::as_str),
            class: operation.class.as_str(),
            scope: match operation.scope {
                Scope::Nothing => "nothing",
                Scope::Account => "account",
                Scope::Bucket => "bucket",
                Scope::Prefix => "prefix",
                Scope::Name => "name",
            },
        })
        .collect()
}

/// One operation of the S3-compatible API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct S3OperationRow {
    /// As S3 calls it.
    pub name: &'static str,
    /// Its HTTP method.
    pub method: &'static str,
    /// What it is addressed to: `/`, `/bucket` or `/bucket/key`, with the parameters of the query or
    /// the header that tell it from others.
    pub address: String,
    /// The capability every caller needs, if there is one.
    pub capability: Option<&'static str>,
    /// Transaction class: `A`, `B` or `C`.
    pub class: &'static str,
    /// The operation of the Native API that does the same, if there is one.
    pub native: Option<&'static str>,
}

/// Every operation of the S3-compatible API, in the order of the specification.
pub fn s3_operations() -> Vec<S3OperationRow> {
    let row = |operation: &s3::Operation| {
        let place = match operation.level {
            s3::Level::Service => "/",
            s3::Level::Bucket => "/bucket",
            s3::Level::Object => "/bucket/key",
        };
        let address = match operation.sub {
            "" => place.to_owned(),
            "list-type" => format!("{place}?list-type=2"),
            "copy" => format!("{place}, x-amz-copy-source"),
            "uploadId copy" => format!("{place}?uploadId, x-amz-copy-source"),
            sub => format!("{place}?{sub}"),
        };
        S3OperationRow {
            name: operation.name,
            method: operation.method,
            address,
            capability: operation.capability.map(Capability::as_str),
            class: operation.class.as_str(),
            native: Some(operation.native).filter(|native| *native != "-"),
        }
    };
    s3::OPERATIONS.iter().map(row).collect()
}

/// One operation of the API of remotes and replication streams.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamOperationRow {
    /// As InfluxDB calls it, or as we call what it has not.
    pub name: &'static str,
    /// Its HTTP method.
    pub method: &'static str,
    /// Its path; `{id}` stands for the id of a remote or a stream.
    pub address: &'static str,
    /// The capability every caller needs, if there is one.
    pub capability: Option<&'static str>,
    /// Whether InfluxDB has it too.
    pub is_influx: bool,
}

/// Every operation of the API of remotes and replication streams.
pub fn stream_operations() -> Vec<StreamOperationRow> {
    let row = |operation: &influx::Operation| StreamOperationRow {
        name: operation.name,
        method: operation.method,
        address: operation.address,
        capability: operation.capability.map(Capability::as_str),
        is_influx: operation.is_influx,
    };
    influx::OPERATIONS.iter().map(row).collect()
}

/// Every capability there is, in the order of their names.
pub fn capabilities() -> Vec<&'static str> {
    Capability::ALL.iter().map(|one| one.as_str()).collect()
}
