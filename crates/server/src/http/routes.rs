//! All routes, each with the role that it needs, and how what they ask for is answered.

mod cluster;
mod job;
mod jobs;
mod node;
pub(super) mod preview;

use std::sync::Arc;

use axum::http::HeaderValue;
use axum::response::{IntoResponse, Response as HttpResponse};
use axum::{Json, Router, middleware};
use serde_json::Value;
use utoipa::openapi::OpenApi;
use utoipa::openapi::security::SecurityRequirement;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::access::{Role, User, guard};
use super::error::ApiError;
use super::{App, Asked, events};
use crate::cluster::api::{LookView, Request, Response};
use crate::figures::Question;

/// The header of an answer that may be old.
const STALE: &str = "mainstem-stale";
/// The name of the security scheme in the description.
pub(super) const SCHEME: &str = "token";

/// JSON that was handed on, and whether it may be old.
pub(crate) struct Told {
    pub(super) json: Value,
    pub(super) stale: bool,
}

/// The routes of the API and their description.
pub(super) fn all(app: &Arc<App>) -> (Router<Arc<App>>, OpenApi) {
    let viewer = OpenApiRouter::new()
        .routes(routes!(node::session))
        .routes(routes!(node::metrics))
        .routes(routes!(jobs::list))
        .routes(routes!(job::one))
        .routes(routes!(job::graph))
        .routes(routes!(job::lineage))
        .routes(routes!(job::checkpoints))
        .routes(routes!(job::commits))
        .routes(routes!(job::lag))
        .routes(routes!(job::bad_records))
        .routes(routes!(job::exceptions))
        .routes(routes!(job::timeline))
        .routes(routes!(job::configuration))
        .routes(routes!(events::events))
        .routes(routes!(cluster::workers))
        .routes(routes!(cluster::coordinators))
        .routes(routes!(cluster::audit));
    let operator = OpenApiRouter::new()
        .routes(routes!(jobs::submit))
        .routes(routes!(jobs::validate))
        .routes(routes!(jobs::explain))
        .routes(routes!(preview::preview))
        .routes(routes!(jobs::remove))
        .routes(routes!(jobs::stop))
        .routes(routes!(jobs::cancel))
        .routes(routes!(jobs::rescale))
        .routes(routes!(jobs::savepoint))
        .routes(routes!(cluster::drain));
    let admin = OpenApiRouter::new()
        .routes(routes!(cluster::add_coordinator))
        .routes(routes!(cluster::remove_coordinator))
        .routes(routes!(node::configuration));
    let public = OpenApiRouter::new().routes(routes!(node::health)).routes(routes!(node::ready));
    let guarded = [(Role::Viewer, viewer), (Role::Operator, operator), (Role::Admin, admin)];
    guarded.into_iter().fold(public, |all, (role, routes)| all.merge(with_role(app, role, routes))).split_for_parts()
}

/// Lets nobody through without the role, and says so in the description.
pub(super) fn with_role(app: &Arc<App>, role: Role, routes: OpenApiRouter<Arc<App>>) -> OpenApiRouter<Arc<App>> {
    let mut routes = routes.route_layer(middleware::from_fn_with_state((app.clone(), role), guard));
    for path in routes.get_openapi_mut().paths.paths.values_mut() {
        let operations =
            [&mut path.get, &mut path.post, &mut path.put, &mut path.delete, &mut path.patch].into_iter().flatten();
        for operation in operations {
            operation.security = Some(vec![SecurityRequirement::new(SCHEME, [role.name()])]);
        }
    }
    routes
}

impl IntoResponse for Told {
    fn into_response(mut self) -> HttpResponse {
        if self.stale && self.json.get("stale").is_some() {
            self.json["stale"] = Value::Bool(true);
        }
        let mut response = Json(self.json).into_response();
        if self.stale {
            response.headers_mut().insert(STALE, HeaderValue::from_static("true"));
        }
        response
    }
}

/// Asks for figures.
pub(super) async fn look(app: &App, user: &User, question: Question) -> Result<Told, ApiError> {
    let job = match &question {
        Question::Job { job, .. } => Some(job.clone()),
        Question::Jobs | Question::Workers => None,
    };
    let Asked { response, stale } = ask(app, user, Request::Look(question)).await?;
    let Response::Look(LookView { found, .. }) = response else { return Err(unexpected()) };
    match (found, job) {
        (Some(json), _) => Ok(Told { json, stale }),
        (None, Some(job)) => Err(ApiError::not_found(format!("there is no job '{job}'"))),
        (None, None) => Err(unexpected()),
    }
}

/// Asks, and tells why something was not done.
pub(super) async fn ask(app: &App, user: &User, request: Request) -> Result<Asked, ApiError> {
    let asked = app.backend.ask(&user.said, request).await;
    match asked.response {
        Response::Refused { reason } if reason.starts_with("bug: ") => Err(ApiError::bug(reason)),
        Response::Refused { reason } => Err(ApiError::refused(reason)),
        Response::Unknown { reason } => Err(ApiError::unknown(&reason)),
        Response::NotLeader { .. } => Err(ApiError::no_leader()),
        Response::NotHere { reason } => Err(ApiError::not_here(reason)),
        response => Ok(Asked { response, stale: asked.stale }),
    }
}

pub(super) fn unexpected() -> ApiError {
    ApiError::bug("bug: the answer does not fit the question; please report it")
}
