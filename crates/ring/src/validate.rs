//! What a ring document may say. Pure: from the fields to everything that is wrong with them.

use std::collections::{BTreeMap, BTreeSet};

use zimcache_types::Namespace;

use crate::{
    document::{Fields, HASH, Member, Placement, State},
    error::{Problem, Problems, Which},
};

/// Largest epoch: beyond 2^53 a JSON reader may round.
const MAX_EPOCH: u64 = 1 << 53;
/// Most copies of an item. Lists of owners have a fixed width, and nobody needs more.
const MAX_REPLICAS: u32 = 8;
/// Longest id and zone: a name of DNS.
const MAX_NAME_LEN: usize = 253;
/// A hundred times the standard.
const MAX_WEIGHT: u32 = 10_000;
/// Most members of one placement.
const MAX_MEMBERS: usize = 10_000;
/// As much as 10,000 nodes of standard weight: 4 M points, some 140 MB of table.
const MAX_TOTAL_WEIGHT: u64 = 1_000_000;

pub(crate) fn problems(fields: &Fields) -> Problems {
    let mut found = Vec::new();
    head(fields, &mut found);
    placement(Which::Current, &fields.current, &mut found);
    if let Some(previous) = &fields.previous {
        placement(Which::Previous, previous, &mut found);
        both(&fields.current, previous, &mut found);
    }
    published(fields, &mut found);
    addresses(fields, &mut found);
    Problems(found)
}

fn head(fields: &Fields, found: &mut Vec<Problem>) {
    if !(1..=MAX_EPOCH).contains(&fields.epoch) {
        found.push(Problem::Epoch {
            epoch: fields.epoch,
            max: MAX_EPOCH,
        });
    }
    if fields.hash != HASH {
        found.push(Problem::UnknownHash {
            name: fields.hash.clone(),
            known: HASH,
        });
    }
    if !(1..=MAX_REPLICAS).contains(&fields.replicas) {
        found.push(Problem::Replicas {
            replicas: fields.replicas,
            max: MAX_REPLICAS,
        });
    }
    let names = fields.generations.keys();
    let bad = names.filter(|name| Namespace::new(name).is_err());
    found.extend(bad.map(|name| Problem::Namespace { name: name.clone() }));
}

fn placement(which: Which, placement: &Placement, found: &mut Vec<Problem>) {
    let members = &placement.members;
    if members.is_empty() {
        found.push(Problem::NoMembers { which });
    }
    let weight = members.iter().map(|member| u64::from(member.weight)).sum();
    if members.len() > MAX_MEMBERS || weight > MAX_TOTAL_WEIGHT {
        found.push(Problem::TooLarge {
            which,
            members: members.len(),
            weight,
            most_members: MAX_MEMBERS,
            most_weight: MAX_TOTAL_WEIGHT,
        });
    }
    let mut ids = BTreeSet::new();
    for each in members {
        member(which, each, found);
        if !ids.insert(&each.id) {
            found.push(Problem::DuplicateId {
                which,
                id: each.id.clone(),
            });
        }
    }
}

fn member(which: Which, member: &Member, found: &mut Vec<Problem>) {
    let id = || member.id.clone();
    if member.id.is_empty() || !is_name(&member.id) {
        found.push(Problem::Id {
            which,
            id: id(),
            max: MAX_NAME_LEN,
        });
    }
    if !is_name(&member.zone) {
        found.push(Problem::Zone {
            id: id(),
            zone: member.zone.clone(),
            max: MAX_NAME_LEN,
        });
    }
    if !(1..=MAX_WEIGHT).contains(&member.weight) {
        found.push(Problem::Weight {
            id: id(),
            weight: member.weight,
            max: MAX_WEIGHT,
        });
    }
    if let Some(address) = member.address.as_ref().filter(|text| !is_address(text)) {
        found.push(Problem::Address {
            id: id(),
            address: address.clone(),
        });
    }
    if is_misplaced(which, member.state) {
        found.push(Problem::Misplaced {
            id: id(),
            state: member.state.as_str(),
            which,
        });
    }
}

/// Who leaves is in no new placement, and who joins was in no old one.
fn is_misplaced(which: Which, state: State) -> bool {
    which == Which::Current && matches!(state, State::Draining | State::Drained)
}

/// The sign that separates an id from the number of a point, `#`, is none of these.
fn is_name(text: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    text.len() <= MAX_NAME_LEN && text.bytes().all(legal)
}

fn is_address(text: &str) -> bool {
    let rest = text.strip_prefix("https://");
    let Some(authority) = rest.or_else(|| text.strip_prefix("http://")) else {
        return false;
    };
    let Some((host, port)) = authority.rsplit_once(':') else {
        return false;
    };
    let inner = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let host_is_fine = match inner {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && is_name(host),
    };
    host_is_fine && port.parse::<u16>().is_ok_and(|port| port > 0)
}

/// What is said of one member twice.
fn both(current: &Placement, previous: &Placement, found: &mut Vec<Problem>) {
    let before: BTreeMap<&str, &Member> = previous
        .members
        .iter()
        .map(|member| (member.id.as_str(), member))
        .collect();
    for now in &current.members {
        let Some(then) = before.get(now.id.as_str()) else {
            continue;
        };
        let faces = [
            ("states", now.state != then.state),
            ("addresses", now.address != then.address),
        ];
        let different = faces.into_iter().filter(|(_, differ)| *differ);
        found.extend(different.map(|(what, _)| Problem::TwoFaces {
            id: now.id.clone(),
            what,
        }));
    }
}

fn published(fields: &Fields, found: &mut Vec<Problem>) {
    let current = fields.current.published_epoch.unwrap_or(fields.epoch);
    let previous = fields
        .previous
        .as_ref()
        .and_then(|previous| previous.published_epoch);
    let in_order = previous.is_none_or(|previous| previous < current) && current <= fields.epoch;
    if !in_order || current == 0 || previous == Some(0) {
        found.push(Problem::Published {
            epoch: fields.epoch,
        });
    }
}

fn addresses(fields: &Fields, found: &mut Vec<Problem>) {
    let placements = [Some(&fields.current), fields.previous.as_ref()];
    let members = placements
        .into_iter()
        .flatten()
        .flat_map(|placement| &placement.members);
    let mut owner_of = BTreeMap::new();
    for member in members {
        let Some(address) = &member.address else {
            continue;
        };
        let one = *owner_of.entry(address).or_insert(&member.id);
        if *one != member.id {
            found.push(Problem::SharedAddress {
                one: one.clone(),
                other: member.id.clone(),
                address: address.clone(),
            });
        }
    }
}
