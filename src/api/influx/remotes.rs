//! The calls about remotes.

use serde_json::json;

use crate::api::influx::wire::{Body, list, opt_parameter, render_remote, required_parameter};
use crate::api::influx::{Answer, Call, Reply};
use crate::domain::remote::RemoteOptions;
use crate::operations::remotes::{self, NewRemote, RemoteChange, RemoteFilter, parse_id};

pub(super) async fn list_all(call: Call) -> Reply {
    let filter = RemoteFilter {
        org_id: opt_parameter(&call.query, "orgID")?,
        name: opt_parameter(&call.query, "name")?,
        url: opt_parameter(&call.query, "remoteURL")?,
    };
    let listed = remotes::list(call.app(), &call.caller, &filter)?;
    Ok(Answer::ok(list("remotes", listed.iter().map(render_remote).collect())))
}

pub(super) async fn create(call: Call) -> Reply {
    let body = Body::required(&call.body)?;
    let wanted = NewRemote {
        org_id: body.opt_text("orgID")?.unwrap_or_default(),
        name: body.text("name")?,
        description: body.opt_text("description")?,
        url: body.text("remoteURL")?,
        token: body.text("remoteAPIToken")?,
        remote_org_id: body.opt_text("remoteOrgID")?,
        allow_insecure_tls: body.opt_flag("allowInsecureTLS")?.unwrap_or_default(),
        options: RemoteOptions::default().with(&body.fields_of::<RemoteOptions>()?)?,
    };
    let made = remotes::create(call.app(), &call.caller, wanted).await?;
    Ok(Answer::created(render_remote(&made)))
}

pub(super) async fn find(call: Call) -> Reply {
    let found = remotes::get(call.app(), &call.caller, parse_id(&call.id)?)?;
    Ok(Answer::ok(render_remote(&found)))
}

pub(super) async fn update(call: Call) -> Reply {
    let id = parse_id(&call.id)?;
    let body = Body::required(&call.body)?;
    let change = RemoteChange {
        name: body.opt_text("name")?,
        description: body.opt_any_text("description")?,
        url: body.opt_text("remoteURL")?,
        token: body.opt_text("remoteAPIToken")?,
        remote_org_id: body.opt_any_text("remoteOrgID")?,
        allow_insecure_tls: body.opt_flag("allowInsecureTLS")?,
        options: body.fields_of::<RemoteOptions>()?,
    };
    let changed = remotes::update(call.app(), &call.caller, id, change).await?;
    Ok(Answer::ok(render_remote(&changed)))
}

pub(super) async fn delete(call: Call) -> Reply {
    remotes::delete(call.app(), &call.caller, parse_id(&call.id)?).await?;
    Ok(Answer::nothing())
}

/// The buckets of a peer that rules may lead to.
pub(super) async fn list_buckets(call: Call) -> Reply {
    let named = remotes::named_buckets(call.app(), &call.caller, parse_id(&call.id)?)?;
    Ok(Answer::ok(json!({"bucketIDs": named})))
}

pub(super) async fn add_bucket(call: Call) -> Reply {
    let id = parse_id(&call.id)?;
    let bucket = Body::required(&call.body)?.text("bucketID")?;
    let named = remotes::name_bucket(call.app(), &call.caller, id, &bucket).await?;
    Ok(Answer::created(json!({"bucketID": named})))
}

pub(super) async fn remove_bucket(call: Call) -> Reply {
    let id = parse_id(&call.id)?;
    let bucket = required_parameter(&call.query, "bucketID")?;
    remotes::forget_bucket(call.app(), &call.caller, id, &bucket).await?;
    Ok(Answer::nothing())
}
