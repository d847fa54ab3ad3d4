//! The `lifecycleRules` field.

use serde_json::Value;

use crate::api::native::fields::{Fields, Members};
use crate::domain::lifecycle::LifecycleRule;
use crate::domain::refusal::{Refusal, wrong_type};

const FIELD: &str = "lifecycleRules";
const DELETE: &str = "daysFromHidingToDeleting";
const CANCEL: &str = "daysFromStartingToCancelingUnfinishedLargeFiles";
const HIDE: &str = "daysFromUploadingToHiding";
const PREFIX: &str = "fileNamePrefix";

/// Reads the field; None when it is absent or null.
pub(crate) fn parse(fields: &Fields) -> Result<Option<Vec<LifecycleRule>>, Refusal> {
    let Some(value) = fields.opt_structure(FIELD)? else { return Ok(None) };
    let rules = value.as_array().ok_or_else(|| wrong_type(FIELD, "an array"))?;
    rules.iter().map(rule).collect::<Result<_, _>>().map(Some)
}

fn rule(value: &Value) -> Result<LifecycleRule, Refusal> {
    let rule = Members::only("lifecycleRule", value, &[DELETE, CANCEL, HIDE, PREFIX])?;
    Ok(LifecycleRule {
        file_name_prefix: rule.text(PREFIX)?,
        delete_after_days: rule.opt_int(DELETE)?,
        cancel_after_days: rule.opt_int(CANCEL)?,
        hide_after_days: rule.opt_int(HIDE)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(rules: &str) -> Result<Option<Vec<LifecycleRule>>, String> {
        let body = format!("{{\"lifecycleRules\":{rules}}}");
        let fields = Fields::from_body(body.as_bytes()).map_err(|refusal| refusal.to_string())?;
        parse(&fields).map_err(|refusal| refusal.message.into_owned())
    }

    #[test]
    fn native_130_355_358_members_of_a_rule_are_checked_by_name_and_null_is_unset() {
        assert_eq!(read("null"), Ok(None));
        assert_eq!(read("[]"), Ok(Some(Vec::new())));
        assert!(read("{}").is_err());
        let rule = LifecycleRule {
            delete_after_days: None,
            cancel_after_days: Some(2),
            hide_after_days: Some(1),
            file_name_prefix: String::new(),
        };
        let text = format!("[{{\"{PREFIX}\":\"\",\"{HIDE}\":1,\"{CANCEL}\":2,\"{DELETE}\":null}}]");
        assert_eq!(read(&text), Ok(Some(vec![rule])));
        let missing = Err("required field fileNamePrefix is missing".to_owned());
        assert_eq!(read(&format!("[{{\"{HIDE}\":1}}]")), missing);
        let null = Err("required field fileNamePrefix cannot be null".to_owned());
        assert_eq!(read("[{\"fileNamePrefix\":null}]"), null);
        for days in ["1.5", "\"1\"", "true", "1e30"] {
            let text = format!("[{{\"{PREFIX}\":\"\",\"{HIDE}\":{days}}}]");
            assert_eq!(read(&text), Err(format!("field {HIDE} must be an integer")), "{days}");
        }
        let misspelt = "[{\"fileNamePrefix\":\"\",\"daysFromHidingToDelete\":1}]";
        let unknown = "unknown field in lifecycleRule: daysFromHidingToDelete".to_owned();
        assert_eq!(read(misspelt), Err(unknown));
    }
}
