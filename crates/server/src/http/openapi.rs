//! The description of the API by OpenAPI.

use std::sync::Arc;

use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Router, middleware};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{Info, OpenApi};

use super::App;
use super::access::{Role, guard};
use super::routes::SCHEME;

/// Where the description is.
const PATH: &str = "/api/v1/openapi.json";

/// With what is said of the API as a whole.
pub(super) fn complete(mut description: OpenApi) -> OpenApi {
    let mut info = Info::new("Mainstem", env!("CARGO_PKG_VERSION"));
    info.description = Some(
        "Jobs, checkpoints, workers and coordinators of Mainstem. Every answer that is no success has the form of ErrorBody. \
         Points in time are milliseconds since 1970-01-01 UTC; what is not known is null. An answer with \"stale\": true \
         comes from a coordinator that could not reach the one that leads."
            .to_owned(),
    );
    description.info = info;
    let token = SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build());
    description.components.get_or_insert_default().add_security_scheme(SCHEME, token);
    description
}

/// Serves it.
pub(super) fn route(app: &Arc<App>, description: &OpenApi) -> Router<Arc<App>> {
    let text: Arc<str> = description.to_json().unwrap_or_default().into();
    let serve = get(move || {
        let text = text.clone();
        async move { ([(header::CONTENT_TYPE, "application/json")], text.to_string()).into_response() }
    });
    Router::new().route(PATH, serve).route_layer(middleware::from_fn_with_state((app.clone(), Role::Viewer), guard))
}
