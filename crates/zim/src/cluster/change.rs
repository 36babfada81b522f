//! Changing the ring: nodes in, nodes out, shares, losses.

use std::path::Path;

use zimcache_ring::{Change, Document, State};

use super::{file, member, status, wait};
use crate::{
    args::{ChangeArgs, DrainArgs, InitArgs, RingCommand, ShowArgs, WaitArgs},
    error::{Error, Result},
    output,
};

/// Runs a command about the ring.
pub(super) fn run(command: &RingCommand) -> Result<()> {
    match command {
        RingCommand::Show(args) => show(args),
        RingCommand::Init(args) => init(args),
        RingCommand::Join(args) => {
            let members: Result<Vec<_>> =
                args.nodes.iter().map(|node| member::parse(node)).collect();
            place(args, &Change::Join { members: members? })
        }
        RingCommand::Weigh(args) => {
            let weights: Result<_> = args
                .nodes
                .iter()
                .map(|node| member::parse_weight(node))
                .collect();
            place(args, &Change::Reweigh { weights: weights? })
        }
        RingCommand::Lost(args) => mark(args, |_, _| State::Lost),
        RingCommand::Found(args) => mark(args, returning),
        RingCommand::Close(args) => wait::until_closed(&args.ring.file, &args.wait.server),
    }
}

/// Takes nodes out, after they have handed over what they have.
pub(super) fn drain(args: &DrainArgs) -> Result<()> {
    let path = &args.ring.file;
    let ids = args.nodes.clone();
    let document = file::change(path, &Change::Leave { ids })?;
    told(&document)?;
    finish(path, &args.wait)
}

fn show(args: &ShowArgs) -> Result<()> {
    if let Some(path) = &args.file {
        let text = file::read(path)?.to_json();
        let text = text.map_err(|source| Error::Ring {
            place: path.display().to_string(),
            source,
        })?;
        return output::print(&format!("{}\n", text.trim_end()));
    }
    let report = status::ask(&args.server)?;
    output::print_json(&report.ring)
}

fn init(args: &InitArgs) -> Result<()> {
    let members: Result<Vec<_>> = args.nodes.iter().map(|node| member::parse(node)).collect();
    let path = &args.ring.file;
    let document = Document::first(args.replicas, members?).map_err(|source| Error::Ring {
        place: path.display().to_string(),
        source,
    })?;
    file::create(path, &document)?;
    told(&document)
}

/// A new placement: data moves before it is the only one.
fn place(args: &ChangeArgs, change: &Change) -> Result<()> {
    let path = &args.ring.file;
    told(&file::change(path, change)?)?;
    finish(path, &args.wait)
}

fn finish(path: &Path, args: &WaitArgs) -> Result<()> {
    if args.no_wait {
        return Ok(());
    }
    wait::until_closed(path, &args.server)
}

/// Another state; no data moves.
fn mark(args: &ChangeArgs, state: impl Fn(&Document, &str) -> State) -> Result<()> {
    let path = &args.ring.file;
    for id in &args.nodes {
        let state = state(&file::read(path)?, id);
        let id = id.clone();
        told(&file::change(path, &Change::Mark { id, state })?)?;
    }
    Ok(())
}

/// What a node is that comes back: an owner again, or one on its way out.
fn returning(document: &Document, id: &str) -> State {
    if document.current().member(id).is_some() {
        return State::Joining;
    }
    State::Draining
}

fn told(document: &Document) -> Result<()> {
    let members = document.current().members.len() as u64;
    output::print(&format!(
        "ring: epoch {}, {}{}\n",
        document.epoch(),
        output::counted(members, "node", "nodes"),
        if document.previous().is_some() {
            ", the placement before is open"
        } else {
            ""
        },
    ))
}
