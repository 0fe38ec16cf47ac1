//! The HTTP port of a node: REST API, metrics, and the files of the web page. Whatever changes something goes the way of the
//! command line's requests ([`crate::cluster::api`]); nothing is decided here but who may ask.

mod access;
mod assets;
mod error;
mod events;
mod input;
mod listener;
mod openapi;
mod planning;
mod routes;

use std::net::IpAddr;
use std::sync::Arc;

use anyhow::{Context, bail};
use async_trait::async_trait;
use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderValue, header};
use axum::{Router, middleware};
use mainstem_core::time::Timestamp;
use mainstem_net::Https;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use self::access::Access;
use self::events::STREAMS_MAX;
use self::input::BODY_BYTES_MAX;
use self::listener::HttpListener;
use self::planning::PLANNINGS_MAX;
use self::routes::preview::PREVIEWS_MAX;
use crate::cli::HttpArgs;
use crate::cluster::api::{Request, Response};
use crate::file_watch::FileWatch;
use crate::metrics::Scrape;

/// What a node of this kind answers with.
#[async_trait]
pub(crate) trait Backend: Send + Sync + 'static {
    /// Does what is asked for, here or where the leader is. `user` is who asks.
    async fn ask(&self, user: &str, request: Request) -> Asked;

    /// `cluster`, `run` or `worker`.
    fn mode(&self) -> &'static str;

    /// What kind of node it is, and which.
    fn name(&self) -> String;

    /// Whether it can do its work.
    ///
    /// # Errors
    /// Why not.
    fn is_ready(&self) -> Result<(), String>;

    /// How it was started, without secrets.
    fn settings(&self) -> Vec<(String, String)>;

    /// The figures for Prometheus.
    fn scrape(&self) -> Scrape;

    /// The time of day.
    fn now(&self) -> Timestamp;

    /// Says where the port is.
    fn announce(&self, url: &str) {
        announce("web page and REST API", url);
    }
}

/// An answer, and whether it may be old.
pub(crate) struct Asked {
    pub(crate) response: Response,
    pub(crate) stale: bool,
}

/// What all routes share.
pub(crate) struct App {
    backend: Arc<dyn Backend>,
    access: Access,
    /// Event streams that may be open.
    streams: Arc<Semaphore>,
    /// SQL texts that may be planned at a time.
    plannings: Semaphore,
    /// Queries whose rows may be shown at a time.
    previews: Arc<Semaphore>,
}

impl App {
    fn now(&self) -> Timestamp {
        self.backend.now()
    }
}

/// Begins to listen where that is wanted. The future serves until it is dropped; for ever where nothing is to be served.
///
/// # Errors
/// An address that cannot be listened at, or at which anybody could do anything.
pub(crate) async fn serve(
    args: &HttpArgs,
    https: Option<Https>,
    backend: Arc<dyn Backend>,
) -> anyhow::Result<impl Future<Output = anyhow::Result<()>> + Send + use<>> {
    let listening = match &args.http {
        Some(address) => Some(listen(address, args, https, backend).await?),
        None if args.http_token_file.is_some() => bail!("--http-token-file has no effect without --http"),
        None => None,
    };
    Ok(async move {
        let Some(Listening { listener, router, tokens, app }) = listening else { return std::future::pending().await };
        let service = router.into_make_service_with_connect_info::<listener::Peer>();
        tokio::select! {
            ended = async { axum::serve(listener, service).await } => ended.context("the HTTP port has closed"),
            () = tokens.run(move || app.access.reread()) => Ok(()),
        }
    })
}

/// What is served, and the token file.
struct Listening {
    listener: HttpListener,
    router: Router,
    tokens: FileWatch,
    app: Arc<App>,
}

async fn listen(
    address: &str,
    args: &HttpArgs,
    https: Option<Https>,
    backend: Arc<dyn Backend>,
) -> anyhow::Result<Listening> {
    let wanted = if address.contains(':') { address.to_owned() } else { format!("127.0.0.1:{address}") };
    let tokens = FileWatch::new("tokens", args.http_token_file.iter().cloned().collect());
    let access = Access::read(args.http_token_file.as_deref())?;
    let listener = TcpListener::bind(&wanted).await.with_context(|| format!("cannot listen at '{wanted}' (--http)"))?;
    let local = listener.local_addr().with_context(|| format!("cannot listen at '{wanted}' (--http)"))?;
    if !is_loopback(local.ip()) {
        if !access.demands_tokens() {
            bail!(
                "--http {wanted} can be reached from other machines, where anybody could stop jobs: name who may do what by \
                 --http-token-file FILE, or listen at 127.0.0.1"
            );
        }
        if https.is_none() {
            tracing::warn!(address = %local, "tokens travel in the clear: set up TLS, or put a proxy with TLS in front");
        }
    }
    let scheme = if https.is_some() { "https" } else { "http" };
    backend.announce(&format!("{scheme}://{local}/"));
    let app = Arc::new(App {
        backend,
        access,
        streams: Arc::new(Semaphore::new(STREAMS_MAX)),
        plannings: Semaphore::new(PLANNINGS_MAX),
        previews: Arc::new(Semaphore::new(PREVIEWS_MAX)),
    });
    let listener = HttpListener::start(listener, local, https);
    Ok(Listening { listener, router: router(app.clone()), tokens, app })
}

fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

/// Says what is where: port 0 takes any.
#[expect(clippy::print_stderr, reason = "the command's output")]
pub(crate) fn announce(what: &str, url: &str) {
    eprintln!("{what}: {url}");
}

/// All routes.
fn router(app: Arc<App>) -> Router {
    let (api, description) = routes::all(&app);
    let described = openapi::complete(description);
    api.merge(assets::routes())
        .merge(openapi::route(&app, &described))
        .fallback(error::no_route)
        .method_not_allowed_fallback(error::no_method)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::from_fn_with_state(app.clone(), access::check_origin))
        .layer(middleware::map_response(with_headers))
        .with_state(app)
}

/// What each answer says to browsers.
async fn with_headers(mut response: axum::response::Response) -> axum::response::Response {
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}
