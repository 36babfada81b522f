//! `[namespaces.NAME]`: the namespaces there are, and what differs in each.
//!
//! Without any, a namespace comes into being on first use. As soon as some are listed, only those exist, unless `"*"`
//! is among them: it stands for all others.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};
use zimcache_types::Namespace;

use crate::{Durability, Problem, Problems};

/// Stands for every namespace that is not listed.
pub const ANY: &str = "*";

/// What differs in one namespace.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct NamespaceConfig {
    /// Age at which values are forgotten; absent, it is `store.retention`; `off` keeps them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retention: Option<Retention>,
    /// Of a cluster: what an acknowledged write has reached; absent, it is `cluster.durability`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub durability: Option<Durability>,
}

/// A time to live that may be switched off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Retention(#[serde(with = "crate::human::optional_duration")] pub Option<Duration>);

/// All that are listed, by name.
pub type Namespaces = BTreeMap<String, NamespaceConfig>;

/// Checks every name.
///
/// # Errors
/// All names that no namespace can have.
pub(crate) fn validate(namespaces: &Namespaces) -> Result<(), Problems> {
    let names = namespaces.keys().filter(|name| *name != ANY);
    let refused = names.filter_map(|name| {
        let error = Namespace::new(name).err()?;
        Some(Problem {
            field: format!("namespaces.{name}"),
            origin: None,
            text: error.to_string(),
        })
    });
    Problems(refused.collect()).into_result()
}
