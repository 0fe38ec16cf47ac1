//! What an answer says where something was not done.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

/// Why something was not done.
#[derive(Clone, Debug)]
pub(crate) struct ApiError {
    status: StatusCode,
    body: ErrorBody,
}

/// The body of every answer that is no success.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct ErrorBody {
    error: ErrorDetail,
}

/// What went wrong.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct ErrorDetail {
    /// For programs.
    #[schema(example = "not_found")]
    code: String,
    /// For people: what, where, and what to do.
    message: String,
    /// In the SQL text, from 1.
    line: Option<u64>,
    column: Option<u64>,
}

impl ApiError {
    fn new(status: StatusCode, code: &str, message: impl Into<String>) -> ApiError {
        let (code, message) = (code.to_owned(), message.into());
        ApiError { status, body: ErrorBody { error: ErrorDetail { code, message, line: None, column: None } } }
    }

    pub(super) fn bad_request(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::BAD_REQUEST, "bad_request", message)
    }

    pub(super) fn unsupported_type() -> ApiError {
        let message = "the body must be JSON: send it with the header 'Content-Type: application/json'";
        ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "bad_request", message)
    }

    pub(super) fn unauthorized() -> ApiError {
        let message = "a token is needed: send the header 'Authorization: Bearer TOKEN'; tokens are in the file that \
                       --http-token-file names";
        ApiError::new(StatusCode::UNAUTHORIZED, "unauthorized", message)
    }

    pub(super) fn forbidden(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::FORBIDDEN, "forbidden", message)
    }

    pub(super) fn not_found(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::NOT_FOUND, "not_found", message)
    }

    pub(super) fn too_large(limit: usize) -> ApiError {
        let message = format!("the body is larger than {limit} bytes");
        ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message)
    }

    pub(super) fn too_many(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::TOO_MANY_REQUESTS, "too_many", message)
    }

    pub(super) fn refused(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::CONFLICT, "refused", message)
    }

    pub(super) fn not_here(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::NOT_IMPLEMENTED, "not_here", message)
    }

    pub(super) fn no_leader() -> ApiError {
        let message = "no coordinator leads at the moment; try again";
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "no_leader", message)
    }

    pub(super) fn unknown(reason: &str) -> ApiError {
        let message = format!(
            "unknown whether this was done, or will be: {reason}; look at the job before you ask for it once more"
        );
        ApiError::new(StatusCode::GATEWAY_TIMEOUT, "unknown", message)
    }

    pub(super) fn bug(message: impl Into<String>) -> ApiError {
        let message = message.into();
        tracing::error!(message, "a request met a bug");
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "bug", message)
    }

    /// What was asked for was begun, and failed.
    pub(super) fn failed(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "failed", message)
    }

    pub(super) fn is_not_found(&self) -> bool {
        self.status == StatusCode::NOT_FOUND
    }

    pub(super) fn invalid_sql(message: String, line: Option<u64>, column: Option<u64>) -> ApiError {
        let mut error = ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_sql", message);
        (error.body.error.line, error.body.error.column) = (line, column);
        error
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = self.status;
        let mut response = (status, Json(self.body)).into_response();
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// For paths that there are not.
pub(super) async fn no_route() -> ApiError {
    ApiError::not_found("there is nothing here; GET /api/v1/openapi.json lists what there is")
}

/// For methods that a path does not have.
pub(super) async fn no_method() -> ApiError {
    let message = "this path has no such method; GET /api/v1/openapi.json lists those that it has";
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message)
}
