//! Places that are being rebuilt, and need not keep a rule until they are.
//!
//! An exception that is no longer needed fails its rule, so that this list only gets shorter.

/// A rule, the beginning of the paths that need not keep it yet, and why.
type Exception = (&'static str, &'static str, &'static str);

const UNFINISHED: [Exception; 0] = [];

/// Where a rule is broken: the files that are at fault, and what to tell.
pub struct Breach {
    pub paths: Vec<String>,
    pub told: String,
}

impl Breach {
    pub fn of(path: &str, told: String) -> Breach {
        Breach { paths: vec![path.to_owned()], told }
    }
}

/// The breaches of a rule that are not excepted, and the exceptions from it that nothing needs any more.
pub fn judge(rule: &str, breaches: Vec<Breach>) -> Vec<String> {
    judge_by(&UNFINISHED, rule, breaches)
}

fn judge_by(exceptions: &[Exception], rule: &str, breaches: Vec<Breach>) -> Vec<String> {
    let exceptions: Vec<&Exception> = exceptions.iter().filter(|(of, _, _)| *of == rule).collect();
    let mut needed = vec![false; exceptions.len()];
    let mut broken = Vec::new();
    for breach in breaches {
        match exceptions.iter().position(|(_, start, _)| breach.paths.iter().all(|path| path.starts_with(start))) {
            Some(exception) => needed[exception] = true,
            None => broken.push(breach.told),
        }
    }
    for ((_, start, why), _) in exceptions.iter().zip(needed).filter(|(_, needed)| !needed) {
        broken.push(format!(
            "{start}: nothing here breaks the rule any more; take its exception ({why}) out of tests/tidy/unfinished.rs"
        ));
    }
    broken
}

#[test]
fn an_exception_holds_for_its_place_and_rule_and_only_while_it_is_needed() {
    let exceptions = [("rule", "src/a/", "being rebuilt")];
    let breach = |path| vec![Breach::of(path, format!("{path} is bad"))];
    assert!(judge_by(&exceptions, "rule", breach("src/a/b.rs")).is_empty());
    assert_eq!(judge_by(&exceptions, "another", breach("src/a/b.rs")), ["src/a/b.rs is bad"]);
    let told = judge_by(&exceptions, "rule", breach("src/c.rs"));
    assert_eq!(told[0], "src/c.rs is bad");
    assert!(told[1].starts_with("src/a/: nothing here breaks the rule any more"), "{told:?}");
    let both = Breach { paths: vec!["src/a/b.rs".into(), "src/c.rs".into()], told: "both".into() };
    assert_eq!(judge_by(&exceptions, "rule", vec![both])[0], "both");
}
