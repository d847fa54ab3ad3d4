//! Lifecycle rules as pure rules: what a rule may say, and what it makes due among the versions of
//! a name.
//!
//! Source: b2-native-api.md section 15. A version counts as hidden from the moment its next newer
//! version was made, be that an upload or a hide marker. Lock wins over every rule.

use crate::domain::file::Action;
use crate::domain::names::check_prefix;
use crate::domain::refusal::{Refusal, bad_request, shorten};
use crate::domain::time::{DAY_MS, Millis};

/// Rules that one call of the Native API may set (documented).
const RULES_MAX: usize = 100;
/// Days a rule may wait at most (ours: what 32 bits hold, as clients keep it).
const DAYS_MAX: i64 = 2_147_483_647;

/// One rule; its serde form is the wire's and the catalog's. Backblaze shows the two old actions as
/// null when they are unset, and leaves the third out.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LifecycleRule {
    #[serde(rename = "daysFromHidingToDeleting")]
    pub(crate) delete_after_days: Option<i64>,
    #[serde(
        rename = "daysFromStartingToCancelingUnfinishedLargeFiles",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub(crate) cancel_after_days: Option<i64>,
    #[serde(rename = "daysFromUploadingToHiding")]
    pub(crate) hide_after_days: Option<i64>,
    pub(crate) file_name_prefix: String,
}

/// Checks the rules that a caller of the Native API sets.
pub(crate) fn check_rules(rules: &[LifecycleRule]) -> Result<(), Refusal> {
    if rules.len() > RULES_MAX {
        return Err(bad_request(format!("a bucket may have at most {RULES_MAX} lifecycle rules")));
    }
    check_each(rules)
}

/// Checks rules of which there may be more than the Native API takes: S3 takes a thousand.
pub(crate) fn check_each(rules: &[LifecycleRule]) -> Result<(), Refusal> {
    for (at, rule) in rules.iter().enumerate() {
        check_rule(rule)?;
        // At most one rule applies to a file.
        let overlaps = |other: &&LifecycleRule| {
            other.applies_to(&rule.file_name_prefix) || rule.applies_to(&other.file_name_prefix)
        };
        if let Some(other) = rules.iter().take(at).find(overlaps) {
            return Err(bad_request(format!(
                "lifecycle rules must not apply to the same file: fileNamePrefix '{}' and '{}'",
                shorten(&other.file_name_prefix),
                shorten(&rule.file_name_prefix)
            )));
        }
    }
    Ok(())
}

fn check_rule(rule: &LifecycleRule) -> Result<(), Refusal> {
    check_prefix("fileNamePrefix", &rule.file_name_prefix)?;
    let actions = [
        ("daysFromHidingToDeleting", rule.delete_after_days),
        ("daysFromStartingToCancelingUnfinishedLargeFiles", rule.cancel_after_days),
        ("daysFromUploadingToHiding", rule.hide_after_days),
    ];
    for (name, days) in actions {
        if let Some(days) = days.filter(|days| !(1..=DAYS_MAX).contains(days)) {
            return Err(bad_request(format!("{name} must be between 1 and {DAYS_MAX}: {days}")));
        }
    }
    if actions.iter().all(|(_, days)| days.is_none()) {
        return Err(bad_request(format!(
            "lifecycle rule with fileNamePrefix '{}' has no action",
            shorten(&rule.file_name_prefix)
        )));
    }
    Ok(())
}

impl LifecycleRule {
    pub(crate) fn applies_to(&self, name: &str) -> bool {
        name.starts_with(&self.file_name_prefix)
    }
}

/// The rule for a name: there is at most one.
pub(crate) fn rule_for<'r>(rules: &'r [LifecycleRule], name: &str) -> Option<&'r LifecycleRule> {
    rules.iter().find(|rule| rule.applies_to(name))
}

/// What a rule asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    /// A hide marker over the version that shows.
    Hide,
    /// The version goes.
    Delete,
    /// The unfinished large file is given up.
    Cancel,
}

impl Act {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Hide => "hide",
            Self::Delete => "delete",
            Self::Cancel => "cancel",
        }
    }
}

/// What a rule looks at in a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) action: Action,
    pub(crate) upload_at: Millis,
    /// A lock that cannot be read counts as one.
    pub(crate) is_locked: bool,
}

/// Where a version stands among the versions of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Standing {
    /// When the next newer finished version was made; None for the newest.
    pub(crate) hidden_since: Option<Millis>,
    /// No other version of the name is there.
    pub(crate) is_alone: bool,
}

/// What a rule makes due for one version.
pub(crate) fn due_one(
    rule: &LifecycleRule,
    version: Facts,
    standing: Standing,
    now: Millis,
) -> Option<Act> {
    let is_over = |days: Option<i64>, since: Millis| {
        days.is_some_and(|days| since.plus(days.saturating_mul(DAY_MS)) <= now)
    };
    let (due, act) = match (version.action, standing.hidden_since) {
        // A large file has no content to be kept until it is finished, so no lock counts.
        (Action::Start, _) => (is_over(rule.cancel_after_days, version.upload_at), Act::Cancel),
        (Action::Upload, None) => (is_over(rule.hide_after_days, version.upload_at), Act::Hide),
        (Action::Hide, None) => {
            let orphaned = standing.is_alone && rule.delete_after_days.is_some();
            (orphaned && !version.is_locked, Act::Delete)
        }
        (Action::Upload | Action::Hide, Some(since)) => {
            (is_over(rule.delete_after_days, since) && !version.is_locked, Act::Delete)
        }
    };
    due.then_some(act)
}

/// A look at the versions of one name, one after the other, newest first. `K` names a version.
#[derive(Clone, Debug)]
pub(crate) struct NameLook<K> {
    rule: LifecycleRule,
    now: Millis,
    hidden_since: Option<Millis>,
    /// The hide marker in front, when there is one.
    marker: Option<(K, Facts)>,
    /// Something besides the marker will still be there.
    remains: bool,
}

impl<K> NameLook<K> {
    pub(crate) fn new(rule: &LifecycleRule, now: Millis) -> Self {
        Self { rule: rule.clone(), now, hidden_since: None, marker: None, remains: false }
    }

    /// Looks at the next older version.
    pub(crate) fn look(&mut self, key: K, version: Facts) -> Option<(K, Act)> {
        let standing = Standing { hidden_since: self.hidden_since, is_alone: false };
        let act = due_one(&self.rule, version, standing, self.now);
        let is_newest = self.hidden_since.is_none();
        if version.action != Action::Start {
            self.hidden_since = Some(version.upload_at);
        }
        if version.action == Action::Hide && is_newest {
            self.marker = Some((key, version));
            return None;
        }
        self.remains |= !matches!(act, Some(Act::Delete | Act::Cancel));
        act.map(|act| (key, act))
    }

    /// Ends the look: the marker in front goes when all the others do.
    pub(crate) fn end(self) -> Option<(K, Act)> {
        let (key, version) = self.marker.filter(|_| !self.remains)?;
        let standing = Standing { hidden_since: None, is_alone: true };
        due_one(&self.rule, version, standing, self.now).map(|act| (key, act))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rule(prefix: &str, hide: Option<i64>, delete: Option<i64>) -> LifecycleRule {
        LifecycleRule {
            delete_after_days: delete,
            cancel_after_days: None,
            hide_after_days: hide,
            file_name_prefix: prefix.to_owned(),
        }
    }

    fn day(number: i64) -> Millis {
        Millis(1_700_000_000_000 + number * DAY_MS)
    }

    fn version(action: Action, made: i64) -> Facts {
        Facts { action, upload_at: day(made), is_locked: false }
    }

    /// What is due among `versions`, newest first, by their positions and in the order of acting.
    fn due(rule: &LifecycleRule, versions: &[Facts], now: Millis) -> Vec<(usize, Act)> {
        let mut look = NameLook::new(rule, now);
        let seen = versions.iter().enumerate();
        let mut acts: Vec<_> = seen.filter_map(|(at, &version)| look.look(at, version)).collect();
        acts.extend(look.end());
        acts
    }

    #[test]
    fn native_355_rules_need_an_action_of_at_least_a_day() {
        assert!(check_rules(&[rule("", None, None)]).is_err());
        for days in [0, -1, DAYS_MAX + 1, i64::MIN] {
            assert!(check_rules(&[rule("", Some(days), None)]).is_err(), "{days}");
            assert!(check_rules(&[rule("", Some(1), Some(days))]).is_err(), "{days}");
            let cancel = LifecycleRule { cancel_after_days: Some(days), ..rule("", Some(1), None) };
            assert!(check_rules(&[cancel]).is_err(), "{days}");
        }
        for days in [1, DAYS_MAX] {
            assert!(check_rules(&[rule("", Some(days), None)]).is_ok(), "{days}");
        }
        let cancel = LifecycleRule { cancel_after_days: Some(1), ..rule("", None, None) };
        assert!(check_rules(&[cancel]).is_ok());
    }

    #[test]
    fn native_356_357_at_most_100_rules_and_one_for_a_file() {
        let numbered = |count: usize| -> Vec<LifecycleRule> {
            (0..count).map(|at| rule(&format!("{at:03}/"), Some(1), None)).collect()
        };
        assert!(check_rules(&numbered(100)).is_ok());
        assert!(check_rules(&numbered(101)).is_err());
        for (prefixes, fits) in [
            (&["a", "ab"][..], false),
            (&["ab", "a"], false),
            (&["a", "a"], false),
            (&["", "x"], false),
            (&["x", ""], false),
            (&["", ""], false),
            (&["a/", "b/", "ab/"], true),
            (&[""], true),
            (&[], true),
        ] {
            let rules: Vec<_> = prefixes.iter().map(|one| rule(one, Some(1), None)).collect();
            assert_eq!(check_rules(&rules).is_ok(), fits, "{prefixes:?}");
        }
        assert!(check_rules(&[rule("a\u{7}", Some(1), None)]).is_err());
        assert!(check_rules(&[rule(&"p".repeat(1025), Some(1), None)]).is_err());
        let two = [rule("a", Some(1), None), rule("b", Some(2), None)];
        assert_eq!(rule_for(&two, "bc"), Some(&two[1]));
        assert_eq!(rule_for(&two, "c"), None);
    }

    #[test]
    fn native_358_unset_actions_are_null_and_the_third_is_left_out() {
        let shown = serde_json::to_string(&rule("p", None, Some(2))).expect("plain data");
        assert_eq!(
            shown,
            r#"{"daysFromHidingToDeleting":2,"daysFromUploadingToHiding":null,"fileNamePrefix":"p"}"#
        );
        let whole = LifecycleRule { cancel_after_days: Some(3), ..rule("p", Some(1), Some(2)) };
        let shown = serde_json::to_string(&whole).expect("plain data");
        assert!(shown.contains("\"daysFromStartingToCancelingUnfinishedLargeFiles\":3"), "{shown}");
        assert_eq!(serde_json::from_str::<LifecycleRule>(&shown).expect("just written"), whole);
    }

    #[test]
    fn native_359_an_upload_is_hidden_when_its_days_are_over_and_not_a_moment_before() {
        let rule = rule("", Some(3), None);
        let one = [version(Action::Upload, 0)];
        assert_eq!(due(&rule, &one, day(3).plus(-1)), []);
        assert_eq!(due(&rule, &one, day(3)), [(0, Act::Hide)]);
        let two = [version(Action::Upload, 2), version(Action::Upload, 0)];
        assert_eq!(due(&rule, &two, day(4)), [], "only the newest counts");
        assert_eq!(due(&rule, &two, day(5)), [(0, Act::Hide)]);
        let hidden = [version(Action::Hide, 3), version(Action::Upload, 0)];
        assert_eq!(due(&rule, &hidden, day(100)), [], "one marker, and nothing is deleted");
        let begun = [version(Action::Start, 4), version(Action::Upload, 0)];
        assert_eq!(due(&rule, &begun, day(3)), [(1, Act::Hide)], "a large file hides nothing yet");
        let locked = [Facts { is_locked: true, ..version(Action::Upload, 0) }];
        assert_eq!(due(&rule, &locked, day(3)), [(0, Act::Hide)], "hiding deletes nothing");
    }

    #[test]
    fn native_360_hidden_versions_go_first_and_their_marker_last() {
        let rule = rule("", None, Some(5));
        let versions =
            [version(Action::Hide, 10), version(Action::Upload, 4), version(Action::Upload, 0)];
        assert_eq!(due(&rule, &versions, day(8)), []);
        assert_eq!(due(&rule, &versions, day(9)), [(2, Act::Delete)], "superseded on day 4");
        assert_eq!(due(&rule, &versions, day(14)), [(2, Act::Delete)]);
        let all = [(1, Act::Delete), (2, Act::Delete), (0, Act::Delete)];
        assert_eq!(due(&rule, &versions, day(15)), all);
        let marker = [version(Action::Hide, 10)];
        assert_eq!(due(&rule, &marker, day(10)), [(0, Act::Delete)], "nothing is left to hide");
        let hiding = self::rule("", Some(1), None);
        assert_eq!(due(&hiding, &marker, day(100)), [], "this rule deletes nothing");
        let again = [version(Action::Upload, 20), version(Action::Hide, 10)];
        assert_eq!(due(&rule, &again, day(24)), []);
        assert_eq!(due(&rule, &again, day(25)), [(1, Act::Delete)], "a marker that hides nothing");
        let begun = [version(Action::Hide, 10), version(Action::Start, 9)];
        assert_eq!(due(&rule, &begun, day(100)), [], "the large file would show once finished");
    }

    #[test]
    fn native_361_unfinished_large_files_are_canceled_by_the_day_they_were_begun() {
        let mut rule = rule("", None, None);
        rule.cancel_after_days = Some(2);
        let versions =
            [version(Action::Start, 5), version(Action::Upload, 4), version(Action::Start, 3)];
        assert_eq!(due(&rule, &versions, day(5).plus(-1)), []);
        assert_eq!(due(&rule, &versions, day(5)), [(2, Act::Cancel)]);
        assert_eq!(due(&rule, &versions, day(7)), [(0, Act::Cancel), (2, Act::Cancel)]);
        rule.delete_after_days = Some(1);
        let marker = [version(Action::Hide, 4), version(Action::Start, 3)];
        assert_eq!(due(&rule, &marker, day(5)), [(1, Act::Cancel), (0, Act::Delete)]);
    }

    #[test]
    fn native_362_locked_versions_stay_and_so_does_the_marker_over_them() {
        let rule = rule("", None, Some(1));
        let locked = Facts { is_locked: true, ..version(Action::Upload, 1) };
        let versions = [version(Action::Hide, 2), locked, version(Action::Upload, 0)];
        assert_eq!(due(&rule, &versions, day(100)), [(2, Act::Delete)]);
        let unreadable = [Facts { is_locked: true, ..version(Action::Hide, 2) }];
        assert_eq!(due(&rule, &unreadable, day(100)), []);
    }

    fn any_action() -> impl Strategy<Value = Action> {
        prop_oneof![4 => Just(Action::Upload), 2 => Just(Action::Hide), 1 => Just(Action::Start)]
    }

    /// Versions of a name, newest first, with strictly falling times.
    fn any_versions() -> impl Strategy<Value = Vec<Facts>> {
        proptest::collection::vec((any_action(), 1..4 * DAY_MS, any::<bool>()), 0..8).prop_map(
            |made| {
                let mut at = day(0);
                made.into_iter()
                    .map(|(action, before, is_locked)| {
                        at = at.plus(-before);
                        Facts {
                            action,
                            upload_at: at,
                            is_locked: is_locked && action != Action::Hide,
                        }
                    })
                    .collect()
            },
        )
    }

    fn any_days() -> impl Strategy<Value = Option<i64>> {
        proptest::option::of(1_i64..6)
    }

    /// The versions after `acts`, as the catalog would hold them.
    fn after(versions: &[Facts], acts: &[(usize, Act)], now: Millis) -> Vec<Facts> {
        let gone = |at: usize| acts.iter().any(|(acted, act)| *acted == at && *act != Act::Hide);
        let kept = versions.iter().enumerate().filter(|(at, _)| !gone(*at)).map(|(_, kept)| *kept);
        let hide = acts.iter().any(|(_, act)| *act == Act::Hide);
        let marker = Facts { action: Action::Hide, upload_at: now, is_locked: false };
        hide.then_some(marker).into_iter().chain(kept).collect()
    }

    proptest! {
        #[test]
        fn what_is_acted_on_may_be_and_nothing_is_left_to_do(
            versions in any_versions(), hide in any_days(), delete in any_days(),
            cancel in any_days(), later_ms in 0..8 * DAY_MS,
        ) {
            let rule = LifecycleRule { cancel_after_days: cancel, ..rule("", hide, delete) };
            let now = day(0).plus(later_ms);
            let acts = due(&rule, &versions, now);
            let newest = versions.iter().position(|one| one.action != Action::Start);
            for (at, act) in &acts {
                let acted = versions[*at];
                match act {
                    Act::Hide => prop_assert!(
                        Some(*at) == newest && acted.action == Action::Upload && hide.is_some()
                    ),
                    Act::Delete => {
                        prop_assert!(!acted.is_locked && acted.action != Action::Start);
                        prop_assert!(delete.is_some());
                        prop_assert!(Some(*at) != newest || acted.action == Action::Hide);
                    }
                    Act::Cancel => prop_assert!(acted.action == Action::Start && cancel.is_some()),
                }
            }
            let rest = after(&versions, &acts, now);
            prop_assert_eq!(due(&rule, &rest, now), [], "acting twice does nothing more");
            // What shows is deleted by no rule, only hidden.
            let shown = |all: &[Facts]| {
                all.iter().find(|one| one.action != Action::Start).copied()
                    .filter(|one| one.action == Action::Upload)
            };
            let hides = acts.iter().any(|(_, act)| *act == Act::Hide);
            prop_assert_eq!(shown(&rest), shown(&versions).filter(|_| !hides));
        }

        #[test]
        fn what_was_due_stays_due(
            versions in any_versions(), delete in any_days(), cancel in any_days(),
            later_ms in 0..8 * DAY_MS, more_ms in 0..8 * DAY_MS,
        ) {
            let rule = LifecycleRule { cancel_after_days: cancel, ..rule("", None, delete) };
            let now = day(0).plus(later_ms);
            let later = due(&rule, &versions, now.plus(more_ms));
            for act in due(&rule, &versions, now) {
                prop_assert!(later.contains(&act));
            }
        }
    }
}
