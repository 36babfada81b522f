//! `zim-operator check`: what a ZimCache would become, without a cluster.

use std::{fs, io, path::Path};

use serde_json::Value;

use crate::{
    build::{Inputs, build},
    crd::ZimCache,
    validate::{Problems, validate},
};

/// Why a file cannot be checked, or does not pass.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be read.
    #[error("cannot read the file")]
    Io(#[from] io::Error),
    /// It is no ZimCache.
    #[error("the file holds no ZimCache as JSON")]
    Json(#[from] serde_json::Error),
    /// Its spec cannot succeed.
    #[error(transparent)]
    Problems(#[from] Problems),
}

/// The objects that the ZimCache in this file would become, as a JSON list.
///
/// # Errors
/// [`Error`].
pub fn file(path: &Path, default_image: &str) -> Result<String, Error> {
    objects(&fs::read_to_string(path)?, default_image)
}

fn objects(json: &str, default_image: &str) -> Result<String, Error> {
    let object: ZimCache = serde_json::from_str(json)?;
    let cache = validate(&object)?;
    let objects = build(&Inputs {
        cache: &cache,
        default_image,
        node_pods: cache.spec.nodes.replicas,
        may_disrupt: true,
        s3_credentials: None,
        redis_url: None,
        node_set: None,
        gateways: None,
    });
    let bodies: Vec<Value> = objects.into_iter().map(|object| object.body).collect();
    Ok(serde_json::to_string_pretty(&bodies)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_becomes_the_objects_of_its_cache() {
        let json = r#"{"apiVersion": "zimcache.dev/v1alpha1", "kind": "ZimCache",
            "metadata": {"name": "main", "namespace": "build"}, "spec": {}}"#;
        let text = objects(json, "zimcache:9").unwrap();
        assert!(
            text.contains("\"main-gateway\"") && text.contains("zimcache:9"),
            "{text}"
        );
        let wrong = json.replace("\"spec\": {}", "\"spec\": {\"nodes\": {\"replicas\": 1}}");
        let error = objects(&wrong, "zimcache:9").unwrap_err();
        assert!(error.to_string().contains("replication.factor"), "{error}");
        assert!(matches!(objects("no", "x").unwrap_err(), Error::Json(_)));
    }
}
