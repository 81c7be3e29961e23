//! The connection to the analyzer's gRPC service.

use anyhow::Context as _;
use clap::Args;
use std::path::PathBuf;
use std::time::Duration;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Request, Status};
use vouch_proto::v1::budgets_client::BudgetsClient;
use vouch_proto::v1::verifications_client::VerificationsClient;

/// Longest wait for the beginning of an answer.
const CALL_LIMIT: Duration = Duration::from_secs(30);

/// Where the analyzer is, and how to be let in.
#[derive(Debug, Clone, Args)]
pub(crate) struct ServerArguments {
    /// The analyzer's gRPC address.
    #[arg(long, env = "VOUCH_SERVER", default_value = "http://127.0.0.1:7070", value_name = "URL")]
    pub(crate) server: String,
    /// File with the analyzer's bearer token.
    #[arg(long, env = "VOUCH_TOKEN_FILE", value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Certificate authority of the analyzer, PEM (https only).
    #[arg(long, env = "VOUCH_CA_FILE", value_name = "FILE")]
    pub(crate) ca_file: Option<PathBuf>,
}

/// Shows the bearer token with each call.
#[derive(Clone)]
pub(crate) struct Bearer(Option<MetadataValue<Ascii>>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request.metadata_mut().insert("authorization", token.clone());
        }
        Ok(request)
    }
}

/// A client of the analyzer.
pub(crate) type Client = VerificationsClient<InterceptedService<Channel, Bearer>>;

impl ServerArguments {
    /// Prepares a client; it connects with the first call, and again when the connection is lost.
    ///
    /// # Errors
    /// Where the address or a file is wrong.
    pub(crate) fn client(&self) -> anyhow::Result<Client> {
        let (channel, bearer) = self.connection()?;
        Ok(VerificationsClient::with_interceptor(channel, bearer))
    }

    /// The same for the budgets.
    ///
    /// # Errors
    /// Where the address or a file is wrong.
    pub(crate) fn budgets(&self) -> anyhow::Result<BudgetsClient<InterceptedService<Channel, Bearer>>> {
        let (channel, bearer) = self.connection()?;
        Ok(BudgetsClient::with_interceptor(channel, bearer))
    }

    fn connection(&self) -> anyhow::Result<(Channel, Bearer)> {
        let mut endpoint = Endpoint::from_shared(self.server.clone())
            .with_context(|| format!("--server: `{}` is no URL, e.g. http://127.0.0.1:7070", self.server))?
            .connect_timeout(Duration::from_secs(5))
            .timeout(CALL_LIMIT)
            .http2_keep_alive_interval(Duration::from_secs(15))
            .keep_alive_timeout(Duration::from_secs(10));
        if let Some(file) = &self.ca_file {
            let pem = std::fs::read(file)
                .with_context(|| format!("--ca-file: {} cannot be read", file.display()))?;
            let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem));
            endpoint = endpoint.tls_config(tls).context("--ca-file: no certificate in PEM")?;
        } else if self.server.starts_with("https") {
            endpoint = endpoint.tls_config(ClientTlsConfig::new())?;
        }
        let token = match &self.token_file {
            None => None,
            Some(file) => {
                let token = std::fs::read_to_string(file)
                    .with_context(|| format!("--token-file: {} cannot be read", file.display()))?;
                let value = format!("Bearer {}", token.trim()).parse::<MetadataValue<Ascii>>();
                Some(value.with_context(|| format!("--token-file: {} holds no token", file.display()))?)
            }
        };
        Ok((endpoint.connect_lazy(), Bearer(token)))
    }
}

/// Whether asking again may help: the analyzer restarts, or the network is away.
pub(crate) fn is_transient(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable | Code::Unknown | Code::Cancelled | Code::DeadlineExceeded | Code::Aborted
    )
}

/// A refusal, for a person.
pub(crate) fn explain(server: &str, status: &Status) -> String {
    match status.code() {
        Code::InvalidArgument | Code::NotFound | Code::FailedPrecondition => status.message().to_owned(),
        Code::Unauthenticated => format!("{server} wants a token: give --token-file"),
        code @ (Code::Ok
        | Code::Cancelled
        | Code::Unknown
        | Code::DeadlineExceeded
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::ResourceExhausted
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::Internal
        | Code::Unavailable
        | Code::DataLoss) => format!(
            "{server} does not answer ({code:?}: {}); is the analyzer running? `vouch up` starts one",
            status.message()
        ),
    }
}
