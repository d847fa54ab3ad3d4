//! Administration commands: one list for the command line and the admin listener.
//!
//! The command line sends a command to the running server, or performs it itself when no server
//! runs; both ways end in the same function, so that they cannot differ.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::domain::refusal::{Refusal, bad_request};
use crate::domain::usage::CapChange;

/// One thing an operator can ask for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "camelCase", deny_unknown_fields)]
pub(crate) enum AdminCommand {
    /// Makes an account with its master application key; the secret is in the answer.
    #[serde(rename_all = "camelCase")]
    CreateAccount {
        /// A name for people; may be empty.
        #[serde(default)]
        name: String,
    },
    ListAccounts,
    /// What an account may use.
    #[serde(rename_all = "camelCase")]
    ShowCaps {
        #[serde(default)]
        account_id: Option<String>,
    },
    /// Sets caps: a number, or `none` to remove one; those not named stay.
    #[serde(rename_all = "camelCase")]
    ChangeCaps {
        #[serde(default)]
        account_id: Option<String>,
        /// Bytes of everything stored.
        #[serde(default)]
        storage_bytes: CapChange,
        #[serde(default)]
        download_bytes_per_day: CapChange,
        #[serde(default)]
        class_a_per_day: CapChange,
        #[serde(default)]
        class_b_per_day: CapChange,
        #[serde(default)]
        class_c_per_day: CapChange,
    },
    /// What accounts store, and what they did on the last days.
    #[serde(rename_all = "camelCase")]
    ShowUsage {
        /// None means every account.
        #[serde(default)]
        account_id: Option<String>,
        /// At most 400, today counted; default 30.
        #[serde(default)]
        days: Option<i64>,
    },
    /// Counts what is stored anew and compares.
    RecountUsage,
    #[serde(rename_all = "camelCase")]
    CreateKey {
        /// None means the first account of this server.
        #[serde(default)]
        account_id: Option<String>,
        key_name: String,
        capabilities: Vec<String>,
        /// Names of buckets the key is restricted to; empty means all buckets.
        #[serde(default)]
        bucket_names: Vec<String>,
        #[serde(default)]
        name_prefix: Option<String>,
        #[serde(default)]
        valid_duration_in_seconds: Option<i64>,
    },
    #[serde(rename_all = "camelCase")]
    ListKeys {
        #[serde(default)]
        account_id: Option<String>,
    },
    #[serde(rename_all = "camelCase")]
    DeleteKey {
        application_key_id: String,
    },
    ListRingKeys,
    /// Makes a new key for SSE-B2; what older ones wrap stays so until it is wrapped anew.
    AddRingKey,
    /// Wraps a bounded number of data keys anew, with the current key.
    #[serde(rename_all = "camelCase")]
    Rewrap {
        /// Where an earlier step ended.
        #[serde(default)]
        after: Option<String>,
    },
    /// Takes keys out of the key ring that nothing is wrapped with any more.
    RetireRingKeys,
    #[serde(rename_all = "camelCase")]
    ListReplicationJobs {
        /// `ready`, `leased`, `done`, `failed` or `cancelled`; None means all.
        #[serde(default)]
        state: Option<String>,
        /// Only jobs whose source is this bucket.
        #[serde(default)]
        bucket_name: Option<String>,
        /// Only jobs with a larger id: the id of the last job of the page before.
        #[serde(default)]
        after: Option<i64>,
        /// At most 1000; default 100.
        #[serde(default)]
        limit: Option<usize>,
    },
    #[serde(rename_all = "camelCase")]
    ListNotifications {
        /// Only rules of this bucket.
        #[serde(default)]
        bucket_name: Option<String>,
        /// Only queues with a larger number: that of the last one of the page before.
        #[serde(default)]
        after: Option<i64>,
        /// At most 1000; default 100.
        #[serde(default)]
        limit: Option<usize>,
    },
    #[serde(rename_all = "camelCase")]
    RetryReplicationJobs {
        /// One job; None means every failed job that fits the other fields.
        #[serde(default)]
        job_id: Option<i64>,
        #[serde(default)]
        bucket_name: Option<String>,
        /// Only jobs that failed for this reason, for example `source_key_deleted`.
        #[serde(default)]
        reason: Option<String>,
    },
    /// What the lifecycle rules of a bucket would do now.
    #[serde(rename_all = "camelCase")]
    PreviewLifecycle {
        bucket_name: String,
        /// Acts to list, at most 10000; default 100.
        #[serde(default)]
        limit: Option<usize>,
    },
    /// Does at once what the lifecycle rules of a bucket make due.
    #[serde(rename_all = "camelCase")]
    RunLifecycle {
        bucket_name: String,
    },
    /// What the clock says, and by what time locks run out.
    ShowClock,
    /// Lets locks run out by the clock as it stands now.
    ConfirmClock,
}

impl AdminCommand {
    /// The request that asks a running server for this: method, path and JSON fields, which go
    /// into the query of a GET and the body of anything else.
    pub(crate) fn to_request(&self) -> (&'static str, String, Map<String, Value>) {
        let mut fields = match serde_json::to_value(self) {
            Ok(Value::Object(fields)) => fields,
            _ => Map::new(),
        };
        fields.remove("command");
        fields.retain(|_, value| !value.is_null());
        let (method, path) = match self {
            Self::CreateAccount { .. } => ("POST", "/admin/accounts".to_owned()),
            Self::ListAccounts => ("GET", "/admin/accounts".to_owned()),
            Self::ShowCaps { .. } => ("GET", "/admin/caps".to_owned()),
            Self::ChangeCaps { .. } => ("POST", "/admin/caps".to_owned()),
            Self::ShowUsage { .. } => ("GET", "/admin/usage".to_owned()),
            Self::RecountUsage => ("POST", "/admin/usage/recount".to_owned()),
            Self::CreateKey { .. } => ("POST", "/admin/keys".to_owned()),
            Self::ListKeys { .. } => ("GET", "/admin/keys".to_owned()),
            Self::DeleteKey { application_key_id } => {
                fields.clear();
                ("DELETE", format!("/admin/keys/{application_key_id}"))
            }
            Self::ListRingKeys => ("GET", "/admin/key-ring".to_owned()),
            Self::AddRingKey => ("POST", "/admin/key-ring".to_owned()),
            Self::Rewrap { .. } => ("POST", "/admin/key-ring/rewrap".to_owned()),
            Self::RetireRingKeys => ("POST", "/admin/key-ring/retire".to_owned()),
            Self::ListReplicationJobs { .. } => ("GET", "/admin/replication/jobs".to_owned()),
            Self::ListNotifications { .. } => ("GET", "/admin/notifications".to_owned()),
            Self::RetryReplicationJobs { .. } => ("POST", "/admin/replication/retry".to_owned()),
            Self::PreviewLifecycle { .. } => ("GET", "/admin/lifecycle/preview".to_owned()),
            Self::RunLifecycle { .. } => ("POST", "/admin/lifecycle/run".to_owned()),
            Self::ShowClock => ("GET", "/admin/clock".to_owned()),
            Self::ConfirmClock => ("POST", "/admin/clock/confirm".to_owned()),
        };
        (method, path, fields)
    }

    /// The command that a request asks for; None when the address is no command's.
    pub(crate) fn from_request(
        method: &str,
        path: &str,
        mut fields: Map<String, Value>,
    ) -> Option<Result<Self, Refusal>> {
        let command = match (method, path) {
            ("POST", "/admin/accounts") => "createAccount",
            ("GET", "/admin/accounts") => "listAccounts",
            ("GET", "/admin/caps") => "showCaps",
            ("POST", "/admin/caps") => "changeCaps",
            ("GET", "/admin/usage") => "showUsage",
            ("POST", "/admin/usage/recount") => "recountUsage",
            ("POST", "/admin/keys") => "createKey",
            ("GET", "/admin/keys") => "listKeys",
            ("GET", "/admin/key-ring") => "listRingKeys",
            ("POST", "/admin/key-ring") => "addRingKey",
            ("POST", "/admin/key-ring/rewrap") => "rewrap",
            ("POST", "/admin/key-ring/retire") => "retireRingKeys",
            ("GET", "/admin/notifications") => "listNotifications",
            ("GET", "/admin/replication/jobs") => "listReplicationJobs",
            ("POST", "/admin/replication/retry") => "retryReplicationJobs",
            ("GET", "/admin/lifecycle/preview") => "previewLifecycle",
            ("POST", "/admin/lifecycle/run") => "runLifecycle",
            ("GET", "/admin/clock") => "showClock",
            ("POST", "/admin/clock/confirm") => "confirmClock",
            ("DELETE", path) => {
                let id = path.strip_prefix("/admin/keys/")?;
                fields.insert("applicationKeyId".to_owned(), id.into());
                "deleteKey"
            }
            _ => return None,
        };
        if method == "GET" {
            read_numbers(&mut fields);
        }
        fields.insert("command".to_owned(), command.into());
        let read = serde_json::from_value(Value::Object(fields));
        Some(read.map_err(|error| bad_request(format!("{command}: {error}"))))
    }
}

/// Query parameters are texts; these are meant as numbers.
fn read_numbers(fields: &mut Map<String, Value>) {
    for name in ["after", "limit", "days"] {
        if let Some(value) = fields.get_mut(name)
            && let Some(number) = value.as_str().and_then(|text| text.parse::<i64>().ok())
        {
            *value = number.into();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_survives_the_way_to_the_server() {
        let commands = [
            AdminCommand::CreateAccount { name: "x".to_owned() },
            AdminCommand::ListAccounts,
            AdminCommand::ShowCaps { account_id: None },
            AdminCommand::ChangeCaps {
                account_id: Some("a".to_owned()),
                storage_bytes: CapChange::Set(5),
                download_bytes_per_day: CapChange::Remove,
                class_a_per_day: CapChange::Keep,
                class_b_per_day: CapChange::Set(0),
                class_c_per_day: CapChange::Keep,
            },
            AdminCommand::ShowUsage { account_id: None, days: Some(3) },
            AdminCommand::RecountUsage,
            AdminCommand::ListKeys { account_id: Some("a".to_owned()) },
            AdminCommand::DeleteKey { application_key_id: "k".to_owned() },
            AdminCommand::ListRingKeys,
            AdminCommand::AddRingKey,
            AdminCommand::Rewrap { after: Some("1.5".to_owned()) },
            AdminCommand::RetireRingKeys,
            AdminCommand::ListReplicationJobs {
                state: Some("failed".to_owned()),
                bucket_name: None,
                after: Some(5),
                limit: None,
            },
            AdminCommand::RetryReplicationJobs { job_id: Some(1), bucket_name: None, reason: None },
            AdminCommand::PreviewLifecycle { bucket_name: "b".to_owned(), limit: Some(7) },
            AdminCommand::RunLifecycle { bucket_name: "b".to_owned() },
            AdminCommand::ListNotifications {
                bucket_name: Some("b".to_owned()),
                after: None,
                limit: Some(5),
            },
            AdminCommand::ShowClock,
            AdminCommand::ConfirmClock,
        ];
        for command in commands {
            let (method, path, mut fields) = command.to_request();
            if method == "GET" {
                // As a query would carry them.
                for value in fields.values_mut().filter(|value| value.is_number()) {
                    *value = value.to_string().into();
                }
            }
            let arrived = AdminCommand::from_request(method, &path, fields);
            assert_eq!(arrived, Some(Ok(command)));
        }
        assert_eq!(AdminCommand::from_request("PUT", "/admin/keys", Map::new()), None);
    }
}
