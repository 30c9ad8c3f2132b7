//! Advice for a service: what a systemd unit may have to allow.
//!
//! `etc/zrsd.service` lets zrsd write to the folders that the unit itself names, and nowhere else: for zrsd all the
//! rest is read-only, or not there.

use std::io;
use std::path::Path;

/// What to change if the system has refused, for the reason `why`, to let zrsd write below `folder`; empty if there was
/// another reason.
pub fn to_allow(why: &io::Error, folder: &Path) -> String {
    if !matches!(why.kind(), io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied) {
        return String::new();
    }
    let folder = folder.display();
    format!(
        "; the user of zrsd must be able to write there (install -d -o zrs -g zrs -m 700 {folder}), and if systemd starts \
         zrsd, its unit must allow it: systemctl edit zrsd, and below [Service] ReadWritePaths={folder} (also \
         ProtectHome=false if that is in a home)"
    )
}
