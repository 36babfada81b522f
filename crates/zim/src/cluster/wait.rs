//! Waiting until a change of the placement has taken place, and ending it.
//!
//! Invariant: a change is ended only when every node that is not lost says that it handed over what it no longer owns.

use std::{collections::BTreeMap, path::Path, thread, time::Duration};

use zimcache_ring::{Change, Refusal};

use super::{file, status};
use crate::{
    args::ServerArgs,
    error::{Error, Result},
    output,
};

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(500);

/// Waits for the nodes and closes the placement before; tells whom it waits for.
pub(super) fn until_closed(path: &Path, server: &ServerArgs) -> Result<()> {
    let mut waited_for = Vec::new();
    loop {
        let report = status::ask(server)?;
        let answered = report.members.iter().filter(|member| member.reachable);
        let reports: BTreeMap<String, u64> = answered
            .map(|member| (member.id.clone(), member.synced_epoch))
            .collect();
        match file::change(path, &Change::ClosePrevious { reports }) {
            Ok(document) => {
                let epoch = document.epoch();
                return output::print(&format!("the change is done: epoch {epoch}\n"));
            }
            Err(Error::RingChange(Refusal::Waiting { members })) => {
                if members != waited_for {
                    output::tell(&format!("waiting for {}", members.join(", ")));
                    waited_for = members;
                }
            }
            Err(error) => return Err(error),
        }
        thread::sleep(PAUSE);
    }
}
