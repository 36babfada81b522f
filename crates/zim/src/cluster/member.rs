//! A node as it is typed: `ID=ADDRESS`, then `,zone=ZONE` and `,weight=N`.

use zimcache_ring::Member;

use crate::error::{Error, Result};

/// A new node.
pub(super) fn parse(text: &str) -> Result<Member> {
    let refused = || Error::Node(text.to_owned());
    let (id, rest) = text.split_once('=').ok_or_else(refused)?;
    let mut parts = rest.split(',');
    let mut member = Member::new(id);
    member.address = parts.next().map(str::to_owned);
    for part in parts {
        match part.split_once('=') {
            Some(("zone", zone)) => zone.clone_into(&mut member.zone),
            Some(("weight", weight)) => member.weight = weight.parse().map_err(|_| refused())?,
            _ => return Err(refused()),
        }
    }
    Ok(member)
}

/// A node and its new share.
pub(super) fn parse_weight(text: &str) -> Result<(String, u32)> {
    let refused = || Error::Node(text.to_owned());
    let (id, weight) = text.split_once('=').ok_or_else(refused)?;
    let weight = weight.parse().map_err(|_| refused())?;
    Ok((id.to_owned(), weight))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_typed_with_its_address_and_what_is_special_about_it() {
        let member = parse("node-3=http://10.0.0.3:7400,zone=b,weight=200").unwrap();
        assert_eq!(member.id, "node-3");
        assert_eq!(member.address.as_deref(), Some("http://10.0.0.3:7400"));
        assert_eq!((&*member.zone, member.weight), ("b", 200));
        assert_eq!(parse("a=http://b:1").unwrap().weight, 100);
        for wrong in [
            "node-3",
            "a=http://b:1,weight=much",
            "a=http://b:1,colour=red",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
        assert_eq!(parse_weight("a=7").unwrap(), ("a".to_owned(), 7));
        assert!(parse_weight("a").is_err() && parse_weight("a=x").is_err());
    }
}
