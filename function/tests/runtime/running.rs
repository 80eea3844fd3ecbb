//! A **running** server in this process, and calls to it.

use std::error::Error;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use function_vcluster_backup::server::{self, Function, Listeners, ServeError, Settings};
use function_vcluster_backup::tls::Certificates;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};
use vcluster_backup_proto::v1::function_runner_service_client::FunctionRunnerServiceClient as ClientV1;
use vcluster_backup_proto::v1beta1::function_runner_service_client::FunctionRunnerServiceClient as ClientV1Beta1;
use vcluster_backup_proto::{v1, v1beta1};

use crate::within;

pub const MIB: usize = 1024 * 1024;

pub struct Running {
    pub grpc: SocketAddr,
    pub metrics: SocketAddr,
    pub stop: CancellationToken,
    pub ended: JoinHandle<Result<(), ServeError>>,
}

impl Running {
    pub async fn start(certificates: Option<&Path>, function: Function) -> Self {
        Self::start_with(certificates, function, Duration::from_secs(20)).await
    }

    pub async fn start_with(certificates: Option<&Path>, function: Function, drain: Duration) -> Self {
        let listeners = Listeners {
            grpc: TcpListener::bind("127.0.0.1:0").await.unwrap(),
            metrics: TcpListener::bind("127.0.0.1:0").await.unwrap(),
        };
        let (grpc, metrics) = (listeners.grpc.local_addr().unwrap(), listeners.metrics.local_addr().unwrap());
        let certificates = certificates.map(|dir| Certificates::open(dir).unwrap());
        let settings = Settings { certificates, max_request_bytes: 8 * MIB, drain };
        let stop = CancellationToken::new();
        let run = server::run(listeners, settings, function, stop.clone().cancelled_owned());
        Self { grpc, metrics, stop, ended: tokio::spawn(run) }
    }

    /// A connection; without `tls`, a plain one.
    pub async fn connect(&self, tls: Option<ClientTlsConfig>) -> Result<Channel, Box<dyn Error>> {
        connect(self.grpc, tls).await
    }

    pub async fn stop(self) -> Result<(), ServeError> {
        self.stop.cancel();
        within(self.ended).await.unwrap()
    }

    /// The page of metrics, with its head.
    pub async fn scrape(&self) -> String {
        within(async {
            let mut tcp = TcpStream::connect(self.metrics).await.unwrap();
            tcp.write_all(b"GET /metrics HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
            let mut page = String::new();
            tcp.read_to_string(&mut page).await.unwrap();
            page
        })
        .await
    }

    /// How many calls of `service` ended with `code`.
    pub async fn handled(&self, service: &str, code: &str) -> u64 {
        let series = format!(
            "grpc_server_handled_total{{grpc_type=\"unary\",grpc_service=\"{service}\",\
             grpc_method=\"RunFunction\",grpc_code=\"{code}\"}} "
        );
        let page = self.scrape().await;
        let line = page.lines().find_map(|line| line.strip_prefix(&series));
        line.unwrap_or_else(|| panic!("no {series} in {page}")).parse().unwrap()
    }
}

pub async fn connect(address: SocketAddr, tls: Option<ClientTlsConfig>) -> Result<Channel, Box<dyn Error>> {
    let scheme = if tls.is_some() { "https" } else { "http" };
    let mut endpoint = Endpoint::from_shared(format!("{scheme}://{address}"))?;
    if let Some(tls) = tls {
        endpoint = endpoint.tls_config(tls)?;
    }
    Ok(within(endpoint.connect()).await?)
}

/// Answers with what it was given.
pub fn echo() -> Function {
    Arc::new(|request| v1::RunFunctionResponse {
        meta: request.meta.map(|meta| v1::ResponseMeta { tag: meta.tag, ttl: None }),
        desired: request.desired,
        context: request.context,
        ..Default::default()
    })
}

pub fn request(tag: &str) -> v1::RunFunctionRequest {
    let meta = v1::RequestMeta { tag: tag.to_owned(), ..Default::default() };
    v1::RunFunctionRequest { meta: Some(meta), ..Default::default() }
}

/// Calls v1; the tag that came back.
pub async fn call(channel: Channel, tag: &str) -> Result<String, tonic::Status> {
    let answer = within(ClientV1::new(channel).run_function(request(tag))).await?;
    Ok(answer.into_inner().meta.unwrap().tag)
}

/// Calls v1beta1; the tag that came back.
pub async fn call_v1beta1(channel: Channel, tag: &str) -> Result<String, tonic::Status> {
    let meta = v1beta1::RequestMeta { tag: tag.to_owned(), ..Default::default() };
    let request = v1beta1::RunFunctionRequest { meta: Some(meta), ..Default::default() };
    let answer = within(ClientV1Beta1::new(channel).run_function(request)).await?;
    Ok(answer.into_inner().meta.unwrap().tag)
}
