//! One job, part by part.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;

use super::{Told, look};
use crate::figures::model::{
    BadRecordsAnswer, CheckpointsAnswer, CommitsAnswer, ExceptionsAnswer, GraphAnswer, JobAnswer,
    JobConfigurationAnswer, LagAnswer, LineageAnswer, TimelineAnswer,
};
use crate::figures::{Part, Question};
use crate::http::App;
use crate::http::access::User;
use crate::http::error::{ApiError, ErrorBody};
use crate::http::input::OfJob;

macro_rules! parts {
    ($($(#[$doc:meta])* $name:ident $path:literal $part:ident $answer:ident;)*) => {
        $(
            $(#[$doc])*
            #[utoipa::path(
                get, path = $path, tag = "job", params(("job" = String, Path, example = "orders")),
                responses((status = 200, body = $answer), (status = 404, body = ErrorBody)),
            )]
            pub(crate) async fn $name(
                State(app): State<Arc<App>>,
                Extension(user): Extension<User>,
                OfJob(job): OfJob,
            ) -> Result<Told, ApiError> {
                look(&app, &user, Question::Job { job, part: Part::$part }).await
            }
        )*
    };
}

parts! {
    /// How a job does.
    one "/api/v1/jobs/{job}" Summary JobAnswer;
    /// Its dataflow with what each operator and subtask does.
    graph "/api/v1/jobs/{job}/graph" Graph GraphAnswer;
    /// From which columns of which tables the columns of its sinks come.
    lineage "/api/v1/jobs/{job}/lineage" Lineage LineageAnswer;
    /// Its newest checkpoints with their phases, newest first.
    checkpoints "/api/v1/jobs/{job}/checkpoints" Checkpoints CheckpointsAnswer;
    /// Which of its epochs are visible.
    commits "/api/v1/jobs/{job}/commits" Commits CommitsAnswer;
    /// How far its sources are behind.
    lag "/api/v1/jobs/{job}/lag" Lag LagAnswer;
    /// Records that were wrong, and what became of them.
    bad_records "/api/v1/jobs/{job}/bad-records" BadRecords BadRecordsAnswer;
    /// Why its attempts failed, newest first.
    exceptions "/api/v1/jobs/{job}/exceptions" Exceptions ExceptionsAnswer;
    /// Its last ten minutes, oldest first.
    timeline "/api/v1/jobs/{job}/timeline" Timeline TimelineAnswer;
    /// Its options and tables, without secrets.
    configuration "/api/v1/jobs/{job}/configuration" Configuration JobConfigurationAnswer;
}
