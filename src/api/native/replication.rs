//! The `replicationConfiguration` field: strict, since a misspelt member would silently leave a
//! bucket without its copy (V3, V4, V5).

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::api::native::fields::Fields;
use crate::domain::refusal::{
    Refusal, bad_request, missing_field, null_field, shorten, wrong_type,
};
use crate::domain::replication::{
    AsDestination, AsSource, ReplicationConfiguration, ReplicationRule,
};

const FIELD: &str = "replicationConfiguration";

/// Reads the field; None when it is absent. Null and empty objects clear both sides.
pub(crate) fn parse(
    fields: &Fields,
    present: bool,
) -> Result<Option<ReplicationConfiguration>, Refusal> {
    if !present {
        return Ok(None);
    }
    let Some(value) = fields.opt_structure(FIELD)? else {
        return Ok(Some(ReplicationConfiguration::default()));
    };
    let sides = object(FIELD, &value)?;
    only_known(FIELD, sides, &["asReplicationSource", "asReplicationDestination"])?;
    let side = |name: &str| sides.get(name).filter(|value| !value.is_null());
    Ok(Some(ReplicationConfiguration {
        as_replication_source: side("asReplicationSource").map(source).transpose()?,
        as_replication_destination: side("asReplicationDestination")
            .map(destination)
            .transpose()?,
    }))
}

fn object<'v>(name: &str, value: &'v Value) -> Result<&'v Map<String, Value>, Refusal> {
    value.as_object().ok_or_else(|| wrong_type(name, "an object"))
}

fn only_known(of: &str, map: &Map<String, Value>, known: &[&str]) -> Result<(), Refusal> {
    match map.keys().find(|name| !known.contains(&name.as_str())) {
        Some(unknown) => Err(bad_request(format!("unknown field in {of}: {}", shorten(unknown)))),
        None => Ok(()),
    }
}

fn required<'v>(map: &'v Map<String, Value>, name: &str) -> Result<&'v Value, Refusal> {
    match map.get(name) {
        None => Err(missing_field(name)),
        Some(Value::Null) => Err(null_field(name)),
        Some(value) => Ok(value),
    }
}

fn text(map: &Map<String, Value>, name: &str) -> Result<String, Refusal> {
    let value = required(map, name)?;
    value.as_str().map(str::to_owned).ok_or_else(|| wrong_type(name, "a string"))
}

fn flag(map: &Map<String, Value>, name: &str) -> Result<bool, Refusal> {
    required(map, name)?.as_bool().ok_or_else(|| wrong_type(name, "a boolean"))
}

fn source(value: &Value) -> Result<AsSource, Refusal> {
    let map = object("asReplicationSource", value)?;
    only_known("asReplicationSource", map, &["replicationRules", "sourceApplicationKeyId"])?;
    let rules = required(map, "replicationRules")?;
    let rules = rules.as_array().ok_or_else(|| wrong_type("replicationRules", "an array"))?;
    Ok(AsSource {
        replication_rules: rules.iter().map(rule).collect::<Result<_, _>>()?,
        source_application_key_id: text(map, "sourceApplicationKeyId")?,
    })
}

fn rule(value: &Value) -> Result<ReplicationRule, Refusal> {
    let map = object("replicationRule", value)?;
    only_known(
        "replicationRule",
        map,
        &[
            "destinationBucketId",
            "fileNamePrefix",
            "includeExistingFiles",
            "isEnabled",
            "priority",
            "replicationRuleName",
        ],
    )?;
    let priority = required(map, "priority")?;
    Ok(ReplicationRule {
        destination_bucket_id: text(map, "destinationBucketId")?,
        file_name_prefix: text(map, "fileNamePrefix")?,
        include_existing_files: flag(map, "includeExistingFiles")?,
        is_enabled: flag(map, "isEnabled")?,
        priority: priority.as_i64().ok_or_else(|| wrong_type("priority", "an integer"))?,
        name: text(map, "replicationRuleName")?,
    })
}

fn destination(value: &Value) -> Result<AsDestination, Refusal> {
    let map = object("asReplicationDestination", value)?;
    only_known("asReplicationDestination", map, &["sourceToDestinationKeyMapping"])?;
    let name = "sourceToDestinationKeyMapping";
    let mapping = object(name, required(map, name)?)?;
    let keys = mapping
        .iter()
        .map(|(from, to)| {
            let to = to.as_str().ok_or_else(|| wrong_type(name, "an object of strings"))?;
            Ok((from.clone(), to.to_owned()))
        })
        .collect::<Result<BTreeMap<_, _>, Refusal>>()?;
    Ok(AsDestination { source_to_destination_key_mapping: keys })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<ReplicationConfiguration, String> {
        let body = format!("{{\"replicationConfiguration\":{text}}}");
        let fields = Fields::from_body(body.as_bytes()).map_err(|refusal| refusal.to_string())?;
        let read = parse(&fields, true).map_err(|refusal| refusal.message.into_owned())?;
        read.ok_or_else(|| "absent".to_owned())
    }

    fn rule_with(member: &str, value: &str) -> String {
        let mut members: Vec<(&str, String)> = [
            ("destinationBucketId", "\"d\""),
            ("fileNamePrefix", "\"\""),
            ("includeExistingFiles", "false"),
            ("isEnabled", "true"),
            ("priority", "1"),
            ("replicationRuleName", "\"rule-one\""),
        ]
        .map(|(name, value)| (name, value.to_owned()))
        .to_vec();
        members.retain(|(name, _)| *name != member);
        if !value.is_empty() {
            members.push((member, value.to_owned()));
        }
        let members: Vec<String> = members.iter().map(|(n, v)| format!("\"{n}\":{v}")).collect();
        format!(
            "{{\"asReplicationSource\":{{\"sourceApplicationKeyId\":\"k\",\"replicationRules\":[{{{}}}]}}}}",
            members.join(",")
        )
    }

    #[test]
    fn replication_3_4_5_empty_forms_clear() {
        for empty in
            ["null", "{}", "{\"asReplicationSource\":null,\"asReplicationDestination\":null}"]
        {
            assert_eq!(read(empty), Ok(ReplicationConfiguration::default()), "{empty}");
        }
    }

    #[test]
    fn replication_31_to_34_members_of_a_rule_are_checked_by_name() {
        for member in [
            "destinationBucketId",
            "fileNamePrefix",
            "includeExistingFiles",
            "isEnabled",
            "priority",
            "replicationRuleName",
        ] {
            assert_eq!(
                read(&rule_with(member, "")),
                Err(format!("required field {member} is missing"))
            );
            assert_eq!(
                read(&rule_with(member, "null")),
                Err(format!("required field {member} cannot be null"))
            );
        }
        assert!(read(&rule_with("priority", "1.5")).is_err());
        assert!(read(&rule_with("priority", "\"1\"")).is_err());
        assert!(read(&rule_with("includeExistingFiles", "\"false\"")).is_err());
        assert_eq!(
            read(&rule_with("colour", "1")),
            Err("unknown field in replicationRule: colour".to_owned())
        );
        assert!(read(&rule_with("priority", "128")).is_ok());
    }
}
