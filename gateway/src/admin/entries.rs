//! What a namespace holds, row by row, and how to get rid of it.
//!
//! | path | methods | what |
//! | --- | --- | --- |
//! | `/api/v1/entries?namespace=&tool=&prefix=&after=&limit=` | GET, HEAD | rows, for readers |
//! | `/api/v1/entries?namespace=&tool=&key=` | DELETE | one of them goes, for writers |
//! | `/api/v1/namespaces/{namespace}` | DELETE | all of them go, for admins |
//!
//! A tool is the name of an entry kind, or `blob`. Blobs are named by their hash in hex, with the function in front
//! where a bare one would be taken for another's (`blake3:…`). Rows come tool by tool and in the order of keys; `next` is what `after` takes.

use http::Response;
use serde::Serialize;
use zimcache_auth::{Scope, rfc3339};
use zimcache_store::{BlobInfo, EntryInfo};
use zimcache_types::{Digest, EntryKind, Function, Hash, Namespace, Timestamp};

use super::{query::Query, require_admin};
use crate::{Error, body::Body, call::Call, error::Result, respond, room::Room};

/// Rows of an answer that does not say how many.
const USUAL_ROWS: usize = 100;
/// Most rows of an answer.
const MOST_ROWS: usize = 1_000;
const UNKNOWN_TOOL: &str = "tool is neither blob nor the name of a kind of entries";
const UNKNOWN_FUNCTION: &str = "what is in front of the hash is not a digest function";
const NO_CURSOR: &str = "after is not the next of another answer";

/// Whose rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tool {
    Entries(EntryKind),
    Blob,
}

impl Tool {
    /// All of them, in the order of a listing. What the store keeps for itself is nobody's.
    fn all() -> impl Iterator<Item = Tool> {
        let kinds = EntryKind::ALL.into_iter();
        let shown = kinds.filter(|kind| *kind != EntryKind::Internal);
        shown.map(Tool::Entries).chain([Tool::Blob])
    }

    fn as_str(self) -> &'static str {
        match self {
            Tool::Entries(kind) => kind.as_str(),
            Tool::Blob => "blob",
        }
    }

    fn parse(text: &str) -> Result<Tool> {
        let mut all = Tool::all();
        all.find(|tool| tool.as_str() == text)
            .ok_or(Error::Request(UNKNOWN_TOOL))
    }
}

#[derive(Debug, Serialize)]
struct Row {
    tool: &'static str,
    key: String,
    size_bytes: u64,
    created: String,
}

impl Row {
    fn new(tool: Tool, key: String, size_bytes: u64, created: Timestamp) -> Row {
        Row {
            tool: tool.as_str(),
            key,
            size_bytes,
            created: rfc3339(created),
        }
    }

    fn cursor(&self) -> String {
        format!("{}/{}", self.tool, self.key)
    }
}

#[derive(Debug, Serialize)]
struct Listing {
    entries: Vec<Row>,
    /// Where the next page begins; absent on the last one.
    next: Option<String>,
}

/// What is asked for.
struct Asked {
    tool: Option<Tool>,
    prefix: String,
    after: Option<(Tool, String)>,
    limit: usize,
}

impl Asked {
    fn of(query: Query<'_>) -> Result<Asked> {
        let tool = query.get("tool")?;
        let after = query.get("after")?;
        let after = after.map(|text| {
            let (tool, key) = text.split_once('/').ok_or(Error::Request(NO_CURSOR))?;
            Ok::<_, Error>((Tool::parse(tool)?, key.to_owned()))
        });
        Ok(Asked {
            tool: tool.as_deref().map(Tool::parse).transpose()?,
            prefix: query.get("prefix")?.unwrap_or_default(),
            after: after.transpose()?,
            limit: query.limit(USUAL_ROWS, MOST_ROWS)?,
        })
    }

    /// The tools to go through: from the one where the page before ended.
    fn tools(&self) -> impl Iterator<Item = Tool> + '_ {
        let first = self.after.as_ref().map(|(tool, _)| *tool);
        let from_first =
            Tool::all().skip_while(move |tool| first.is_some_and(|first| first != *tool));
        from_first.filter(|tool| self.tool.is_none_or(|only| only == *tool))
    }

    fn after(&self, tool: Tool) -> Option<&str> {
        let (own, key) = self.after.as_ref()?;
        (*own == tool).then_some(key)
    }
}

/// Lists rows.
pub(super) async fn list(call: &Call<'_>) -> Result<Response<Body>> {
    let query = Query::of(call.head);
    let room = call.room_of(namespace(query)?).await?;
    room.require(Scope::Read)?;
    let asked = Asked::of(query)?;
    // One row more than asked for tells whether there is a next page.
    let wanted = asked.limit + 1;
    let mut rows = Vec::new();
    for tool in asked.tools() {
        let (after, left) = (asked.after(tool), wanted - rows.len());
        match tool {
            Tool::Entries(kind) => {
                let found = room.list_entries(kind, &asked.prefix, after, left).await?;
                rows.extend(found.into_iter().map(|info| entry_row(tool, info)));
            }
            Tool::Blob => rows.extend(blobs(call, &room, &asked, left).await?),
        }
        if rows.len() >= wanted {
            break;
        }
    }
    let more = rows.len() > asked.limit;
    rows.truncate(asked.limit);
    let next = rows.last().filter(|_| more).map(Row::cursor);
    Ok(respond::json(&Listing {
        entries: rows,
        next,
    }))
}

fn entry_row(tool: Tool, info: EntryInfo) -> Row {
    Row::new(tool, info.text.into_string(), info.size_bytes, info.created)
}

/// Blobs whose names start with the prefix. Stores know no prefix of a hash, so all are looked through.
async fn blobs(call: &Call<'_>, room: &Room<'_>, asked: &Asked, wanted: usize) -> Result<Vec<Row>> {
    let after = asked.after(Tool::Blob).map(parse_blob).transpose()?;
    let mut after = after.map(Digest::unsized_);
    let mut rows = Vec::new();
    loop {
        let admin = &call.shared.admin;
        let page = admin
            .list_blobs(room.namespace(), after.as_ref(), MOST_ROWS)
            .await?;
        let full = page.len() == MOST_ROWS;
        after = page.last().map(|blob| blob.digest);
        let named = page.into_iter().map(|blob| (blob_name(&blob), blob));
        let fitting = named.filter(|(name, _)| name.starts_with(&asked.prefix));
        rows.extend(
            fitting
                .take(wanted - rows.len())
                .map(|(name, blob)| Row::new(Tool::Blob, name, blob.size_bytes, blob.created)),
        );
        if !full || rows.len() >= wanted {
            return Ok(rows);
        }
    }
}

fn blob_name(blob: &BlobInfo) -> String {
    let hex = blob.digest.hash.to_hex();
    if Hash::parse_untyped(&hex) == Ok(blob.digest.hash) {
        hex
    } else {
        format!("{}:{hex}", blob.digest.hash.function())
    }
}

/// The reverse of [`blob_name`].
fn parse_blob(name: &str) -> Result<Hash> {
    let Some((function, hex)) = name.split_once(':') else {
        return Ok(Hash::parse_untyped(name)?);
    };
    let function = Function::from_name(function).ok_or(Error::Request(UNKNOWN_FUNCTION))?;
    Ok(Hash::parse(function, hex)?)
}

/// Deletes one row.
pub(super) async fn delete(call: &Call<'_>) -> Result<Response<Body>> {
    const WHAT: &str = "name a tool and a key";
    let query = Query::of(call.head);
    let room = call.room_of(namespace(query)?).await?;
    room.require(Scope::Write)?;
    let tool = query.get("tool")?.ok_or(Error::Request(WHAT))?;
    let key = query.get("key")?.ok_or(Error::Request(WHAT))?;
    let found = match Tool::parse(&tool)? {
        Tool::Entries(kind) => room.delete_entry(kind, &key).await?,
        Tool::Blob => room.delete_blob(&parse_blob(&key)?).await?,
    };
    Ok(respond::deleted(found))
}

/// Forgets a namespace.
pub(super) async fn purge(call: &Call<'_>, name: &str) -> Result<Response<Body>> {
    let name = percent_encoding::percent_decode_str(name).decode_utf8();
    let name = name.map_err(|_| Error::Request("the namespace is not UTF-8"))?;
    let namespace = Namespace::new(&name)?;
    let principal = call.principal().await?;
    require_admin(call, &principal, Some(&namespace))?;
    if call.prefix.is_some_and(|prefix| *prefix != namespace) {
        return Err(Error::Request("the path names two namespaces"));
    }
    call.room_of(Some(namespace)).await?.purge().await?;
    Ok(respond::deleted(true))
}

fn namespace(query: Query<'_>) -> Result<Option<Namespace>> {
    let name = query.get("namespace")?;
    Ok(name.as_deref().map(Namespace::new).transpose()?)
}
