//! The gRPC services `vouch.v1.Verifications` and `vouch.v1.Budgets`, with health and reflection. Any replica answers any call.

mod analyze;
mod budget;
mod evidence;
mod refuse;
mod start;
mod watch;

use crate::analysis::MAX_MESSAGE_BYTES;
use crate::live::Shared;
use crate::record::{Record, State};
use anyhow::Context as _;
use secrecy::{ExposeSecret as _, SecretString};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::body::Body;
use tonic::codegen::http;
use tonic::service::InterceptorLayer;
use tonic::{Code, Request, Response, Status};
use tower::util::MapResponseLayer;
use vouch_proto::v1;
use vouch_proto::v1::budgets_server::BudgetsServer;
use vouch_proto::v1::verifications_server::{Verifications, VerificationsServer};

/// Longest time to the beginning of an answer.
const CALL_LIMIT: Duration = Duration::from_secs(25);

/// Listens on the address of the settings.
///
/// # Errors
/// Where it is in use or not allowed.
pub(crate) async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("analyzer.grpc_listen: {address} cannot be listened on"))
}

/// Serves until the stop signal.
///
/// # Errors
/// Where the listener fails.
pub(crate) async fn serve(shared: Arc<Shared>, listener: TcpListener) -> anyhow::Result<()> {
    let stop = shared.context.tasks.stop().clone();
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<VerificationsServer<Service>>().await;
    health.set_serving::<BudgetsServer<Service>>().await;
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(v1::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let token = shared.settings.grpc_token.clone();
    let service = Service { shared, room: Arc::new(analyze::Room::new()) };
    let budgets = BudgetsServer::new(service.clone());
    let service = VerificationsServer::new(service).max_decoding_message_size(MAX_MESSAGE_BYTES);
    tonic::transport::Server::builder()
        .timeout(CALL_LIMIT)
        .layer(InterceptorLayer::new(move |request: Request<()>| authorize(token.as_ref(), request)))
        .layer(MapResponseLayer::new(size_in_words))
        .add_service(health_service)
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?)
        .add_service(budgets)
        .add_service(service)
        .serve_with_incoming_shutdown(TcpListenerStream::new(listener), async move { stop.cancelled().await })
        .await?;
    Ok(())
}

/// A message beyond the limit is refused like everything else that is too much: with field, limit and remedy.
fn size_in_words(response: http::Response<Body>) -> http::Response<Body> {
    match Status::from_header_map(response.headers()) {
        Some(status) if status.code() == Code::OutOfRange => analyze::too_large(status).into_http(),
        Some(_) | None => response,
    }
}

/// Lets in whoever shows the token. Compared in constant time over its length.
fn authorize(token: Option<&SecretString>, request: Request<()>) -> Result<Request<()>, Status> {
    let Some(token) = token else { return Ok(request) };
    let shown = request.metadata().get("authorization").and_then(|v| v.to_str().ok()).unwrap_or_default();
    let shown = shown.strip_prefix("Bearer ").unwrap_or_default().as_bytes();
    let expected = token.expose_secret().as_bytes();
    let differences = expected.iter().zip(shown).fold(0_u8, |d, (a, b)| d | (a ^ b));
    if differences == 0 && shown.len() == expected.len() {
        Ok(request)
    } else {
        Err(Status::unauthenticated("send `authorization: Bearer <token>` with the analyzer's token"))
    }
}

/// The implementation of the services.
#[derive(Clone)]
pub(crate) struct Service {
    shared: Arc<Shared>,
    room: Arc<analyze::Room>,
}

/// What a failed dependency looks like to a caller: to be tried again.
fn unavailable(error: anyhow::Error) -> Status {
    tracing::warn!(error = format!("{error:#}"), "a call could not be answered");
    Status::unavailable(format!("{error:#}"))
}

impl Service {
    async fn record(&self, id: &str) -> Result<Record, Status> {
        if id.is_empty() {
            return Err(refuse::field("verification_id", "is empty; Start and List answer ids"));
        }
        let found = self.shared.store.get(id).await.map_err(unavailable)?;
        found.ok_or_else(|| {
            Status::not_found(format!("there is no verification `{id}`; List answers those there are"))
        })
    }
}

#[tonic::async_trait]
impl Verifications for Service {
    async fn start(&self, request: Request<v1::StartRequest>) -> Result<Response<v1::Verification>, Status> {
        let trace =
            request.metadata().get("traceparent").and_then(|v| v.to_str().ok()).map(ToOwned::to_owned);
        let record = start::start(&self.shared, request.into_inner(), trace).await?;
        Ok(Response::new(record.into()))
    }

    async fn get(&self, request: Request<v1::GetRequest>) -> Result<Response<v1::Verification>, Status> {
        let record = self.record(&request.into_inner().verification_id).await?;
        Ok(Response::new(record.into()))
    }

    type WatchStream = watch::EventStream;

    async fn watch(&self, request: Request<v1::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let record = self.record(&request.into_inner().verification_id).await?;
        Ok(Response::new(watch::watch(&self.shared, record).await?))
    }

    async fn list(&self, request: Request<v1::ListRequest>) -> Result<Response<v1::ListResponse>, Status> {
        Ok(Response::new(list(&self.shared, request.into_inner()).await?))
    }

    async fn cancel(
        &self,
        request: Request<v1::CancelRequest>,
    ) -> Result<Response<v1::Verification>, Status> {
        let request = request.into_inner();
        let record = self.record(&request.verification_id).await?;
        let record = start::cancel(&self.shared, record, request).await?;
        Ok(Response::new(record.into()))
    }

    async fn analyze(
        &self,
        request: Request<v1::AnalyzeRequest>,
    ) -> Result<Response<v1::AnalyzeResponse>, Status> {
        let verdict = analyze::analyze(&self.shared, &self.room, request.into_inner()).await?;
        Ok(Response::new(v1::AnalyzeResponse { verdict: Some(verdict.into()) }))
    }

    async fn get_evidence(
        &self,
        request: Request<v1::GetEvidenceRequest>,
    ) -> Result<Response<v1::GetEvidenceResponse>, Status> {
        let record = self.record(&request.into_inner().verification_id).await?;
        Ok(Response::new(evidence::get(&self.shared, &record).await?))
    }

    async fn analyze_stream(
        &self,
        request: Request<tonic::Streaming<v1::AnalyzeStreamRequest>>,
    ) -> Result<Response<v1::AnalyzeResponse>, Status> {
        let verdict = analyze::analyze_stream(&self.shared, &self.room, request.into_inner()).await?;
        Ok(Response::new(v1::AnalyzeResponse { verdict: Some(verdict.into()) }))
    }
}

const MAX_PAGE: usize = 500;
const DEFAULT_PAGE: usize = 50;
/// Most records read for one page; a filter that matches few of them answers a shorter page and a token.
const MAX_READ: usize = 2000;

async fn list(shared: &Shared, request: v1::ListRequest) -> Result<v1::ListResponse, Status> {
    let size = match usize::try_from(request.page_size).unwrap_or(usize::MAX) {
        0 => DEFAULT_PAGE,
        size if size <= MAX_PAGE => size,
        size => return Err(refuse::field("page_size", format!("{size} is more than {MAX_PAGE}"))),
    };
    let wanted = match v1::VerificationState::try_from(request.state) {
        Ok(v1::VerificationState::Unspecified) => None,
        Ok(v1::VerificationState::Waiting) => Some(State::Waiting),
        Ok(v1::VerificationState::Running) => Some(State::Running),
        Ok(v1::VerificationState::Final) => Some(State::Final),
        Err(_) => return Err(refuse::field("state", format!("unknown value `{}`", request.state))),
    };
    let keys = shared.store.keys().await.map_err(unavailable)?;
    let (mut page, mut read, mut last) = (v1::ListResponse::default(), 0, String::new());
    // Keys run from the newest to the oldest; the token is the last one answered.
    for key in keys.iter().filter(|k| request.page_token.is_empty() || **k < request.page_token) {
        if page.verifications.len() == size || read == MAX_READ {
            page.next_page_token = last;
            return Ok(page);
        }
        read += 1;
        last.clone_from(key);
        let Some(record) = shared.store.by_key(key).await.map_err(unavailable)? else { continue };
        let matches = |filter: &str, value: &str| filter.is_empty() || filter == value;
        if matches(&request.environment, record.deployment.environment.as_str())
            && matches(&request.service, record.deployment.service.as_str())
            && wanted.is_none_or(|state| state == record.state)
        {
            let mut verification = v1::Verification::from(record);
            // Rows of metrics would make a page too large for many clients; Get has them.
            verification.verdict.iter_mut().for_each(|verdict| verdict.metrics.clear());
            page.verifications.push(verification);
        }
    }
    Ok(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_token_opens() {
        let token = SecretString::from("s3cret");
        let shown = |value: &str| {
            let mut request = Request::new(());
            request.metadata_mut().insert("authorization", value.parse().unwrap());
            authorize(Some(&token), request).is_ok()
        };
        assert!(shown("Bearer s3cret"));
        assert!(!shown("Bearer s3cre") && !shown("Bearer s3cret1") && !shown("s3cret") && !shown("Bearer "));
        assert!(authorize(Some(&token), Request::new(())).is_err());
        assert!(authorize(None, Request::new(())).is_ok());
    }
}
