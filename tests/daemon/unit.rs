//! The systemd unit, as systemd reads it.

use std::fs;
use std::path::Path;
use std::process::Command;

fn unit() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("etc/zrsd.service")).unwrap()
}

#[test]
fn the_unit_never_gives_up() {
    let unit = unit();
    let has = |line: &str| unit.lines().any(|known| known == line);
    for line in ["StartLimitIntervalSec=0", "Restart=always", "RestartSteps=6", "RestartMaxDelaySec=30"] {
        assert!(has(line), "{line}");
    }
    assert!(!unit.contains("RestartPreventExitStatus"), "{unit}");
    // The thread that keeps a primary in its role may go ahead of others.
    assert!(has("LimitNICE=-10") && has("SystemCallFilter=@system-service"), "{unit}");
    assert!(!unit.lines().any(|line| line.starts_with("SystemCallFilter=~") && line.contains("@resources")), "{unit}");
}

#[test]
fn systemd_understands_the_unit_and_thinks_it_safe() {
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("zrsd.service");
    fs::write(&file, unit().replace("/usr/local/bin/zrsd", env!("CARGO_BIN_EXE_zrsd"))).unwrap();
    let run = |arguments: &[&str]| {
        let ran = Command::new("systemd-analyze").args(arguments).arg(&file).output().unwrap();
        let said = [ran.stdout, ran.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
        (ran.status.success(), said)
    };
    let (is_right, said) = run(&["verify", "--man=no"]);
    // (systemd before 254 does not know these, and goes on without them. It also looks at other units, which are not
    // ours.)
    let known = |line: &&str| line.contains("'RestartSteps'") || line.contains("'RestartMaxDelaySec'");
    let wrong: Vec<&str> = said.lines().filter(|line| line.contains("zrsd.service") && !known(line)).collect();
    assert!(is_right && wrong.is_empty(), "{said}");
    let (is_safe, said) = run(&["security", "--offline=true", "--no-pager", "--threshold=20"]);
    assert!(is_safe, "{said}");
}
