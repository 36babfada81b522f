//! Names, heads and requests as messages, and back. What comes from another node is checked like anything else.

use bytes::Bytes;
use zimcache_proto::node;
use zimcache_store::{
    ByteRange, EntryMeta, Pins, Precondition, RecordHead, RecordKey, RecordKind, RecordOptions,
    Touch, Version,
};
use zimcache_types::{EntryKind, Function, Namespace};

use super::incoming::invalid;
use crate::{Find, Pull, Read, Result, Write};

const ID_BYTES: usize = 32;

pub(crate) fn namespace(name: &str) -> Result<Namespace> {
    Namespace::new(name).map_err(|error| invalid(&error.to_string()))
}

/// Number of an entry kind plus one.
pub(crate) const fn kind_number(kind: EntryKind) -> u32 {
    kind.number() as u32 + 1
}

pub(crate) fn entry_kind(number: u32) -> Result<EntryKind> {
    let number = number
        .checked_sub(1)
        .and_then(|number| u8::try_from(number).ok());
    let kind = number.and_then(EntryKind::from_number);
    kind.ok_or_else(|| invalid("no such kind of entry"))
}

pub(crate) fn function(number: u32) -> Result<Function> {
    let number = u8::try_from(number).ok();
    let function = number.and_then(Function::from_number);
    function.ok_or_else(|| invalid("no such digest function"))
}

pub(crate) fn key_out(key: &RecordKey) -> node::Key {
    let (kind, function) = match key.kind {
        RecordKind::Blob(function) => (0, u32::from(function.number())),
        RecordKind::Entry(kind) => (kind_number(kind), 0),
    };
    node::Key {
        namespace: key.namespace.as_str().to_owned(),
        kind,
        function,
        id: Bytes::copy_from_slice(&key.id),
    }
}

pub(crate) fn key_in(key: Option<node::Key>) -> Result<RecordKey> {
    let key = key.ok_or_else(|| invalid("the key is missing"))?;
    let kind = match key.kind {
        0 => RecordKind::Blob(function(key.function)?),
        number => RecordKind::Entry(entry_kind(number)?),
    };
    Ok(RecordKey {
        namespace: namespace(&key.namespace)?,
        kind,
        id: id(&key.id)?,
    })
}

fn id(bytes: &[u8]) -> Result<[u8; ID_BYTES]> {
    bytes.try_into().map_err(|_| invalid("an id has 32 bytes"))
}

pub(crate) fn keys_in(keys: Vec<node::Key>) -> Result<Vec<RecordKey>> {
    keys.into_iter().map(|key| key_in(Some(key))).collect()
}

pub(crate) const fn version_out(version: Version) -> node::Version {
    node::Version {
        clock: version.clock,
        writer: version.writer,
    }
}

pub(crate) fn version_in(version: Option<node::Version>) -> Version {
    version.map_or(Version::default(), |version| Version {
        clock: version.clock,
        writer: version.writer,
    })
}

pub(crate) const fn pins_out(pins: Pins) -> node::Pins {
    node::Pins {
        dirty: pins.dirty,
        hint: pins.hint,
    }
}

pub(crate) fn pins_in(pins: Option<node::Pins>) -> Pins {
    pins.map_or(Pins::default(), |pins| Pins {
        dirty: pins.dirty,
        hint: pins.hint,
    })
}

pub(crate) fn head_out(head: RecordHead) -> node::Head {
    let client = head
        .meta
        .client
        .into_iter()
        .map(|(name, value)| node::Pair {
            name: name.into(),
            value: value.into(),
        });
    let meta = node::Meta {
        content_type: head.meta.content_type.map(String::from),
        client: client.collect(),
    };
    node::Head {
        text: head.text.into(),
        meta: Some(meta).filter(|meta| *meta != node::Meta::default()),
        version: Some(version_out(head.version)),
        deleted: head.deleted,
    }
}

pub(crate) fn head_in(head: Option<node::Head>) -> RecordHead {
    let head = head.unwrap_or_default();
    let meta = head.meta.unwrap_or_default();
    let client = meta.client.into_iter();
    RecordHead {
        text: head.text.into(),
        meta: EntryMeta {
            content_type: meta.content_type.map(Into::into),
            client: client
                .map(|pair| (pair.name.into(), pair.value.into()))
                .collect(),
        },
        version: version_in(head.version),
        deleted: head.deleted,
    }
}

pub(crate) fn read_out(read: &Read) -> node::ReadRequest {
    let (offset, length, suffix) = match read.range {
        ByteRange::Full => (0, None, None),
        // To the end, and there has to be something.
        ByteRange::From { first, last: None } => (first, Some(u64::MAX), None),
        ByteRange::From {
            first,
            last: Some(last),
        } if last >= first => (first, Some((last - first).saturating_add(1)), None),
        // Nothing lies in such a range, as nothing does in the last 0 bytes.
        ByteRange::From { .. } => (0, None, Some(0)),
        ByteRange::Suffix(length) => (0, None, Some(length)),
    };
    node::ReadRequest {
        epoch: read.epoch,
        key: Some(key_out(&read.key)),
        offset,
        length,
        suffix,
        fill: read.fill,
    }
}

pub(crate) fn read_in(read: node::ReadRequest) -> Result<Read> {
    let range = match (read.suffix, read.length) {
        (Some(suffix), _) => ByteRange::Suffix(suffix),
        (None, None) if read.offset == 0 => ByteRange::Full,
        (None, None | Some(u64::MAX)) => ByteRange::From {
            first: read.offset,
            last: None,
        },
        (None, Some(0)) => ByteRange::Suffix(0),
        (None, Some(length)) => ByteRange::From {
            first: read.offset,
            last: Some(read.offset.saturating_add(length - 1)),
        },
    };
    Ok(Read {
        epoch: read.epoch,
        key: key_in(read.key)?,
        range,
        fill: read.fill,
    })
}

pub(crate) fn write_out(write: Write) -> node::WriteRequest {
    let options = write.options;
    node::WriteRequest {
        epoch: write.epoch,
        key: Some(key_out(&write.key)),
        head: Some(head_out(write.head)),
        size_bytes: options.size_bytes,
        resume_as: options.resume_as.map_or_else(String::new, String::from),
        limit_bytes: options.limit_bytes,
        lease: options.lease,
        only_absent: options.precondition == Precondition::Absent,
        ..node::WriteRequest::default()
    }
}

/// The beginning of a write; the data stays where it is.
pub(crate) fn write_in(first: &mut node::WriteRequest) -> Result<Write> {
    let resume_as = std::mem::take(&mut first.resume_as);
    let options = RecordOptions {
        size_bytes: first.size_bytes,
        resume_as: Some(resume_as)
            .filter(|name| !name.is_empty())
            .map(Into::into),
        limit_bytes: first.limit_bytes,
        lease: first.lease,
        precondition: if first.only_absent {
            Precondition::Absent
        } else {
            Precondition::None
        },
    };
    Ok(Write {
        epoch: first.epoch,
        key: key_in(first.key.take())?,
        head: head_in(first.head.take()),
        options,
    })
}

/// One group for each run of blobs of one function.
pub(crate) fn find_out(find: &Find) -> node::FindRequest {
    let mut groups: Vec<(u32, Vec<u8>, Vec<u64>)> = Vec::new();
    for (key, size) in find.keys.iter().zip(&find.sizes) {
        let function = match key.kind {
            RecordKind::Blob(function) => u32::from(function.number()),
            RecordKind::Entry(_) => 0,
        };
        if groups.last().is_none_or(|(last, ..)| *last != function) {
            let room = find.keys.len();
            groups.push((
                function,
                Vec::with_capacity(room * ID_BYTES),
                Vec::with_capacity(room),
            ));
        }
        if let Some((_, ids, sizes)) = groups.last_mut() {
            ids.extend_from_slice(&key.id);
            sizes.push(size.map_or(0, |size| size.saturating_add(1)));
        }
    }
    let groups = groups
        .into_iter()
        .map(|(function, ids, sizes)| node::FindGroup {
            function,
            ids: ids.into(),
            sizes,
        });
    let namespace = find.keys.first().map(|key| key.namespace.as_str());
    node::FindRequest {
        epoch: find.epoch,
        namespace: namespace.unwrap_or(Namespace::DEFAULT).to_owned(),
        groups: groups.collect(),
        touch: match find.touch {
            Touch::No => 0,
            Touch::Use => 1,
            Touch::Lease => 2,
        },
    }
}

pub(crate) fn find_in(find: &node::FindRequest) -> Result<Find> {
    let namespace = namespace(&find.namespace)?;
    let (mut keys, mut sizes) = (Vec::new(), Vec::new());
    for group in &find.groups {
        let kind = RecordKind::Blob(function(group.function)?);
        if group.ids.len() != group.sizes.len() * ID_BYTES {
            return Err(invalid("a group has as many ids as sizes"));
        }
        for bytes in group.ids.chunks_exact(ID_BYTES) {
            keys.push(RecordKey {
                namespace: namespace.clone(),
                kind,
                id: id(bytes)?,
            });
        }
        sizes.extend(group.sizes.iter().map(|size| size.checked_sub(1)));
    }
    let touch = match find.touch {
        0 => Touch::No,
        1 => Touch::Use,
        2 => Touch::Lease,
        _ => return Err(invalid("no such touch")),
    };
    Ok(Find {
        epoch: find.epoch,
        keys,
        sizes,
        touch,
    })
}

pub(crate) fn pull_out(pull: &Pull) -> node::PullRequest {
    node::PullRequest {
        epoch: pull.epoch,
        from: pull.from.to_string(),
        keys: pull.keys.iter().map(key_out).collect(),
        pins: Some(pins_out(pull.pins)),
    }
}

pub(crate) fn pull_in(pull: node::PullRequest) -> Result<Pull> {
    Ok(Pull {
        epoch: pull.epoch,
        from: pull.from.into(),
        keys: keys_in(pull.keys)?,
        pins: pins_in(pull.pins),
    })
}
