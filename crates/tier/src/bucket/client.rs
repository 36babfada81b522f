//! The S3 client: TLS, credentials, region, and the library's own cleverness turned off where ours takes its place.
//!
//! The library retries nothing (we count and jitter ourselves), has no deadline but that of connecting (its read timeout
//! would count the time a body takes to be sent), checks no stalled streams (each chunk has a deadline), and adds no checksum but the SHA-256 we give it.

use std::time::Duration;

use aws_config::{
    AppName, BehaviorVersion, Region, SdkConfig,
    environment::EnvironmentVariableCredentialsProvider,
    meta::credentials::CredentialsProviderChain, profile::ProfileFileCredentialsProvider,
    provider_config::ProviderConfig, retry::RetryConfig, timeout::TimeoutConfig,
    web_identity_token::WebIdentityTokenCredentialsProvider,
};
use aws_sdk_s3::{
    Client, Config,
    config::{
        Credentials, RequestChecksumCalculation, ResponseChecksumValidation, SharedHttpClient,
        StalledStreamProtectionConfig,
    },
};
use aws_smithy_http_client::{
    Builder,
    tls::{Provider, TlsContext, TrustStore, rustls_provider::CryptoMode},
};

use crate::{BucketSettings, Error, Result};

/// Idle connections are kept shorter than servers and balancers commonly do.
const IDLE: Duration = Duration::from_secs(15);

/// Makes a client. Nothing is sent, except to find credentials on AWS.
pub(super) async fn connect(settings: &BucketSettings) -> Result<Client> {
    let http = http_client(settings).await?;
    let shared = shared_config(settings, http).await;
    let config = Config::from(&shared)
        .to_builder()
        .force_path_style(settings.path_style)
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
        .build();
    Ok(Client::from_conf(config))
}

async fn http_client(settings: &BucketSettings) -> Result<SharedHttpClient> {
    let mut trusted = TrustStore::default();
    if let Some(file) = &settings.ca_file {
        let refuse = |problem: String| Error::Setting {
            setting: "ca_file",
            problem: problem.into(),
        };
        let pem = tokio::fs::read(file).await;
        trusted.add_pem_certificate(pem.map_err(|error| refuse(error.to_string()))?);
    }
    let context = TlsContext::builder().with_trust_store(trusted).build();
    let context = context.map_err(|error| Error::Setting {
        setting: "ca_file",
        problem: error.to_string().into(),
    })?;
    Ok(Builder::new()
        .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
        .tls_context(context)
        .pool_idle_timeout(IDLE)
        .build_https())
}

async fn shared_config(settings: &BucketSettings, http: SharedHttpClient) -> SdkConfig {
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(settings.connect_timeout)
        .build();
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .http_client(http.clone())
        .timeout_config(timeouts)
        .retry_config(RetryConfig::disabled())
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
    if let Ok(name) = AppName::new("zimcache") {
        loader = loader.app_name(name);
    }
    // Only AWS has a service on its machines that knows region and role; elsewhere asking for it only takes time.
    let elsewhere = settings.endpoint.is_some();
    let region = settings
        .region
        .as_deref()
        .or(elsewhere.then_some("us-east-1"));
    let region = region.map(|name| Region::new(name.to_owned()));
    if let Some(region) = &region {
        loader = loader.region(region.clone());
    }
    if let Some(endpoint) = &settings.endpoint {
        loader = loader.endpoint_url(endpoint.to_string());
    }
    if let Some(access) = &settings.access {
        let (key, secret) = (access.key.to_string(), access.secret.to_string());
        loader = loader.credentials_provider(Credentials::new(key, secret, None, None, "settings"));
    } else if elsewhere {
        loader = loader.credentials_provider(chain(region, http));
    }
    loader.load().await
}

/// The default chain without the machine's role.
fn chain(region: Option<Region>, http: SharedHttpClient) -> CredentialsProviderChain {
    let config = ProviderConfig::without_region()
        .with_region(region)
        .with_http_client(http);
    let profile = ProfileFileCredentialsProvider::builder().configure(&config);
    let web_identity = WebIdentityTokenCredentialsProvider::builder().configure(&config);
    CredentialsProviderChain::first_try(
        "environment",
        EnvironmentVariableCredentialsProvider::new(),
    )
    .or_else("profile", profile.build())
    .or_else("web identity", web_identity.build())
}
