//! **Server**: everything that listens, from bound sockets to the last call answered.
//!
//! [`run`] takes the listeners and the stop signal from outside, so that a test binds port 0 and stops at
//! will. Any task that ends before the signal ends the server: a pod that is up and serves half is worse than
//! one that restarts.

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::{Stream, StreamExt as _};
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::{Connected, Router};
use tonic::{Request, Response, Status};
use tonic_health::ServingStatus;
use vcluster_backup_proto::v1::function_runner_service_server::{
    FunctionRunnerService as ServiceV1, FunctionRunnerServiceServer as ServerV1, SERVICE_NAME as V1,
};
use vcluster_backup_proto::v1beta1::function_runner_service_server::{
    FunctionRunnerService as ServiceV1Beta1, FunctionRunnerServiceServer as ServerV1Beta1,
    SERVICE_NAME as V1BETA1,
};
use vcluster_backup_proto::{FILE_DESCRIPTOR_SET, v1, v1beta1};

use crate::args::Address;
use crate::metrics::Metrics;
use crate::tls::Certificates;

/// How long calls may go on after the stop signal: well under the 30 s that Kubernetes waits before it kills.
pub const DRAIN: Duration = Duration::from_secs(20);

/// How long a client may take to shake hands.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// How many may shake hands at once; the next ones wait in the socket's queue.
const HANDSHAKES: usize = 512;

/// A client is verified when it connects: after this it has to connect anew (calls under way finish first), so
/// that a CA that was replaced is out of use for good.
const CONNECTION_AGE: Duration = Duration::from_hours(1);

/// How often a silent client is asked whether it is still there: a node that died closes no connection.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// How long to wait when a connection cannot be accepted; usually the process is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);

/// What answers a request.
pub type Function = Arc<dyn Fn(v1::RunFunctionRequest) -> v1::RunFunctionResponse + Send + Sync>;

/// How to serve.
#[derive(Debug)]
pub struct Settings {
    /// Whom to serve; `None` for anyone, without TLS.
    pub certificates: Option<Certificates>,
    /// The largest request that is accepted.
    pub max_request_bytes: usize,
    /// How long calls may go on after the stop signal.
    pub drain: Duration,
}

/// The sockets, bound.
#[derive(Debug)]
pub struct Listeners {
    /// For gRPC.
    pub grpc: TcpListener,
    /// For `/metrics`.
    pub metrics: TcpListener,
}

/// Why the server ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// A socket cannot be had.
    #[error("cannot listen on {address}: choose another by --address or --metrics-address")]
    Bind {
        /// Where.
        address: Address,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Reflection cannot be offered.
    #[error("the protocol's description is broken")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// gRPC ended.
    #[error("gRPC cannot be served any more")]
    Grpc(#[from] tonic::transport::Error),
    /// The metrics ended.
    #[error("metrics cannot be served any more")]
    Metrics(#[source] io::Error),
    /// A task panicked.
    #[error("a task of the server failed: its log line before this one says where")]
    Task(#[from] JoinError),
    /// A task ended that has no reason to.
    #[error("a task of the server ended by itself")]
    Ended,
    /// Calls were cut off.
    #[error("calls were still running {0:?} after the stop signal and were cut off")]
    Drain(Duration),
}

impl Listeners {
    /// Binds both sockets, and says in the log which ports they got.
    pub async fn bind(grpc: Address, metrics: Address) -> Result<Self, ServeError> {
        Ok(Self { grpc: bind("gRPC", grpc).await?, metrics: bind("metrics", metrics).await? })
    }
}

async fn bind(what: &str, address: Address) -> Result<TcpListener, ServeError> {
    let bound = match address {
        Address::One(one) => TcpListener::bind(one).await,
        // Linux gives a socket on [::] the IPv4 connections as well, unless net.ipv6.bindv6only is set.
        Address::Every(port) => match TcpListener::bind(("::", port)).await {
            Err(error)
                if !matches!(error.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied) =>
            {
                tracing::info!(%error, "no IPv6 here, listening on IPv4");
                TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await
            }
            bound => bound,
        },
    };
    let failed = |source| ServeError::Bind { address, source };
    let listener = bound.map_err(failed)?;
    tracing::info!(address = %listener.local_addr().map_err(failed)?, "listening for {what}");
    Ok(listener)
}

/// Ends at the first SIGTERM (Kubernetes) or SIGINT (a terminal).
pub fn stop_signal() -> io::Result<impl Future<Output = ()>> {
    let (mut term, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// Serves until `stop`, then lets calls under way finish, for `settings.drain` at most.
pub async fn run(
    listeners: Listeners,
    settings: Settings,
    function: Function,
    stop: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let Settings { certificates, max_request_bytes, drain } = settings;
    let stopping = CancellationToken::new();
    let metrics = Metrics::new(&[V1, V1BETA1]);
    let (health, health_service) = tonic_health::server::health_reporter();
    for service in [V1, V1BETA1] {
        health.set_service_status(service, ServingStatus::Serving).await;
    }
    let runner = Runner::new(function);
    let v1 = ServerV1::new(runner.clone()).max_decoding_message_size(max_request_bytes);
    let v1beta1 = ServerV1Beta1::new(runner).max_decoding_message_size(max_request_bytes);
    let router = tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE))
        .max_connection_age(CONNECTION_AGE)
        .add_service(metrics.count(v1))
        .add_service(metrics.count(v1beta1))
        .add_service(health_service)
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?);

    let mut tasks = JoinSet::new();
    let connections = accept(listeners.grpc);
    match certificates {
        Some(certificates) => {
            tasks.spawn(serve_grpc(router, secure(connections, certificates), stopping.clone()))
        }
        None => tasks.spawn(serve_grpc(router, connections, stopping.clone())),
    };
    tasks.spawn(serve_metrics(listeners.metrics, metrics, stopping.clone()));

    tokio::select! {
        () = stop => {}
        ended = tasks.join_next() => {
            ended.transpose()?.transpose()?;
            return Err(ServeError::Ended);
        }
    }
    tracing::info!("told to stop, finishing the calls under way");
    for service in ["", V1, V1BETA1] {
        health.set_service_status(service, ServingStatus::NotServing).await;
    }
    stopping.cancel();
    let drained = async {
        while let Some(ended) = tasks.join_next().await {
            ended??;
        }
        Ok(())
    };
    timeout(drain, drained).await.unwrap_or(Err(ServeError::Drain(drain)))
}

async fn serve_grpc<IO>(
    router: Router,
    connections: impl Stream<Item = IO>,
    stopping: CancellationToken,
) -> Result<(), ServeError>
where
    IO: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
{
    let connections = connections.map(Ok::<_, io::Error>);
    Ok(router.serve_with_incoming_shutdown(connections, stopping.cancelled_owned()).await?)
}

async fn serve_metrics(
    listener: TcpListener,
    metrics: Metrics,
    stopping: CancellationToken,
) -> Result<(), ServeError> {
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    let page = move || async move { ([("content-type", content_type)], metrics.encode()) };
    let router = axum::Router::new().route("/metrics", axum::routing::get(page));
    let stopped = stopping.cancelled_owned();
    axum::serve(listener, router).with_graceful_shutdown(stopped).await.map_err(ServeError::Metrics)
}

/// Connections as they come.
fn accept(listener: TcpListener) -> impl Stream<Item = TcpStream> {
    TcpListenerStream::new(listener).filter_map(async |accepted| {
        match accepted {
            Ok(tcp) => {
                // Small answers must not wait for more to come; a client that has gone again is found out later.
                let _ = tcp.set_nodelay(true);
                Some(tcp)
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                sleep(ACCEPT_PAUSE).await;
                None
            }
        }
    })
}

/// Those connections whose client has shown a good certificate; none waits for another's handshake.
fn secure(
    connections: impl Stream<Item = TcpStream>,
    certificates: Certificates,
) -> impl Stream<Item = TlsStream<TcpStream>> {
    connections
        .map(move |tcp| handshake(tcp, TlsAcceptor::from(certificates.current())))
        .buffer_unordered(HANDSHAKES)
        .filter_map(async |secured| secured)
}

async fn handshake(tcp: TcpStream, acceptor: TlsAcceptor) -> Option<TlsStream<TcpStream>> {
    let client = tcp.peer_addr().map(|address| address.to_string()).unwrap_or_default();
    match timeout(HANDSHAKE, acceptor.accept(tcp)).await {
        Ok(Ok(secured)) => return Some(secured),
        // rustls wraps its own verdicts so.
        Ok(Err(error)) if error.kind() == io::ErrorKind::InvalidData => tracing::warn!(
            client,
            %error,
            "refused a client: it needs TLS and a certificate of the CA in ca.crt"
        ),
        // Port probes connect and hang up.
        Ok(Err(error)) => tracing::debug!(client, %error, "a client hung up while shaking hands"),
        Err(_) => tracing::debug!(client, "a client did not finish shaking hands"),
    }
    None
}

fn reflection() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}

/// The function under both names of the protocol.
#[derive(Clone)]
struct Runner {
    function: Function,
    /// As many passes at once as there are processors: they compute, so more would only wait for each other, each with
    /// a thread and a heap of its own.
    turns: Arc<Semaphore>,
}

impl Runner {
    fn new(function: Function) -> Self {
        // Two at least: one that does not end must not keep the others.
        let turns = std::thread::available_parallelism().map_or(2, |processors| processors.get().max(2));
        Self { function, turns: Arc::new(Semaphore::new(turns)) }
    }

    /// A thread of its own: the function computes and never waits, and a panic in it ends this call alone.
    async fn run(&self, request: v1::RunFunctionRequest) -> Result<v1::RunFunctionResponse, Status> {
        let began = Instant::now();
        let tag = request.meta.as_ref().map(|meta| meta.tag.clone()).unwrap_or_default();
        let turn = Arc::clone(&self.turns).acquire_owned().await;
        let function = Arc::clone(&self.function);
        let answer = tokio::task::spawn_blocking(move || {
            let answer = function(request);
            drop(turn);
            answer
        });
        let answer = answer.await;
        tracing::debug!(tag, took_micros = began.elapsed().as_micros(), answered = answer.is_ok(), "called");
        answer.map_err(|_| Status::internal("a defect of function-vcluster-backup: its log says where"))
    }
}

#[tonic::async_trait]
impl ServiceV1 for Runner {
    async fn run_function(
        &self,
        request: Request<v1::RunFunctionRequest>,
    ) -> Result<Response<v1::RunFunctionResponse>, Status> {
        self.run(request.into_inner()).await.map(Response::new)
    }
}

#[tonic::async_trait]
impl ServiceV1Beta1 for Runner {
    async fn run_function(
        &self,
        request: Request<v1beta1::RunFunctionRequest>,
    ) -> Result<Response<v1beta1::RunFunctionResponse>, Status> {
        let answer = self.run(reencode(&request.into_inner())?).await?;
        reencode(&answer).map(Response::new)
    }
}

/// The same message under the other package's name: both are the same bytes.
fn reencode<T: Message + Default>(message: &impl Message) -> Result<T, Status> {
    T::decode(message.encode_to_vec().as_slice())
        .map_err(|_| Status::internal("v1 and v1beta1 of the protocol differ: a defect of this build"))
}
