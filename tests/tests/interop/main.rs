//! **Interop**: the official SDK for Python as the function's client, over mTLS with certificates of Crossplane's shape, gets
//! what our own client gets.

#[path = "../../../function/tests/common/case.rs"]
#[allow(clippy::unwrap_used, missing_docs)] // the golden cases, as the function's own tests read them
mod common;
mod protojson;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use common::Case;
use serde_json::{Value, json};
use tempfile::TempDir;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};
use vcluster_backup_proto::v1::function_runner_service_client::FunctionRunnerServiceClient;
use vcluster_backup_proto::v1::{RunFunctionRequest, RunFunctionResponse};
use vcluster_backup_tests::certificates::{Authority, SERVER_NAME};
use vcluster_backup_tests::function::Function;
use vcluster_backup_tests::golden;
use vcluster_backup_tests::toolbox::Tools;

/// Stages of life of which the answer does not depend on the clock, and draws nothing.
const CASES: [&str; 14] = [
    "claim/existing",
    "claim/fatal-input-unknown-field",
    "claim/fatal-no-escrow",
    "claim/first-call",
    "claim/in-namespace",
    "claim/master-key",
    "claim/healthy",
    "claim/other-functions",
    "claim/overridden",
    "claim/restore-asked",
    "claim/secret-found",
    "namespaced/first-call",
    "namespaced/master-key",
    "namespaced/secret-found",
];

/// What a client ends with whose call fails, and the status of a connection that was not to be had.
const REFUSED: (i32, &str) = (3, "UNAVAILABLE");

fn case(name: &str) -> Case {
    Case::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../function/tests/golden").join(name))
}

#[tokio::test]
async fn both_clients_get_the_same_answer() -> Result<()> {
    let Some(world) = World::start().await? else { return Ok(()) };
    for name in CASES {
        let case = case(name);
        let theirs = world.python(&protojson::request(&case))?;
        let ours = protojson::response(&world.call(case.request()).await?);
        let (shown_theirs, shown_ours) = (format!("{theirs:#}"), format!("{ours:#}"));
        assert_eq!(
            golden::difference(&shown_ours, &shown_theirs),
            None,
            "{name}: theirs (+) is not ours (-)"
        );
        assert!(
            theirs["meta"]["tag"] == "tag-of-the-request" && theirs["conditions"].is_array(),
            "{name}: {theirs}"
        );
    }
    Ok(())
}

/// As core goes about it: what the function asks for is looked up and given, until it asks for nothing new.
#[tokio::test]
async fn the_requirements_loop_ends_with_a_backup() -> Result<()> {
    let Some(world) = World::start().await? else { return Ok(()) };
    let mut request = protojson::request(&case("claim/first-call"));
    let mut there: BTreeMap<String, Value> = BTreeMap::new();
    let mut composed = Vec::new();
    for _ in 0..3 {
        let response = world.python(&request)?;
        let asked = response["requirements"]["resources"].as_object().context("nothing is asked for")?;
        assert!(asked.contains_key("backup-identity"), "{response}");
        let given = asked.iter().map(|(key, selector)| {
            let name = selector["matchName"].as_str().unwrap_or_default();
            let found: Vec<Value> =
                there.get(name).map(|object| json!({"resource": object})).into_iter().collect();
            (key.clone(), json!({"items": found}))
        });
        request["requiredResources"] = Value::Object(given.collect());
        let resources = response["desired"]["resources"].as_object().context("nothing is composed")?;
        for object in resources.values().map(|resource| &resource["resource"]) {
            if let Some(name) = object["metadata"]["name"].as_str() {
                there.insert(name.to_owned(), object.clone());
            }
        }
        composed.push(resources.keys().cloned().collect::<Vec<_>>());
    }
    // First nothing that the identity could be missing from, then the identity alone of it, then what depends on it; the
    // namespace of the last is there when the release is.
    let has = |call: usize, key: &str| composed[call].iter().any(|composed| composed == key);
    assert_eq!([0, 1, 2].map(|call| has(call, "backup-identity")), [false, true, true], "{composed:?}");
    assert_eq!([0, 1, 2].map(|call| has(call, "vcluster")), [true; 3], "{composed:?}");
    let once = world.python(&request)?;
    assert_eq!(once, world.python(&request)?, "the same request has two answers");
    Ok(())
}

#[tokio::test]
async fn strangers_are_refused() -> Result<()> {
    let Some(world) = World::start().await? else { return Ok(()) };
    let request = protojson::request(&case("claim/first-call"));
    let other = Authority::new()?;
    let stranger = other.write_client(&world.folder.path().join("stranger"))?;
    let (own, theirs) = (world.client(), stranger.join("ca.crt"));
    let ca = own.join("ca.crt");
    for (who, files) in [
        ("no TLS", vec![]),
        ("no certificate", vec![&ca]),
        (
            "a certificate of another authority",
            vec![&ca, &stranger.join("tls.crt"), &stranger.join("tls.key")],
        ),
        ("trust in another authority", vec![&theirs, &own.join("tls.crt"), &own.join("tls.key")]),
    ] {
        let (code, status) =
            world.python_with(&request, &files)?.err().with_context(|| format!("{who} is served"))?;
        assert_eq!((code, status.as_str()), REFUSED, "{who}");
    }
    assert_eq!(world.function.calls().await?.to_bits(), 0.0_f64.to_bits(), "a stranger's call was answered");
    world.python(&request).map(drop)
}

#[tokio::test]
async fn renewed_certificates_hold_from_the_next_call_on() -> Result<()> {
    let Some(world) = World::start().await? else { return Ok(()) };
    let request = protojson::request(&case("claim/first-call"));
    let before = world.python(&request)?;
    let old: Vec<PathBuf> = ["ca.crt", "tls.crt", "tls.key"]
        .iter()
        .map(|file| {
            let kept = world.folder.path().join(format!("old-{file}"));
            std::fs::copy(world.client().join(file), &kept).map(|_| kept)
        })
        .collect::<std::io::Result<_>>()?;
    let renewed = Authority::new()?;
    renewed.write_server(&world.folder.path().join("server"))?;
    renewed.write_client(&world.client())?;
    assert_eq!(world.python(&request)?, before);
    let (code, status) =
        world.python_with(&request, &old.iter().collect::<Vec<_>>())?.err().context("still served")?;
    assert_eq!((code, status.as_str()), REFUSED);
    Ok(())
}

/// The function with certificates, and both of its clients.
struct World {
    tools: Tools,
    folder: TempDir,
    function: Function,
}

impl World {
    async fn start() -> Result<Option<Self>> {
        let Some(tools) = Tools::with(["function-sdk-python"]) else { return Ok(None) };
        let folder = tempfile::tempdir()?;
        let authority = Authority::new()?;
        let server = authority.write_server(&folder.path().join("server"))?;
        authority.write_client(&folder.path().join("client"))?;
        let function = Function::start_with_certificates(&server).await?;
        Ok(Some(Self { tools, folder, function }))
    }

    /// The folder with core's certificate.
    fn client(&self) -> PathBuf {
        self.folder.path().join("client")
    }

    /// What the SDK for Python gets as core.
    fn python(&self, request: &Value) -> Result<Value> {
        let files = ["ca.crt", "tls.crt", "tls.key"].map(|file| self.client().join(file));
        let answer = self.python_with(request, &files.iter().collect::<Vec<_>>())?;
        answer.map_err(|(code, why)| anyhow::anyhow!("the client ended with {code}: {why}"))
    }

    /// The same with these files: authority, certificate, key. The inner error is exit code and status.
    fn python_with(&self, request: &Value, files: &[&PathBuf]) -> Result<Result<Value, (i32, String)>> {
        let mut client = Command::new("python3")
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop/client.py"))
            .arg(format!("{SERVER_NAME}:{}", self.function.port()))
            .args(files)
            .env("PYTHONPATH", self.tools.path("function-sdk-python")?)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            // What the library tells of refused handshakes is not the client's.
            .env("GRPC_VERBOSITY", "NONE")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start python3")?;
        client.stdin.take().context("no stdin")?.write_all(request.to_string().as_bytes())?;
        let output = client.wait_with_output()?;
        if output.status.success() {
            return Ok(Ok(protojson::whole(serde_json::from_slice(&output.stdout)?)));
        }
        let why = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Ok(Err((output.status.code().context("the client was killed")?, why)))
    }

    /// What our own client gets.
    async fn call(&self, request: RunFunctionRequest) -> Result<RunFunctionResponse> {
        let read = |file: &str| std::fs::read(self.client().join(file));
        let tls = ClientTlsConfig::new()
            .domain_name(SERVER_NAME)
            .ca_certificate(Certificate::from_pem(read("ca.crt")?))
            .identity(Identity::from_pem(read("tls.crt")?, read("tls.key")?));
        let endpoint = Endpoint::from_shared(format!("https://127.0.0.1:{}", self.function.port()))?;
        let channel = endpoint.tls_config(tls)?.connect().await?;
        let mut client = FunctionRunnerServiceClient::new(channel);
        let response = client.run_function(request).await?.into_inner();
        ensure!(response.meta.is_some(), "an answer without meta");
        Ok(response)
    }
}
