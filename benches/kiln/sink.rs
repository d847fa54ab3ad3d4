//! The limit for large uploads: a server that receives, digests and forgets.
//!
//! It is built from the same web framework and the same digest crates as the server under test, so
//! what the server under test uses beyond it is the price of storing durably.

use std::fs;
use std::path::Path;

use actix_web::web::{self, Payload};
use actix_web::{App, HttpResponse, HttpServer};
use futures_util::StreamExt as _;
use md5::Md5;
use sha1::{Digest, Sha1};

use crate::Fallible;

/// Serves until it is killed; writes its address to the file once it listens.
pub(crate) fn serve(ready_file: &Path) -> Fallible<()> {
    actix_web::rt::System::new().block_on(async {
        let server = HttpServer::new(|| App::new().default_service(web::to(digest)))
            .workers(crate::process::cores())
            .bind(("127.0.0.1", 0))?;
        let address = server.addrs().first().ok_or("the sink has no address")?.to_string();
        let staged = ready_file.with_extension("staged");
        fs::write(&staged, address)?;
        fs::rename(&staged, ready_file)?;
        Ok(server.run().await?)
    })
}

async fn digest(mut body: Payload) -> actix_web::Result<HttpResponse> {
    let mut sha1 = Sha1::new();
    let mut md5 = Md5::new();
    while let Some(chunk) = body.next().await {
        let chunk = chunk?;
        sha1.update(&chunk);
        md5.update(&chunk);
    }
    let answer = format!(
        "{{\"contentMd5\":\"{}\",\"contentSha1\":\"{}\"}}",
        hex::encode(md5.finalize()),
        hex::encode(sha1.finalize())
    );
    Ok(HttpResponse::Ok().content_type("application/json").body(answer))
}
