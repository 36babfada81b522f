//! What must not get into a report: values that are secret by their name or by their form.
//!
//! Kept apart from reading, so that everything passes one gate. Rather too much is taken out than too little.

use serde_json::Value;

/// What stands in the place of what was taken out.
pub(super) const TAKEN_OUT: &str = "(taken out)";

/// Words in names of values that are secret.
const SECRET_WORDS: [&str; 7] = [
    "secret",
    "password",
    "passwd",
    "token",
    "credential",
    "apikey",
    "access-key",
];

/// Takes out of an object what is secret, and what only makes it long.
pub(super) fn object(value: &mut Value) {
    if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
        let annotations = metadata
            .get_mut("annotations")
            .and_then(Value::as_object_mut);
        if let Some(annotations) = annotations {
            annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
        }
    }
    walk(value);
}

/// Keeps the names of what a Secret holds, and how long each value is.
pub(super) fn secret(value: &mut Value) {
    for field in ["data", "stringData"] {
        let data = value.get_mut(field).and_then(Value::as_object_mut);
        for held in data.into_iter().flat_map(|data| data.values_mut()) {
            let length = held.as_str().map_or(0, str::len);
            *held = format!("{TAKEN_OUT}, {length} characters").into();
        }
    }
    object(value);
}

/// Takes credentials out of the addresses in a text.
pub(super) fn text(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(scheme) = rest.find("://") {
        let (before, after) = rest.split_at(scheme + 3);
        clean += before;
        let ends = |c: char| c.is_whitespace() || matches!(c, '/' | '"' | '\'' | '?' | '<' | '>');
        let end = after.find(ends).unwrap_or(after.len());
        let (authority, further) = after.split_at(end);
        match authority.rsplit_once('@') {
            Some((_, host)) => clean.extend([TAKEN_OUT, "@", host]),
            None => clean += authority,
        }
        rest = further;
    }
    bearer(&(clean + rest))
}

/// Takes out what follows the word by which a token is shown to a server.
fn bearer(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.to_ascii_lowercase().find("bearer ") {
        let (before, after) = rest.split_at(at + "bearer ".len());
        clean += before;
        let ends = |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | ',');
        let end = after.find(ends).unwrap_or(after.len());
        clean += TAKEN_OUT;
        rest = &after[end..];
    }
    clean + rest
}

fn walk(value: &mut Value) {
    match value {
        Value::String(held) => *held = text(held),
        Value::Array(values) => values.iter_mut().for_each(walk),
        Value::Object(fields) => {
            // A pair of name and value, as in the environment of a container.
            let named = fields.get("name").and_then(Value::as_str).map(is_secret);
            for (name, value) in fields.iter_mut() {
                let secret = (is_secret(name) || (name == "value" && named == Some(true)))
                    && value.is_string()
                    && !is_reference(name);
                if secret {
                    *value = TAKEN_OUT.into();
                } else {
                    walk(value);
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Names of Secrets are no secrets, and tell what a pod waits for.
fn is_reference(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["name", "key", "ref", "path", "secret"]
        .iter()
        .any(|end| name.ends_with(end))
        && !name.ends_with("apikey")
}

fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase().replace('_', "-");
    SECRET_WORDS.iter().any(|word| name.contains(word))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn secrets_keep_their_keys_and_lose_their_values() {
        let mut held = json!({ "metadata": { "name": "s", "managedFields": [1] }, "data": { "tls.key": "c2VjcmV0" } });
        secret(&mut held);
        assert_eq!(held["data"]["tls.key"], "(taken out), 8 characters");
        assert!(held["metadata"].get("managedFields").is_none());
    }

    #[test]
    fn what_is_secret_by_its_name_is_taken_out_and_references_stay() {
        let mut pod = json!({
            "metadata": { "annotations": { "kubectl.kubernetes.io/last-applied-configuration": "{}" } },
            "spec": {
                "env": [
                    { "name": "ZIMCACHE_S3__SECRET_ACCESS_KEY", "value": "hush" },
                    { "name": "RUST_LOG", "value": "info" },
                    { "name": "TOKEN", "valueFrom": { "secretKeyRef": { "name": "tokens", "key": "a" } } },
                ],
                "volumes": [{ "secret": { "secretName": "main-peer-node" } }],
                "automountServiceAccountToken": false,
                "password": "hush",
            },
        });
        object(&mut pod);
        let text = pod.to_string();
        assert!(
            !text.contains("hush") && !text.contains("last-applied"),
            "{text}"
        );
        let spec = &pod["spec"];
        assert_eq!(spec["env"][1]["value"], "info");
        assert_eq!(
            spec["env"][2]["valueFrom"]["secretKeyRef"]["name"],
            "tokens"
        );
        assert_eq!(spec["volumes"][0]["secret"]["secretName"], "main-peer-node");
        assert_eq!(spec["automountServiceAccountToken"], false);
    }

    #[test]
    fn credentials_in_addresses_and_headers_are_taken_out_of_texts() {
        let line = "redis://user:p%40ss@redis:6379/0 and https://host/a@b, \"s3://k:s@h\" Authorization: Bearer zim_a.b c";
        assert_eq!(
            text(line),
            "redis://(taken out)@redis:6379/0 and https://host/a@b, \"s3://(taken out)@h\" \
             Authorization: Bearer (taken out) c"
        );
        assert_eq!(text("nothing here"), "nothing here");
    }
}
