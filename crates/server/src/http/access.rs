//! Who may ask for what. Without a token file whoever reaches the port may do anything, so it is open to this machine alone
//! and only to pages that came from it; with one, each request but those for the page itself needs a token. Tokens are read
//! anew when their file changes.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use anyhow::{Context, bail};
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::App;
use super::error::ApiError;
use super::listener::Peer;

/// A token is at least so long, so that it cannot be guessed.
const TOKEN_BYTES_MIN: usize = 16;
/// A token file is not larger.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// What somebody may do; each may do what those before may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    /// Look.
    Viewer,
    /// Run and stop jobs.
    Operator,
    /// Change the cluster.
    Admin,
}

impl Role {
    pub(crate) const ALL: [Role; 3] = [Role::Viewer, Role::Operator, Role::Admin];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Role::Viewer => "viewer",
            Role::Operator => "operator",
            Role::Admin => "admin",
        }
    }
}

/// Who asks.
#[derive(Clone, Debug)]
pub(crate) struct User {
    pub(crate) name: String,
    pub(crate) role: Role,
    /// Name and address, for the audit trail.
    pub(crate) said: String,
    /// How often tokens had been read when this was found out.
    tokens_version: u64,
}

/// See the module.
pub(crate) struct Access {
    /// None: nobody is asked who they are.
    tokens: Option<TokenFile>,
}

struct TokenFile {
    path: PathBuf,
    current: RwLock<Tokens>,
}

/// The tokens in force, and how often there were others.
struct Tokens {
    version: u64,
    tokens: Vec<Token>,
}

struct Token {
    name: String,
    role: Role,
    token: String,
}

impl Access {
    /// Reads the token file, if there is one.
    pub(super) fn read(file: Option<&Path>) -> anyhow::Result<Access> {
        let Some(path) = file else { return Ok(Access { tokens: None }) };
        let current = RwLock::new(Tokens { version: 0, tokens: read(path)? });
        Ok(Access { tokens: Some(TokenFile { path: path.to_owned(), current }) })
    }

    /// Puts in force what the token file says now. Where it is wrong, nothing changes.
    pub(super) fn reread(&self) -> anyhow::Result<()> {
        let Some(file) = &self.tokens else { return Ok(()) };
        let tokens = read(&file.path)?;
        let mut current = file.current.write().unwrap_or_else(PoisonError::into_inner);
        *current = Tokens { version: current.version + 1, tokens };
        Ok(())
    }

    pub(crate) fn demands_tokens(&self) -> bool {
        self.tokens.is_some()
    }

    /// Whether the tokens are still those by which the user was known.
    pub(super) fn is_current(&self, user: &User) -> bool {
        let version = |file: &TokenFile| file.current.read().unwrap_or_else(PoisonError::into_inner).version;
        self.tokens.as_ref().is_none_or(|file| version(file) == user.tokens_version)
    }

    /// Who asks; none where that is not known and must be.
    fn user(&self, headers: &HeaderMap, peer: &Peer) -> Option<User> {
        let current = self.tokens.as_ref().map(|file| file.current.read().unwrap_or_else(PoisonError::into_inner));
        let (name, role) = match &current {
            // Whoever has a node's certificate may do anything over the cluster's own port too.
            _ if peer.is_certified => ("certificate", Role::Admin),
            None => ("anyone", Role::Admin),
            Some(current) => {
                let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
                let (scheme, given) = value.split_once(' ')?;
                // All are compared, each in full, so that the time says nothing.
                let mut matching: Option<&Token> = None;
                for token in &current.tokens {
                    if is_same(given.trim(), &token.token) {
                        matching = Some(token);
                    }
                }
                let token = matching.filter(|_| scheme.eq_ignore_ascii_case("bearer"))?;
                (token.name.as_str(), token.role)
            }
        };
        let tokens_version = current.as_ref().map_or(0, |current| current.version);
        Some(User { name: name.to_owned(), role, said: format!("{name} at {}", peer.address), tokens_version })
    }
}

fn read(path: &Path) -> anyhow::Result<Vec<Token>> {
    let cannot = || format!("cannot read the token file '{}'", path.display());
    let size = fs::metadata(path).with_context(cannot)?.len();
    if size > FILE_BYTES_MAX {
        bail!("the token file '{}' has {size} bytes, at most {FILE_BYTES_MAX} are read", path.display());
    }
    let text = fs::read_to_string(path).with_context(cannot)?;
    parse(&text).map_err(|reason| anyhow::anyhow!("token file '{}': {reason}", path.display()))
}

/// Compares in a time that does not depend on where they differ.
fn is_same(a: &str, b: &str) -> bool {
    let differing = a.bytes().zip(b.bytes()).fold(a.len() ^ b.len(), |all, (a, b)| all | usize::from(a ^ b));
    differing == 0
}

fn parse(text: &str) -> Result<Vec<Token>, String> {
    let mut tokens: Vec<Token> = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let words: Vec<&str> = line.split_whitespace().collect();
        // A line may hold a token: it is never shown.
        let (name, role, token) = match words[..] {
            [] => continue,
            [first, ..] if first.starts_with('#') => continue,
            [name, role, token] => (name, role, token),
            _ => return Err(format!("line {number}: expected NAME ROLE TOKEN")),
        };
        let Some(role) = Role::ALL.into_iter().find(|known| known.name() == role) else {
            return Err(format!("line {number}: the role must be viewer, operator or admin"));
        };
        if token.len() < TOKEN_BYTES_MIN {
            return Err(format!(
                "line {number}: a token has at least {TOKEN_BYTES_MIN} characters; make one by 'openssl rand -hex 32'"
            ));
        }
        if tokens.iter().any(|known| known.token == token) {
            return Err(format!("line {number}: another line has the same token"));
        }
        tokens.push(Token { name: name.to_owned(), role, token: token.to_owned() });
    }
    if tokens.is_empty() {
        return Err("it names nobody; write lines of NAME ROLE TOKEN".to_owned());
    }
    Ok(tokens)
}

/// Lets through who has the role, and notes who it is.
pub(super) async fn guard(State((app, role)): State<(Arc<App>, Role)>, mut request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<ConnectInfo<Peer>>().map(|ConnectInfo(peer)| peer.clone());
    let Some(peer) = peer else { return ApiError::bug("bug: the address of a client is not known").into_response() };
    let Some(user) = app.access.user(request.headers(), &peer) else {
        tracing::info!(peer = %peer.address, path = request.uri().path(), "a request without a known token was refused");
        return ApiError::unauthorized().into_response();
    };
    if user.role < role {
        let (needed, has) = (role.name(), user.role.name());
        let message = format!("this needs the role {needed}; the token of '{}' has the role {has}", user.name);
        return ApiError::forbidden(message).into_response();
    }
    request.extensions_mut().insert(user);
    next.run(request).await
}

/// Refuses what a page from elsewhere has sent: by a name that somebody made to mean this machine (DNS rebinding), or
/// across origins.
pub(super) async fn check_origin(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let headers = request.headers();
    let host = host(headers, request.uri());
    if !app.access.demands_tokens() && !host.as_deref().is_some_and(is_this_machine) {
        let message = "without tokens only names of this machine are answered: localhost, 127.0.0.1 or [::1]";
        return ApiError::forbidden(message).into_response();
    }
    if let Some(origin) = headers.get(header::ORIGIN) {
        let of_origin = origin.to_str().ok().and_then(|origin| Some(origin.split_once("://")?.1.to_owned()));
        if of_origin.is_none() || of_origin != host {
            return ApiError::forbidden("pages of other sites may not use this").into_response();
        }
    }
    next.run(request).await
}

fn host(headers: &HeaderMap, uri: &Uri) -> Option<String> {
    let of_header = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    of_header.or_else(|| uri.authority().map(|authority| authority.as_str())).map(str::to_owned)
}

fn is_this_machine(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    let is_loopback = name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
    is_loopback || name.eq_ignore_ascii_case("localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_file_that_is_wrong_is_refused_with_its_line_and_without_its_tokens() {
        let long = "0123456789abcdef";
        let read = |text: &str| parse(text).map(|tokens| tokens.len());
        assert_eq!(read(&format!("# who\n\nada admin {long}\nbob viewer {long}0\n")), Ok(2));
        for (text, expected) in [
            ("".to_owned(), "names nobody"),
            (format!("ada {long}"), "line 1: expected NAME ROLE TOKEN"),
            (format!("ada root {long}"), "line 1: the role must be"),
            ("\nada admin hunter2".to_owned(), "line 2: a token has at least 16"),
            (format!("ada admin {long}\nbob viewer {long}"), "line 2: another line has the same token"),
        ] {
            let reason = read(&text).unwrap_err();
            assert!(reason.contains(expected) && !reason.contains(long) && !reason.contains("hunter2"), "{reason}");
        }
    }

    #[test]
    fn only_names_of_this_machine_are_its_names() {
        for ours in ["localhost", "localhost:80", "127.0.0.1:8080", "127.1.2.3", "[::1]:80", "[::1]"] {
            assert!(is_this_machine(ours), "{ours}");
        }
        for theirs in
            ["", "evil.example", "localhost.evil.example", "127.0.0.1.evil.example:80", "[::2]", "198.51.100.1:80"]
        {
            assert!(!is_this_machine(theirs), "{theirs}");
        }
    }

    #[test]
    fn tokens_are_compared_as_a_whole() {
        assert!(is_same("abc", "abc"));
        for other in ["", "ab", "abd", "abcd"] {
            assert!(!is_same("abc", other) && !is_same(other, "abc"), "{other}");
        }
    }
}
