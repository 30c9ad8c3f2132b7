//! How the files that a process may have open are shared out between the database, the doors and the rest.
//!
//! A process that has no descriptor left can neither write its database nor answer its peers, whoever took the last
//! one. So clients are counted against what is left after everything else has got its part, and are turned away at the
//! door beyond that.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::limits;

/// The parts. Without a limit of the system each is the limit of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenFiles {
    /// Files of the database's engine.
    pub store: usize,
    /// Connections to the client port, and those on behalf of relayed clients to the primary.
    pub connections: usize,
    /// Connections beyond that of peers.
    pub reserved: usize,
    /// Connections to the HTTP address.
    pub http: usize,
}

impl Default for OpenFiles {
    fn default() -> OpenFiles {
        OpenFiles {
            store: limits::STORE_FILES,
            connections: limits::CONNECTIONS,
            reserved: limits::RESERVED,
            http: limits::HTTP_CONNECTIONS,
        }
    }
}

impl OpenFiles {
    /// The parts for a process that may have `limit` files open.
    pub fn of(limit: usize) -> OpenFiles {
        let most = OpenFiles::default();
        let (store, reserved, http) =
            (most.store.min(limit / 4), most.reserved.min(limit / 16), most.http.min(limit / 16));
        let rest = limit.saturating_sub(limits::OTHER_FILES + store + reserved + http);
        OpenFiles { store, reserved, http, connections: most.connections.min(rest) }
    }

    /// The parts for this process as it is.
    pub fn of_process() -> OpenFiles {
        getrlimit(Resource::Nofile).current.map_or_else(OpenFiles::default, |limit| OpenFiles::of(limit as usize))
    }

    /// Raises this process's own limit as far as the system lets it, and gives the parts.
    ///
    /// # Errors
    /// The limit is too small to serve anybody; the text says what to do.
    pub fn raise() -> Result<OpenFiles, String> {
        let before = getrlimit(Resource::Nofile);
        let wanted = Rlimit { current: before.maximum, maximum: before.maximum };
        // (A system that refuses leaves what there is.)
        if before.current != before.maximum && setrlimit(Resource::Nofile, wanted).is_ok() {
            tracing::debug!(from = before.current, to = before.maximum, "raised the limit of open files");
        }
        let limit = getrlimit(Resource::Nofile).current;
        match limit {
            Some(limit) if (limit as usize) < limits::OPEN_FILES_LEAST => Err(format!(
                "this process may have {limit} files open, and needs {} at least: raise the limit (`ulimit -n`, \
                 `LimitNOFILE=` of a systemd unit, `--ulimit nofile=` of a container)",
                limits::OPEN_FILES_LEAST
            )),
            _ => Ok(OpenFiles::of_process()),
        }
    }

    /// Warns if the limit of this process is what bounds the number of clients.
    pub fn warning(&self) -> Option<String> {
        (self.connections < limits::CONNECTIONS).then(|| {
            format!(
                "room for {} connections: the system lets this process have no more files open (`ulimit -n`, \
                 `LimitNOFILE=` of a systemd unit); {} would be the most",
                self.connections,
                limits::CONNECTIONS
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_gets_something_and_together_they_fit() {
        for limit in [limits::OPEN_FILES_LEAST, 200, 1_024, 4_096, 65_536, 1 << 20] {
            let OpenFiles { store, connections, reserved, http } = OpenFiles::of(limit);
            assert!(store + connections + reserved + http + limits::OTHER_FILES <= limit, "{limit}");
            assert!(store >= 32 && connections >= 32 && reserved >= 8 && http >= 8, "{limit}");
        }
        assert_eq!(OpenFiles::of(1 << 20), OpenFiles::default());
        assert_eq!(OpenFiles::of(0).connections, 0);
    }
}
