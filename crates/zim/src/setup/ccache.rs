//! ccache's HTTP storage: one setting, as a line of its file or as a variable.

use super::{
    check::{Outcome, Probe},
    snippet::{Cache, FilePart, Merge, Part, Place, Snippet},
};
use crate::error::Result;

const EITHER: &str = "Either the file or the variable. Before ccache 4.7: secondary_storage.";
const HELPER: &str = "ccache speaks https by the program ccache-storage-https only, from 4.13 on.";

pub(super) fn snippet(cache: &Cache) -> Snippet {
    let mut storage = cache.at("/ccache");
    let token = cache.token();
    if let Some(token) = &token {
        storage.extend(["|bearer-token=", token]);
    }
    let file = FilePart {
        place: Place::Home,
        path: ".config/ccache/ccache.conf",
        comment: ("# ", ""),
        merge: Merge::Block {
            foreign: &["remote_storage", "secondary_storage"],
        },
        text: format!("remote_storage = {storage}\n"),
        secret: token.is_some(),
    };
    Snippet {
        parts: vec![
            Part::File(file),
            Part::Variables(vec![("CCACHE_REMOTE_STORAGE", storage)]),
        ],
        notes: if cache.is_https() {
            vec![HELPER]
        } else {
            vec![EITHER]
        },
    }
}

pub(super) fn check(probe: &Probe<'_>) -> Result<Outcome> {
    let key = probe.hex(40);
    let (folder, rest) = key.split_at(2);
    probe.round_trip(&probe.room(&format!("/ccache/{folder}/{rest}")), &[])
}
