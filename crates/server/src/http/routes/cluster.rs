//! Workers, coordinators, and who has decided what.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use mainstem_core::audit::AuditRecord;
use mainstem_core::ids::JobId;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Told, ask, look, unexpected};
use crate::cluster::api::{AuditRequest, AuditView, MembersView, Request, Response};
use crate::figures::Question;
use crate::figures::model::{AuditAnswer, ChainHead, CoordinatorsAnswer, Decision, Leader, Member, WorkersAnswer};
use crate::http::App;
use crate::http::access::User;
use crate::http::error::{ApiError, ErrorBody};
use crate::http::input::{Input, OfPath, Params};

/// Decisions in an answer unless it is said how many.
const DECISIONS_DEFAULT: usize = 100;
/// Decisions in an answer at most.
const DECISIONS_MAX: usize = 10_000;

/// Something was agreed on.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct NodeDone {
    #[schema(example = "w1")]
    node: String,
    #[schema(example = "drain")]
    asked: String,
}

/// A coordinator that runs and waits to be taken in.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewCoordinator {
    #[schema(example = 4)]
    id: u64,
    /// Where the others reach it.
    #[schema(example = "host4:7071")]
    address: String,
}

/// Which decisions.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AuditParams {
    /// Only those about this job.
    job: Option<String>,
    /// At most so many of the newest; 100 unless said, at most 10000.
    limit: Option<usize>,
    /// Also those that come with every checkpoint.
    routine: Option<bool>,
}

/// The workers of the coordinator that leads.
#[utoipa::path(get, path = "/api/v1/workers", tag = "cluster", responses((status = 200, body = WorkersAnswer)))]
pub(crate) async fn workers(State(app): State<Arc<App>>, Extension(user): Extension<User>) -> Result<Told, ApiError> {
    look(&app, &user, Question::Workers).await
}

/// Moves the work of a worker to others, so that it can be stopped.
#[utoipa::path(
    post, path = "/api/v1/workers/{name}/drain", tag = "cluster",
    params(("name" = String, Path, description = "Its name or its whole id.", example = "w1")),
    responses((status = 202, body = NodeDone), (status = 409, body = ErrorBody), (status = 501, body = ErrorBody)),
)]
pub(crate) async fn drain(
    State(app): State<Arc<App>>,
    Extension(user): Extension<User>,
    OfPath(name): OfPath,
) -> Result<(StatusCode, Json<NodeDone>), ApiError> {
    change(&app, &user, name.clone(), "drain", Request::Drain { worker: name }).await
}

/// The coordinators, and how far they agree.
#[utoipa::path(
    get, path = "/api/v1/coordinators", tag = "cluster",
    responses((status = 200, body = CoordinatorsAnswer), (status = 501, body = ErrorBody)),
)]
pub(crate) async fn coordinators(
    State(app): State<Arc<App>>,
    Extension(user): Extension<User>,
) -> Result<Told, ApiError> {
    let asked = ask(&app, &user, Request::Members).await?;
    let Response::Members(MembersView { leads, leader, members, learners, term, committed }) = asked.response else {
        return Err(unexpected());
    };
    let leads_as = |id: u64| if leader.as_ref().is_some_and(|(leader, _)| *leader == id) { "leader" } else { "member" };
    let member = |id: u64, address: String, role: &str| Member { id, address, role: role.to_owned() };
    let members = members.into_iter().map(|(id, address)| member(id, address, leads_as(id)));
    let learners = learners.into_iter().map(|(id, address)| member(id, address, "joining"));
    told(
        asked.stale,
        &CoordinatorsAnswer {
            stale: asked.stale,
            now_ms: app.now().0,
            leads,
            members: members.chain(learners).collect(),
            leader: leader.clone().map(|(id, address)| Leader { id, address }),
            term,
            committed,
        },
    )
}

/// Takes another coordinator in.
#[utoipa::path(
    post, path = "/api/v1/coordinators", tag = "cluster", request_body = NewCoordinator,
    responses((status = 202, body = NodeDone), (status = 409, body = ErrorBody), (status = 501, body = ErrorBody)),
)]
pub(crate) async fn add_coordinator(
    State(app): State<Arc<App>>,
    Extension(user): Extension<User>,
    Input(NewCoordinator { id, address }): Input<NewCoordinator>,
) -> Result<(StatusCode, Json<NodeDone>), ApiError> {
    change(&app, &user, format!("coordinator {id}"), "add", Request::AddMember { id, address }).await
}

/// Leaves a coordinator, which may be lost, out.
#[utoipa::path(
    delete, path = "/api/v1/coordinators/{id}", tag = "cluster", params(("id" = u64, Path, example = 4)),
    responses((status = 202, body = NodeDone), (status = 409, body = ErrorBody), (status = 501, body = ErrorBody)),
)]
pub(crate) async fn remove_coordinator(
    State(app): State<Arc<App>>,
    Extension(user): Extension<User>,
    OfPath(id): OfPath,
) -> Result<(StatusCode, Json<NodeDone>), ApiError> {
    let Ok(id) = id.parse() else {
        return Err(ApiError::bad_request(format!("'{id}' is not the number of a coordinator")));
    };
    change(&app, &user, format!("coordinator {id}"), "remove", Request::RemoveMember { id }).await
}

/// Who has decided what, when and why; oldest first.
#[utoipa::path(
    get, path = "/api/v1/audit", tag = "cluster",
    params(
        ("job" = Option<String>, Query, description = "Only decisions about this job."),
        ("limit" = Option<usize>, Query, description = "At most so many of the newest; 100 unless said, at most 10000."),
        ("routine" = Option<bool>, Query, description = "Also those that come with every checkpoint."),
    ),
    responses((status = 200, body = AuditAnswer), (status = 400, body = ErrorBody), (status = 501, body = ErrorBody)),
)]
pub(crate) async fn audit(
    State(app): State<Arc<App>>,
    Extension(user): Extension<User>,
    Params(params): Params<AuditParams>,
) -> Result<Told, ApiError> {
    let job = params.job.map(JobId::new).transpose().map_err(ApiError::bad_request)?;
    let limit = params.limit.unwrap_or(DECISIONS_DEFAULT);
    if limit > DECISIONS_MAX {
        return Err(ApiError::bad_request(format!("'limit' is {limit}, it must be at most {DECISIONS_MAX}")));
    }
    let request = AuditRequest { job, limit, routine: params.routine.unwrap_or(false) };
    let asked = ask(&app, &user, Request::Audit(request)).await?;
    let Response::Audit(AuditView { head, records, .. }) = asked.response else { return Err(unexpected()) };
    let head = ChainHead { seq: head.seq, hash: head.hash.to_string() };
    let records = records.into_iter().map(decision).collect();
    told(asked.stale, &AuditAnswer { stale: asked.stale, now_ms: app.now().0, head, records })
}

fn decision(record: AuditRecord) -> Decision {
    let AuditRecord { seq, at, by, job, what, facts, reason, .. } = record;
    let (what, job) = (what.name().to_owned(), job.map(|job| job.to_string()));
    Decision { seq, at_ms: at.0, by, what, job, facts, reason }
}

fn told(stale: bool, answer: &impl Serialize) -> Result<Told, ApiError> {
    let json = serde_json::to_value(answer);
    let json = json.map_err(|error| ApiError::bug(format!("bug: an answer cannot be written: {error}")))?;
    Ok(Told { json, stale })
}

async fn change(
    app: &App,
    user: &User,
    node: String,
    asked: &str,
    request: Request,
) -> Result<(StatusCode, Json<NodeDone>), ApiError> {
    match ask(app, user, request).await?.response {
        Response::Done => Ok((StatusCode::ACCEPTED, Json(NodeDone { node, asked: asked.to_owned() }))),
        _ => Err(unexpected()),
    }
}
