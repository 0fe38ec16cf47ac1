//! Uploads in parts that nobody will complete: those of processes that were killed. Their parts cost money and are seen
//! by nobody, so they are looked for and aborted. Only S3 lists them; the services of others forget them by themselves
//! after a week (Azure), or by a rule of the bucket (GCS).

use std::time::Duration;

use mainstem_core::retry::{Backoff, RetryPolicy};
use mainstem_core::time::Timestamp;
use object_store::Error;
use object_store::aws::AmazonS3;
use object_store::multipart::MultipartStore;
use object_store::path::Path;
use object_store::signer::{SignedUrlOptions, Signer};
use reqwest::{Client, Method, StatusCode};

use crate::create::random;
use crate::error::{ObjectError, ObjectErrorKind};
use crate::open::Objects;

/// How long a request to list them may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// How long its address may be used, by the clock of the service.
const SIGNATURE_VALID: Duration = Duration::from_secs(600);
/// How often an answer is asked for again. Attempts wait for it, and it does no more than save money.
const POLICY: RetryPolicy = RetryPolicy { first_delay_ms: 50, delay_ms_max: 1_000, retries_max: 5, quiet_ms: 600_000 };
/// Answers of at most 1,000 uploads that are read; what lies behind is found the next time.
const PAGES_MAX: usize = 16;

/// An upload that has begun and not come to its end.
#[derive(Debug, PartialEq, Eq)]
struct Upload {
    /// The whole key.
    key: String,
    id: String,
}

/// What one answer says.
#[derive(Debug, Default, PartialEq, Eq)]
struct Page {
    uploads: Vec<Upload>,
    /// Where the next answer begins: a key and an id.
    next: Option<(String, String)>,
}

impl Objects {
    /// Aborts the uploads below a key and its `/` whose key, relative to the URL, is chosen; gives how many.
    pub async fn abort_uploads(&self, below: &str, chosen: impl Fn(&str) -> bool) -> Result<usize, ObjectError> {
        let Some(s3) = &self.s3 else { return Ok(0) };
        let client = Client::builder().timeout(REQUEST_TIMEOUT).build();
        let client = client.map_err(|error| ObjectError::refused(error.to_string()))?;
        let (root, prefix) = (self.url().join(""), self.url().join(below));
        let mut query =
            vec![("uploads".to_owned(), String::new()), ("prefix".to_owned(), format!("{}/", prefix.key()))];
        let mut aborted = 0;
        for _ in 0..PAGES_MAX {
            let page = self.page(s3, &client, &query).await?;
            for upload in page.uploads {
                let below_root = upload.key.strip_prefix(root.key()).map(|key| key.trim_start_matches('/'));
                if below_root.is_some_and(&chosen) {
                    let path = Path::parse(&upload.key).map_err(|error| ObjectError::refused(error.to_string()))?;
                    match s3.abort_multipart(&path, &upload.id).await {
                        // Somebody else was faster.
                        Ok(()) | Err(Error::NotFound { .. }) => aborted += 1,
                        Err(error) => return Err(self.error(&error)),
                    }
                }
            }
            let Some((key, id)) = page.next else { break };
            query.truncate(2);
            query.extend([("key-marker".to_owned(), key), ("upload-id-marker".to_owned(), id)]);
        }
        Ok(aborted)
    }

    /// One answer. A service that fails is asked again.
    async fn page(&self, s3: &AmazonS3, client: &Client, query: &[(String, String)]) -> Result<Page, ObjectError> {
        let mut backoff = Backoff::new(POLICY);
        loop {
            let options = SignedUrlOptions::default().with_query(query.to_vec());
            let url = s3.signed_url_opts(Method::GET, &Path::default(), SIGNATURE_VALID, &options).await;
            let failed = match ask(client, url.map_err(|error| self.error(&error))?.as_str()).await {
                Ok(text) => return Ok(parse(&text)),
                Err(failed) => failed,
            };
            let wait_ms = backoff.on_failure(Timestamp(0), random()).filter(|_| failed.is_transient());
            let Some(wait_ms) = wait_ms else { return Err(failed) };
            tokio::time::sleep(Duration::from_millis(wait_ms)).await;
        }
    }
}

/// The text of an answer. The address holds a signature, so errors leave it out.
async fn ask(client: &Client, address: &str) -> Result<String, ObjectError> {
    let failed = |kind, what: String| ObjectError { kind, message: format!("uploads cannot be listed: {what}") };
    let broken = |error: reqwest::Error| failed(ObjectErrorKind::Transient, error.without_url().to_string());
    let answer = client.get(address).send().await.map_err(broken)?;
    let status = answer.status();
    let text = answer.text().await.map_err(broken)?;
    // Not every service can list them.
    let stays = status == StatusCode::NOT_IMPLEMENTED;
    let passes = status.is_server_error() && !stays
        || [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS].contains(&status);
    match status {
        _ if status.is_success() => Ok(text),
        _ if passes => Err(failed(ObjectErrorKind::Transient, status.to_string())),
        _ => Err(failed(ObjectErrorKind::Refused, status.to_string())),
    }
}

/// Reads an answer. What it lacks is left out.
fn parse(text: &str) -> Page {
    let uploads = text
        .split("<Upload>")
        .skip(1)
        .filter_map(|upload| Some(Upload { key: element(upload, "Key")?, id: element(upload, "UploadId")? }));
    let uploads = uploads.collect();
    let more = element(text, "IsTruncated").is_some_and(|word| word == "true");
    let next = element(text, "NextKeyMarker").zip(element(text, "NextUploadIdMarker")).filter(|_| more);
    Page { uploads, next }
}

/// The text of the first element of a name.
fn element(text: &str, name: &str) -> Option<String> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    let (inner, _) = rest.split_once(&format!("</{name}>"))?;
    let mut plain = inner.to_owned();
    for (escaped, character) in [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&apos;", "'"), ("&amp;", "&")] {
        plain = plain.replace(escaped, character);
    }
    Some(plain)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;
    use crate::{Credentials, ObjectUrl};

    #[tokio::test]
    async fn a_service_that_fails_is_asked_again_and_what_is_gone_is_gone() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("s3://bucket/b?region=here&endpoint=http://{}", listener.local_addr().unwrap());
        let me = Credentials { access_key: "me".to_owned(), secret_key: "me".to_owned(), session_token: None };
        let objects = Objects::open_as(&ObjectUrl::parse(&url).unwrap().unwrap(), Some(&me)).unwrap();
        let service = std::thread::spawn(move || {
            let listed = "<Upload><Key>b/job/1</Key><UploadId>i</UploadId></Upload><Upload><Key>b/job/2</Key><UploadId>j\
                </UploadId></Upload>";
            let answers = [("500", ""), ("503", ""), ("200", listed), ("404", ""), ("403", ""), ("501", "")];
            answers.map(|(status, body)| {
                let (mut stream, _) = listener.accept().unwrap();
                let mut asked = [0; 4096];
                let size = stream.read(&mut asked).unwrap();
                let length = body.len();
                write!(stream, "HTTP/1.1 {status} so\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}")
                    .unwrap();
                String::from_utf8_lossy(&asked[..size]).split(['?', ' ']).take(2).collect::<Vec<_>>().join(" ")
            })
        });
        assert_eq!(objects.abort_uploads("job", |key| key == "job/1").await.unwrap(), 1);
        let refused = objects.abort_uploads("job", |_| true).await.unwrap_err();
        assert!(!refused.is_transient() && refused.message.contains("cannot be listed: 403"), "{refused}");
        let list = "GET /bucket/";
        let unknown = objects.abort_uploads("job", |_| true).await.unwrap_err();
        assert!(!unknown.is_transient(), "{unknown}");
        assert_eq!(service.join().unwrap(), [list, list, list, "DELETE /bucket/b/job/1", list, list]);
    }

    #[test]
    fn answers_are_read() {
        let text = "<?xml version=\"1.0\"?><ListMultipartUploadsResult><Bucket>b</Bucket><IsTruncated>true</IsTruncated>\
            <NextKeyMarker>x/2</NextKeyMarker><NextUploadIdMarker>id2</NextUploadIdMarker>\
            <Upload><Key>x/a&amp;b</Key><Owner><ID>o</ID></Owner><UploadId>id1</UploadId></Upload>\
            <Upload><Key>x/2</Key><UploadId>id2</UploadId></Upload></ListMultipartUploadsResult>";
        let page = parse(text);
        let upload = |key: &str, id: &str| Upload { key: key.to_owned(), id: id.to_owned() };
        assert_eq!(page.uploads, [upload("x/a&b", "id1"), upload("x/2", "id2")]);
        assert_eq!(page.next, Some(("x/2".to_owned(), "id2".to_owned())));
        assert_eq!(parse(&text.replace("true", "false")).next, None);
        assert_eq!(parse("<html>no</html>"), Page::default());
    }
}
