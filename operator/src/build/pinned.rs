//! Pods stay as they are until somebody changes what they can see.
//!
//! A new version of the operator may render pods differently, or come with another default image; that alone must not
//! restart anything. So a workload carries the hash of what people can see of its pods, and the pods as they were made of
//! it; while the hash is the same, those are applied again. Invariant: what is hashed leaves out everything that is at
//! its default, so that a field that a later version adds changes no hash.

use k8s_openapi::{api::core::v1::PodTemplateSpec, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use crate::{
    crd::ZimCacheSpec,
    names::{INPUTS, TEMPLATE},
};

/// The pods to apply, and the annotations of the workload that remember them.
pub(super) fn pin(
    live: Option<&ObjectMeta>,
    inputs: &str,
    rendered: PodTemplateSpec,
) -> (PodTemplateSpec, [(String, String); 2]) {
    let template = remembered(live, inputs).unwrap_or(rendered);
    let text = serde_json::to_string(&template).unwrap_or_default();
    let annotations = [
        (INPUTS.to_owned(), inputs.to_owned()),
        (TEMPLATE.to_owned(), text),
    ];
    (template, annotations)
}

fn remembered(live: Option<&ObjectMeta>, inputs: &str) -> Option<PodTemplateSpec> {
    let annotations = live?.annotations.as_ref()?;
    if annotations.get(INPUTS)? != inputs {
        return None;
    }
    serde_json::from_str(annotations.get(TEMPLATE)?).ok()
}

/// Hash of these fields of the spec, given as JSON pointers, and of what else people can see.
pub(super) fn hash(spec: &ZimCacheSpec, fields: &[&str], others: &[Option<&str>]) -> String {
    let default = serde_json::to_value(ZimCacheSpec::default()).unwrap_or_default();
    let spec = serde_json::to_value(spec).unwrap_or_default();
    let chosen = |pointer: &&str| -> Option<(String, Value)> {
        let value = spec.pointer(pointer)?;
        let differs = differing(value, default.pointer(pointer))?;
        Some(((*pointer).to_owned(), differs))
    };
    let seen: Map<String, Value> = fields.iter().filter_map(chosen).collect();
    let text = canonical(&json!({ "spec": seen, "others": others }));
    let digest = Sha256::digest(text.as_bytes());
    crate::hex::text(&digest[..16])
}

/// What of a value is not at its default, and is not empty.
fn differing(value: &Value, default: Option<&Value>) -> Option<Value> {
    if default == Some(value) {
        return None;
    }
    match value {
        Value::Null | Value::Bool(false) => None,
        Value::String(text) if text.is_empty() => None,
        Value::Array(items) if items.is_empty() => None,
        Value::Object(fields) => {
            let each = fields.iter().filter_map(|(name, field)| {
                let default = default.and_then(|default| default.get(name));
                Some((name.clone(), differing(field, default)?))
            });
            let left: Map<String, Value> = each.collect();
            (!left.is_empty()).then_some(Value::Object(left))
        }
        other => Some(other.clone()),
    }
}

/// JSON with the fields in the order of their names, whatever the map's own order is.
fn canonical(value: &Value) -> String {
    match value {
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_by_key(|(name, _)| *name);
            let each = fields.into_iter();
            let texts: Vec<String> = each
                .map(|(name, field)| format!("{}:{}", Value::from(name.as_str()), canonical(field)))
                .collect();
            format!("{{{}}}", texts.join(","))
        }
        Value::Array(items) => {
            let texts: Vec<String> = items.iter().map(canonical).collect();
            format!("[{}]", texts.join(","))
        }
        scalar => scalar.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIELDS: &[&str] = &["/image", "/telemetry", "/gateway/resources"];

    #[test]
    fn what_is_at_its_default_does_not_count() {
        let spec = ZimCacheSpec::default();
        let mut same = spec.clone();
        same.gateway.replicas = 9;
        let before = hash(&spec, FIELDS, &[None]);
        assert_eq!(
            hash(&same, FIELDS, &[None]),
            before,
            "it is not among the fields"
        );
        // As a later version sees it, which has one field more.
        let value = json!({"logLevel": "info", "ofALaterVersion": "new"});
        let default = value.clone();
        assert_eq!(differing(&value, Some(&default)), None);
        let mut other = spec.clone();
        other.telemetry.log_level = "debug".to_owned();
        assert_ne!(hash(&other, FIELDS, &[None]), before);
        assert_ne!(hash(&spec, FIELDS, &[Some("key")]), before);
    }

    /// Changing it restarts every pod of every cache at the upgrade of the operator.
    #[test]
    fn the_hash_of_a_spec_never_changes() {
        let mut spec = ZimCacheSpec {
            image: Some("zimcache:1".to_owned()),
            ..ZimCacheSpec::default()
        };
        spec.telemetry.log_level = "debug".to_owned();
        let hash = hash(&spec, FIELDS, &[None, Some("x")]);
        let text = r#"{"others":[null,"x"],"spec":{"/image":"zimcache:1","/telemetry":{"logLevel":"debug"}}}"#;
        let digest = Sha256::digest(text.as_bytes());
        assert_eq!(hash, crate::hex::text(&digest[..16]));
    }
}
