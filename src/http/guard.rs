//! Requests that the web page of another site may have asked for, in the browser of somebody who reaches this address.
//!
//! Such a page can send a request here, and read no answer; but if its own name is made to lead to this address (DNS
//! rebinding), a browser lets it read answers, too. A browser can't be made to lie about three headers: `Host` has the
//! name by which the page's site goes, `Origin` the site itself, and `Sec-Fetch-Site` how the two are related.
//!
//! | the request | is answered |
//! |---|---|
//! | changes something | if Host is this node's, and neither Origin nor Sec-Fetch-Site tells of another site |
//! | reads what the cluster is like (`/`, `/status`) | if Host is this node's, or there is none (no browser) |
//! | reads whether all is well, and counters | always: balancers and scrapers ask by names of their own |
//!
//! (But the reason of a 503 is told to those only who ask by a name of this node.)
//!
//! Pure: headers and names in, a refusal out.

use std::collections::BTreeSet;
use std::net::IpAddr;

use hyper::HeaderMap;
use hyper::header;

use super::page::Page;

/// The hosts by which this node may be asked, beside all IP addresses and `localhost`.
#[derive(Clone, Debug, Default)]
pub struct Names(BTreeSet<String>);

impl Names {
    /// The hosts in addresses (`HOST:PORT`).
    pub fn of(addresses: impl IntoIterator<Item = String>) -> Names {
        Names(addresses.into_iter().filter_map(|address| host_of(&address).map(plain)).collect())
    }

    /// (An IP address is never in the hand of whoever has a name.)
    fn have(&self, host: &str) -> bool {
        let host = plain(host);
        host == "localhost" || host.parse::<IpAddr>().is_ok() || self.0.contains(&host)
    }
}

/// Whether a reader may be told what the cluster is like; if not, the page that says why.
pub fn may_read(headers: &HeaderMap, names: &Names) -> Result<(), Page> {
    match host(headers) {
        Host::None => Ok(()),
        Host::One(name) => known(name, names),
        Host::Odd => Err(refused("its Host header is none")),
    }
}

/// Whether the request may change something; if not, the page that says why.
pub fn may_change(headers: &HeaderMap, names: &Names) -> Result<(), Page> {
    let name = match host(headers) {
        Host::One(name) => name,
        Host::None | Host::Odd => return Err(refused("it has no Host header, or more than one")),
    };
    known(name, names)?;
    for origin in headers.get_all(header::ORIGIN) {
        let origin = origin.to_str().unwrap_or("?");
        if !origin.eq_ignore_ascii_case(&format!("http://{name}")) {
            return Err(refused(&format!("a page of another site ({origin}) asks for this")));
        }
    }
    for site in headers.get_all("sec-fetch-site") {
        if !["same-origin", "none"].iter().any(|fine| site.as_bytes() == fine.as_bytes()) {
            return Err(refused("a page of another site asks for this"));
        }
    }
    Ok(())
}

enum Host<'r> {
    None,
    One(&'r str),
    /// Several, or no text.
    Odd,
}

fn host(headers: &HeaderMap) -> Host<'_> {
    let mut all = headers.get_all(header::HOST).into_iter();
    match (all.next(), all.next()) {
        (None, _) => Host::None,
        (Some(one), None) => one.to_str().map_or(Host::Odd, Host::One),
        (Some(_), Some(_)) => Host::Odd,
    }
}

fn known(name: &str, names: &Names) -> Result<(), Page> {
    match host_of(name) {
        Some(host) if names.have(host) => Ok(()),
        _ => Err(refused(&format!(
            "this node does not go by the name {name:?}; ask by an IP address, localhost, the host of a node in --peers, \
             or that of --http"
        ))),
    }
}

fn refused(why: &str) -> Page {
    Page::text(403, format!("Refused: {why}."))
}

/// The host in `HOST`, `HOST:PORT`, `[IPV6]` or `[IPV6]:PORT`.
fn host_of(authority: &str) -> Option<&str> {
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?.0,
        None => authority.split_once(':').map_or(authority, |(host, _)| host),
    };
    (!host.is_empty()).then_some(host)
}

/// A name as it is compared: names may be written in capitals, and with the dot of DNS' root at their end.
fn plain(host: &str) -> String {
    host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderName;

    use super::*;

    fn headers(all: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in all {
            headers.append(HeaderName::from_static(name), value.parse().unwrap());
        }
        headers
    }

    fn names() -> Names {
        Names::of(["db1:8100", "DB2.example.org.:8100", "[::1]:8180", "10.0.0.1:8100"].map(str::to_owned))
    }

    fn change(all: &[(&'static str, &str)]) -> Result<(), String> {
        may_change(&headers(all), &names()).map_err(|page| {
            assert_eq!(page.status, 403);
            page.body
        })
    }

    #[test]
    fn this_node_goes_by_its_names_and_by_any_ip_address() {
        let own =
            ["127.0.0.1:8180", "[::1]:8180", "[fe80::1]", "10.9.9.9", "localhost", "LOCALHOST:1", "db1", "Db1:8180"];
        for host in own.into_iter().chain(["db2.example.org:8180", "db2.example.org.:8180", "localhost."]) {
            assert_eq!(change(&[("host", host)]), Ok(()), "{host}");
        }
        let foreign = ["evil.example", "db1.evil.example:8180", "localhost.evil.example", "127.0.0.1.evil.example:80"];
        for host in foreign.into_iter().chain(["", ":8180", "evil@db1", "db1@evil.example", "127.0.0.1x"]) {
            assert!(change(&[("host", host)]).is_err(), "{host}");
        }
        let why = change(&[("host", "evil.example:8180")]).unwrap_err();
        assert!(why.contains("does not go by the name \"evil.example:8180\""), "{why}");
        assert!(change(&[]).unwrap_err().contains("no Host header"));
        assert!(change(&[("host", "db1"), ("host", "evil.example")]).unwrap_err().contains("more than one"));
    }

    #[test]
    fn what_a_page_of_another_site_asks_for_is_refused() {
        let host = ("host", "127.0.0.1:8180");
        for fine in ["http://127.0.0.1:8180", "HTTP://127.0.0.1:8180"] {
            assert_eq!(change(&[host, ("origin", fine), ("sec-fetch-site", "same-origin")]), Ok(()));
        }
        assert_eq!(change(&[host, ("sec-fetch-site", "none")]), Ok(()));
        for origin in [
            "http://evil.example",
            "null",
            "http://127.0.0.1:8181",
            "https://127.0.0.1:8180",
            "",
            "http://localhost:8180",
        ] {
            let why = change(&[host, ("origin", origin)]).unwrap_err();
            assert!(why.contains(&format!("another site ({origin})")), "{why}");
        }
        for site in ["cross-site", "same-site", ""] {
            assert!(change(&[host, ("sec-fetch-site", site)]).is_err(), "{site}");
        }
        assert!(change(&[host, ("origin", "http://127.0.0.1:8180"), ("origin", "http://evil.example")]).is_err());
    }

    #[test]
    fn who_reads_by_a_foreign_name_is_told_nothing() {
        assert_eq!(may_read(&headers(&[("host", "db1:8180")]), &names()), Ok(()));
        assert_eq!(may_read(&headers(&[]), &names()), Ok(()), "HTTP/1.0, no browser");
        assert_eq!(may_read(&headers(&[("host", "evil.example:8180")]), &names()).unwrap_err().status, 403);
        assert_eq!(may_read(&headers(&[("host", "db1"), ("host", "db1")]), &names()).unwrap_err().status, 403);
    }
}
