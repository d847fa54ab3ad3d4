//! Organizations, which are accounts here, and what clients ask before anything else.

use actix_web::http::Method;
use serde_json::json;

use crate::api::influx::wire::opt_parameter;
use crate::api::influx::{Answer, Call, Reply};
use crate::domain::refusal::{Code, refuse, shorten};
use crate::domain::remote::account_of_org;
use crate::operations::accounts::list_accounts;
use crate::operations::remotes::parse_org;

/// Whether the server lives, at InfluxDB's two addresses for it; None for any other request.
pub(super) fn liveness(method: &Method, path: &str) -> Option<Answer> {
    match path {
        "/ping" if matches!(*method, Method::GET | Method::HEAD) => Some(Answer::nothing()),
        "/health" if *method == Method::GET => Some(Answer::ok(json!({
            "checks": [],
            "message": "ready for files",
            "name": "kiln",
            "status": "pass",
            "version": env!("CARGO_PKG_VERSION"),
        }))),
        _ => None,
    }
}

/// The accounts that the caller may see: his own, for the operator all. `org` is the name of one or
/// its id, `orgID` its id.
pub(super) async fn list_orgs(call: Call) -> Reply {
    let name = opt_parameter(&call.query, "org")?;
    let id = opt_parameter(&call.query, "orgID")?;
    let wanted = id.map(|id| parse_org(Some(&id))).transpose()?;
    let mut shown = Vec::new();
    for account in list_accounts(call.app())? {
        let is_visible = call.is_operator || account.id == call.caller.account();
        // Where nobody gave a name, the id is one.
        let own_name =
            if account.name.is_empty() { account.id.to_string() } else { account.name.clone() };
        let org_id = format!("{:0>16}", account.id.to_string());
        let is_named = name.as_deref().is_none_or(|name| {
            name == own_name || account_of_org(name).is_some_and(|named| named == account.id)
        });
        if is_visible && is_named && wanted.is_none_or(|wanted| wanted == account.id) {
            shown.push(json!({
                "createdAt": account.created_at.readable(),
                "id": org_id,
                "name": own_name,
            }));
        }
    }
    if shown.is_empty() {
        let text = match &name {
            Some(name) => format!("organization name \"{}\" not found", shorten(name)),
            None => "organization not found".to_owned(),
        };
        return Err(refuse(Code::NotFound, text).into());
    }
    Ok(Answer::ok(json!({"links": {"self": "/api/v2/orgs"}, "orgs": shown})))
}
