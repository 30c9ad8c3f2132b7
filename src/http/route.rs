//! The pages that there are, and the answers to requests for any other.
//!
//! Pure: a method and a path in, a [`Route`] or a finished [`Page`] out.

use super::member;
use super::page::{Page, decoded};
use crate::server::MembersAsk;

/// The pages: method, path and purpose. The front page lists them.
pub const PAGES: [(&str, &str, &str); 13] = [
    ("GET", "/healthz", "200 while this node works, 503 and the fault when it has stopped"),
    ("GET", "/readyz", "200 when this node knows a primary and has caught up with it, else 503 and why not"),
    ("GET", "/primary", "200 when this node is the primary and may commit, else 503: for load balancers"),
    ("GET", "/status", "the state of this node and of the cluster as it sees it, as JSON"),
    ("GET", "/metrics", "counters, for Prometheus"),
    ("POST", "/transfer?to=N", "hands the primary's role to node N, or without to=N to the most advanced one"),
    ("POST", "/storage/drop?name=NAME", "drops a storage in which nothing was ever committed"),
    ("POST", "/member/add?node=N&address=HOST:PORT", "lets a new node in; with &observer it never votes"),
    ("POST", "/member/promote?node=N", "makes an observer a voter"),
    ("POST", "/member/observer?node=N", "makes a voter an observer"),
    ("POST", "/member/remove?node=N", "takes a node out of the cluster"),
    ("POST", "/member/replace?old=N&node=N&address=HOST:PORT", "puts a new node in another one's place"),
    ("POST", "/member/address?node=N&address=HOST:PORT", "gives a node another address"),
];

/// A page that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// The list of pages.
    Front,
    /// `/healthz`
    Health,
    /// `/readyz`
    Ready,
    /// `/primary`
    Primary,
    /// `/status`
    Status,
    /// `/metrics`
    Metrics,
    /// `/transfer`: to this node, or to the most advanced one.
    Transfer(Option<u64>),
    /// `/storage/drop`: the storage of that name.
    DropStorage(String),
    /// `/member/...`
    Members(MembersAsk),
}

/// The kind of a page, on which it depends who may ask for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Whether all is well, and counters.
    Signal,
    /// A description of the cluster.
    Description,
    /// Something changes.
    Change,
}

impl Route {
    /// The route of a request, or the page that says why there is none.
    pub fn of(method: &str, path: &str, query: Option<&str>) -> Result<Route, Page> {
        let route = match path {
            "/" => Route::Front,
            "/healthz" => Route::Health,
            "/readyz" => Route::Ready,
            "/primary" => Route::Primary,
            "/status" => Route::Status,
            "/metrics" => Route::Metrics,
            "/transfer" => Route::Transfer(None),
            "/storage/drop" => Route::DropStorage(String::new()),
            _ => match (member::ask(path, query), method) {
                (Some(wish), "POST") => return wish.map(Route::Members),
                (Some(_), _) => return Err(wrong_method("POST", path)),
                (None, _) => {
                    return Err(Page::text(404, format!("There is nothing at {path}; / lists what there is.")));
                }
            },
        };
        match (route, method) {
            (Route::Transfer(_), "POST") => Ok(Route::Transfer(target(query)?)),
            (Route::DropStorage(_), "POST") => Ok(Route::DropStorage(name(query)?)),
            (Route::Transfer(_) | Route::DropStorage(_), _) => Err(wrong_method("POST", path)),
            (route, "GET" | "HEAD") => Ok(route),
            _ => Err(wrong_method("GET, HEAD", path)),
        }
    }

    /// The kind of the page.
    pub fn kind(&self) -> Kind {
        match self {
            Route::Health | Route::Ready | Route::Primary | Route::Metrics => Kind::Signal,
            Route::Front | Route::Status => Kind::Description,
            Route::Transfer(_) | Route::DropStorage(_) | Route::Members(_) => Kind::Change,
        }
    }
}

fn wrong_method(allow: &'static str, path: &str) -> Page {
    Page { allow: Some(allow), ..Page::text(405, format!("{path} answers to {allow} only.")) }
}

fn target(query: Option<&str>) -> Result<Option<u64>, Page> {
    let mut target = None;
    for part in query.unwrap_or_default().split('&').filter(|part| !part.is_empty()) {
        match part.strip_prefix("to=").map(str::parse::<u64>) {
            Some(Ok(node)) if node > 0 && target.is_none() => target = Some(node),
            _ => {
                return Err(Page::text(
                    400,
                    format!(
                        "{part:?} is not understood: write /transfer?to=N with the number of a node, or /transfer."
                    ),
                ));
            }
        }
    }
    Ok(target)
}

/// The storage to drop.
fn name(query: Option<&str>) -> Result<String, Page> {
    let query = query.unwrap_or_default();
    match query.strip_prefix("name=").and_then(decoded) {
        Some(name) if !name.is_empty() => Ok(name),
        _ => Err(Page::text(
            400,
            format!("{query:?} is not understood: write /storage/drop?name=NAME with the name of a storage."),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_page_of_the_list_is_routed() {
        for (method, page, _) in PAGES {
            let (path, query) = page.split_once('?').unwrap_or((page, ""));
            let query = query.replace('N', "2").replace("HOST:PORT", "a:1");
            Route::of(method, path, Some(&query)).unwrap();
        }
        assert_eq!(Route::of("GET", "/", None), Ok(Route::Front));
        assert_eq!(Route::of("HEAD", "/primary", None), Ok(Route::Primary));
        assert_eq!(Route::of("POST", "/transfer", None), Ok(Route::Transfer(None)));
        assert_eq!(Route::of("POST", "/transfer", Some("to=3")), Ok(Route::Transfer(Some(3))));
        let drop = |query| Route::of("POST", "/storage/drop", Some(query)).map_err(|page| page.status);
        assert_eq!(drop("name=a%20b%26%C3%A9+"), Ok(Route::DropStorage("a b&é+".into())));
        for wrong in ["", "name=", "name=a&name=b", "name=%4", "name=%zz", "name=%ff", "to=1"] {
            assert_eq!(drop(wrong), Err(400), "{wrong}");
        }
    }

    #[test]
    fn what_is_not_there_is_said_in_plain_words() {
        let lost = Route::of("GET", "/nowhere", None).unwrap_err();
        assert_eq!((lost.status, lost.body.as_str()), (404, "There is nothing at /nowhere; / lists what there is.\n"));
        let wrong = Route::of("GET", "/transfer", Some("to=2")).unwrap_err();
        assert_eq!((wrong.status, wrong.allow), (405, Some("POST")));
        assert_eq!(Route::of("GET", "/storage/drop", Some("name=a")).unwrap_err().status, 405);
        assert_eq!(Route::of("DELETE", "/status", None).unwrap_err().allow, Some("GET, HEAD"));
        for query in ["to=", "to=0", "to=x", "to=-1", "to=1&to=2", "from=1"] {
            assert_eq!(Route::of("POST", "/transfer", Some(query)).unwrap_err().status, 400, "{query}");
        }
    }
}
