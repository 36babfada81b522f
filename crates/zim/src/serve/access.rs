//! Who may use the server: reads the files of tokens, users and certificates, and makes the policy from them.
//!
//! Not here: deciding (`zimcache_auth`, `gateway`), noticing that a file changed (`reload`). Invariant: a file that was
//! asked for and is missing or broken never opens the server up.

use std::{fs, path::Path};

use zimcache_auth::{
    Anonymous, Authenticator, FixedToken, Grant, Htpasswd, NamespacePattern, Scope, Sources,
    TokenFile,
};
use zimcache_config::{
    AnonymousPolicy, AuthConfig, Environment, ServeConfig, TlsConfig, UserScope,
};
use zimcache_gateway::{Policy, SigningKey, Tls};

use crate::error::{Error, Result};

/// The policy that the configuration and its files ask for. `local_only`: only this machine can connect.
pub(super) fn policy(
    config: &ServeConfig,
    environment: &Environment,
    local_only: bool,
) -> Result<Policy> {
    Ok(Policy {
        authenticator: Authenticator::new(sources(&config.auth, environment, local_only)?),
        namespaces: config.namespaces.clone(),
        limits: config.limits.clone(),
        assets: config.assets.clone(),
        cors_origins: config.gateway.cors_origins.clone(),
        access_log: config.gateway.access_log,
        trace_ratio: config.telemetry.sample_ratio.as_f64(),
    })
}

fn sources(config: &AuthConfig, environment: &Environment, local_only: bool) -> Result<Sources> {
    Ok(Sources {
        tokens: tokens(config, environment)?,
        htpasswd: users(config)?,
        fixed: config
            .token
            .as_ref()
            .map(|token| {
                let grant = everywhere(Scope::Write);
                FixedToken::new(token.reveal(), grant).map_err(Error::Access)
            })
            .transpose()?,
        anonymous: anonymous(config, local_only),
    })
}

/// What callers without credentials may do.
pub(super) fn anonymous(config: &AuthConfig, local_only: bool) -> Anonymous {
    let by_address = if local_only {
        AnonymousPolicy::ReadWrite
    } else {
        AnonymousPolicy::None
    };
    match config.anonymous.unwrap_or(by_address) {
        AnonymousPolicy::None => Anonymous::None,
        AnonymousPolicy::Read => Anonymous::Read,
        AnonymousPolicy::ReadWrite => Anonymous::ReadWrite,
    }
}

/// The tokens. The default file may be missing: then no token exists. A file that was asked for and is not there yet
/// holds no token, but asks for one.
fn tokens(config: &AuthConfig, environment: &Environment) -> Result<Option<TokenFile>> {
    let Some(path) = &config.tokens else {
        return Ok(None);
    };
    let found = TokenFile::load(path).map_err(Error::Access)?;
    let by_default = environment.default_tokens().as_ref() == Some(path);
    Ok(found.or_else(|| (!by_default).then(TokenFile::default)))
}

fn users(config: &AuthConfig) -> Result<Option<Htpasswd>> {
    let Some(path) = &config.htpasswd else {
        return Ok(None);
    };
    let scope = match config.htpasswd_scope {
        UserScope::Read => Scope::Read,
        UserScope::Write => Scope::Write,
        UserScope::Admin => Scope::Admin,
    };
    let found = Htpasswd::load(path, &everywhere(scope)).map_err(Error::Access)?;
    found.ok_or_else(|| Error::NoUsers(path.clone())).map(Some)
}

fn everywhere(scope: Scope) -> Grant {
    Grant {
        namespace: NamespacePattern::All,
        scope,
    }
}

/// The key that URLs are signed with, when there is a file of it.
pub(super) fn signing_key(config: &AuthConfig) -> Result<Option<SigningKey>> {
    let Some(path) = &config.signing_key_file else {
        return Ok(None);
    };
    let secret = read(path)?;
    let secret = secret.trim_ascii();
    if secret.len() < SigningKey::MIN_BYTES {
        return Err(Error::SigningKey(path.clone()));
    }
    Ok(Some(SigningKey::new(secret)))
}

/// The certificate, when TLS is asked for.
pub(super) fn tls(config: &TlsConfig) -> Result<Option<Tls>> {
    let Some((chain, key)) = config.files() else {
        return Ok(None);
    };
    let tls = Tls::new(&read(chain)?, &read(key)?, config.min_version);
    tls.map(Some).map_err(Error::Tls)
}

/// Reads the certificate again and puts it in force.
pub(super) fn renew(tls: &Tls, config: &TlsConfig) -> Result<()> {
    let Some((chain, key)) = config.files() else {
        return Ok(());
    };
    tls.replace(&read(chain)?, &read(key)?).map_err(Error::Tls)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(|source| Error::ReadFile {
        path: path.to_owned(),
        source,
    })
}
