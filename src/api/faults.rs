//! Planned rules: answers that a test has planned for the data listener, so that a client's own
//! retry code can be tried.
//!
//! Only on a server started with test controls. A rule is about one operation and fires a given
//! number of times: there is no probability in it, so that a test means the same on every run.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::body::SizedStream;
use futures_util::stream;
use serde::de::{Deserialize, Deserializer};
use serde_json::{Map, Value, json};

use crate::domain::refusal::{Refusal, bad_request, shorten};

/// Rules kept at most; a test that forgets to clear them is told.
const RULES_MAX: usize = 1_000;
/// The longest delay, in milliseconds.
const DELAY_MS_MAX: u64 = 600_000;
/// The longest `Retry-After`, in seconds.
const RETRY_AFTER_S_MAX: u32 = 3_600;
/// What 429 and 503 tell unless the rule says otherwise, in seconds.
const RETRY_AFTER_S: u32 = 1;
const CODE_BYTES_MAX: usize = 64;
const MESSAGE_BYTES_MAX: usize = 1_000;
/// Stands for every operation.
const ANY: &str = "*";

/// The code that goes with a status when the rule names none.
const USUAL_CODES: [(u16, &str); 11] = [
    (400, "bad_request"),
    (401, "expired_auth_token"),
    (403, "cap_exceeded"),
    (404, "not_found"),
    (405, "method_not_allowed"),
    (408, "request_timeout"),
    (409, "conflict"),
    (416, "range_not_satisfiable"),
    (429, "too_many_requests"),
    (500, "internal_error"),
    (503, "service_unavailable"),
];

/// A rule as it is asked for.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Asked {
    operation: String,
    status: Option<u16>,
    code: Option<String>,
    message: Option<String>,
    times: Option<u64>,
    #[serde(default)]
    skip: u64,
    #[serde(default)]
    delay_ms: u64,
    #[serde(default)]
    retry_after: RetryAfter,
    #[serde(default)]
    performed: bool,
    #[serde(default)]
    disconnect: bool,
}

/// The `Retry-After` header of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum RetryAfter {
    /// Nothing was said: it is left to the status.
    #[default]
    Usual,
    /// So many seconds; null for none at all.
    Given(Option<u32>),
}

impl<'de> Deserialize<'de> for RetryAfter {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Option::<u32>::deserialize(from).map(Self::Given)
    }
}

/// What happens instead of the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Instead {
    /// The operation answers as ever, later.
    Nothing,
    Answer(PlannedAnswer),
    /// The connection ends without an answer.
    Disconnect,
}

/// An error that a rule plans.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PlannedAnswer {
    pub(crate) status: u16,
    pub(crate) code: String,
    pub(crate) message: String,
    /// Seconds for the `Retry-After` header.
    pub(crate) retry_after_s: Option<u32>,
}

/// What a rule that fires does to one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Planned {
    pub(crate) delay: Duration,
    /// The operation is performed all the same, only its answer is lost.
    pub(crate) performed: bool,
    pub(crate) instead: Instead,
}

/// Performs a request, or what is planned in its place; `answer` renders a planned error.
pub(crate) async fn perform<E>(
    planned: Option<Planned>,
    request: impl Future<Output = Result<HttpResponse, E>>,
    answer: impl FnOnce(PlannedAnswer) -> Result<HttpResponse, E>,
) -> Result<HttpResponse, E> {
    let Some(Planned { delay, performed, instead }) = planned else { return request.await };
    tokio::time::sleep(delay).await;
    if instead == Instead::Nothing {
        return request.await;
    }
    if performed {
        // Whatever comes of it: its answer is lost.
        drop(request.await);
    }
    match instead {
        Instead::Answer(planned) => answer(planned),
        Instead::Nothing | Instead::Disconnect => Ok(disconnect()),
    }
}

/// An answer that fails before its first byte: the client sees the connection end.
fn disconnect() -> HttpResponse {
    let broken = stream::once(async { Err(io::Error::other("a fault rule ends the connection")) });
    HttpResponse::Ok().body(SizedStream::new(1, Box::pin(broken)))
}

#[derive(Debug)]
struct Rule {
    id: u64,
    operation: String,
    /// None fires until the rule is cleared.
    times: Option<u64>,
    /// Matching requests that are still let through.
    skip: u64,
    fired: u64,
    fault: Planned,
}

impl Rule {
    fn matches(&self, operation: &str) -> bool {
        self.operation == ANY || self.operation == operation
    }

    fn is_spent(&self) -> bool {
        self.times.is_some_and(|times| self.fired >= times)
    }

    fn shown(&self) -> Value {
        let mut shown = Map::new();
        let mut put = |name: &str, value: Value| shown.insert(name.to_owned(), value);
        put("id", self.id.into());
        put("operation", self.operation.as_str().into());
        put("fired", self.fired.into());
        put("left", self.times.map(|times| times - self.fired.min(times)).into());
        put("skip", self.skip.into());
        put("delayMs", u64::try_from(self.fault.delay.as_millis()).unwrap_or(u64::MAX).into());
        put("performed", self.fault.performed.into());
        put("disconnect", (self.fault.instead == Instead::Disconnect).into());
        if let Instead::Answer(answer) = &self.fault.instead {
            put("status", answer.status.into());
            put("code", answer.code.as_str().into());
            put("message", answer.message.as_str().into());
            put("retryAfter", answer.retry_after_s.into());
        }
        Value::Object(shown)
    }
}

#[derive(Debug, Default)]
struct Rules {
    last_id: u64,
    rules: Vec<Rule>,
}

/// The rules of one server.
#[derive(Debug, Default)]
pub(crate) struct FaultRules(Mutex<Rules>);

impl FaultRules {
    fn rules(&self) -> MutexGuard<'_, Rules> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a rule and answers it as [`FaultRules::list`] shows it.
    pub(crate) fn add(
        &self,
        asked: Value,
        is_operation: impl Fn(&str) -> bool,
    ) -> Result<Value, Refusal> {
        let asked: Asked = serde_json::from_value(asked)
            .map_err(|error| bad_request(format!("fault rule: {error}")))?;
        if asked.operation != ANY && !is_operation(&asked.operation) {
            let name = shorten(&asked.operation);
            return Err(bad_request(format!("no such operation: {name}; \"*\" means every one")));
        }
        if asked.times == Some(0) {
            return Err(bad_request("times must be at least 1; without it the rule stays"));
        }
        let mut rules = self.rules();
        if rules.rules.len() >= RULES_MAX {
            return Err(bad_request(format!("there are {RULES_MAX} fault rules: clear them")));
        }
        rules.last_id += 1;
        let rule = Rule {
            id: rules.last_id,
            fault: fault(&asked)?,
            operation: asked.operation,
            times: asked.times,
            skip: asked.skip,
            fired: 0,
        };
        let shown = rule.shown();
        rules.rules.push(rule);
        Ok(shown)
    }

    /// Every rule, oldest first, also those that fire no more.
    pub(crate) fn list(&self) -> Value {
        json!({"faults": self.rules().rules.iter().map(Rule::shown).collect::<Vec<_>>()})
    }

    /// Removes the rule with this id, or all of them; answers how many.
    pub(crate) fn clear(&self, id: Option<u64>) -> usize {
        let mut rules = self.rules();
        let before = rules.rules.len();
        rules.rules.retain(|rule| id.is_some_and(|id| rule.id != id));
        before - rules.rules.len()
    }

    /// What shall happen to a request for `operation`: the oldest rule about it that is not spent
    /// decides, and counts the request.
    pub(crate) fn take(&self, operation: &str) -> Option<Planned> {
        let mut rules = self.rules();
        let mut matching = rules.rules.iter_mut().filter(|rule| rule.matches(operation));
        let rule = matching.find(|rule| !rule.is_spent())?;
        if rule.skip > 0 {
            rule.skip -= 1;
            return None;
        }
        rule.fired += 1;
        Some(rule.fault.clone())
    }
}

fn fault(asked: &Asked) -> Result<Planned, Refusal> {
    if asked.delay_ms > DELAY_MS_MAX {
        return Err(bad_request(format!("delayMs must be at most {DELAY_MS_MAX}")));
    }
    let describes_an_answer =
        asked.code.is_some() || asked.message.is_some() || asked.retry_after != RetryAfter::Usual;
    let instead = match (asked.status, asked.disconnect) {
        (Some(_), true) => return Err(bad_request("status and disconnect exclude each other")),
        (Some(status), false) => Instead::Answer(planned(asked, status)?),
        (None, _) if describes_an_answer => {
            return Err(bad_request("code, message and retryAfter need a status"));
        }
        (None, true) => Instead::Disconnect,
        (None, false) if asked.delay_ms == 0 => {
            return Err(bad_request("a fault rule needs a status, disconnect or delayMs"));
        }
        (None, false) if asked.performed => {
            return Err(bad_request("performed needs a status or disconnect"));
        }
        (None, false) => Instead::Nothing,
    };
    let delay = Duration::from_millis(asked.delay_ms);
    Ok(Planned { delay, performed: asked.performed, instead })
}

fn planned(asked: &Asked, status: u16) -> Result<PlannedAnswer, Refusal> {
    if !(400..=599).contains(&status) {
        return Err(bad_request("status must be between 400 and 599"));
    }
    let usual = USUAL_CODES.iter().find(|(known, _)| *known == status).map(|(_, code)| *code);
    let code = asked.code.as_deref().or(usual).ok_or_else(|| {
        bad_request(format!("status {status} has no usual code: give code as well"))
    })?;
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    if code.is_empty() || code.len() > CODE_BYTES_MAX || !code.bytes().all(allowed) {
        return Err(bad_request("code must be lower-case letters, digits and underscores"));
    }
    let message = asked.message.as_deref().unwrap_or("planned by a fault rule");
    if message.len() > MESSAGE_BYTES_MAX {
        return Err(bad_request(format!("message is longer than {MESSAGE_BYTES_MAX} bytes")));
    }
    let retry_after_s = match asked.retry_after {
        RetryAfter::Given(given) => given,
        RetryAfter::Usual => matches!(status, 429 | 503).then_some(RETRY_AFTER_S),
    };
    if retry_after_s.is_some_and(|seconds| seconds > RETRY_AFTER_S_MAX) {
        return Err(bad_request(format!("retryAfter must be at most {RETRY_AFTER_S_MAX}")));
    }
    Ok(PlannedAnswer { status, code: code.to_owned(), message: message.to_owned(), retry_after_s })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(rules: &FaultRules, asked: Value) -> Result<Value, Refusal> {
        rules.add(asked, |name| name.starts_with("b2_"))
    }

    fn status(fault: Option<Planned>) -> Option<u16> {
        match fault?.instead {
            Instead::Answer(answer) => Some(answer.status),
            Instead::Nothing | Instead::Disconnect => None,
        }
    }

    #[test]
    fn a_rule_fires_exactly_as_often_as_it_says() {
        let rules = FaultRules::default();
        add(&rules, json!({"operation": "b2_x", "status": 503, "times": 2, "skip": 1})).unwrap();
        let seen: Vec<_> = (0..5).map(|_| status(rules.take("b2_x"))).collect();
        assert_eq!(seen, [None, Some(503), Some(503), None, None]);
        assert_eq!(rules.take("b2_y"), None);
        let listed = rules.list();
        assert_eq!(
            (&listed["faults"][0]["fired"], &listed["faults"][0]["left"]),
            (&json!(2), &json!(0))
        );
    }

    #[test]
    fn the_oldest_rule_decides_until_it_is_spent() {
        let rules = FaultRules::default();
        add(&rules, json!({"operation": "*", "status": 500, "times": 1})).unwrap();
        add(&rules, json!({"operation": "b2_x", "status": 401})).unwrap();
        let seen: Vec<_> = (0..4).map(|_| status(rules.take("b2_x"))).collect();
        assert_eq!(seen, [Some(500), Some(401), Some(401), Some(401)]);
        assert_eq!((rules.clear(Some(1)), rules.clear(Some(1)), rules.clear(None)), (1, 0, 1));
        assert_eq!(rules.take("b2_x"), None);
    }

    #[test]
    fn native_399_answers_429_and_503_say_when_to_try_again() {
        let rules = FaultRules::default();
        let shown = |asked| add(&rules, asked).unwrap();
        for status in [429, 503] {
            let rule = shown(json!({"operation": "*", "status": status}));
            assert_eq!(rule["retryAfter"], 1);
        }
        let rule = shown(json!({"operation": "*", "status": 503, "retryAfter": null}));
        assert_eq!(rule["retryAfter"], Value::Null);
        let rule = shown(json!({"operation": "*", "status": 500}));
        assert_eq!((&rule["retryAfter"], &rule["code"]), (&Value::Null, &json!("internal_error")));
        let rule = shown(json!({"operation": "*", "status": 500, "retryAfter": 7}));
        assert_eq!(rule["retryAfter"], 7);
    }

    #[test]
    fn rules_that_mean_nothing_are_refused() {
        let rules = FaultRules::default();
        for wrong in [
            json!({}),
            json!([]),
            json!({"operation": "b2_x"}),
            json!({"operation": "nothing", "status": 503}),
            json!({"operation": "b2_x", "status": 200}),
            json!({"operation": "b2_x", "status": 499}),
            json!({"operation": "b2_x", "status": 503, "times": 0}),
            json!({"operation": "b2_x", "status": 503, "times": -1}),
            json!({"operation": "b2_x", "status": 503, "disconnect": true}),
            json!({"operation": "b2_x", "disconnect": true, "code": "x"}),
            json!({"operation": "b2_x", "delayMs": 1, "performed": true}),
            json!({"operation": "b2_x", "delayMs": 600_001}),
            json!({"operation": "b2_x", "status": 503, "code": "Not a code"}),
            json!({"operation": "b2_x", "status": 503, "retryAfter": 3_601}),
            json!({"operation": "b2_x", "status": 503, "probability": 0.5}),
        ] {
            assert!(add(&rules, wrong.clone()).is_err(), "{wrong}");
        }
        assert_eq!(rules.list(), json!({"faults": []}));
    }
}
