//! What comes in: bodies of JSON within a bound, and parameters, with errors that say what is wrong.

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use mainstem_core::ids::JobId;
use serde::de::DeserializeOwned;

use super::error::ApiError;

/// Several SQL texts of a mebibyte each.
pub(super) const BODY_BYTES_MAX: usize = 4 << 20;

/// A body of JSON.
pub(crate) struct Input<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Input<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let kind =
            request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim();
        if !kind.eq_ignore_ascii_case("application/json") {
            return Err(ApiError::unsupported_type());
        }
        let bytes = match Bytes::from_request(request, state).await {
            Ok(bytes) => bytes,
            Err(rejection) => return Err(broken(rejection)),
        };
        // Serde's own bound on nesting holds.
        let parsed = serde_json::from_slice(&bytes);
        parsed.map(Input).map_err(|error| ApiError::bad_request(format!("the body is not what is expected: {error}")))
    }
}

fn broken(rejection: BytesRejection) -> ApiError {
    let response = rejection.into_response();
    if response.status() == StatusCode::PAYLOAD_TOO_LARGE {
        return ApiError::too_large(BODY_BYTES_MAX);
    }
    ApiError::bad_request("the body has not come as a whole")
}

/// Parameters behind the `?`.
pub(crate) struct Params<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match Query::<T>::from_request_parts(parts, state).await {
            Ok(Query(params)) => Ok(Params(params)),
            Err(rejection) => Err(ApiError::bad_request(rejection.body_text())),
        }
    }
}

/// The part of a path that is a name.
pub(crate) struct OfPath(pub(crate) String);

impl<S: Send + Sync> FromRequestParts<S> for OfPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match Path::<String>::from_request_parts(parts, state).await {
            Ok(Path(name)) => Ok(OfPath(name)),
            Err(rejection) => Err(ApiError::bad_request(rejection.body_text())),
        }
    }
}

/// The job that a path names.
pub(crate) struct OfJob(pub(crate) JobId);

impl<S: Send + Sync> FromRequestParts<S> for OfJob {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let OfPath(name) = OfPath::from_request_parts(parts, state).await?;
        JobId::new(name).map(OfJob).map_err(ApiError::bad_request)
    }
}
