//! Taking over changed files while serving: the configuration, tokens, users, certificate.
//!
//! A change is noticed by looking at the files once a second (which also works where a file is replaced by another or
//! is a link into a mounted secret), or at once by SIGHUP. Everything is read and checked before anything is swapped;
//! a file that cannot be used changes nothing and is told. Not here: what the files mean (`access`).

use std::{fs, os::unix::fs::MetadataExt, path::PathBuf, sync::Arc, time::Duration};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::{Interval, MissedTickBehavior, interval},
};
use zimcache_config::{Changes, Environment, ServeConfig, load_serve};
use zimcache_gateway::{Gateway, Policy, SigningKey, Tls, retention_of};
use zimcache_telemetry::task;

use super::access;
use crate::{
    error::{Error, Result},
    output,
};

/// How often the files are looked at.
pub(super) const LOOK: Duration = Duration::from_secs(1);

/// Where the configuration came from, to read it again.
#[derive(Debug, Clone)]
pub(super) struct Origin {
    pub(super) file: Option<PathBuf>,
    pub(super) environment: Environment,
    pub(super) flags: Vec<(&'static str, String)>,
}

impl Origin {
    /// Reads and checks the whole configuration.
    pub(super) fn load(&self) -> Result<ServeConfig> {
        let file = self.file.as_deref();
        Ok(load_serve(file, &self.environment, &self.flags)?)
    }
}

/// What a running server takes over.
#[derive(Debug)]
pub(super) struct Reload {
    pub(super) origin: Origin,
    pub(super) gateway: Gateway,
    pub(super) tls: Option<Tls>,
    /// Only this machine can connect.
    pub(super) local_only: bool,
}

/// What shows that a file is another one than before: modified, length, inode.
pub(super) type Print = Option<(i64, i64, u64, u64)>;

impl Reload {
    /// Puts in force what holds when the server begins to answer; tells whether any credential is known.
    pub(super) fn begin(&self, config: &ServeConfig) -> Result<bool> {
        let policy = access::policy(config, &self.origin.environment, self.local_only)?;
        let configured = policy.authenticator.is_configured();
        let signing_key = access::signing_key(&config.auth)?;
        self.put_in_force(config, policy, signing_key);
        Ok(configured)
    }

    /// Watches until the process ends. Call it on the runtime.
    pub(super) fn watch(self, config: ServeConfig) -> Result<()> {
        let hangups = signal(SignalKind::hangup()).map_err(Error::Runtime)?;
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        task::spawn("reload", self.run(config, hangups, looks));
        Ok(())
    }

    async fn run(self, mut config: ServeConfig, mut hangups: Signal, mut looks: Interval) {
        let this = Arc::new(self);
        let mut seen = prints(&this.files(&config));
        loop {
            let asked = tokio::select! {
                asked = hangups.recv() => asked.is_some(),
                _ = looks.tick() => false,
            };
            let files = this.files(&config);
            let now = prints(&files);
            if now == seen && !asked {
                continue;
            }
            let changed = changed(&files, &seen, &now);
            let (reload, old) = (Arc::clone(&this), config.clone());
            let taken = task::spawn_blocking("reload", move || reload.take_over(&old)).await;
            match taken {
                Ok(Ok(new)) => {
                    tracing::info!(files = changed, "changed files are in force");
                    config = new;
                }
                Ok(Err(error)) => {
                    output::complain(&error);
                    tracing::error!(
                        files = changed,
                        "changed files are not used; what was in force stays"
                    );
                }
                Err(error) => tracing::error!(%error, "reloading failed"),
            }
            // What changed while the files were read is seen as a change the next time.
            seen = now;
        }
    }

    /// Every file that may change.
    fn files(&self, config: &ServeConfig) -> Vec<PathBuf> {
        let files = [
            self.origin.file.clone(),
            config.auth.tokens.clone(),
            config.auth.htpasswd.clone(),
            config.auth.signing_key_file.clone(),
            config.tls.cert.clone(),
            config.tls.key.clone(),
        ];
        files.into_iter().flatten().collect()
    }

    /// Reads everything again and puts it in force; gives the configuration that is in force then.
    fn take_over(&self, old: &ServeConfig) -> Result<ServeConfig> {
        let new = self.origin.load()?;
        let policy = access::policy(&new, &self.origin.environment, self.local_only)?;
        let signing_key = access::signing_key(&new.auth)?;
        if let Some(tls) = &self.tls {
            access::renew(tls, &old.tls)?;
        }
        let changes = Changes::between(old, &new);
        self.put_in_force(&new, policy, signing_key);
        if !changes.live.is_empty() {
            tracing::info!(settings = changes.live.join(", "), "settings changed");
        }
        if !changes.restart.is_empty() {
            let names = changes.restart.join(", ");
            tracing::warn!(settings = names, "these changed settings need a restart");
        }
        Ok(new)
    }

    fn put_in_force(&self, config: &ServeConfig, policy: Policy, key: Option<SigningKey>) {
        let store = &config.store;
        let retention = retention_of(&config.namespaces, store.retention, store.min_lifetime);
        self.gateway.admin().set_retention(retention);
        self.gateway.set_policy(policy);
        if let Some(key) = key {
            self.gateway.set_signing_key(key);
        }
    }
}

/// Names of the files that are others than before, for people.
fn changed(files: &[PathBuf], before: &[Print], after: &[Print]) -> String {
    let pairs = files.iter().zip(before.iter().zip(after));
    let changed = pairs.filter(|(_, (before, after))| before != after);
    let names: Vec<_> = changed
        .map(|(path, _)| path.display().to_string())
        .collect();
    names.join(", ")
}

pub(super) fn prints(files: &[PathBuf]) -> Vec<Print> {
    let print = |path: &PathBuf| {
        let found = fs::metadata(path).ok()?;
        Some((found.mtime(), found.mtime_nsec(), found.len(), found.ino()))
    };
    files.iter().map(print).collect()
}
