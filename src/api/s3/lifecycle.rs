//! Lifecycle rules of S3 and those of B2, each made of the other.
//!
//! Backblaze takes only what its own rules can say: days after which what shows is hidden, after
//! which what is hidden is deleted, after which an unfinished upload is given up. A rule that hides
//! must come with another of its prefix that removes the markers left alone, since B2 always does
//! (spec: s3-api.md section 1.9).

use std::collections::{BTreeMap, BTreeSet};

use crate::api::s3::Profile;
use crate::api::s3::error::{S3Refusal, invalid_argument, malformed_xml, s3_refuse};
use crate::api::s3::xml::{Element, Writer};
use crate::domain::bucket::RuleNames;
use crate::domain::lifecycle::{LifecycleRule, check_each};

/// Rules of S3 at most (documented).
const RULES_MAX: usize = 1000;
/// Characters of the name of a rule at most.
const ID_CHARACTERS_MAX: usize = 255;

/// What a rule of S3 can do, as the names of rules are kept by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Deed {
    Hide,
    RemoveMarker,
    Delete,
    Cancel,
}

impl Deed {
    const ALL: [Self; 4] = [Self::Hide, Self::RemoveMarker, Self::Delete, Self::Cancel];

    fn kept_as(self) -> &'static str {
        match self {
            Self::Hide => "hide",
            Self::RemoveMarker => "removeMarker",
            Self::Delete => "delete",
            Self::Cancel => "cancel",
        }
    }
}

fn not_supported() -> S3Refusal {
    s3_refuse(
        400,
        "NotSupported",
        "The specified lifecycle configuration feature is not supported.",
    )
}

fn days(text: &str, what: &str) -> Result<i64, S3Refusal> {
    let days: i64 = text.parse().map_err(|_| malformed_xml())?;
    if days >= 1 {
        Ok(days)
    } else {
        Err(invalid_argument(format!("'{what}' for an action must be a positive integer")))
    }
}

/// The prefix of a rule.
fn prefix(rule: &Element, profile: Profile) -> Result<String, S3Refusal> {
    let top = rule.opt("Prefix")?;
    let filter = rule.opt("Filter")?;
    if let Some(filter) = filter {
        let is_simple = filter.children.iter().all(|child| child.name == "Prefix");
        if !is_simple {
            return Err(not_supported());
        }
    }
    match (top, filter) {
        (Some(_), Some(_)) | (None, None) => Err(malformed_xml()),
        (Some(_), None) if profile == Profile::Backblaze => Err(not_supported()),
        (Some(top), None) => Ok(top.raw_text().to_owned()),
        (None, Some(filter)) => Ok(filter.opt("Prefix")?.map_or("", Element::raw_text).to_owned()),
    }
}

/// What one rule of S3 does, with the days of each deed.
fn deeds(rule: &Element) -> Result<Vec<(Deed, i64)>, S3Refusal> {
    rule.only(&[
        "ID",
        "Status",
        "Filter",
        "Prefix",
        "Expiration",
        "NoncurrentVersionExpiration",
        "AbortIncompleteMultipartUpload",
        "Transition",
        "NoncurrentVersionTransition",
    ])?;
    if rule.all("Transition").chain(rule.all("NoncurrentVersionTransition")).next().is_some() {
        return Err(not_supported());
    }
    let mut found = Vec::new();
    if let Some(expiration) = rule.opt("Expiration")? {
        expiration.only(&["Days", "Date", "ExpiredObjectDeleteMarker"])?;
        if expiration.opt("Date")?.is_some() {
            return Err(not_supported());
        }
        let marker = expiration.opt_text("ExpiredObjectDeleteMarker")?;
        match (expiration.opt_text("Days")?, marker) {
            (Some(text), None) => found.push((Deed::Hide, days(text, "Days")?)),
            (None, Some("true")) => found.push((Deed::RemoveMarker, 0)),
            (None, Some("false")) => return Err(not_supported()),
            _ => return Err(malformed_xml()),
        }
    }
    if let Some(expiration) = rule.opt("NoncurrentVersionExpiration")? {
        expiration.only(&["NoncurrentDays", "NewerNoncurrentVersions"])?;
        if expiration.opt("NewerNoncurrentVersions")?.is_some() {
            return Err(not_supported());
        }
        let text = expiration.one("NoncurrentDays")?.text();
        found.push((Deed::Delete, days(text, "NoncurrentDays")?));
    }
    if let Some(abort) = rule.opt("AbortIncompleteMultipartUpload")? {
        abort.only(&["DaysAfterInitiation"])?;
        let text = abort.one("DaysAfterInitiation")?.text();
        found.push((Deed::Cancel, days(text, "DaysAfterInitiation")?));
    }
    if found.is_empty() { Err(malformed_xml()) } else { Ok(found) }
}

/// Reads the rules of S3 into those of B2, and the names they had.
pub(crate) fn read_rules(
    document: &Element,
    profile: Profile,
) -> Result<(Vec<LifecycleRule>, RuleNames), S3Refusal> {
    document.only(&["Rule"])?;
    let given: Vec<&Element> = document.all("Rule").collect();
    if given.is_empty() || given.len() > RULES_MAX {
        return Err(malformed_xml());
    }
    // First the form of all of them, then what of it can be done.
    for rule in &given {
        match rule.one("Status")?.text() {
            "Enabled" | "Disabled" => {}
            _ => return Err(malformed_xml()),
        }
    }
    let mut ids = BTreeSet::new();
    let mut by_prefix: BTreeMap<String, BTreeMap<Deed, (i64, String)>> = BTreeMap::new();
    for (at, rule) in given.iter().enumerate() {
        if rule.one("Status")?.text() == "Disabled" {
            return Err(not_supported());
        }
        let id = match rule.opt_text("ID")? {
            Some(id) if !id.is_empty() => id.to_owned(),
            _ => format!("rule-{}", at + 1),
        };
        if id.chars().count() > ID_CHARACTERS_MAX {
            return Err(invalid_argument("ID length should not exceed allowed limit of 255"));
        }
        if !ids.insert(id.clone()) {
            return Err(invalid_argument(
                "Rule ID must be unique. Found same ID for more than one rule",
            ));
        }
        let prefix = prefix(rule, profile)?;
        for (deed, days) in deeds(rule)? {
            let known = by_prefix.entry(prefix.clone()).or_default();
            if known.insert(deed, (days, id.clone())).is_some() {
                // Two rules of one prefix that do the same overlap.
                return Err(not_supported());
            }
        }
    }
    let mut rules = Vec::new();
    let mut names = RuleNames::new();
    for (prefix, deeds) in by_prefix {
        let days_of = |deed| deeds.get(&deed).map(|(days, _)| *days);
        let is_paired = deeds.contains_key(&Deed::Hide) == deeds.contains_key(&Deed::RemoveMarker);
        if !is_paired && profile == Profile::Backblaze {
            return Err(not_supported());
        }
        let rule = LifecycleRule {
            delete_after_days: days_of(Deed::Delete),
            cancel_after_days: days_of(Deed::Cancel),
            hide_after_days: days_of(Deed::Hide),
            file_name_prefix: prefix.clone(),
        };
        let kept =
            deeds.into_iter().map(|(deed, (_, id))| (deed.kept_as().to_owned(), id)).collect();
        names.insert(prefix, kept);
        rules.push(rule);
    }
    check_each(&rules).map_err(|_| not_supported())?;
    Ok((rules, names))
}

/// Writes the rules of B2 as those of S3, with the names that are known.
pub(crate) fn write_rules(rules: &[LifecycleRule], names: &RuleNames) -> Writer {
    let mut xml = Writer::new("LifecycleConfiguration");
    for (at, rule) in rules.iter().enumerate() {
        let known = names.get(&rule.file_name_prefix);
        let mut by_id: Vec<(String, Vec<(Deed, i64)>)> = Vec::new();
        for deed in Deed::ALL {
            let days = match deed {
                Deed::Hide => rule.hide_after_days,
                // What the other half of the pair says, or that B2 does it anyway.
                Deed::RemoveMarker => {
                    rule.hide_after_days.filter(|_| is_pair_shown(known)).map(|_| 0)
                }
                Deed::Delete => rule.delete_after_days,
                Deed::Cancel => rule.cancel_after_days,
            };
            let Some(days) = days else { continue };
            let id = known.and_then(|known| known.get(deed.kept_as())).cloned();
            let id = id.unwrap_or_else(|| match deed {
                Deed::RemoveMarker => format!("b2-rule-{}-markers", at + 1),
                Deed::Hide | Deed::Delete | Deed::Cancel => format!("b2-rule-{}", at + 1),
            });
            match by_id.iter_mut().find(|(known, _)| *known == id) {
                Some((_, deeds)) => deeds.push((deed, days)),
                None => by_id.push((id, vec![(deed, days)])),
            }
        }
        for (id, deeds) in by_id {
            write_rule(&mut xml, &id, &rule.file_name_prefix, &deeds);
        }
    }
    xml
}

/// Whether the second rule of a pair is shown: always, but for what came without one.
fn is_pair_shown(known: Option<&BTreeMap<String, String>>) -> bool {
    known.is_none_or(|known| {
        known.contains_key(Deed::RemoveMarker.kept_as())
            || !known.contains_key(Deed::Hide.kept_as())
    })
}

fn write_rule(xml: &mut Writer, id: &str, prefix: &str, deeds: &[(Deed, i64)]) {
    xml.begin("Rule");
    xml.text("ID", id);
    xml.begin("Filter");
    xml.text("Prefix", prefix);
    xml.end();
    xml.text("Status", "Enabled");
    for (deed, days) in deeds {
        let (element, inside, text) = match deed {
            Deed::Hide => ("Expiration", "Days", days.to_string()),
            Deed::RemoveMarker => ("Expiration", "ExpiredObjectDeleteMarker", "true".to_owned()),
            Deed::Delete => ("NoncurrentVersionExpiration", "NoncurrentDays", days.to_string()),
            Deed::Cancel => {
                ("AbortIncompleteMultipartUpload", "DaysAfterInitiation", days.to_string())
            }
        };
        xml.begin(element);
        xml.text(inside, &text);
        xml.end();
    }
    xml.end();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(status: &str, inside: &str) -> String {
        format!("<Rule><ID>{}</ID><Status>{status}</Status>{inside}</Rule>", inside.len())
    }

    fn read(rules: &[String]) -> Result<(Vec<LifecycleRule>, RuleNames), String> {
        let text = format!("<LifecycleConfiguration>{}</LifecycleConfiguration>", rules.concat());
        let document = Element::parse(text.as_bytes(), &["LifecycleConfiguration"])
            .map_err(|refusal| refusal.code.to_owned())?;
        read_rules(&document, Profile::Backblaze).map_err(|refusal| refusal.code.to_owned())
    }

    const ALL: &str = "<Filter><Prefix>p/</Prefix></Filter>";
    const HIDE: &str = "<Expiration><Days>3</Days></Expiration>";
    const MARKER: &str =
        "<Expiration><ExpiredObjectDeleteMarker>true</ExpiredObjectDeleteMarker></Expiration>";
    const DELETE: &str = "<NoncurrentVersionExpiration><NoncurrentDays>2</NoncurrentDays></NoncurrentVersionExpiration>";
    const CANCEL: &str = "<AbortIncompleteMultipartUpload><DaysAfterInitiation>7</DaysAfterInitiation></AbortIncompleteMultipartUpload>";

    #[test]
    fn s3_71_73_a_pair_of_rules_is_one_of_b2_and_is_shown_as_a_pair() {
        let pair = [
            rule("Enabled", &format!("{ALL}{HIDE}{DELETE}{CANCEL}")),
            rule("Enabled", &format!("{ALL}{MARKER}")),
        ];
        let (rules, names) = read(&pair).expect("supported");
        assert_eq!(
            rules,
            [LifecycleRule {
                delete_after_days: Some(2),
                cancel_after_days: Some(7),
                hide_after_days: Some(3),
                file_name_prefix: "p/".to_owned(),
            }]
        );
        let shown = write_rules(&rules, &names).finish();
        let document = Element::parse(shown.as_bytes(), &["LifecycleConfiguration"]).expect("XML");
        assert_eq!(document.all("Rule").count(), 2);
        assert_eq!(read_rules(&document, Profile::Backblaze), Ok((rules.clone(), names)));
        let shown = write_rules(&rules, &RuleNames::new()).finish();
        let document = Element::parse(shown.as_bytes(), &["LifecycleConfiguration"]).expect("XML");
        let read_back = read_rules(&document, Profile::Backblaze).expect("what is shown is taken");
        assert_eq!(read_back.0, rules, "rules that no S3 client made are shown as a pair too");
    }

    #[test]
    fn s3_72_74_what_b2_cannot_do_is_refused() {
        let one = |inside: &str| read(&[rule("Enabled", inside)]).map(|_| ());
        let code = |code: &str| Err::<(), _>(code.to_owned());
        assert_eq!(one(&format!("{ALL}{HIDE}")), code("NotSupported"), "no pair");
        assert_eq!(one(&format!("{ALL}{MARKER}")), code("NotSupported"), "no pair");
        for inside in [
            format!("{ALL}<Transition><Days>1</Days></Transition>"),
            format!("{ALL}{DELETE}<NoncurrentVersionTransition/>"),
            format!("{ALL}<Expiration><Date>2030-01-01T00:00:00Z</Date></Expiration>"),
            format!(
                "{ALL}<Expiration><ExpiredObjectDeleteMarker>false</ExpiredObjectDeleteMarker></Expiration>"
            ),
            format!(
                "{ALL}<NoncurrentVersionExpiration><NoncurrentDays>1</NoncurrentDays><NewerNoncurrentVersions>2</NewerNoncurrentVersions></NoncurrentVersionExpiration>"
            ),
            format!("<Filter><Tag><Key>k</Key><Value>v</Value></Tag></Filter>{DELETE}"),
            format!("<Filter><And><Prefix>p</Prefix></And></Filter>{DELETE}"),
            format!("<Filter><ObjectSizeGreaterThan>1</ObjectSizeGreaterThan></Filter>{DELETE}"),
            format!("<Prefix>p/</Prefix>{DELETE}"),
        ] {
            assert_eq!(one(&inside), code("NotSupported"), "{inside}");
        }
        assert_eq!(
            read(&[rule("Disabled", &format!("{ALL}{DELETE}"))]).map(|_| ()),
            code("NotSupported")
        );
        let overlapping = [
            rule("Enabled", &format!("<Filter><Prefix>p</Prefix></Filter>{DELETE}")),
            rule("Enabled", &format!("{ALL}{DELETE}")),
        ];
        assert_eq!(read(&overlapping).map(|_| ()), code("NotSupported"));
        for inside in [
            format!("{ALL}<Expiration><Days>0</Days></Expiration>"),
            format!(
                "{ALL}<NoncurrentVersionExpiration><NoncurrentDays>-1</NoncurrentDays></NoncurrentVersionExpiration>"
            ),
        ] {
            assert_eq!(one(&inside), code("InvalidArgument"), "{inside}");
        }
        for inside in [ALL.to_owned(), DELETE.to_owned(), format!("{ALL}{DELETE}<Colour/>")] {
            assert_eq!(one(&inside), code("MalformedXML"), "{inside}");
        }
        let twice = [
            rule("Enabled", &format!("{ALL}{DELETE}")),
            rule("Enabled", &format!("<Filter><Prefix>q/</Prefix></Filter>{DELETE}")),
        ];
        assert_eq!(read(&twice).map(|_| ()), code("InvalidArgument"), "the same ID");
        let top = [rule("enabled", &format!("<Prefix>p/</Prefix>{DELETE}"))];
        assert_eq!(read(&top).map(|_| ()), code("MalformedXML"), "the status is looked at first");
        let long = format!(
            "<Rule><ID>{}</ID><Status>Enabled</Status>{ALL}{DELETE}</Rule>",
            "i".repeat(256)
        );
        assert_eq!(read(&[long]).map(|_| ()), code("InvalidArgument"));
    }
}
