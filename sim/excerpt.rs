//! What of a seed's faults is left out, so that a failed run can be made smaller.

use std::collections::BTreeSet;
use std::time::Duration;

/// The environment variable with the only faults that may begin: `kill.1,reset.0`.
const ONLY: &str = "ONLY";
/// The environment variable that says for how many seconds faults begin.
const UNTIL: &str = "UNTIL";

/// What of a seed's faults is left out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Excerpt {
    /// The faults that may begin, by name and number; `None`: all.
    pub only: Option<BTreeSet<String>>,
    /// For how long faults begin, if not as usual.
    pub until: Option<Duration>,
}

impl Excerpt {
    /// As the environment asks for.
    pub fn wanted() -> Excerpt {
        let list = |text: String| text.split(',').filter(|one| !one.is_empty()).map(str::to_owned).collect();
        let seconds = |text: String| {
            let seconds: Option<f64> = text.parse().ok().filter(|seconds| (0.0..1e6).contains(seconds));
            Duration::from_secs_f64(seconds.unwrap_or_else(|| panic!("{UNTIL}={text} are no seconds")))
        };
        Excerpt { only: std::env::var(ONLY).ok().map(list), until: std::env::var(UNTIL).ok().map(seconds) }
    }

    /// Whether the fault `name` may begin for the `number`th time.
    pub fn has(&self, name: &str, number: u64) -> bool {
        self.only.as_ref().is_none_or(|only| only.contains(&called(name, number)))
    }

    /// The same, for the environment of a process.
    pub fn variables(&self) -> Vec<(&'static str, String)> {
        let only = self.only.iter().map(|only| (ONLY, only.iter().cloned().collect::<Vec<_>>().join(",")));
        only.chain(self.until.iter().map(|until| (UNTIL, until.as_secs_f64().to_string()))).collect()
    }
}

/// The name of a fault's `number`th time.
pub fn called(name: &str, number: u64) -> String {
    format!("{name}.{number}")
}
