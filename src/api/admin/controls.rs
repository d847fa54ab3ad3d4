//! Test controls: the replication engine held, stepped and drained; lifecycle rules looked at; the
//! clock moved; faults planned; everything removed.
//!
//! Only on a server started with them, which listens on the loopback interface only. Without them
//! these addresses do not exist.

use std::sync::Arc;
use std::time::Duration;

use actix_web::{HttpRequest, HttpResponse};
use serde_json::{Value, json};

use crate::api::native::fields::{Fields, parse_json};
use crate::api::native::{find, json_answer, unwritable};
use crate::api::{Http, TestControls, s3};
use crate::domain::refusal::{bad_request, calls_in_flight};
use crate::domain::time::Millis;
use crate::operations::error::Error;
use crate::operations::lifecycle::walk_due;
use crate::operations::reset::reset_server;

/// Steps of one call at most, so that a call ends.
const STEPS_MAX: i64 = 100_000;
/// The longest a call may wait for the engine to run dry, in milliseconds.
const DRAIN_MS_MAX: i64 = 600_000;
/// The clock is not moved beyond this: numbers of files have room for times until 2089.
const LAST_MOMENT: Millis = Millis(3_692_217_600_000);
/// How long a reset waits for JSON calls in flight.
const RESET_PATIENCE: Duration = Duration::from_secs(5);

/// Performs a control; None when the address is no control's.
pub(crate) async fn perform(
    http: &Http,
    controls: &TestControls,
    request: &HttpRequest,
    body: &[u8],
) -> Option<Result<HttpResponse, Error>> {
    let (path, query) = (request.path(), request.query_string());
    let answer = match (request.method().as_str(), path) {
        ("POST", "/admin/replication/hold") => {
            http.engine.hold();
            Ok(json!({"held": true}))
        }
        ("POST", "/admin/replication/release") => {
            http.engine.release();
            Ok(json!({"held": false}))
        }
        ("POST", "/admin/replication/step") => step(http, query).await,
        ("POST", "/admin/replication/drain") => drain(http, query).await,
        ("POST", "/admin/lifecycle/walk") => walk(http).await,
        ("POST", "/admin/clock/advance") => advance(http, query),
        ("POST", "/admin/faults") => add_fault(controls, body),
        ("GET", "/admin/faults") => Ok(controls.faults.list()),
        ("DELETE", "/admin/faults") => Ok(json!({"cleared": controls.faults.clear(None)})),
        ("DELETE", path) => {
            let id = path.strip_prefix("/admin/faults/")?.parse().ok()?;
            Ok(json!({"cleared": controls.faults.clear(Some(id))}))
        }
        ("POST", "/admin/reset") => reset(http, controls).await,
        _ => return None,
    };
    Some(
        answer.and_then(|answer| Ok(json_answer(serde_json::to_vec(&answer).map_err(unwritable)?))),
    )
}

/// Plans answers of the data listener; the rule is the body.
fn add_fault(controls: &TestControls, body: &[u8]) -> Result<Value, Error> {
    Ok(controls.faults.add(parse_json(body)?, is_operation)?)
}

/// Whether either API has an operation of this name.
fn is_operation(name: &str) -> bool {
    find(name).is_some() || s3::OPERATIONS.iter().any(|operation| operation.name == name)
}

/// Puts the server back to how it was after its first start. JSON calls in flight end before it,
/// and uploads in flight find their bucket gone.
async fn reset(http: &Http, controls: &TestControls) -> Result<Value, Error> {
    let waited = tokio::time::timeout(RESET_PATIENCE, controls.between_calls.write()).await;
    let _no_call = waited.map_err(|_| calls_in_flight())?;
    reset_server(&http.app).await?;
    controls.faults.clear(None);
    http.engine.release();
    Ok(json!({"reset": true}))
}

/// `n` jobs to their outcomes, fewer when fewer are due.
async fn step(http: &Http, query: &str) -> Result<Value, Error> {
    let wanted = Fields::from_query(query)?.opt_int("n")?.unwrap_or(1);
    if !(0..=STEPS_MAX).contains(&wanted) {
        return Err(bad_request(format!("n must be between 0 and {STEPS_MAX}")).into());
    }
    let mut done = 0;
    while done < wanted && Arc::clone(&http.engine).step().await? {
        done += 1;
    }
    Ok(json!({"steps": done}))
}

/// Waits until no due job is left, at most `timeout` milliseconds.
async fn drain(http: &Http, query: &str) -> Result<Value, Error> {
    let timeout = Fields::from_query(query)?.opt_int("timeout")?.unwrap_or(30_000);
    if !(0..=DRAIN_MS_MAX).contains(&timeout) {
        return Err(bad_request(format!("timeout must be between 0 and {DRAIN_MS_MAX} ms")).into());
    }
    let timeout = Duration::from_millis(u64::try_from(timeout).unwrap_or_default());
    Ok(json!({"drained": Arc::clone(&http.engine).drain(timeout).await?}))
}

/// Walks every bucket whose lifecycle walk is due, to its end.
async fn walk(http: &Http) -> Result<Value, Error> {
    Ok(json!({"walks": walk_due(&http.app, &|| true).await?}))
}

/// Moves the clock `ms` forward.
fn advance(http: &Http, query: &str) -> Result<Value, Error> {
    let by_ms = Fields::from_query(query)?.int("ms")?;
    if by_ms < 0 {
        return Err(bad_request("ms must not be negative").into());
    }
    if http.app.clock.now().plus(by_ms) > LAST_MOMENT {
        return Err(bad_request("the clock cannot be moved beyond the year 2086").into());
    }
    http.app.clock.advance(by_ms);
    http.engine.look();
    http.app.wake.lifecycle.notify_one();
    http.app.wake.events.notify_one();
    Ok(json!({"now": http.app.clock.now().0}))
}
