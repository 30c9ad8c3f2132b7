//! The requests that change the members of the cluster: a path and a query in, a wish out.

use std::collections::BTreeMap;

use super::page::{Page, decoded};
use crate::server::MembersAsk;

/// The wish of a POST to `path`; `None`: the path is another page's.
pub fn ask(path: &str, query: Option<&str>) -> Option<Result<MembersAsk, Page>> {
    let (ask, form) = match path.strip_prefix("/member/")? {
        "add" => (Ask::Add, "node=N&address=HOST:PORT, and perhaps &observer"),
        "promote" => (Ask::Promote, "node=N"),
        "observer" => (Ask::Observe, "node=N"),
        "remove" => (Ask::Remove, "node=N"),
        "replace" => (Ask::Replace, "old=N&node=N&address=HOST:PORT, and perhaps &planned"),
        "address" => (Ask::Address, "node=N&address=HOST:PORT"),
        _ => return None,
    };
    let query = query.unwrap_or_default();
    let wish = values(query).and_then(|values| of(ask, values));
    Some(wish.ok_or_else(|| Page::text(400, format!("{query:?} is not understood: write {path}?{form}."))))
}

enum Ask {
    Add,
    Promote,
    Observe,
    Remove,
    Replace,
    Address,
}

/// The values of a query by their names, each at most once.
fn values(query: &str) -> Option<BTreeMap<&str, String>> {
    let mut found = BTreeMap::new();
    for part in query.split('&').filter(|part| !part.is_empty()) {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        if found.insert(name, decoded(value)?).is_some() {
            return None;
        }
    }
    Some(found)
}

fn of(ask: Ask, mut values: BTreeMap<&str, String>) -> Option<MembersAsk> {
    let node = number(values.remove("node")?)?;
    let mut address = || values.remove("address").filter(|address| is_address(address));
    let wish = match ask {
        Ask::Add => MembersAsk::Add { node, address: address()?, observer: flag(&mut values, "observer")? },
        Ask::Promote => MembersAsk::Promote { node },
        Ask::Observe => MembersAsk::Observe { node },
        Ask::Remove => MembersAsk::Remove { node },
        Ask::Replace => {
            let address = address()?;
            let old = number(values.remove("old")?)?;
            MembersAsk::Replace { old, node, address, planned: flag(&mut values, "planned")? }
        }
        Ask::Address => MembersAsk::Address { node, address: address()? },
    };
    values.is_empty().then_some(wish)
}

fn number(text: String) -> Option<u64> {
    text.parse().ok().filter(|number| *number > 0)
}

fn flag(values: &mut BTreeMap<&str, String>, name: &str) -> Option<bool> {
    match values.remove(name) {
        Some(value) if value.is_empty() => Some(true),
        Some(_) => None,
        None => Some(false),
    }
}

/// Whether it is `host:port`.
fn is_address(text: &str) -> bool {
    let port = text.rsplit_once(':').filter(|(host, _)| !host.is_empty() && !host.contains(char::is_whitespace));
    matches!(port.map(|(_, port)| port.parse()), Some(Ok(1u16..)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(path: &str, query: &str) -> Option<MembersAsk> {
        ask(path, Some(query)).unwrap().map_err(|page| assert_eq!(page.status, 400)).ok()
    }

    #[test]
    fn every_wish_has_its_words() {
        let address = || "host4:8100".to_owned();
        assert_eq!(
            wish("/member/add", "node=4&address=host4%3A8100&observer"),
            Some(MembersAsk::Add { node: 4, address: address(), observer: true })
        );
        assert_eq!(
            wish("/member/replace", "old=2&node=4&address=host4:8100"),
            Some(MembersAsk::Replace { old: 2, node: 4, address: address(), planned: false })
        );
        assert_eq!(wish("/member/promote", "node=4"), Some(MembersAsk::Promote { node: 4 }));
        assert_eq!(wish("/member/observer", "node=4"), Some(MembersAsk::Observe { node: 4 }));
        assert_eq!(wish("/member/remove", "node=4"), Some(MembersAsk::Remove { node: 4 }));
        assert_eq!(
            wish("/member/address", "node=4&address=host4:8100"),
            Some(MembersAsk::Address { node: 4, address: address() })
        );
        assert_eq!(ask("/status", None), None);
        assert_eq!(ask("/member/drop", Some("node=4")), None);
    }

    #[test]
    fn what_is_not_a_wish_is_refused() {
        for query in ["", "node=0&address=a:1", "node=4", "node=4&address=a", "node=4&address=a:0", "node=4&node=4"] {
            assert_eq!(wish("/member/add", query), None, "{query}");
        }
        for query in ["node=4&address=a:1&planned", "node=4&address=a:1&observer=no", "node=4&address=:1"] {
            assert_eq!(wish("/member/add", query), None, "{query}");
        }
        assert_eq!(wish("/member/replace", "node=4&address=a:1"), None);
    }
}
