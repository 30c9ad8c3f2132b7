//! Addresses as operators write them: `host:port`, or the path of a unix socket.

/// Whether `address` is the path of a unix socket: only a path has a slash.
pub fn is_path(address: &str) -> bool {
    address.contains('/')
}

/// Whether `address` is `host:port`: a name, an IPv4 address or an IPv6 address in brackets, and a port.
pub fn is_address(address: &str) -> bool {
    host(address).is_some_and(|host| !host.is_empty() && !host.contains(|c: char| c.is_whitespace() || c == '/'))
        && port(address).is_some()
}

/// Why `address` is not `host:port`, and the cure.
pub fn fault(address: &str) -> String {
    let usual = "write HOST:PORT, such as 10.0.0.1:8100, db1:8100 or [::1]:8100";
    let (host, port) = address.rsplit_once(':').unwrap_or((address, ""));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if address.contains("://") {
        return format!("{usual}, without http:// or the like");
    }
    if !address.contains(':') {
        return match is_number(address) {
            true => format!("its host is missing: {usual}"),
            false => format!("its port is missing: {usual}"),
        };
    }
    if is_number(port) && port.parse::<u16>().is_err() {
        return "ports end at 65535".into();
    }
    if host.contains(':') && !host.starts_with('[') {
        return format!("write an IPv6 address in brackets, such as [{host}]:{port}");
    }
    usual.into()
}

/// The port of `host:port`.
pub fn port(address: &str) -> Option<u16> {
    let (_, port) = address.rsplit_once(':')?;
    if port.bytes().all(|b| b.is_ascii_digit()) { port.parse().ok() } else { None }
}

/// The host of `host:port`, without the brackets of an IPv6 address.
pub fn host(address: &str) -> Option<&str> {
    let (host, _) = address.rsplit_once(':')?;
    match host.strip_prefix('[') {
        Some(inner) => inner.strip_suffix(']'),
        None if host.contains(':') => None,
        None => Some(host),
    }
}
