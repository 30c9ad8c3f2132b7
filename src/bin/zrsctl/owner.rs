//! Refuses to write into the data folder of another user.
//!
//! Files that root leaves in the folder of zrsd's own user are closed to zrsd, which then can't start: an export, too,
//! opens the database, and the database writes. A folder that is not there yet is no matter: its maker owns it, and
//! systemd gives it to the unit's user at the first start.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use anyhow::bail;

/// An error, if the folder is there and belongs to another user than this process runs as.
pub fn check(folder: &Path) -> anyhow::Result<()> {
    let Ok(found) = fs::metadata(folder) else { return Ok(()) };
    let (owner, own) = (found.uid(), rustix::process::geteuid().as_raw());
    if owner != own {
        let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let (owner, own) = (name(&users, owner), name(&users, own));
        bail!(
            "data folder {} belongs to user {owner}, and zrsctl runs as {own}: what it writes there would be closed to \
             zrsd. Run it as that user (sudo -u {owner} zrsctl ...), or change the owner of the folder first (chown -R)",
            folder.display()
        );
    }
    Ok(())
}

/// The user's name by the lines of /etc/passwd, or the number as sudo takes it.
fn name(users: &str, uid: u32) -> String {
    let named = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, number) = (fields.next()?, fields.nth(1)?);
        (number.parse() == Ok(uid)).then(|| name.to_owned())
    });
    named.unwrap_or_else(|| format!("'#{uid}'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let users = "root:x:0:0:root:/root:/bin/sh\n\nodd\nzrs:x:998:998::/var/lib/zrs:/usr/sbin/nologin\n";
        assert_eq!((name(users, 998).as_str(), name(users, 0).as_str()), ("zrs", "root"));
        assert_eq!((name(users, 99), name("", 0)), ("'#99'".to_owned(), "'#0'".to_owned()));
    }

    #[test]
    fn folders() {
        let own = tempfile::tempdir().unwrap();
        check(own.path()).unwrap();
        check(&own.path().join("not there")).unwrap();
    }
}
