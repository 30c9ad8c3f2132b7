//! The certificates that are trusted by each list, and frames over TLS.

use std::path::PathBuf;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;

use super::testing::{certificate, path};
use super::*;
use crate::net::{FrameReader, FrameWriter};

const NODE: &str = "127.0.0.1:8100";

fn files(cert: &str, client_ca: Option<PathBuf>, peers: PeerTrust) -> TlsFiles {
    TlsFiles { cert: path(cert), key: path(&format!("{cert}_key")), client_ca, peers }
}

fn tls(cert: &str, client_ca: Option<&str>, peers: PeerTrust) -> Tls {
    Tls::load(files(cert, client_ca.map(path), peers), Env::system()).unwrap()
}

fn peer_ca() -> PeerTrust {
    PeerTrust::Ca(path("peers-ca"))
}

fn refused(files: TlsFiles) -> String {
    Tls::load(files, Env::system()).unwrap_err().to_string()
}

/// A client that believes `ca`, with a certificate of its own or without.
fn client(ca: &str, own: Option<&str>) -> TlsClient {
    let own = own.map(|own| (path(own), path(&format!("{own}_key"))));
    let own = own.as_ref().map(|(cert, key)| (cert.as_path(), key.as_path()));
    TlsClient::new(&path(ca), own, None, &Env::system()).unwrap()
}

/// Two ends of a connection that holds `room` bytes.
fn wires(room: usize) -> (Wire, Wire) {
    let (near, far) = tokio::io::duplex(room);
    let wire = |end| {
        let (reader, writer) = tokio::io::split(end);
        Wire { reader: Box::new(reader), writer: Box::new(writer), peer: "test".into() }
    };
    (wire(near), wire(far))
}

async fn shake(
    near: impl Future<Output = io::Result<Wire>>,
    server: &Tls,
    far: Wire,
) -> (io::Result<Wire>, io::Result<(Wire, Credentials)>) {
    tokio::join!(near, server.accept(far, Bytes::new()))
}

/// The credentials that the server gives to a client, or the reason for which either side refused the other.
async fn meet(client: &TlsClient, server: &Tls) -> Result<Credentials, String> {
    let (near, far) = wires(64 << 10);
    let (ours, theirs) = shake(client.connect(near, NODE), server, far).await;
    let (_, credentials) = theirs.map_err(|why| why.to_string())?;
    ours.map_err(|why| why.to_string())?;
    Ok(credentials)
}

#[tokio::test(start_paused = true)]
async fn without_a_list_of_clients_nobody_needs_a_certificate() {
    let server = tls("node1", None, PeerTrust::Nobody);
    let met = meet(&client("peers-ca", None), &server).await.unwrap();
    assert_eq!(met.may_be_client(), Ok(()));
    assert!(met.may_be_peer(NODE).is_err());
    assert_eq!(met.name(), None);
    // Nor is one asked for.
    assert_eq!(meet(&client("peers-ca", Some("client")), &server).await.unwrap().name(), None);
}

#[tokio::test(start_paused = true)]
async fn clients_are_believed_by_their_ca() {
    let server = tls("node1", Some("clients-ca"), PeerTrust::Nobody);
    let met = meet(&client("peers-ca", Some("client")), &server).await.unwrap();
    assert_eq!(met.may_be_client(), Ok(()));
    assert_eq!(met.name().as_deref(), Some("client"));
    for (name, why) in [
        ("stranger", "is not listed, and is signed by no listed CA"),
        ("self", "is not listed itself"),
        ("minted", "by no listed CA"),
        ("expired", "has expired"),
        ("future", "is not valid yet"),
    ] {
        let said = meet(&client("peers-ca", Some(name)), &server).await.unwrap_err();
        assert!(said.contains(why), "{name}: {said}");
    }
    let said = meet(&client("peers-ca", None), &server).await.unwrap_err();
    assert!(said.contains("has no certificate"), "{said}");
}

#[tokio::test(start_paused = true)]
async fn clients_are_believed_if_they_are_listed_whatever_they_say_of_themselves() {
    for name in ["self", "v1", "client"] {
        let server = tls("node1", Some(name), PeerTrust::Nobody);
        let met = meet(&client("peers-ca", Some(name)), &server).await.unwrap();
        assert_eq!((met.may_be_client(), met.name().as_deref()), (Ok(()), Some(name)));
        let other = if name == "self" { "v1" } else { "self" };
        meet(&client("peers-ca", Some(other)), &server).await.unwrap_err();
    }
    for (name, why) in [("expired", "has expired"), ("future", "not valid yet")] {
        let server = tls("node1", Some(name), PeerTrust::Nobody);
        let said = meet(&client("peers-ca", Some(name)), &server).await.unwrap_err();
        assert!(said.contains(why), "{name}: {said}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_listed_and_no_ca_signs_nobody() {
    let server = tls("node1", Some("client"), PeerTrust::Nobody);
    let said = meet(&client("peers-ca", Some("minted")), &server).await.unwrap_err();
    assert!(said.contains("is signed by no listed CA"), "{said}");
}

#[tokio::test(start_paused = true)]
async fn the_revoked_are_refused() {
    let server = tls("node1", Some("clients-ca-and-crl"), PeerTrust::Nobody);
    meet(&client("peers-ca", Some("client")), &server).await.unwrap();
    let said = meet(&client("peers-ca", Some("revoked")), &server).await.unwrap_err();
    assert!(said.contains("was revoked"), "{said}");
}

#[tokio::test(start_paused = true)]
async fn a_folder_lists_what_is_called_like_a_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let put = |name: &str, what: &str| std::fs::copy(path(what), folder.path().join(name)).map(drop).unwrap();
    put("README", "others-ca");
    let files = files("node1", Some(folder.path().to_owned()), PeerTrust::Nobody);
    assert!(refused(files.clone()).contains("no file there"), "{}", refused(files));
    put("0123abcd.0", "self");
    put("a.crt", "self");
    put("b.pem", "clients-ca");
    put("c.pem", "client_key");
    let server = Tls::load(files, Env::system()).unwrap();
    meet(&client("peers-ca", Some("self")), &server).await.unwrap();
    meet(&client("peers-ca", Some("client")), &server).await.unwrap();
    meet(&client("peers-ca", Some("stranger")), &server).await.unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn the_lists_of_revoked_ones_in_a_folder_count_or_nothing_does() {
    let both = std::fs::read_to_string(path("clients-ca-and-crl")).unwrap();
    let (ca, crl) = both.split_at(both.find("-----BEGIN X509 CRL").unwrap());
    let with = |others: &[(&str, &[u8])]| {
        let folder = tempfile::tempdir().unwrap();
        for (name, what) in others {
            std::fs::write(folder.path().join(name), what).unwrap();
        }
        Tls::load(files("node1", Some(folder.path().to_owned()), PeerTrust::Nobody), Env::system())
            .map_err(|why| why.to_string())
    };
    let ca = ("ca.pem", ca.as_bytes());
    let revoked = client("peers-ca", Some("revoked"));
    meet(&revoked, &with(&[ca]).unwrap()).await.unwrap();
    for name in ["revoked.crl", "revoked.pem", "0123abcd.r0"] {
        let server = with(&[ca, (name, crl.as_bytes())]).unwrap();
        assert!(meet(&revoked, &server).await.unwrap_err().contains("was revoked"), "{name}");
        meet(&client("peers-ca", Some("client")), &server).await.unwrap();
    }
    // (As DER, for those who read PEM.)
    for name in ["revoked.crl", "other.crt", "0123abcd.r0"] {
        let why = with(&[ca, (name, &certificate("client"))]).unwrap_err();
        assert!(why.contains(name) && why.contains("nothing in it that can be read"), "{why}");
    }
    let only = std::fs::read(path("client")).unwrap();
    let why = with(&[("client.pem", &only), ("revoked.crl", crl.as_bytes())]).unwrap_err();
    assert!(why.contains("and no CA"), "{why}");
}

#[tokio::test(start_paused = true)]
async fn servers_are_believed_for_their_host() {
    let server = tls("elsewhere", None, PeerTrust::Nobody);
    let said = async |client: TlsClient| {
        let (near, far) = wires(64 << 10);
        shake(client.connect(near, NODE), &server, far).await.0.map(drop).map_err(|why| why.to_string())
    };
    let why = said(client("peers-ca", None)).await.unwrap_err();
    assert!(why.contains("is for another host"), "{why}");
    let named = TlsClient::new(&path("peers-ca"), None, Some("db9.example.org"), &Env::system()).unwrap();
    said(named).await.unwrap();
    said(client("elsewhere", None)).await.unwrap();
    let why = said(client("others-ca", None)).await.unwrap_err();
    assert!(why.contains("by no listed CA"), "{why}");
}

async fn peers(connecting: &Tls, accepting: &Tls) -> Result<Credentials, String> {
    let (near, far) = wires(64 << 10);
    let (ours, theirs) = shake(connecting.connect(near, NODE), accepting, far).await;
    ours.map_err(|why| format!("ours: {why}"))?;
    theirs.map(|(_, credentials)| credentials).map_err(|why| format!("theirs: {why}"))
}

#[tokio::test(start_paused = true)]
async fn peers_are_believed_by_their_ca_and_for_their_host() {
    let ends = |name| tls(name, Some("clients-ca"), peer_ca());
    let met = peers(&ends("node2"), &ends("node1")).await.unwrap();
    met.may_be_peer(NODE).unwrap();
    met.may_be_peer("localhost:1").unwrap();
    assert!(met.may_be_peer("db9.example.org:8100").unwrap_err().contains("another host"));
    assert!(met.may_be_client().is_err(), "a peer is no client");

    let why = peers(&ends("node2"), &ends("elsewhere")).await.unwrap_err();
    assert!(why.starts_with("ours") && why.contains("another host"), "{why}");
    let met = peers(&ends("elsewhere"), &ends("node1")).await.unwrap();
    assert!(met.may_be_peer(NODE).unwrap_err().contains("another host"));

    let stranger = tls("stranger", None, PeerTrust::Ca(path("others-ca")));
    peers(&stranger, &ends("node1")).await.unwrap_err();
    peers(&ends("node1"), &stranger).await.unwrap_err();
    let met = meet(&client("peers-ca", Some("client")), &ends("node1")).await.unwrap();
    assert!(met.may_be_peer(NODE).is_err(), "a client is no peer");
}

#[tokio::test(start_paused = true)]
async fn one_of_several_listed_peers_passes_for_none_of_the_others() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["node1", "elsewhere", "v1"] {
        std::fs::copy(path(name), folder.path().join(format!("{name}.pem"))).unwrap();
    }
    let ends = |name| tls(name, None, PeerTrust::Ca(folder.path().to_owned()));
    let met = peers(&ends("elsewhere"), &ends("node1")).await.unwrap();
    assert!(met.may_be_peer(NODE).unwrap_err().contains("another host"));
    met.may_be_peer("db9.example.org:8100").unwrap();
    let why = peers(&ends("node1"), &ends("elsewhere")).await.err().unwrap();
    assert!(why.starts_with("ours") && why.contains("another host"), "{why}");
    peers(&ends("node1"), &ends("node1")).await.unwrap().may_be_peer(NODE).unwrap();
    // The certificate `v1` names no host.
    peers(&ends("v1"), &ends("v1")).await.unwrap().may_be_peer(NODE).unwrap();
    // One certificate for all nodes, in a list.
    let alone = tls("elsewhere", None, PeerTrust::Ca(path("elsewhere")));
    peers(&alone, &alone).await.unwrap().may_be_peer(NODE).unwrap();
}

#[tokio::test(start_paused = true)]
async fn clients_with_any_certificate_are_welcome_where_none_is_needed() {
    let server = tls("node1", None, peer_ca());
    let met = meet(&client("peers-ca", Some("stranger")), &server).await.unwrap();
    assert_eq!(met.may_be_client(), Ok(()));
    assert!(met.may_be_peer(NODE).is_err());
}

#[tokio::test(start_paused = true)]
async fn without_a_ca_peers_are_known_by_having_the_same_certificate() {
    let ends = |name| tls(name, None, PeerTrust::SameCertificate);
    for name in ["node1", "elsewhere", "v1"] {
        peers(&ends(name), &ends(name)).await.unwrap().may_be_peer(NODE).unwrap();
    }
    let why = peers(&ends("node1"), &ends("node2")).await.unwrap_err();
    assert!(why.contains("is not the one of this node") && why.contains("give all of them --tls-peer-ca"), "{why}");
    let met = meet(&client("peers-ca", Some("node2")), &ends("node1")).await.unwrap();
    assert!(met.may_be_peer(NODE).unwrap_err().contains("give all of them --tls-peer-ca"));
}

#[test]
fn files_that_can_not_be_used_are_named_with_what_to_do() {
    let good = files("node1", None, PeerTrust::Nobody);
    let with = |change: &dyn Fn(&mut TlsFiles)| {
        let mut files = good.clone();
        change(&mut files);
        refused(files)
    };
    let nowhere = PathBuf::from("/nowhere/x.pem");
    for (said, parts) in [
        (with(&|files| files.cert = nowhere.clone()), ["--tls-cert /nowhere/x.pem", "No such file"]),
        (with(&|files| files.key = nowhere.clone()), ["--tls-key /nowhere/x.pem", "No such file"]),
        (with(&|files| files.cert = path("node1_key")), ["--tls-cert", "no certificate in it"]),
        (with(&|files| files.key = path("node1")), ["--tls-key", "no private key in it"]),
        (with(&|files| files.key = path("node2_key")), ["--tls-key", "not the key of the certificate in"]),
        (with(&|files| files.key = path("encrypted_key")), ["--tls-key", "openssl pkey -in OLD -out NEW"]),
        (with(&|files| files.client_ca = Some(nowhere.clone())), ["--tls-client-ca", "No such file"]),
        (with(&|files| files.client_ca = Some(path("node1_key"))), ["--tls-client-ca", "no certificate in it"]),
        (with(&|files| files.peers = PeerTrust::Ca(nowhere.clone())), ["--tls-peer-ca", "No such file"]),
    ] {
        assert!(parts.iter().all(|part| said.contains(part)), "{said}");
    }
    let broken = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(broken.path(), "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n").unwrap();
    let said = with(&|files| files.cert = broken.path().to_owned());
    assert!(said.contains("not a PEM file"), "{said}");
    std::fs::write(broken.path(), "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
    let said = with(&|files| files.cert = broken.path().to_owned());
    assert!(said.contains("can't be read"), "{said}");
    let said = with(&|files| files.client_ca = Some(broken.path().to_owned()));
    assert!(said.contains("certificate 1 in it can't be read"), "{said}");
}

#[tokio::test(start_paused = true)]
async fn a_key_may_stand_in_the_file_of_its_certificate() {
    let both = path("node1_both");
    let files = TlsFiles { cert: both.clone(), key: both, client_ca: None, peers: PeerTrust::Nobody };
    meet(&client("peers-ca", None), &Tls::load(files, Env::system()).unwrap()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn files_are_read_again_and_bad_ones_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (cert, key) = (folder.path().join("cert"), folder.path().join("key"));
    let put = |name: &str| {
        std::fs::copy(path(name), &cert).unwrap();
        std::fs::copy(path(&format!("{name}_key")), &key).unwrap();
    };
    put("node1");
    let files = TlsFiles { cert: cert.clone(), key: key.clone(), client_ca: None, peers: PeerTrust::Nobody };
    let server = Tls::load(files, Env::system()).unwrap();
    assert!(server.expires_in() > 365 * 86_400);
    let (only_first, only_second) = (client("node1", None), client("node2", None));
    meet(&only_first, &server).await.unwrap();
    put("node2");
    meet(&only_first, &server).await.unwrap();
    server.reload().unwrap();
    meet(&only_second, &server).await.unwrap();
    meet(&only_first, &server).await.unwrap_err();
    std::fs::write(&cert, "nothing").unwrap();
    server.reload().unwrap_err();
    meet(&only_second, &server).await.unwrap();
}

#[test]
fn facts_of_certificates() {
    let of = |name| {
        let certificate = certificate(name);
        let facts = x509::facts(&certificate).unwrap();
        (facts.is_ca, facts.common_name.unwrap(), facts.valid)
    };
    let (from, to) = (1_577_836_800, 4_733_510_400);
    assert_eq!(of("node1"), (false, "node1".into(), (from, to)));
    assert_eq!(of("peers-ca"), (true, "peers-ca".into(), (from, to)));
    assert_eq!(of("self"), (true, "self".into(), (from, to)));
    assert_eq!(of("v1"), (true, "v1".into(), (from, to)));
    let has_names = |name| x509::facts(&certificate(name)).unwrap().has_names;
    assert!(has_names("node1") && !has_names("client") && !has_names("v1"));
    assert_eq!(of("expired"), (false, "expired".into(), (from, 1_580_515_200)));
}

#[test]
fn who_came_to_the_wrong_port() {
    let what = |first: &[u8], tls| misplaced(first, tls).map(|misplaced| misplaced.what);
    assert_eq!(what(&[0x16, 3, 1, 2, 0], true), None);
    assert_eq!(what(&[0x16, 3, 1, 2], false), Some("tls"));
    assert_eq!(what(b"\0\0\0\x04ruok", true), Some("plain"));
    assert_eq!(what(b"\0\0\0\x04ruok", false), None);
    assert_eq!(what(b"\0\0\0\x40P1...", true), Some("plain"));
    assert!(misplaced(b"\0\0\0\x40P1...", true).unwrap().is_node);
    assert_eq!(what(b"\0", true), Some("plain"));
    assert_eq!(what(b"GET / HTTP/1.1", true), Some("http"));
    assert_eq!(what(b"GET ", false), Some("http"));
}

/// A connection that has been shaken hands on, and holds `room` bytes.
async fn connected(room: usize) -> (Wire, Wire) {
    let server = tls("node1", None, PeerTrust::Nobody);
    let (near, far) = wires(room);
    let (ours, theirs) = shake(client("peers-ca", None).connect(near, NODE), &server, far).await;
    (ours.unwrap(), theirs.unwrap().0)
}

#[tokio::test(start_paused = true)]
async fn frames_of_all_sizes_go_through_a_narrow_connection_both_ways() {
    let sizes = [0, 1, 100, 8 << 10, 16 << 10, 100_000, 3 << 20];
    for room in [1 << 10, 64 << 10] {
        let (near, far) = connected(room).await;
        let end = async |wire: Wire| {
            let mut reader = FrameReader::new(wire.reader, 8 << 20);
            let mut writer = FrameWriter::new(wire.writer);
            for size in sizes {
                writer.push(b"small");
                writer.push_parts(b"head", Bytes::from(vec![7; size]), b"tail");
            }
            let mut heard = Vec::new();
            // As sessions do it: each is dropped again and again while the other goes on.
            while writer.queued() > 0 || heard.len() < sizes.len() * 2 {
                tokio::select! { biased;
                    frame = reader.next() => heard.push(frame.unwrap().unwrap()),
                    written = writer.write_some(), if writer.queued() > 0 => written.unwrap(),
                }
            }
            for (n, size) in sizes.into_iter().enumerate() {
                assert_eq!(heard[n * 2], &b"small"[..]);
                let large = &heard[n * 2 + 1];
                assert_eq!(large.len(), size + 8);
                assert!(large.starts_with(b"head") && large.ends_with(b"tail"));
                assert!(large[4..4 + size].iter().all(|byte| *byte == 7));
            }
            (reader, writer)
        };
        let ((mut reader, writer), (_, far_writer)) = tokio::join!(end(near), end(far));
        // Dropping the writer closes that direction, and only that.
        drop(far_writer);
        assert!(matches!(reader.next().await, Ok(None)));
        assert_eq!(writer.queued(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn one_direction_may_be_closed_and_the_other_go_on() {
    let (mut near, far) = connected(64 << 10).await;
    near.writer.shutdown().await.unwrap();
    let mut reader = FrameReader::new(far.reader, 100);
    assert!(matches!(reader.next().await, Ok(None)));
    let mut writer = FrameWriter::new(far.writer);
    writer.push(b"still here");
    writer.flush().await.unwrap();
    assert_eq!(FrameReader::new(near.reader, 100).next().await.unwrap().unwrap(), &b"still here"[..]);
}

#[tokio::test(start_paused = true)]
async fn an_end_without_a_word_is_an_end() {
    let server = tls("node1", None, PeerTrust::Nobody);
    let (near, far) = wires(64 << 10);
    let (end, pipe) = tokio::io::duplex(64 << 10);
    let (reader, writer) = tokio::io::split(pipe);
    let between = Wire { reader: Box::new(reader), writer: Box::new(writer), peer: String::new() };
    let relaying = tokio::spawn(async move {
        let (mut a, mut b) = (tokio::io::join(near.reader, near.writer), end);
        let _ = tokio::io::copy_bidirectional(&mut a, &mut b).await;
    });
    let connector = client("peers-ca", None);
    let (ours, theirs) = shake(connector.connect(between, NODE), &server, far).await;
    let (_ours, theirs) = (ours.unwrap(), theirs.unwrap().0);
    relaying.abort();
    let mut reader = FrameReader::new(theirs.reader, 100);
    let ended = tokio::time::timeout(Duration::from_secs(10), reader.next()).await.unwrap();
    assert!(matches!(ended, Ok(None)), "{ended:?}");
}

#[tokio::test(start_paused = true)]
async fn what_does_not_speak_tls_is_said_so() {
    let server = tls("node1", None, peer_ca());
    let (mut near, far) = wires(64 << 10);
    near.writer.write_all(b"\0\0\0\x02Z5").await.unwrap();
    let said = server.accept(far, Bytes::new()).await.err().unwrap().to_string();
    assert!(said.contains("does not speak TLS"), "{said}");

    let (near, mut far) = wires(64 << 10);
    far.writer.write_all(b"\0\0\0\x02Z5").await.unwrap();
    let said = server.connect(near, NODE).await.err().unwrap().to_string();
    assert!(said.contains("does not speak TLS") && said.contains("give all nodes --tls-cert"), "{said}");

    let (near, far) = wires(64 << 10);
    drop(far);
    let said = server.connect(near, NODE).await.err().unwrap().to_string();
    assert!(said.contains("closed the connection during the TLS handshake") || said.contains("pipe"), "{said}");
}
