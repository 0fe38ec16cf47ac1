//! Uploads in parts that nobody will complete: those of processes that were killed. Their parts cost money and are seen
//! by nobody, so they are looked for and aborted. Only S3 lists them; the services of others forget them by themselves
//! after a week (Azure), or by a rule of the bucket (GCS).

use std::time::Duration;

use object_store::multipart::MultipartStore;
use object_store::path::Path;
use object_store::signer::{SignedUrlOptions, Signer};
use reqwest::{Client, Method};

use crate::error::ObjectError;
use crate::open::Objects;

/// How long a request to list them may take, and how long it may be used.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
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
        let refused = |what: String| ObjectError::refused(format!("uploads cannot be listed: {what}"));
        let client = Client::builder().timeout(REQUEST_TIMEOUT).build().map_err(|e| refused(e.to_string()))?;
        let (root, prefix) = (self.url().join(""), self.url().join(below));
        let mut aborted = 0;
        let mut from = None;
        for _ in 0..PAGES_MAX {
            let mut query = vec![("uploads".to_owned(), String::new())];
            query.push(("prefix".to_owned(), format!("{}/", prefix.key())));
            if let Some((key, id)) = from.take() {
                query.extend([("key-marker".to_owned(), key), ("upload-id-marker".to_owned(), id)]);
            }
            let options = SignedUrlOptions::default().with_query(query);
            let url = s3.signed_url_opts(Method::GET, &Path::default(), REQUEST_TIMEOUT, &options).await;
            let url = url.map_err(|error| self.error(&error))?;
            // The address holds a signature, so what the client says of it is left out.
            let answer = client.get(url.as_str()).send().await.map_err(|e| refused(e.without_url().to_string()))?;
            let status = answer.status();
            let text = answer.text().await.map_err(|e| refused(e.without_url().to_string()))?;
            if !status.is_success() {
                return Err(refused(status.to_string()));
            }
            let page = parse(&text);
            for upload in page.uploads {
                let below_root = upload.key.strip_prefix(root.key()).map(|key| key.trim_start_matches('/'));
                if below_root.is_some_and(&chosen) {
                    let path = Path::parse(&upload.key).map_err(|error| ObjectError::refused(error.to_string()))?;
                    s3.abort_multipart(&path, &upload.id).await.map_err(|error| self.error(&error))?;
                    aborted += 1;
                }
            }
            match page.next {
                Some(next) => from = Some(next),
                None => break,
            }
        }
        Ok(aborted)
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
    use super::*;

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
