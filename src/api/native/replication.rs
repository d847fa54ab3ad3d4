//! The `replicationConfiguration` field: strict, since a misspelt member would silently leave a
//! bucket without its copy (V3, V4, V5).

use std::collections::BTreeMap;

use serde_json::Value;

use crate::api::native::fields::{Fields, Members};
use crate::domain::refusal::{Refusal, wrong_type};
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
    let known = ["asReplicationSource", "asReplicationDestination"];
    let sides = Members::only(FIELD, &value, &known)?;
    Ok(Some(ReplicationConfiguration {
        as_replication_source: sides.opt("asReplicationSource").map(source).transpose()?,
        as_replication_destination: sides
            .opt("asReplicationDestination")
            .map(destination)
            .transpose()?,
    }))
}

fn source(value: &Value) -> Result<AsSource, Refusal> {
    let known = ["replicationRules", "sourceApplicationKeyId"];
    let source = Members::only("asReplicationSource", value, &known)?;
    Ok(AsSource {
        replication_rules: source.list("replicationRules", rule)?,
        source_application_key_id: source.text("sourceApplicationKeyId")?,
    })
}

fn rule(value: &Value) -> Result<ReplicationRule, Refusal> {
    let rule = Members::only(
        "replicationRule",
        value,
        &[
            "destinationBucketId",
            "fileNamePrefix",
            "includeExistingFiles",
            "isEnabled",
            "priority",
            "replicationRuleName",
        ],
    )?;
    Ok(ReplicationRule {
        destination_bucket_id: rule.text("destinationBucketId")?,
        file_name_prefix: rule.text("fileNamePrefix")?,
        include_existing_files: rule.flag("includeExistingFiles")?,
        is_enabled: rule.flag("isEnabled")?,
        priority: rule.int("priority")?,
        name: rule.text("replicationRuleName")?,
    })
}

fn destination(value: &Value) -> Result<AsDestination, Refusal> {
    let name = "sourceToDestinationKeyMapping";
    let destination = Members::only("asReplicationDestination", value, &[name])?;
    let keys = destination
        .object(name)?
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
