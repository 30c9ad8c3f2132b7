//! The value of `--log-level`: a level, or directives for parts of the program.

/// The levels, from none on.
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
const CURE: &str = "write error, warn, info, debug or trace (or off), or levels for parts of the program, such as \
                    info,zrs::raft=debug";

/// The directives of a log level: `None` as the target means all that no other directive names. An error says what is
/// wrong. (Whether a target exists can't be known.)
pub fn directives(level: &str) -> Result<Vec<(Option<&str>, String)>, String> {
    let parts = level.split(',').map(str::trim).filter(|part| !part.is_empty());
    let directives = parts.map(|part| {
        let (target, level) = match part.split_once('=') {
            Some((target, level)) => (Some(target.trim()), level.trim()),
            None => (None, part),
        };
        let is_target = |target: &str| {
            !target.is_empty() && target.chars().all(|c| c.is_ascii_alphanumeric() || ['_', ':', '-'].contains(&c))
        };
        if let Some(target) = target.filter(|target| !is_target(target)) {
            return Err(format!("{target:?} can't be a part of the program: {CURE}"));
        }
        match LEVELS.iter().find(|known| known.eq_ignore_ascii_case(level)) {
            Some(level) => Ok((target, (*level).to_owned())),
            None => Err(format!("{level:?} is no level: {CURE}")),
        }
    });
    let directives: Vec<_> = directives.collect::<Result<_, _>>()?;
    if directives.is_empty() { Err(format!("it is empty: {CURE}")) } else { Ok(directives) }
}
