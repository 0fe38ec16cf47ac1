//! The node that is asked: whether it lives, how it was started, its metrics, and who asks.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::{Extension, Json};
use serde::Serialize;
use utoipa::ToSchema;

use crate::figures::model::{ConfigurationAnswer, SessionAnswer, Setting};
use crate::http::App;
use crate::http::access::User;
use crate::http::error::{ApiError, ErrorBody};
use crate::metrics;

/// Whether a node does its work.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Health {
    #[schema(example = "ok")]
    status: String,
}

/// Whether the process answers. Open to all.
#[utoipa::path(get, path = "/health", tag = "node", responses((status = 200, body = Health)))]
pub(crate) async fn health() -> Json<Health> {
    Json(Health { status: "ok".to_owned() })
}

/// Whether the node can do its work: a coordinator knows a leader, a job has not failed. Open to all.
#[utoipa::path(
    get, path = "/ready", tag = "node", responses((status = 200, body = Health), (status = 503, body = Health)),
)]
pub(crate) async fn ready(State(app): State<Arc<App>>) -> (StatusCode, Json<Health>) {
    match app.backend.is_ready() {
        Ok(()) => (StatusCode::OK, Json(Health { status: "ok".to_owned() })),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, Json(Health { status: reason })),
    }
}

/// Who asks, and whom.
#[utoipa::path(
    get, path = "/api/v1/session", tag = "node",
    responses((status = 200, body = SessionAnswer), (status = 401, body = ErrorBody)),
)]
pub(crate) async fn session(State(app): State<Arc<App>>, Extension(user): Extension<User>) -> Json<SessionAnswer> {
    Json(SessionAnswer {
        stale: false,
        role: user.role.name().to_owned(),
        user: user.name,
        authenticated: app.access.demands_tokens(),
        mode: app.backend.mode().to_owned(),
        node: app.backend.name(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        now_ms: app.now().0,
    })
}

/// How the node was started, without secrets.
#[utoipa::path(get, path = "/api/v1/configuration", tag = "node", responses((status = 200, body = ConfigurationAnswer)))]
pub(crate) async fn configuration(State(app): State<Arc<App>>) -> Json<ConfigurationAnswer> {
    let settings = app.backend.settings().into_iter().map(|(name, value)| Setting { name, value }).collect();
    Json(ConfigurationAnswer { stale: false, node: app.backend.name(), settings })
}

/// Figures for Prometheus.
#[utoipa::path(
    get, path = "/metrics", tag = "node",
    responses((status = 200, content_type = "application/openmetrics-text", body = String)),
)]
pub(crate) async fn metrics(State(app): State<Arc<App>>) -> Result<impl IntoResponse, ApiError> {
    let text = metrics::text(app.backend.scrape());
    let text = text.map_err(|error| ApiError::bug(format!("bug: metrics cannot be written: {error}")))?;
    Ok(([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text))
}
