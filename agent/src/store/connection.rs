//! The **connection** to S3: TLS by ring, own certificates, proxies, and the SDK's client made of it all.

use std::time::Duration;

use aws_config::BehaviorVersion;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::{
    Credentials, Region, RequestChecksumCalculation, ResponseChecksumValidation, SharedCredentialsProvider,
    SharedHttpClient,
};
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use aws_smithy_http_client::{Builder, Connector};
use secrecy::ExposeSecret as _;

use super::{Addressing, CredentialSource, StoreError, StoreSettings, unverified};

/// A server in the same cluster answers in milliseconds, one across the world in a second.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The longest wait for the first byte of an answer: completing a large multipart upload takes seconds.
pub(super) const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// Makes a client. Credentials in files are read now.
pub async fn connect(settings: &StoreSettings) -> Result<Client, StoreError> {
    let http = http_client(settings)?;
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .http_client(http)
        .region(Region::new(settings.region.clone()))
        .retry_config(
            RetryConfig::standard().with_max_attempts(5).with_initial_backoff(Duration::from_millis(200)),
        )
        .timeout_config(
            TimeoutConfig::builder().connect_timeout(CONNECT_TIMEOUT).read_timeout(READ_TIMEOUT).build(),
        );
    if let Some(credentials) = credentials(&settings.credentials)? {
        loader = loader.credentials_provider(SharedCredentialsProvider::new(credentials));
    }
    if let Some(endpoint) = &settings.endpoint {
        loader = loader.endpoint_url(endpoint);
    }
    let path_style = match settings.addressing {
        Addressing::Path => true,
        Addressing::Virtual => false,
        Addressing::Auto => {
            settings.endpoint.as_ref().is_some_and(|endpoint| !endpoint.contains("amazonaws.com"))
        }
    };
    let config = aws_sdk_s3::config::Builder::from(&loader.load().await)
        .force_path_style(path_style)
        // Checksum trailers are what other servers than AWS stumble over; SigV4 signs the body's hash anyway.
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
        .build();
    Ok(Client::from_conf(config))
}

fn credentials(source: &CredentialSource) -> Result<Option<Credentials>, StoreError> {
    let (access_key, secret_key) = match source {
        CredentialSource::Static { access_key, secret_key } => (access_key.clone(), secret_key.clone()),
        CredentialSource::Files { access_key, secret_key } => {
            let read = |path: &std::path::PathBuf| {
                std::fs::read_to_string(path)
                    .map(|text| text.trim().to_owned())
                    .map_err(|source| StoreError::CredentialFile { path: path.clone(), source })
            };
            (read(access_key)?, read(secret_key)?.into())
        }
        CredentialSource::Standard => return Ok(None),
    };
    Ok(Some(Credentials::new(access_key, secret_key.expose_secret(), None, None, "vcluster-backup")))
}

fn http_client(settings: &StoreSettings) -> Result<SharedHttpClient, StoreError> {
    if settings.insecure && settings.endpoint.as_ref().is_some_and(|endpoint| endpoint.starts_with("https:"))
    {
        return unverified::http_client()
            .map_err(|error| StoreError::Settings(format!("TLS cannot be set up: {error}")));
    }
    let mut trusted = TrustStore::default();
    if let Some(path) = &settings.ca_file {
        let pem = std::fs::read(path).map_err(|error| {
            StoreError::Settings(format!("cannot read the CA file {}: {error}", path.display()))
        })?;
        if !pem.windows(27).any(|window| window == b"-----BEGIN CERTIFICATE-----") {
            return Err(StoreError::Settings(format!("{} holds no PEM certificate", path.display())));
        }
        trusted = trusted.with_pem_certificate(pem);
    }
    // Without TLS the system's certificates need not be in memory; but a chain of credentials may ask elsewhere.
    let is_plain = settings.endpoint.as_ref().is_some_and(|endpoint| endpoint.starts_with("http:"))
        && !matches!(settings.credentials, CredentialSource::Standard);
    let context = if is_plain { None } else { Some(tls_context(trusted)?) };
    Ok(Builder::new().build_with_connector_fn(move |timeouts, components| {
        let mut connector = Connector::builder().proxy_config(ProxyConfig::from_env());
        connector.set_sleep_impl(components.and_then(aws_sdk_s3::config::RuntimeComponents::sleep_impl));
        if let Some(timeouts) = timeouts {
            connector = connector.connector_settings(timeouts.clone());
        }
        match &context {
            None => connector.build_http(),
            Some(context) => connector
                .tls_provider(Provider::Rustls(CryptoMode::Ring))
                .tls_context(context.clone())
                .build(),
        }
    }))
}

fn tls_context(trusted: TrustStore) -> Result<TlsContext, StoreError> {
    let context = TlsContext::builder().with_trust_store(trusted).build();
    context.map_err(|error| StoreError::Settings(format!("the CA file cannot be used: {error}")))
}
