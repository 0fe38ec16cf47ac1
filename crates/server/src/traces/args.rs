//! Where spans go, as it is said on the command line. The variables are OpenTelemetry's own, so that what is set up for other
//! programs holds here too.

use clap::Args;

/// Variable of the endpoint.
const ENDPOINT_VARIABLE: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
/// Variable of the headers.
const HEADERS_VARIABLE: &str = "OTEL_EXPORTER_OTLP_HEADERS";
/// Variable of the service's name.
const NAME_VARIABLE: &str = "OTEL_SERVICE_NAME";
/// That name, where nobody gives another one.
const SERVICE: &str = "mainstem";

/// Where spans go.
#[derive(Clone, Debug, Args)]
pub(crate) struct TracesArgs {
    /// Send traces of checkpoints, commits, recoveries and sampled rows to the OpenTelemetry collector there, by OTLP over
    /// HTTP, such as http://localhost:4318 [default: not at all].
    #[arg(long, value_name = "URL", env = ENDPOINT_VARIABLE, hide_env_values = true)]
    pub(crate) otlp_endpoint: Option<String>,
    /// Headers of each request to the collector, such as 'api-key=SECRET,tenant=a'; values are percent-encoded.
    #[arg(long, value_name = "NAME=VALUE,..", env = HEADERS_VARIABLE, hide_env_values = true)]
    pub(crate) otlp_headers: Option<String>,
    /// The service that the spans are of.
    #[arg(long, value_name = "NAME", env = NAME_VARIABLE, default_value = SERVICE)]
    pub(crate) otlp_service_name: String,
}

impl TracesArgs {
    /// An empty variable is as good as none, as OpenTelemetry has it.
    pub(super) fn endpoint(&self) -> Option<&str> {
        self.otlp_endpoint.as_deref().map(str::trim).filter(|endpoint| !endpoint.is_empty())
    }

    /// What the spans are of.
    pub(super) fn service(&self) -> &str {
        Some(self.otlp_service_name.as_str()).filter(|name| !name.is_empty()).unwrap_or(SERVICE)
    }

    /// The variables by which another process is told the same; the headers are secret, and arguments can be read by all.
    pub(crate) fn variables(&self) -> Vec<(&'static str, String)> {
        let Some(endpoint) = self.endpoint() else { return Vec::new() };
        let headers = self.otlp_headers.iter().map(|headers| (HEADERS_VARIABLE, headers.clone()));
        let others = [(ENDPOINT_VARIABLE, endpoint.to_owned()), (NAME_VARIABLE, self.otlp_service_name.clone())];
        others.into_iter().chain(headers).collect()
    }
}
