//! Replicas that another server sends: which version they are copies of, where they have been, and
//! who stands in front when two servers wrote a name in the same millisecond.
//!
//! Source: replication.md B3, "Peer protocol".

use crate::domain::ids::{ClaimedFileId, FileNumber, KeyId};
use crate::domain::refusal::{Code, Refusal, bad_request, refuse, shorten};
use crate::domain::time::Millis;

/// A version travels through at most so many servers.
pub(crate) const HOPS_MAX: usize = 4;
/// Longest id of a server; ours have 16 digits.
const INSTANCE_BYTES_MAX: usize = 64;
/// The latest time that a file id has digits for.
const LATEST: Millis = Millis(99_999_999_999_999);

fn is_instance(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    (1..=INSTANCE_BYTES_MAX).contains(&text.len()) && text.bytes().all(allowed)
}

/// The version that a replica is a copy of: `<id of its server>.<file id there>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    text: String,
    instance_bytes: usize,
    number: FileNumber,
}

impl Origin {
    /// None when it is not of that form.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (instance, file) = text.split_once('.')?;
        let claimed = ClaimedFileId::parse(file).filter(|claimed| claimed.number.0 > 0)?;
        is_instance(instance).then(|| Self {
            text: text.to_owned(),
            instance_bytes: instance.len(),
            number: claimed.number,
        })
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    pub(crate) fn instance(&self) -> &str {
        self.text.get(..self.instance_bytes).unwrap_or_default()
    }

    /// The number that the version has at its own server, which puts versions of the same time in
    /// order, here as there.
    pub(crate) fn number(&self) -> FileNumber {
        self.number
    }

    /// Where to look for a place beside a version of the same time whose number is the same and that
    /// was born at the server `other`: every server that has both must put them in the same order.
    pub(crate) fn step_aside(&self, other: &str) -> i64 {
        if self.instance() > other { 1 } else { -1 }
    }
}

/// The servers that a replica has been through, oldest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hops(Vec<String>);

impl Hops {
    /// Reads ids with commas between them; None when it is anything else, or empty.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let hops: Vec<String> = text.split(',').map(|hop| hop.trim().to_owned()).collect();
        hops.iter().all(|hop| is_instance(hop)).then_some(Self(hops))
    }
}

impl std::fmt::Display for Hops {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.join(","))
    }
}

/// What a peer says about a replica that it sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ReplicaMark {
    pub(crate) origin: Origin,
    /// The upload time of the origin.
    pub(crate) upload_at: Millis,
    pub(crate) hops: Hops,
    /// The source key of the rule that sends it, which the bucket maps to a key of its own; None for
    /// a stream, which the key of the connection suffices for.
    pub(crate) source_key: Option<KeyId>,
}

impl ReplicaMark {
    /// Reads what a request says. `names` are what it calls the origin, the time and the hops.
    pub(crate) fn parse(
        (origin, upload_at, hops): (&str, &str, &str),
        source_key: Option<&str>,
        names: [&str; 3],
    ) -> Result<Self, Refusal> {
        let wrong =
            |name: &str, given: &str| bad_request(format!("Bad {name}: {}", shorten(given)));
        let time = upload_at.parse().ok().map(Millis);
        Ok(Self {
            origin: Origin::parse(origin).ok_or_else(|| wrong(names[0], origin))?,
            upload_at: time
                .filter(|time| (Millis(0)..=LATEST).contains(time))
                .ok_or_else(|| wrong(names[1], upload_at))?,
            hops: Hops::parse(hops).ok_or_else(|| wrong(names[2], hops))?,
            source_key: source_key.map(KeyId::named),
        })
    }

    /// Refuses what has been at the server `own` before, was born there, or has come too far.
    pub(crate) fn check_loop(&self, own: &str) -> Result<(), Refusal> {
        let Hops(hops) = &self.hops;
        if self.origin.instance() == own || hops.iter().any(|hop| hop == own) {
            let text = "the replica has been through this server already";
            return Err(refuse(Code::ReplicationLoop, text));
        }
        if hops.len() > HOPS_MAX {
            let text = format!(
                "the replica has been through {} servers, {HOPS_MAX} are the most",
                hops.len()
            );
            return Err(refuse(Code::ReplicationLoop, text));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "4_z8d625eb63be2775577c70e1a_f1107e2a4b0cc0a02_d20220104_m150118_c000_v0000000_t0000_u01641308478000";

    fn mark(origin: &str, time: &str, hops: &str) -> Result<ReplicaMark, Refusal> {
        ReplicaMark::parse((origin, time, hops), None, ["origin", "time", "hops"])
    }

    #[test]
    fn marks_of_replicas_are_read_strictly() {
        let good = format!("0011223344556677.{FILE}");
        let read = mark(&good, "1641308478000", "0011223344556677, b").unwrap();
        assert_eq!(read.origin.as_str(), good);
        assert_eq!(read.origin.instance(), "0011223344556677");
        assert_eq!(read.origin.number(), FileNumber(0x1107_e2a4_b0cc_0a02));
        assert_eq!(read.hops.to_string(), "0011223344556677,b");
        for origin in ["", "a", &format!(".{FILE}"), FILE, "a.4_z", &format!("a b.{FILE}")] {
            assert!(mark(origin, "1", "a").is_err(), "{origin}");
        }
        let negative = good.replace("_f1", "_fe");
        assert!(mark(&negative, "1", "a").is_err(), "more than any number");
        for time in ["", "-1", "1.5", "100000000000000", "x"] {
            assert!(mark(&good, time, "a").is_err(), "{time}");
        }
        for hops in ["", ",", "a,", "a b", &"x".repeat(65)] {
            assert!(mark(&good, "0", hops).is_err(), "{hops}");
        }
    }

    #[test]
    fn f53_what_was_here_or_came_too_far_is_a_loop() {
        let origin = format!("a.{FILE}");
        let code = |own: &str, hops: &str| {
            mark(&origin, "0", hops).unwrap().check_loop(own).err().map(|refusal| refusal.code)
        };
        assert_eq!(code("d", "a,b,c"), None);
        assert_eq!(code("e", "a,b,c,d"), None);
        assert_eq!(code("f", "a,b,c,d,e"), Some(Code::ReplicationLoop));
        assert_eq!(code("b", "a,b,c"), Some(Code::ReplicationLoop));
        assert_eq!(code("a", "b"), Some(Code::ReplicationLoop), "whatever the hops say");
    }

    #[test]
    fn two_servers_step_aside_in_opposite_directions() {
        let of = |instance: &str| Origin::parse(&format!("{instance}.{FILE}")).unwrap();
        assert_eq!(of("b").step_aside("a"), 1);
        assert_eq!(of("a").step_aside("b"), -1);
    }
}
