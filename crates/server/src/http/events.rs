//! Streams of what happens to a job, as events that the server sends. Whoever leads is asked again and again, so a stream
//! goes on over a change of leaders, and one that was broken off goes on where it was.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Sse;
use axum::response::sse::{Event as SseEvent, KeepAlive};
use futures::Stream;
use mainstem_core::ids::JobId;
use mainstem_core::time::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::sleep;

use super::App;
use super::access::User;
use super::error::{ApiError, ErrorBody};
use super::input::OfJob;
use super::routes::look;
use crate::figures::model::Event;
use crate::figures::{Part, Question};

/// Streams at a time.
pub(super) const STREAMS_MAX: usize = 64;
/// Time between two questions.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// A sign of life where nothing happens.
const ALIVE_EVERY: Duration = Duration::from_secs(15);
/// The header by which a client says what it has seen.
const LAST_EVENT_ID: &str = "last-event-id";

/// What has come since the last question.
#[derive(Deserialize)]
struct News {
    now_ms: i64,
    began_at: i64,
    state: String,
    generation: u64,
    events: Vec<Value>,
}

/// A stream under way.
struct Following {
    app: Arc<App>,
    user: User,
    job: JobId,
    /// The history that is read, and the last event of it.
    began_at: Timestamp,
    seen: u64,
    ready: VecDeque<SseEvent>,
    has_ended: bool,
    _permit: OwnedSemaphorePermit,
}

/// What happens to a job, as it happens: `state`, `checkpoint`, `published`, `failure`, `restart`, `end`; `gone` when it is
/// known no more. The first event is the state now, or what came since `Last-Event-ID`.
#[utoipa::path(
    get, path = "/api/v1/jobs/{job}/events", tag = "job",
    params(("job" = String, Path, example = "orders"), ("Last-Event-ID" = Option<String>, Header)),
    responses(
        (status = 200, content_type = "text/event-stream", body = Event),
        (status = 404, body = ErrorBody), (status = 429, body = ErrorBody),
    ),
)]
pub(super) async fn events(
    State(app): State<Arc<App>>,
    Extension(user): Extension<User>,
    OfJob(job): OfJob,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<SseEvent, Infallible>>>, ApiError> {
    let permit = app.streams.clone().try_acquire_owned();
    let Ok(permit) = permit else {
        return Err(ApiError::too_many(format!(
            "{STREAMS_MAX} event streams are open already; ask now and then instead"
        )));
    };
    let last = headers.get(LAST_EVENT_ID).and_then(|value| value.to_str().ok()).and_then(parse_id);
    let (began_at, seen) = last.unwrap_or((Timestamp(0), 0));
    let mut following =
        Following { app, user, job, began_at, seen, ready: VecDeque::new(), has_ended: false, _permit: permit };
    // A job that there is not is an error of the request, not of the stream.
    let first = following.news().await?;
    following.begin(first, last.is_some());
    let stream = futures::stream::unfold(following, |mut following| async move {
        let event = following.next().await?;
        Some((Ok(event), following))
    });
    Ok(Sse::new(stream).keep_alive(KeepAlive::new().interval(ALIVE_EVERY)))
}

impl Following {
    async fn next(&mut self) -> Option<SseEvent> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            if self.has_ended {
                return None;
            }
            sleep(LOOK_EVERY).await;
            if !self.app.access.is_current(&self.user) {
                // Whoever may still look asks again.
                return None;
            }
            match self.news().await {
                Ok(news) => self.take(news),
                Err(error) if error.is_not_found() => {
                    self.has_ended = true;
                    self.ready
                        .push_back(SseEvent::default().event("gone").data(json!({ "job": self.job }).to_string()));
                }
                // There will be a leader again.
                Err(_) => {}
            }
        }
    }

    async fn news(&self) -> Result<News, ApiError> {
        let part = Part::Events { began_at: self.began_at, after: self.seen };
        let told = look(&self.app, &self.user, Question::Job { job: self.job.clone(), part }).await?;
        let news = serde_json::from_value(told.json);
        let news: News = news.map_err(|error| ApiError::bug(format!("bug: events cannot be read: {error}")))?;
        // One that does not lead has no history, and would make us begin anew.
        if told.stale { Err(ApiError::no_leader()) } else { Ok(news) }
    }

    /// The state first; then only what is new, unless the client has seen some of it.
    fn begin(&mut self, news: News, goes_on: bool) {
        if goes_on {
            return self.take(news);
        }
        let last = news.events.iter().filter_map(|event| event["seq"].as_u64()).max().unwrap_or(0);
        (self.began_at, self.seen) = (Timestamp(news.began_at), last);
        let state = json!({
            "seq": last, "at_ms": news.now_ms, "job": self.job, "event": "state", "epoch": null,
            "generation": news.generation, "state": news.state, "message": null, "duration_ms": null, "bytes": null,
        });
        self.push("state", last, &state);
    }

    fn take(&mut self, news: News) {
        if news.began_at != self.began_at.0 {
            self.began_at = Timestamp(news.began_at);
            self.seen = 0;
        }
        for event in news.events {
            let (Some(seq), Some(kind)) = (event["seq"].as_u64(), event["event"].as_str().map(str::to_owned)) else {
                continue;
            };
            if seq > self.seen {
                self.seen = seq;
                self.push(&kind, seq, &event);
            }
        }
    }

    fn push(&mut self, kind: &str, seq: u64, data: &Value) {
        let id = format!("{}-{seq}", self.began_at.0);
        self.ready.push_back(SseEvent::default().id(id).event(kind).data(data.to_string()));
    }
}

fn parse_id(id: &str) -> Option<(Timestamp, u64)> {
    let (began_at, seq) = id.split_once('-')?;
    Some((Timestamp(began_at.parse().ok()?), seq.parse().ok()?))
}
