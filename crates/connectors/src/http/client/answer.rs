//! What the status of an answer means. Pure.

use std::time::Duration;

use chrono::DateTime;
use reqwest::StatusCode;
use reqwest::header::{DATE, HeaderMap, RETRY_AFTER};

/// The longest pause that a receiver can ask for; one that wants more is asked again after it.
const PAUSE_MAX: Duration = Duration::from_secs(300);

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The receiver has the request.
    Taken,
    /// The same request again, not before the receiver's pause has passed, if it asks for one.
    Later(Option<Duration>),
    /// Again: the receiver may be at work on the same key, from a try whose answer was lost. If it stays so, it means a
    /// refusal.
    Conflict,
    /// The same request will be refused again.
    Rejected,
}

/// The meaning of a status.
pub(super) fn verdict(status: StatusCode, headers: &HeaderMap) -> Verdict {
    match status {
        _ if status.is_success() => Verdict::Taken,
        StatusCode::CONFLICT => Verdict::Conflict,
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS => {
            Verdict::Later(pause(headers))
        }
        _ if status.is_server_error() => Verdict::Later(pause(headers)),
        _ => Verdict::Rejected,
    }
}

/// `Retry-After`: seconds, or a time, which is compared with that of the answer, so that no clock of ours takes part.
fn pause(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds).min(PAUSE_MAX));
    }
    let until = DateTime::parse_from_rfc2822(text).ok()?;
    let now = DateTime::parse_from_rfc2822(headers.get(DATE)?.to_str().ok()?).ok()?;
    Some((until - now).to_std().unwrap_or_default().min(PAUSE_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_say_what_is_to_be_done() {
        let of = |code: u16| verdict(StatusCode::from_u16(code).unwrap(), &HeaderMap::new());
        for (codes, expected) in [
            (&[200, 201, 202, 204][..], Verdict::Taken),
            (&[408, 425, 429, 500, 501, 502, 503, 504, 507], Verdict::Later(None)),
            (&[409], Verdict::Conflict),
            (&[301, 302, 307, 400, 401, 403, 404, 410, 413, 415, 422], Verdict::Rejected),
        ] {
            for code in codes {
                assert_eq!(of(*code), expected, "{code}");
            }
        }
    }

    #[test]
    fn receivers_may_ask_for_a_pause() {
        let with = |retry_after: &str, date: Option<&str>| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, retry_after.parse().unwrap());
            date.map(|date| headers.insert(DATE, date.parse().unwrap()));
            verdict(StatusCode::SERVICE_UNAVAILABLE, &headers)
        };
        let seconds = |seconds| Verdict::Later(Some(Duration::from_secs(seconds)));
        assert_eq!(with("7", None), seconds(7));
        assert_eq!(with("99999999", None), seconds(300));
        let (at, later) = ("Wed, 21 Oct 2015 07:28:00 GMT", "Wed, 21 Oct 2015 07:28:42 GMT");
        assert_eq!(with(later, Some(at)), seconds(42));
        assert_eq!(with(at, Some(later)), seconds(0));
        assert_eq!(with(later, None), Verdict::Later(None), "whose clock?");
        assert_eq!(with("soon", None), Verdict::Later(None));
    }
}
