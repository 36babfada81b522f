//! What differs between two configurations, and which of it a running server can take over.

use std::collections::BTreeSet;

use toml::{Table, Value};

use crate::ServeConfig;

/// Settings, or sections ending in a dot, that take effect without a restart.
const LIVE: [&str; 9] = [
    "assets.",
    "auth.",
    "limits.",
    "namespaces.",
    "gateway.access-log",
    "gateway.cors-origins",
    "store.retention",
    "store.min-lifetime",
    "telemetry.sample-ratio",
];

/// Names of settings that differ.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Changes {
    /// They take effect at once.
    pub live: Vec<String>,
    /// They need a restart.
    pub restart: Vec<String>,
}

impl Changes {
    /// What differs; a secret is compared, but only named.
    pub fn between(old: &ServeConfig, new: &ServeConfig) -> Changes {
        let (before, after) = (flat(old), flat(new));
        let mut names: BTreeSet<String> = before
            .symmetric_difference(&after)
            .map(|(name, _)| name.clone())
            .collect();
        if old.auth.token != new.auth.token {
            names.insert("auth.token".to_owned());
        }
        if old.limits.redis != new.limits.redis {
            names.insert("limits.redis".to_owned());
        }
        let (live, restart) = names.into_iter().partition(|name| is_live(name));
        Changes { live, restart }
    }

    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.live.is_empty() && self.restart.is_empty()
    }
}

fn is_live(name: &str) -> bool {
    LIVE.iter().any(|live| match live.strip_suffix('.') {
        Some(section) => name.split('.').next() == Some(section),
        None => name == *live,
    })
}

/// Every setting by full name, with its value as text.
fn flat(config: &ServeConfig) -> BTreeSet<(String, String)> {
    let mut all = BTreeSet::new();
    // A configuration that cannot be written (a path that is no text) counts as empty: its changes go unnamed.
    let table = Table::try_from(config).unwrap_or_default();
    for (name, value) in table {
        match value {
            Value::Table(section) => {
                all.extend(
                    section
                        .into_iter()
                        .map(|(inner, value)| (format!("{name}.{inner}"), value.to_string())),
                );
            }
            value => {
                all.insert((name, value.to_string()));
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{AnonymousPolicy, NamespaceConfig};

    #[test]
    fn settings_are_told_apart_by_whether_they_need_a_restart() {
        let old = ServeConfig::default();
        let mut new = old.clone();
        assert!(Changes::between(&old, &new).is_empty());
        new.port = 9;
        new.auth.anonymous = Some(AnonymousPolicy::Read);
        new.gateway.access_log = true;
        new.gateway.max_connections = 7;
        new.namespaces
            .insert("a".to_owned(), NamespaceConfig::default());
        let changes = Changes::between(&old, &new);
        assert_eq!(
            changes.live,
            ["auth.anonymous", "gateway.access-log", "namespaces.a"]
        );
        assert_eq!(changes.restart, ["gateway.max-connections", "port"]);
    }

    #[test]
    fn another_secret_is_a_change_that_shows_no_secret() {
        let old = ServeConfig::default();
        let mut new = old.clone();
        new.auth.token = Some(Value::String("new secret".to_owned()).try_into().unwrap());
        let changes = Changes::between(&old, &new);
        assert_eq!(changes.live, ["auth.token"]);
        new.auth.token = None;
        new.limits.redis = "redis://:a@host".parse().ok();
        let mut other = new.clone();
        other.limits.redis = "redis://:b@host".parse().ok();
        let changes = Changes::between(&new, &other);
        assert_eq!(changes.live, ["limits.redis"], "only the password differs");
    }
}
