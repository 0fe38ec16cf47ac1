//! Jobs: those that there are, and what users want of them.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use mainstem_coordinator::SavepointRequest;
use mainstem_coordinator::cluster::Wish;
use mainstem_core::ids::JobId;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Told, ask, look, unexpected};
use crate::cluster::api::{Request, Response, SubmitRequest};
use crate::cluster::new_id;
use crate::figures::model::{ExplainAnswer, JobsAnswer, ValidateAnswer};
use crate::figures::{Part, Question, planned_graph};
use crate::http::App;
use crate::http::access::User;
use crate::http::error::{ApiError, ErrorBody};
use crate::http::input::{Input, OfJob};
use crate::http::planning::{SqlFile, SqlText, plan, texts};
use crate::job as planned;

type Accepted = (StatusCode, Json<Done>);

/// Something was agreed on.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Done {
    #[schema(example = "orders")]
    job: String,
    /// What was asked for; look at the job for what comes of it.
    #[schema(example = "stop")]
    asked: String,
    /// Of a savepoint.
    id: Option<String>,
}

/// A job to run.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Submission {
    /// The statements.
    sql: Option<String>,
    /// Instead of `sql`: several texts that are read as one.
    files: Option<Vec<SqlFile>>,
    /// Name of the job; otherwise SET 'pipeline.name', or the name of the last file.
    #[schema(example = "orders")]
    name: Option<String>,
    #[schema(minimum = 1, maximum = 1024)]
    parallelism: Option<u32>,
    /// From one checkpoint to the next.
    #[schema(minimum = 1)]
    checkpoint_interval_ms: Option<u64>,
    /// Where relative paths start; otherwise where the node runs that is asked.
    working_dir: Option<String>,
    /// Begin with this savepoint.
    from_savepoint: Option<String>,
    /// Begin with it though output of later epochs is there: those rows come once more.
    #[serde(default)]
    repeat_output: bool,
}

/// A job that was taken.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Submitted {
    #[schema(example = "orders")]
    job: String,
}

/// How to stop.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct StopWish {
    /// Take a savepoint in this directory as the last thing.
    savepoint_directory: Option<String>,
}

/// Another parallelism.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RescaleWish {
    #[schema(minimum = 1, maximum = 1024, example = 2)]
    parallelism: u32,
}

/// A savepoint to take.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SavepointWish {
    /// The directory, or prefix of an object store, in which it becomes one.
    #[schema(example = "/savepoints")]
    directory: String,
}

/// All jobs.
#[utoipa::path(get, path = "/api/v1/jobs", tag = "jobs", responses((status = 200, body = JobsAnswer)))]
pub(crate) async fn list(State(app): State<Arc<App>>, Extension(user): Extension<User>) -> Result<Told, ApiError> {
    look(&app, &user, Question::Jobs).await
}

/// Runs SQL as a job, or goes on with it where it was.
#[utoipa::path(
    post, path = "/api/v1/jobs", tag = "jobs", request_body = Submission,
    responses(
        (status = 201, body = Submitted), (status = 409, body = ErrorBody), (status = 422, body = ErrorBody),
        (status = 501, description = "One process runs one job.", body = ErrorBody),
    ),
)]
pub(crate) async fn submit(
    State(app): State<Arc<App>>,
    Extension(user): Extension<User>,
    Input(wanted): Input<Submission>,
) -> Result<(StatusCode, Json<Submitted>), ApiError> {
    let job = wanted.name.map(JobId::new).transpose().map_err(ApiError::bad_request)?;
    check_parallelism(wanted.parallelism)?;
    if wanted.checkpoint_interval_ms == Some(0) {
        return Err(ApiError::bad_request("'checkpoint_interval_ms' must be positive"));
    }
    let files = texts(wanted.sql, wanted.files)?;
    // Mistakes are told with their place; and they need no leader.
    plan(&app, files.clone()).await??;
    let working_dir = match wanted.working_dir {
        Some(directory) => directory,
        None => std::env::current_dir()
            .map_err(|error| ApiError::bug(format!("the current directory of the node is gone: {error}")))?
            .display()
            .to_string(),
    };
    let request = SubmitRequest {
        files,
        job,
        parallelism: wanted.parallelism,
        checkpoint_interval_ms: wanted.checkpoint_interval_ms,
        working_dir,
        from_savepoint: wanted.from_savepoint,
        repeat_output: wanted.repeat_output,
    };
    match ask(&app, &user, Request::Submit(request)).await?.response {
        Response::Submitted { job } => Ok((StatusCode::CREATED, Json(Submitted { job: job.to_string() }))),
        _ => Err(unexpected()),
    }
}

/// Says whether SQL can be planned, and if not, where it is wrong.
#[utoipa::path(
    post, path = "/api/v1/validate", tag = "sql", request_body = SqlText,
    responses((status = 200, body = ValidateAnswer), (status = 400, body = ErrorBody)),
)]
pub(crate) async fn validate(
    State(app): State<Arc<App>>,
    Input(text): Input<SqlText>,
) -> Result<Json<ValidateAnswer>, ApiError> {
    check_parallelism(text.parallelism)?;
    let answer = match plan(&app, texts(text.sql, text.files)?).await? {
        Ok(plan) => {
            let (operators, sinks) = (plan.graph.nodes.len(), plan.sinks.len());
            ValidateAnswer { valid: true, operators, sinks, error: None }
        }
        Err(mistake) => ValidateAnswer { valid: false, operators: 0, sinks: 0, error: Some(mistake) },
    };
    Ok(Json(answer))
}

/// Shows what SQL would do: operators, state, and the guarantee of each sink.
#[utoipa::path(
    post, path = "/api/v1/explain", tag = "sql", request_body = SqlText,
    responses((status = 200, body = ExplainAnswer), (status = 422, body = ErrorBody)),
)]
pub(crate) async fn explain(
    State(app): State<Arc<App>>,
    Input(text): Input<SqlText>,
) -> Result<Json<ExplainAnswer>, ApiError> {
    check_parallelism(text.parallelism)?;
    let plan = plan(&app, texts(text.sql, text.files)?).await??;
    let parallelism = planned::parallelism(text.parallelism, &plan, || 1);
    let parallelism = parallelism.map_err(|error| ApiError::bad_request(format!("{error:#}")))?;
    let (graph, lineage) = planned_graph("", &plan.graph, parallelism, app.now());
    Ok(Json(ExplainAnswer { plan: mainstem_planner::explain(&plan, parallelism), graph, lineage }))
}

/// Forgets a job that has ended, with its checkpoints. Savepoints and output stay.
#[utoipa::path(
    delete, path = "/api/v1/jobs/{job}", tag = "jobs", params(("job" = String, Path, example = "orders")),
    responses((status = 202, body = Done), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody)),
)]
pub(crate) async fn remove(
    State(app): State<Arc<App>>,
    Extension(user): Extension<User>,
    OfJob(job): OfJob,
) -> Result<Accepted, ApiError> {
    change(&app, &user, &job, "remove", Request::Remove { job: job.clone() }).await
}

/// Takes a last checkpoint, or a savepoint, and stops the job.
#[utoipa::path(
    post, path = "/api/v1/jobs/{job}/stop", tag = "jobs", params(("job" = String, Path, example = "orders")),
    request_body = StopWish,
    responses((status = 202, body = Done), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody)),
)]
pub(crate) async fn stop(
    State(app): State<Arc<App>>,
    Extension(user): Extension<User>,
    OfJob(job): OfJob,
    Input(wish): Input<StopWish>,
) -> Result<Accepted, ApiError> {
    match wish.savepoint_directory {
        Some(directory) => take_savepoint(&app, &user, &job, directory, true).await,
        None => change(&app, &user, &job, "stop", Request::Wish { job: job.clone(), wish: Wish::Stop }).await,
    }
}

/// Stops the job at once; submitted again it goes on from its last checkpoint.
#[utoipa::path(
    post, path = "/api/v1/jobs/{job}/cancel", tag = "jobs", params(("job" = String, Path, example = "orders")),
    responses((status = 202, body = Done), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody)),
)]
pub(crate) async fn cancel(
    State(app): State<Arc<App>>,
    Extension(user): Extension<User>,
    OfJob(job): OfJob,
) -> Result<Accepted, ApiError> {
    change(&app, &user, &job, "cancel", Request::Wish { job: job.clone(), wish: Wish::Cancel }).await
}

/// Runs the job at another parallelism, from a checkpoint that is taken for it.
#[utoipa::path(
    post, path = "/api/v1/jobs/{job}/rescale", tag = "jobs", params(("job" = String, Path, example = "orders")),
    request_body = RescaleWish,
    responses((status = 202, body = Done), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody)),
)]
pub(crate) async fn rescale(
    State(app): State<Arc<App>>,
    Extension(user): Extension<User>,
    OfJob(job): OfJob,
    Input(wish): Input<RescaleWish>,
) -> Result<Accepted, ApiError> {
    check_parallelism(Some(wish.parallelism))?;
    let request = Request::Rescale { job: job.clone(), parallelism: wish.parallelism };
    change(&app, &user, &job, "rescale", request).await
}

/// Takes a savepoint of the running job; its outcome is with the job.
#[utoipa::path(
    post, path = "/api/v1/jobs/{job}/savepoints", tag = "jobs", params(("job" = String, Path, example = "orders")),
    request_body = SavepointWish,
    responses((status = 202, body = Done), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody)),
)]
pub(crate) async fn savepoint(
    State(app): State<Arc<App>>,
    Extension(user): Extension<User>,
    OfJob(job): OfJob,
    Input(wish): Input<SavepointWish>,
) -> Result<Accepted, ApiError> {
    take_savepoint(&app, &user, &job, wish.directory, false).await
}

async fn take_savepoint(
    app: &App,
    user: &User,
    job: &JobId,
    directory: String,
    stop: bool,
) -> Result<Accepted, ApiError> {
    if !directory.starts_with('/') && !directory.contains("://") {
        return Err(ApiError::bad_request(format!(
            "the directory '{directory}' of the savepoint must be absolute: coordinators run wherever they were started"
        )));
    }
    let request = SavepointRequest { id: new_id(), directory, stop };
    let id = request.id.to_string();
    let asked = if stop { "stop" } else { "savepoint" };
    let (status, Json(done)) = change(app, user, job, asked, Request::Savepoint { job: job.clone(), request }).await?;
    Ok((status, Json(Done { id: Some(id), ..done })))
}

/// Has something agreed on for a job that there is.
async fn change(app: &App, user: &User, job: &JobId, asked: &str, request: Request) -> Result<Accepted, ApiError> {
    look(app, user, Question::Job { job: job.clone(), part: Part::Lag }).await?;
    match ask(app, user, request).await?.response {
        Response::Done => {
            let done = Done { job: job.to_string(), asked: asked.to_owned(), id: None };
            Ok((StatusCode::ACCEPTED, Json(done)))
        }
        _ => Err(unexpected()),
    }
}

fn check_parallelism(wanted: Option<u32>) -> Result<(), ApiError> {
    match wanted {
        Some(parallelism) if !(1..=1024).contains(&parallelism) => {
            Err(ApiError::bad_request(format!("'parallelism' is {parallelism}, it must be between 1 and 1024")))
        }
        _ => Ok(()),
    }
}
