//! Capabilities: the single rights an application key is made of.

macro_rules! capabilities {
    ($($variant:ident, $name:literal, $on_bucket_key:literal;)*) => {
        /// One right, in Backblaze's spelling at the door (spec: b2-native-api.md section 4.4).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub(crate) enum Capability { $(
            #[doc = $name]
            $variant,
        )* }

        impl Capability {
            /// All of them, in the order of their names.
            pub(crate) const ALL: &'static [Self] = &[$(Self::$variant,)*];

            pub(crate) fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            pub(crate) fn parse(name: &str) -> Option<Self> {
                match name { $($name => Some(Self::$variant),)* _ => None }
            }

            /// Whether a key that is restricted to buckets may hold it.
            pub(crate) fn fits_bucket_key(self) -> bool {
                match self { $(Self::$variant => $on_bucket_key,)* }
            }
        }
    };
}

capabilities! {
    BypassGovernance, "bypassGovernance", true;
    DeleteBuckets, "deleteBuckets", false;
    DeleteFiles, "deleteFiles", true;
    DeleteKeys, "deleteKeys", false;
    ListAllBucketNames, "listAllBucketNames", true;
    ListBuckets, "listBuckets", true;
    ListFiles, "listFiles", true;
    ListKeys, "listKeys", false;
    ReadBucketEncryption, "readBucketEncryption", true;
    ReadBucketLifecycleRules, "readBucketLifecycleRules", true;
    ReadBucketLogging, "readBucketLogging", true;
    ReadBucketNotifications, "readBucketNotifications", true;
    ReadBucketReplications, "readBucketReplications", true;
    ReadBucketRetentions, "readBucketRetentions", true;
    ReadBuckets, "readBuckets", true;
    ReadFileLegalHolds, "readFileLegalHolds", true;
    ReadFileRetentions, "readFileRetentions", true;
    ReadFiles, "readFiles", true;
    ShareFiles, "shareFiles", true;
    WriteBucketEncryption, "writeBucketEncryption", true;
    WriteBucketLifecycleRules, "writeBucketLifecycleRules", true;
    WriteBucketLogging, "writeBucketLogging", true;
    WriteBucketNotifications, "writeBucketNotifications", true;
    WriteBucketReplications, "writeBucketReplications", true;
    WriteBucketRetentions, "writeBucketRetentions", true;
    WriteBuckets, "writeBuckets", false;
    WriteFileLegalHolds, "writeFileLegalHolds", true;
    WriteFileRetentions, "writeFileRetentions", true;
    WriteFiles, "writeFiles", true;
    WriteKeys, "writeKeys", false;
}

/// A set of capabilities; iterates in the order of their names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct Capabilities(u64);

impl Capabilities {
    fn bit(capability: Capability) -> u64 {
        1 << (capability as u32)
    }

    /// Everything: what the master application key holds.
    pub(crate) fn all() -> Self {
        Capability::ALL.iter().copied().collect()
    }

    pub(crate) fn has(self, capability: Capability) -> bool {
        self.0 & Self::bit(capability) != 0
    }

    /// Whether every member of `others` is in here too.
    pub(crate) fn has_all(self, others: &[Capability]) -> bool {
        others.iter().all(|&other| self.has(other))
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = Capability> {
        Capability::ALL.iter().copied().filter(move |&one| self.has(one))
    }

    pub(crate) fn names(self) -> Vec<&'static str> {
        self.iter().map(Capability::as_str).collect()
    }
}

impl FromIterator<Capability> for Capabilities {
    fn from_iter<I: IntoIterator<Item = Capability>>(capabilities: I) -> Self {
        Self(capabilities.into_iter().fold(0, |bits, one| bits | Self::bit(one)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_are_sorted() {
        let names = Capabilities::all().names();
        assert!(names.is_sorted());
        for &one in Capability::ALL {
            assert_eq!(Capability::parse(one.as_str()), Some(one));
        }
        assert_eq!(Capability::parse("writefiles"), None);
    }

    #[test]
    fn a_set_holds_what_was_put_in() {
        let set: Capabilities =
            [Capability::ReadFiles, Capability::WriteKeys].into_iter().collect();
        assert!(set.has(Capability::ReadFiles) && !set.has(Capability::WriteFiles));
        assert!(!set.has_all(&[Capability::ReadFiles, Capability::ListFiles]));
    }
}
