//! The pages that there are, and the answers to requests for any other.
//!
//! Pure: a method and a path in, a [`Route`] or a finished [`Page`] out.

/// The pages: method, path and purpose. The front page lists them.
pub const PAGES: [(&str, &str, &str); 6] = [
    ("GET", "/healthz", "200 while this node works, 503 and the fault when it has stopped"),
    ("GET", "/readyz", "200 when this node knows a primary and has caught up with it, else 503 and why not"),
    ("GET", "/primary", "200 when this node is the primary and may commit, else 503: for load balancers"),
    ("GET", "/status", "the state of this node and of the cluster as it sees it, as JSON"),
    ("GET", "/metrics", "counters, for Prometheus"),
    ("POST", "/transfer?to=N", "hands the primary's role to node N, or without to=N to the most advanced one"),
];

/// A page that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
}

/// A page as it is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The HTTP status.
    pub status: u16,
    /// The type of the body.
    pub content_type: &'static str,
    /// The methods that the page has, for a 405.
    pub allow: Option<&'static str>,
    /// The whole body.
    pub body: String,
}

impl Page {
    /// A line of text for people.
    pub fn text(status: u16, line: impl Into<String>) -> Page {
        let mut body = line.into();
        body.push('\n');
        Page { status, content_type: "text/plain; charset=utf-8", allow: None, body }
    }
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
            _ => return Err(Page::text(404, format!("There is nothing at {path}; / lists what there is."))),
        };
        match (route, method) {
            (Route::Transfer(_), "POST") => Ok(Route::Transfer(target(query)?)),
            (Route::Transfer(_), _) => Err(wrong_method("POST", path)),
            (_, "GET" | "HEAD") => Ok(route),
            _ => Err(wrong_method("GET, HEAD", path)),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_page_of_the_list_is_routed() {
        for (method, page, _) in PAGES {
            let (path, query) = page.split_once('?').unwrap_or((page, ""));
            let query = query.replace('N', "2");
            Route::of(method, path, Some(&query)).unwrap();
        }
        assert_eq!(Route::of("GET", "/", None), Ok(Route::Front));
        assert_eq!(Route::of("HEAD", "/primary", None), Ok(Route::Primary));
        assert_eq!(Route::of("POST", "/transfer", None), Ok(Route::Transfer(None)));
        assert_eq!(Route::of("POST", "/transfer", Some("to=3")), Ok(Route::Transfer(Some(3))));
    }

    #[test]
    fn what_is_not_there_is_said_in_plain_words() {
        let lost = Route::of("GET", "/nowhere", None).unwrap_err();
        assert_eq!((lost.status, lost.body.as_str()), (404, "There is nothing at /nowhere; / lists what there is.\n"));
        let wrong = Route::of("GET", "/transfer", Some("to=2")).unwrap_err();
        assert_eq!((wrong.status, wrong.allow), (405, Some("POST")));
        assert_eq!(Route::of("DELETE", "/status", None).unwrap_err().allow, Some("GET, HEAD"));
        for query in ["to=", "to=0", "to=x", "to=-1", "to=1&to=2", "from=1"] {
            assert_eq!(Route::of("POST", "/transfer", Some(query)).unwrap_err().status, 400, "{query}");
        }
    }
}
