//! `kubectl zim ring`: the document that says who keeps what.

use std::fmt::Write as _;

use clap::Args;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, ResourceExt as _};
use zimcache_ring::{Document, Placement};

use super::{Cluster, Error, Result, output};
use crate::names::{Names, RING_KEY};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Name of the ZimCache [default: the only one of the namespace]
    name: Option<String>,
    /// Prints the document itself
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(cluster: &Cluster, args: &Arguments) -> Result<()> {
    let cache = cluster.cache(args.name.as_deref()).await?;
    let names = Names::new(cache.name_any(), &cluster.namespace);
    let text = read(cluster, &names).await?;
    if args.json {
        return output::print(&format!("{}\n", text.trim_end()));
    }
    let document = Document::parse(&text).map_err(|source| Error::Ring {
        name: names.cache.clone(),
        source,
    })?;
    output::print(&describe(&document))
}

/// The document as it is published.
pub(super) async fn read(cluster: &Cluster, names: &Names) -> Result<String> {
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    let map = maps.get_opt(&names.ring()).await?;
    let text = map.and_then(|map| map.data?.remove(RING_KEY));
    text.ok_or_else(|| Error::NoRing(names.cache.clone()))
}

fn describe(document: &Document) -> String {
    let copies = usize::try_from(document.replicas()).unwrap_or(0);
    let mut text = format!(
        "epoch {}, {} of everything\n\n",
        document.epoch(),
        output::counted(copies, "copy", "copies"),
    );
    let since = document.published_epoch();
    // Writing to a String cannot fail.
    writeln!(text, "current placement, since epoch {since}").ok();
    text += &table(document.current());
    if let Some(previous) = document.previous() {
        let joining = difference(document.current(), previous);
        let leaving = difference(previous, document.current());
        text +=
            "\nplacement before it, open until everybody has handed over what is no longer his\n";
        text += &table(previous);
        for (names, what) in [(joining, "joining"), (leaving, "leaving")] {
            if !names.is_empty() {
                writeln!(text, "\n{what}: {}", names.join(", ")).ok();
            }
        }
    }
    for (namespace, generation) in document.generations() {
        writeln!(
            text,
            "namespace {namespace} was purged, generation {generation}"
        )
        .ok();
    }
    text
}

fn table(placement: &Placement) -> String {
    let total: u64 = placement
        .members
        .iter()
        .map(|it| u64::from(it.weight))
        .sum();
    let rows: Vec<[String; 6]> = placement
        .members
        .iter()
        .map(|member| {
            let share = 100.0 * f64::from(member.weight) / (total.max(1) as f64);
            [
                member.id.clone(),
                member.state.as_str().to_owned(),
                member.zone.clone(),
                member.address.clone().unwrap_or_default(),
                member.weight.to_string(),
                format!("{share:.1}%"),
            ]
        })
        .collect();
    output::table(
        ["NODE", "STATE", "ZONE", "ADDRESS", "WEIGHT", "SHARE"],
        4,
        &rows,
    )
}

/// Who is in the one, but not in the other.
fn difference<'a>(one: &'a Placement, other: &Placement) -> Vec<&'a str> {
    let members = one.members.iter().map(|member| member.id.as_str());
    members.filter(|id| other.member(id).is_none()).collect()
}

#[cfg(test)]
mod tests {
    use zimcache_ring::{Change, Member, next};

    use super::*;

    #[test]
    fn both_placements_are_shown_while_a_change_is_under_way() {
        let members = ["main-node-0", "main-node-1", "main-node-2"].map(Member::new);
        let first = Document::first(2, members.to_vec()).unwrap();
        let text = describe(&first);
        assert!(
            text.starts_with("epoch 1, 2 copies of everything\n"),
            "{text}"
        );
        assert!(
            text.contains("33.3%") && !text.contains("placement before"),
            "{text}"
        );
        let ids = vec!["main-node-2".to_owned()];
        let text = describe(&next(&first, &Change::Leave { ids }).unwrap());
        assert!(text.contains("current placement, since epoch 2"), "{text}");
        assert!(text.contains("main-node-2  draining"), "{text}");
        assert!(text.contains("leaving: main-node-2\n"), "{text}");
        assert!(text.contains("50.0%"), "{text}");
    }
}
