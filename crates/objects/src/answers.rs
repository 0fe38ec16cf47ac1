//! How long a service may be silent. A connection that is cut without a word, or a service that hangs, is given up after
//! seconds, so that there is time to ask again; what goes on to send its bytes may take as long as they take.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody, HttpService,
    ReqwestConnector,
};
use object_store::{ClientOptions, Result};
use tokio::time::{Instant, Sleep, sleep, timeout};

/// How long a request may take that carries bytes, at most a part of some MiB: its answer begins when all of them are
/// there.
const CARRYING_MAX: Duration = Duration::from_secs(60);
/// How long any other may take until its answer begins, and each answer from some of its bytes to the next.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// Makes clients that give up on silence. The clients' own limit, on a request with all of its answer, must be off.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Impatient {
    carrying_max: Duration,
    silence_max: Duration,
}

impl Default for Impatient {
    fn default() -> Impatient {
        Impatient { carrying_max: CARRYING_MAX, silence_max: SILENCE_MAX }
    }
}

impl HttpConnector for Impatient {
    fn connect(&self, options: &ClientOptions) -> Result<HttpClient> {
        let client = ReqwestConnector::default().connect(options)?;
        Ok(HttpClient::new(Client { client, limits: *self }))
    }
}

#[derive(Debug)]
struct Client {
    client: HttpClient,
    limits: Impatient,
}

#[async_trait]
impl HttpService for Client {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let Impatient { carrying_max, silence_max } = self.limits;
        let within = if matches!(request.method().as_str(), "PUT" | "POST") { carrying_max } else { silence_max };
        let answer = timeout(within, self.client.execute(request)).await.map_err(|_| silent(within))??;
        Ok(answer
            .map(|body| HttpResponseBody::new(Answer { body, silence_max, patience: Box::pin(sleep(silence_max)) })))
    }
}

/// What a service sends, until it falls silent.
struct Answer {
    body: HttpResponseBody,
    silence_max: Duration,
    patience: Pin<Box<Sleep>>,
}

impl Body for Answer {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        let silence_max = self.silence_max;
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            self.patience.as_mut().reset(Instant::now() + silence_max);
            return Poll::Ready(frame);
        }
        self.patience.as_mut().poll(cx).map(|()| Some(Err(silent(silence_max))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn silent(within: Duration) -> HttpError {
    let said = std::io::Error::new(std::io::ErrorKind::TimedOut, format!("silent for {within:?}"));
    HttpError::new(HttpErrorKind::Timeout, said)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::sync::Arc;

    use object_store::aws::AmazonS3Builder;
    use object_store::{ObjectStoreExt, RetryConfig};

    use super::*;
    use crate::{ObjectError, ObjectUrl, Objects};

    const WHOLE: &str = "0123456789";

    /// Takes a request, and sends the first bytes of an answer. Another request comes by a connection of its own.
    fn answer(listener: &TcpListener, etag: &str, sent: &str) -> TcpStream {
        let (mut stream, _) = listener.accept().unwrap();
        assert!(stream.read(&mut [0; 4096]).unwrap() > 0);
        let length = WHOLE.len();
        let date = "last-modified: Wed, 21 Oct 2015 07:28:00 GMT";
        write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\netag: \"{etag}\"\r\n{date}\r\nconnection: close\r\n\r\n{sent}")
            .unwrap();
        stream
    }

    fn builder(listener: &TcpListener) -> AmazonS3Builder {
        let limits = Impatient { carrying_max: Duration::from_secs(20), silence_max: Duration::from_millis(300) };
        AmazonS3Builder::new()
            .with_bucket_name("bucket")
            .with_endpoint(format!("http://{}", listener.local_addr().unwrap()))
            .with_access_key_id("me")
            .with_secret_access_key("me")
            .with_client_options(ClientOptions::new().with_allow_http(true).with_timeout_disabled())
            .with_http_connector(limits)
    }

    #[tokio::test]
    async fn whoever_falls_silent_is_asked_again() {
        let _ = tokio_rustls::rustls::crypto::ring::default_provider().install_default();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let store = builder(&listener).build().unwrap();
        let service = std::thread::spawn(move || {
            let silent_at_once = listener.accept().unwrap();
            let silent_within = answer(&listener, "a", &WHOLE[..4]);
            // Where it was to go on, there is another object, which is read from its beginning.
            let another = answer(&listener, "b", &WHOLE[4..]);
            let whole = answer(&listener, "b", WHOLE);
            (silent_at_once, silent_within, another, whole)
        });
        let url = ObjectUrl::parse("s3://bucket").unwrap().unwrap();
        let read = Objects::over(Arc::new(store), &url).unwrap().read("key").await;
        drop(service.join().unwrap());
        assert_eq!(read.unwrap().unwrap().0, WHOLE);
    }

    #[tokio::test]
    async fn a_slow_answer_may_take_its_time_and_a_silent_one_is_said_to_be_late() {
        let _ = tokio_rustls::rustls::crypto::ring::default_provider().install_default();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let once = RetryConfig { max_retries: 0, ..RetryConfig::default() };
        let store = builder(&listener).with_retry(once).build().unwrap();
        let service = std::thread::spawn(move || {
            let mut stream = answer(&listener, "a", "");
            for byte in WHOLE.as_bytes() {
                #[expect(clippy::disallowed_methods, reason = "a thread of its own, which is to be slow")]
                std::thread::sleep(Duration::from_millis(60));
                stream.write_all(&[*byte]).unwrap();
            }
            drop(stream);
            listener.accept().unwrap()
        });
        assert_eq!(store.get(&"key".into()).await.unwrap().bytes().await.unwrap(), WHOLE);
        let error = store.get(&"key".into()).await.unwrap_err();
        drop(service.join().unwrap());
        let url = ObjectUrl::parse("s3://bucket").unwrap().unwrap();
        let error = ObjectError::of(&url, &error);
        assert!(error.is_transient() && error.message.starts_with("no answer in time"), "{error}");
    }
}
