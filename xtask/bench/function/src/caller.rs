//! The **caller**: one connection, as Crossplane has it. It sends bytes and counts bytes, so that its own share of the
//! machine is small beside that of the function.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use bytes::{Buf as _, BufMut as _, Bytes};
use prost::Message as _;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};
use vcluster_backup_proto::v1::{RunFunctionRequest, RunFunctionResponse};

const METHOD: &str = "/apiextensions.fn.proto.v1.FunctionRunnerService/RunFunction";

/// Calls before anything is measured.
const WARM_UP: usize = 500;

/// Calls one function with one request.
pub struct Caller {
    channel: Channel,
    request: Bytes,
    answer_bytes: usize,
}

impl Caller {
    /// Connects, and calls until all is warm.
    pub async fn new(port: u16, request: &RunFunctionRequest) -> Result<Self> {
        let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{port}"))?.tcp_nodelay(true);
        let channel = endpoint.connect().await.context("cannot connect")?;
        let mut caller = Self { channel, request: request.encode_to_vec().into(), answer_bytes: 0 };
        caller.one_by_one(WARM_UP).await?;
        Ok(caller)
    }

    /// An answer, read.
    pub async fn answer(&mut self) -> Result<RunFunctionResponse> {
        let answer = call(self.channel.clone(), self.request.clone()).await?;
        self.answer_bytes = answer.len();
        Ok(RunFunctionResponse::decode(answer)?)
    }

    /// The size of the last answer that was read.
    pub fn answer_bytes(&self) -> usize {
        self.answer_bytes
    }

    /// How long each of so many calls took, one after the other.
    pub async fn one_by_one(&mut self, calls: usize) -> Result<Vec<Duration>> {
        let mut took = Vec::with_capacity(calls);
        for _ in 0..calls {
            let begin = Instant::now();
            call(self.channel.clone(), self.request.clone()).await?;
            took.push(begin.elapsed());
        }
        Ok(took)
    }

    /// Calls by so many callers at once, and the time that they took together.
    pub async fn in_parallel(&mut self, callers: usize, spell: Duration) -> Result<(u32, Duration)> {
        let begin = Instant::now();
        let calling = (0..callers).map(|_| async {
            let mut calls = 0;
            while begin.elapsed() < spell {
                call(self.channel.clone(), self.request.clone()).await?;
                calls += 1;
            }
            Ok::<_, anyhow::Error>(calls)
        });
        let calls = futures::future::try_join_all(calling).await?.into_iter().sum();
        Ok((calls, begin.elapsed()))
    }
}

/// So much of them took no longer; sorted.
pub fn percentile(took: &[Duration], share: usize) -> Duration {
    took.get(took.len() * share / 100).copied().unwrap_or_default()
}

async fn call(channel: Channel, request: Bytes) -> Result<Bytes> {
    let mut client = Grpc::new(channel);
    client.ready().await?;
    let answer = client.unary(Request::new(request), PathAndQuery::from_static(METHOD), Raw).await?;
    let answer = answer.into_inner();
    ensure!(!answer.is_empty(), "an empty answer");
    Ok(answer)
}

/// Messages as they are on the wire.
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(message);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}
