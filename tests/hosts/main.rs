//! Hosts with trouble: disks that stall or fill up, clocks that are wrong, machines that are suspended. Real servers in
//! this process, over real sockets and files; the trouble is the test's.

mod clock;
mod room;
mod site;
mod stall;
#[path = "../support/mod.rs"]
mod support;
