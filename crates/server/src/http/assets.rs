//! The files of the web page, which are part of the program. Open to all: a page must be there before its user can give a
//! token, and there is nothing in it.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use axum::Router;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::App;

/// What the page may do: load what comes from here, and talk to here.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
                      font-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
/// The page itself.
const INDEX: &str = "index.html";

struct Asset {
    path: &'static str,
    bytes: &'static [u8],
}

macro_rules! assets {
    ($($path:literal)*) => {
        /// Those that `web/FILES` lists.
        const ASSETS: &[Asset] = &[$(Asset { path: $path, bytes: include_bytes!(concat!("../../web/", $path)) }),*];
    };
}

assets! {
    "app.js"
    "graph/card.js"
    "graph/layout.js"
    "graph/lineage.js"
    "graph/tasks.js"
    "graph/view.js"
    "icon.svg"
    "index.html"
    "lib/api.js"
    "lib/clock.js"
    "lib/dom.js"
    "lib/format.js"
    "lib/poll.js"
    "lib/record.js"
    "lib/router.js"
    "lib/sql-words.js"
    "lib/theme.js"
    "style/base.css"
    "style/chart.css"
    "style/graph.css"
    "style/parts.css"
    "style/tables.css"
    "style/tokens.css"
    "style/views.css"
    "theme.js"
    "ui/chart.js"
    "ui/dialogs.js"
    "ui/editor.js"
    "ui/icons.js"
    "ui/parts.js"
    "ui/table.js"
    "views/audit.js"
    "views/cluster.js"
    "views/job-actions.js"
    "views/job-checkpoints.js"
    "views/job-configuration.js"
    "views/job-events.js"
    "views/job-exceptions.js"
    "views/job-lineage.js"
    "views/job-overview.js"
    "views/job-subtasks.js"
    "views/job.js"
    "views/jobs.js"
    "views/missing.js"
    "views/sql-preview.js"
    "views/sql.js"
}

/// A route for each file.
pub(super) fn routes() -> Router<Arc<App>> {
    ASSETS.iter().fold(Router::new(), |router, asset| {
        let path = if asset.path == INDEX { "/".to_owned() } else { format!("/{}", asset.path) };
        let tag = tag(asset.bytes);
        router.route(&path, get(move |headers: HeaderMap| async move { serve(asset, &tag, &headers) }))
    })
}

/// Tells one version of a file from another.
fn tag(bytes: &[u8]) -> String {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    format!("\"{:016x}\"", hasher.finish())
}

fn serve(asset: &Asset, tag: &str, headers: &HeaderMap) -> Response {
    let is_known = headers.get(header::IF_NONE_MATCH).is_some_and(|known| known == tag);
    let mut response = match is_known {
        true => StatusCode::NOT_MODIFIED.into_response(),
        false => ([(header::CONTENT_TYPE, content_type(asset.path))], asset.bytes).into_response(),
    };
    let set = response.headers_mut();
    set.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    set.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    if let Ok(tag) = HeaderValue::from_str(tag) {
        set.insert(header::ETAG, tag);
    }
    response
}

fn content_type(path: &str) -> &'static str {
    match path.rsplit_once('.').map_or("", |(_, extension)| extension) {
        "html" => "text/html; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "ico" => "image/x-icon",
        "json" => "application/json",
        "webmanifest" => "application/manifest+json",
        "woff2" => "font/woff2",
        "txt" => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_holds_what_the_page_needs_and_each_file_has_a_type() {
        let wanted: Vec<&str> = include_str!("../../web/FILES").split_whitespace().collect();
        let found: Vec<&str> = ASSETS.iter().map(|asset| asset.path).collect();
        assert_eq!(found, wanted, "the table in http/assets.rs must list what web/FILES lists");
        let untyped = found.iter().find(|path| content_type(path) == "application/octet-stream");
        assert_eq!(untyped, None);
    }
}
