//! What the calls about remotes and streams read and write: InfluxDB's fields, and ours beside them.
//!
//! Reading is strict about types and says so as InfluxDB does. Fields that nobody knows are passed
//! over, as InfluxDB passes over them: its clients send back objects that they were given.

use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::api::native::fields::Fields;
use crate::domain::refusal::{Code, Refusal, bad_request, missing_field, refuse};
use crate::domain::stream::Stream;
use crate::domain::time::{Millis, Steady};
use crate::operations::remotes::ShownRemote;
use crate::operations::streams::ShownStream;

/// A body that is not what it should be, in the words of InfluxDB.
fn unmarshal(refusal: &Refusal) -> Refusal {
    refuse(refusal.code, format!("failed to unmarshal json: {}", refusal.message))
}

/// The fields of a body.
pub(super) struct Body(Fields);

impl Body {
    /// A body that must be there.
    pub(super) fn required(bytes: &[u8]) -> Result<Self, Refusal> {
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Err(unmarshal(&refuse(Code::BadJson, "the request has no body")));
        }
        Self::optional(bytes)
    }

    /// A body that may be left out, which is one without fields.
    pub(super) fn optional(bytes: &[u8]) -> Result<Self, Refusal> {
        Fields::from_body(bytes).map(Self).map_err(|refusal| unmarshal(&refusal))
    }

    /// A text; one that is empty is none, as Go's clients leave fields out.
    pub(super) fn opt_text(&self, name: &str) -> Result<Option<String>, Refusal> {
        let text = self.0.opt_text(name).map_err(|refusal| unmarshal(&refusal))?;
        Ok(text.filter(|text| !text.is_empty()).map(str::to_owned))
    }

    pub(super) fn text(&self, name: &str) -> Result<String, Refusal> {
        self.opt_text(name)?.ok_or_else(|| missing_field(name))
    }

    /// A text that means something when it is empty.
    pub(super) fn opt_any_text(&self, name: &str) -> Result<Option<String>, Refusal> {
        Ok(self.0.opt_text(name).map_err(|refusal| unmarshal(&refusal))?.map(str::to_owned))
    }

    pub(super) fn opt_flag(&self, name: &str) -> Result<Option<bool>, Refusal> {
        self.0.opt_bool(name).map_err(|refusal| unmarshal(&refusal))
    }

    pub(super) fn opt_int(&self, name: &str) -> Result<Option<i64>, Refusal> {
        self.0.opt_int(name).map_err(|refusal| unmarshal(&refusal))
    }

    pub(super) fn opt_texts(&self, name: &str) -> Result<Option<Vec<String>>, Refusal> {
        self.0.opt_texts(name).map_err(|refusal| unmarshal(&refusal))
    }

    /// What the body says of the fields that `T` has, null included.
    pub(super) fn fields_of<T: Default + Serialize>(&self) -> Result<Map<String, Value>, Refusal> {
        let mut given = Map::new();
        for (name, _) in members(&T::default()) {
            if self.0.has(&name) {
                let value = self.0.opt_structure(&name).map_err(|refusal| unmarshal(&refusal))?;
                given.insert(name, value.unwrap_or_default());
            }
        }
        Ok(given)
    }

    /// The name of the bucket at the remote, in either of its two spellings.
    pub(super) fn remote_bucket_name(&self) -> Result<Option<String>, Refusal> {
        match self.opt_text("remoteBucketName")? {
            None => self.opt_text("RemoteBucketName"),
            some => Ok(some),
        }
    }
}

/// A parameter that is there and not empty.
pub(super) fn opt_parameter(query: &Fields, name: &str) -> Result<Option<String>, Refusal> {
    Ok(query.opt_text(name)?.filter(|text| !text.is_empty()).map(str::to_owned))
}

pub(super) fn required_parameter(query: &Fields, name: &str) -> Result<String, Refusal> {
    opt_parameter(query, name)?.ok_or_else(|| missing_field(name))
}

/// Whether the query asks for a try without an effect.
pub(super) fn only_validates(query: &Fields) -> Result<bool, Refusal> {
    match opt_parameter(query, "validate")?.as_deref() {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(_) => Err(bad_request("validate must be true or false")),
    }
}

/// A moment as this API writes it.
pub(super) fn moment(at: Option<Millis>) -> Value {
    at.map_or(Value::Null, |at| at.readable().into())
}

/// A moment on the time line of waits, which begins at what the clock said.
pub(super) fn steady(at: Option<Steady>) -> Value {
    moment(at.map(|at| Millis(at.0)))
}

/// The members of what is written as an object.
fn members(value: &impl Serialize) -> Map<String, Value> {
    match serde_json::to_value(value) {
        Ok(Value::Object(members)) => members,
        _ => Map::new(),
    }
}

/// Adds what is only there when there is something to say.
fn add(answer: &mut Map<String, Value>, name: &str, value: Option<impl Into<Value>>) {
    if let Some(value) = value {
        answer.insert(name.to_owned(), value.into());
    }
}

/// A remote and what its connection is like now. Its token is not in it.
pub(super) fn render_remote(shown: &ShownRemote) -> Value {
    let ShownRemote { remote, state, last_online_at, offline_since } = shown;
    let mut answer = members(&remote.options);
    answer.extend(members(&json!({
        "allowInsecureTLS": remote.allow_insecure_tls,
        "createdAt": remote.created_at.readable(),
        "id": remote.id,
        "lastOnlineAt": moment(*last_online_at),
        "name": remote.name,
        "offlineSince": moment(*offline_since),
        "orgID": remote.org_id,
        "remoteOrgID": remote.remote_org_id,
        "remoteURL": remote.url,
        "state": state.as_str(),
        "updatedAt": remote.updated_at.readable(),
    })));
    add(&mut answer, "description", remote.description.as_deref());
    answer.into()
}

/// A stream with its queue. Two spellings of the name of the bucket: the contract has one, InfluxDB
/// writes the other.
pub(super) fn render_stream(shown: &ShownStream) -> Value {
    let ShownStream { stream, spill_from } = shown;
    let Stream { options, sums, .. } = stream;
    let mut answer = members(options);
    answer.extend(members(&json!({
        "RemoteBucketName": stream.remote_bucket_name,
        "createdAt": stream.created_at.readable(),
        "currentQueueSizeBytes": sums.current_bytes,
        "dropNonRetryableData": stream.drop_non_retryable,
        "id": stream.id,
        "localBucketID": stream.local_bucket,
        "maxAgeSeconds": stream.max_age_s,
        "maxQueueSizeBytes": stream.max_queue_bytes,
        "name": stream.name,
        "orgID": stream.org_id,
        "paused": stream.is_paused,
        "queuedFiles": sums.entries,
        "remainingBytesToBeSynced": sums.remaining_bytes,
        "remoteBucketID": stream.remote_bucket_id,
        "remoteBucketName": stream.remote_bucket_name,
        "remoteID": stream.remote,
        "spillFrom": spill_from,
        "spilledFiles": sums.spilled,
        "updatedAt": stream.updated_at.readable(),
    })));
    add(&mut answer, "description", stream.description.as_deref());
    if let Some((code, message)) = &stream.latest {
        add(&mut answer, "latestResponseCode", Some(*code));
        add(&mut answer, "latestErrorMessage", Some(message.as_str()));
    }
    answer.into()
}

/// An object of one list.
pub(super) fn list(name: &str, items: Vec<Value>) -> Value {
    Value::Object(Map::from_iter([(name.to_owned(), Value::Array(items))]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::remote::RemoteOptions;
    use crate::domain::stream::StreamOptions;

    fn body(text: &str) -> Body {
        Body::required(text.as_bytes()).expect("an object")
    }

    #[test]
    fn replication_171_bad_json_and_wrong_types_are_said_in_the_words_of_influxdb() {
        for wrong in ["", " ", "{", "[]", "null", "{\"name\":1,\"name\":2}", "{\"a\":1}}"] {
            let refused = Body::required(wrong.as_bytes()).map(|_| ()).expect_err(wrong);
            assert!(refused.message.starts_with("failed to unmarshal json: "), "{refused}");
        }
        let fields = body("{\"name\":1,\"maxQueueSizeBytes\":\"5\",\"paused\":\"true\",\"f\":1.5}");
        for refused in [
            fields.text("name").map(|_| ()),
            fields.opt_int("maxQueueSizeBytes").map(|_| ()),
            fields.opt_int("f").map(|_| ()),
            fields.opt_flag("paused").map(|_| ()),
        ] {
            let refused = refused.expect_err("wrong type");
            assert!(refused.message.starts_with("failed to unmarshal json: field "), "{refused}");
        }
        assert_eq!(fields.text("absent").expect_err("absent"), missing_field("absent"));
        assert!(Body::optional(b"").is_ok());
    }

    #[test]
    fn what_the_body_says_of_options_is_found_and_nothing_else() {
        let text = "{\"name\":\"x\",\"maxConcurrency\":null,\"remoteType\":\"s3\",\"fileNamePrefix\":\"a\"}";
        let given = body(text).fields_of::<RemoteOptions>().expect("read");
        assert_eq!(Value::Object(given), json!({"maxConcurrency": null, "remoteType": "s3"}));
        let given = body(text).fields_of::<StreamOptions>().expect("read");
        assert_eq!(Value::Object(given), json!({"fileNamePrefix": "a"}));
    }
}
