//! What is held by whom, as the document in [`Status::usage`](crate::Status::usage).

use bytes::Bytes;
use serde_json::{Value, from_slice, json};
use zimcache_store::{Usage, UsageKind};
use zimcache_types::{EntryKind, Namespace};

use crate::{Result, wire::invalid};

/// Rows of usage as a document.
pub fn usage_to_json(rows: &[Usage]) -> Bytes {
    let rows = rows.iter().map(|row| {
        json!({
            "namespace": row.namespace.as_str(),
            "kind": row.kind.as_str(),
            "count": row.count,
            "bytes": row.bytes,
        })
    });
    Value::Array(rows.collect()).to_string().into()
}

/// The rows of such a document. Those of kinds that are not known are left out: the node is of a newer version.
///
/// # Errors
/// `Invalid` when it is none.
pub fn usage_from_json(document: &[u8]) -> Result<Vec<Usage>> {
    let rows: Vec<Value> = from_slice(document).map_err(|_| malformed())?;
    let rows = rows.iter().filter_map(|row| {
        let kind = kind(row["kind"].as_str()?)?;
        Some(row_of(row, kind))
    });
    rows.collect::<Option<_>>().ok_or_else(malformed)
}

fn malformed() -> crate::Error {
    invalid("the usage is not a document of usage")
}

fn kind(name: &str) -> Option<UsageKind> {
    let kinds = EntryKind::ALL.into_iter().map(UsageKind::Entry);
    let mut kinds = kinds.chain([UsageKind::Blob]);
    kinds.find(|kind| kind.as_str() == name)
}

fn row_of(row: &Value, kind: UsageKind) -> Option<Usage> {
    Some(Usage {
        namespace: Namespace::new(row["namespace"].as_str()?).ok()?,
        kind,
        count: row["count"].as_u64()?,
        bytes: row["bytes"].as_u64()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_back_and_unknown_kinds_do_not() {
        let row = |kind| Usage {
            namespace: Namespace::new("a/b").unwrap(),
            kind,
            count: 3,
            bytes: u64::MAX,
        };
        let rows = vec![row(UsageKind::Blob), row(UsageKind::Entry(EntryKind::Nx))];
        let document = usage_to_json(&rows);
        assert_eq!(usage_from_json(&document).unwrap(), rows);
        let text = String::from_utf8(document.to_vec()).unwrap();
        let newer = text.replace("\"nx\"", "\"newer\"");
        assert_eq!(usage_from_json(newer.as_bytes()).unwrap(), rows[..1]);
        assert!(usage_from_json(b"{}").is_err());
        assert!(usage_from_json(b"[{\"kind\": \"blob\"}]").is_err());
    }
}
