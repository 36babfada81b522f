//! Listings, statuses and work for the keeper as messages, and back.

use bytes::Bytes;
use serde_json as json;
use zimcache_proto::node;
use zimcache_store::{PinnedCounts, StoreStats};
use zimcache_types::{Code, Digest, Hash, Timestamp};

use super::{
    convert::{entry_kind, function, kind_number, namespace, version_in, version_out},
    incoming::invalid,
};
use crate::{
    Error, ListedBlob, ListedEntry, Listing, Manage, Presence, Result, Status, StatusQuestion,
};

pub(crate) const fn presence_out(presence: Presence) -> node::Presence {
    match presence {
        Presence::Absent => node::Presence::Absent,
        Presence::Present => node::Presence::Present,
        Presence::Unknown => node::Presence::Unknown,
    }
}

/// A number of the enumeration; what is not known says nothing.
pub(crate) const fn presence_in(number: i32) -> Presence {
    match number {
        0 => Presence::Absent,
        1 => Presence::Present,
        _ => Presence::Unknown,
    }
}

pub(crate) fn listing_out(listing: &Listing) -> node::ListRequest {
    match listing {
        Listing::Entries {
            namespace,
            kind,
            prefix,
            after,
            limit,
        } => node::ListRequest {
            namespace: namespace.as_str().to_owned(),
            kind: kind_number(*kind),
            prefix: prefix.to_string(),
            after: after.as_ref().map(ToString::to_string),
            limit: u32::try_from(*limit).unwrap_or(u32::MAX),
            ..node::ListRequest::default()
        },
        Listing::Blobs {
            namespace,
            after,
            limit,
        } => node::ListRequest {
            namespace: namespace.as_str().to_owned(),
            after_function: after.map_or(0, |after| u32::from(after.hash.function().number())),
            after_hash: after.map_or(Bytes::new(), |after| {
                Bytes::copy_from_slice(after.hash.as_bytes())
            }),
            limit: u32::try_from(*limit).unwrap_or(u32::MAX),
            ..node::ListRequest::default()
        },
    }
}

pub(crate) fn listing_in(list: node::ListRequest) -> Result<Listing> {
    let namespace = namespace(&list.namespace)?;
    let limit = list.limit as usize;
    if list.kind != 0 {
        return Ok(Listing::Entries {
            namespace,
            kind: entry_kind(list.kind)?,
            prefix: list.prefix.into(),
            after: list.after.map(Into::into),
            limit,
        });
    }
    let after = match list.after_function {
        0 => None,
        number => Some(Digest::unsized_(hash(number, &list.after_hash)?)),
    };
    Ok(Listing::Blobs {
        namespace,
        after,
        limit,
    })
}

fn hash(number: u32, bytes: &[u8]) -> Result<Hash> {
    let hash = Hash::from_bytes(function(number)?, bytes);
    hash.ok_or_else(|| invalid("the hash has another length than its function's"))
}

pub(crate) fn entry_out(entry: ListedEntry) -> node::ListedEntry {
    node::ListedEntry {
        text: entry.text.into(),
        size_bytes: entry.size_bytes,
        version: Some(version_out(entry.version)),
        created_millis: entry.created.0,
    }
}

pub(crate) fn entry_in(entry: node::ListedEntry) -> ListedEntry {
    ListedEntry {
        text: entry.text.into(),
        size_bytes: entry.size_bytes,
        version: version_in(entry.version),
        created: Timestamp(entry.created_millis),
    }
}

pub(crate) fn blob_out(blob: &ListedBlob) -> node::ListedBlob {
    node::ListedBlob {
        function: u32::from(blob.digest.hash.function().number()),
        hash: Bytes::copy_from_slice(blob.digest.hash.as_bytes()),
        size_bytes: blob.size_bytes,
        created_millis: blob.created.0,
    }
}

pub(crate) fn blob_in(blob: &node::ListedBlob) -> Result<ListedBlob> {
    Ok(ListedBlob {
        digest: Digest::sized(hash(blob.function, &blob.hash)?, blob.size_bytes),
        size_bytes: blob.size_bytes,
        created: Timestamp(blob.created_millis),
    })
}

pub(crate) fn question_out(question: StatusQuestion) -> node::StatusRequest {
    let (for_member, store_id) = match question.for_member {
        Some((member, store_id)) => (member.into(), Bytes::copy_from_slice(&store_id)),
        None => (String::new(), Bytes::new()),
    };
    node::StatusRequest {
        ring: question.ring.unwrap_or_default(),
        for_member,
        store_id,
        with_figures: question.with_figures,
    }
}

pub(crate) fn question_in(question: node::StatusRequest) -> Result<StatusQuestion> {
    let for_member = match question.for_member {
        name if name.is_empty() => None,
        name => Some((name.into(), store_id(&question.store_id)?)),
    };
    Ok(StatusQuestion {
        ring: some(question.ring),
        for_member,
        with_figures: question.with_figures,
    })
}

fn store_id(bytes: &[u8]) -> Result<[u8; 16]> {
    bytes
        .try_into()
        .map_err(|_| invalid("a store's id has 16 bytes"))
}

fn some(bytes: Bytes) -> Option<Bytes> {
    Some(bytes).filter(|bytes| !bytes.is_empty())
}

pub(crate) fn status_out(status: Status) -> Result<node::StatusReply> {
    let has_figures = status.stats != StoreStats::default();
    Ok(node::StatusReply {
        id: status.id.into(),
        store_id: Bytes::copy_from_slice(&status.store_id),
        version: status.version.into(),
        epoch: status.epoch,
        synced_epoch: status.synced_epoch,
        catching_up: status.catching_up,
        draining: status.draining,
        dirty: status.pinned.dirty,
        dirty_bytes: status.pinned.dirty_bytes,
        hints: status.pinned.hints,
        hint_bytes: status.pinned.hint_bytes,
        in_flight: status.in_flight,
        stats: if has_figures {
            json::to_vec(&status.stats).map_err(not_json)?.into()
        } else {
            Bytes::new()
        },
        usage: status.usage,
        nothing_for_member: status.nothing_for_member,
        ring: status.ring.unwrap_or_default(),
        tier_reachable: status.tier_reachable,
    })
}

pub(crate) fn status_in(status: node::StatusReply) -> Result<Status> {
    Ok(Status {
        id: status.id.into(),
        store_id: store_id(&status.store_id)?,
        version: status.version.into(),
        epoch: status.epoch,
        synced_epoch: status.synced_epoch,
        catching_up: status.catching_up,
        draining: status.draining,
        pinned: PinnedCounts {
            dirty: status.dirty,
            dirty_bytes: status.dirty_bytes,
            hints: status.hints,
            hint_bytes: status.hint_bytes,
        },
        in_flight: status.in_flight,
        stats: if status.stats.is_empty() {
            StoreStats::default()
        } else {
            json::from_slice(&status.stats).map_err(not_json)?
        },
        usage: status.usage,
        nothing_for_member: status.nothing_for_member,
        ring: some(status.ring),
        tier_reachable: status.tier_reachable,
    })
}

pub(crate) fn manage_out(work: &Manage) -> Result<node::ManageRequest> {
    use node::manage_request::What;
    let what = match work {
        Manage::Gc(options) => What::Gc(json::to_vec(options).map_err(not_json)?.into()),
        Manage::Verify => What::Verify(true),
        Manage::Drain(drains) => What::Drain(*drains),
    };
    Ok(node::ManageRequest { what: Some(what) })
}

pub(crate) fn manage_in(work: &node::ManageRequest) -> Result<Manage> {
    use node::manage_request::What;
    match &work.what {
        Some(What::Gc(options)) => json::from_slice(options).map(Manage::Gc).map_err(not_json),
        Some(What::Verify(true)) => Ok(Manage::Verify),
        Some(What::Drain(drains)) => Ok(Manage::Drain(*drains)),
        Some(What::Verify(false)) | None => Err(invalid("there is nothing to do")),
    }
}

fn not_json(error: json::Error) -> Error {
    Error::Refused {
        code: Code::Invalid,
        message: format!("a document between nodes is not what it should be: {error}").into(),
    }
}
