//! Failures of name, connection or TLS, for the agent and the host tool: one table for both.

use std::io::{BufRead as _, BufReader, Read as _};
use std::ops::RangeInclusive;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, ensure};
use azaion_tests::dev_api::{DevApi, Options, Tls};
use azaion_tests::programs::{self, Run};
use azaion_tests::station::{SERIAL, Station};

use super::host::failed;
use super::{PASSWORD, boot, every, put_conf, unit};

/// Derives the address in device.conf from the API's own address.
type Address = fn(&str) -> String;

fn own(own: &str) -> String {
    own.into()
}

/// The server, the address in use, the exit codes of agent and host tool, a part of their message, and how many
/// connections or requests the server sees.
type Row = (Tls, Address, [i32; 2], &'static str, RangeInclusive<usize>);

const NOT_YET: [i32; 2] = [75, 69];
const NONE: RangeInclusive<usize> = 0..=0;
/// Immediate failures are tried again, with growing waits in between, and never in a tight loop.
const AGAIN: RangeInclusive<usize> = 2..=10;

const CERTIFICATES: [Row; 12] = [
    (Tls::Expired, own, NOT_YET, "has expired", NONE),
    (Tls::SelfSigned, own, NOT_YET, "known CA", NONE),
    (Tls::UnknownCa, own, NOT_YET, "known CA", NONE),
    (Tls::BrokenChain, own, NOT_YET, "known CA", NONE),
    (Tls::WrongName, own, NOT_YET, "for this name", NONE),
    (Tls::WrongName, |own| own.replace("127.0.0.1", "localhost"), NOT_YET, "for this name", NONE),
    (Tls::WrongAddress, own, NOT_YET, "for this name", NONE),
    (Tls::CommonName, own, NOT_YET, "for this name", NONE),
    (Tls::LeafIsCa, own, NOT_YET, "CA:TRUE", NONE),
    (Tls::ForClients, own, NOT_YET, "TLS", NONE),
    (Tls::AsksForCertificate, own, NOT_YET, "TLS", NONE),
    // And a valid server: a complete chain.
    (Tls::Chain, own, [0, 0], "", 1..=2),
];

/// TLS alerts by which a server reports that it has no common version, no common cipher, or no such name.
const NO_VERSION: &[u8] = b"\x15\x03\x01\x00\x02\x02\x46";
const NO_CIPHER: &[u8] = b"\x15\x03\x03\x00\x02\x02\x28";
const NO_NAME: &[u8] = b"\x15\x03\x03\x00\x02\x02\x70";

const CONNECTIONS: [Row; 16] = [
    (Tls::Plain, |own| own.replace("http://", "https://"), NOT_YET, "TLS", NONE),
    (Tls::Valid, |own| own.replace("https://", "http://"), NOT_YET, "HTTP", NONE),
    (Tls::Valid, |_| "https://no-such-host.invalid".into(), NOT_YET, "looked up", NONE),
    (Tls::Valid, |_| format!("https://{}.invalid", "a".repeat(64)), [78, 64], "not a URL", NONE),
    (Tls::Reset, own, NOT_YET, "closed before the answer", AGAIN),
    (Tls::ResetInHandshake, own, NOT_YET, "closed before the answer", AGAIN),
    (Tls::Silent, own, NOT_YET, "no answer in time", 1..=2),
    (Tls::Says(b""), own, NOT_YET, "closed before the answer", AGAIN),
    (Tls::Says(b"\x16\x03\x03\x00"), own, NOT_YET, "closed before the answer", AGAIN),
    (Tls::Says(NO_VERSION), own, NOT_YET, "TLS", AGAIN),
    (Tls::Says(NO_CIPHER), own, NOT_YET, "TLS", AGAIN),
    (Tls::Says(NO_NAME), own, NOT_YET, "TLS", AGAIN),
    (Tls::Says(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 4\r\n\r\nhush"), own, NOT_YET, "TLS", AGAIN),
    (Tls::Says(b"<html><body>hush</body></html>\n"), own, NOT_YET, "TLS", AGAIN),
    (Tls::Says(b"SSH-2.0-OpenSSH_9.6\r\n"), own, NOT_YET, "TLS", AGAIN),
    (Tls::Says(b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"), own, NOT_YET, "TLS", AGAIN),
];

const CLOSED: &str = "closed before message completed";

/// TLS is valid, but its content is not HTTP, or is untrustworthy HTTP.
const NO_HTTP: [Row; 11] = [
    (Tls::ThenSays(b""), own, NOT_YET, CLOSED, AGAIN),
    (Tls::ThenSays(b"hush\n"), own, NOT_YET, "the call failed", AGAIN),
    (Tls::ThenSays(b"{\"token\":\"hush\"}"), own, NOT_YET, "the call failed", AGAIN),
    (Tls::ThenSays(b"HTTP/1.1 200 OK\r\n"), own, NOT_YET, CLOSED, AGAIN),
    (Tls::ThenSays(b"HTTP/1.1 999999 OK\r\n\r\n"), own, NOT_YET, "the call failed", AGAIN),
    (Tls::ThenSays(b"HTTP/3.7 200 OK\r\n\r\n"), own, NOT_YET, "the call failed", AGAIN),
    (Tls::ThenSays(b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n{}"), own, NOT_YET, "the call failed", AGAIN),
    (
        Tls::ThenSays(b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n{}"),
        own,
        NOT_YET,
        "closed before the answer",
        AGAIN,
    ),
    (
        Tls::ThenSays(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nhush\r\n"),
        own,
        NOT_YET,
        "closed before the answer",
        AGAIN,
    ),
    (Tls::ThenSays(b"HTTP/1.1 100 Continue\r\n\r\n"), own, NOT_YET, CLOSED, AGAIN),
    (Tls::ThenSays(b"\0\0\x12\x04\0\0\0\0\0\0\x03\0\0\0\x64"), own, NOT_YET, "the call failed", AGAIN),
];

fn rows() -> Vec<Row> {
    [&CERTIFICATES[..], &CONNECTIONS, &NO_HTTP].concat()
}

fn described((tls, _, _, says, _): &Row) -> String {
    format!("{tls:?} {says}")
}

fn calls_fit(station: &Station, expected: &RangeInclusive<usize>) -> anyhow::Result<()> {
    let requests = station.api.requests();
    ensure!(expected.contains(&requests.len()), "{} calls, not {expected:?}: {requests:?}", requests.len());
    Ok(())
}

// Promise: any failure of name, connection or TLS is "not yet", the message names it, and the server is not flooded.
#[test]
fn bad_answers_below_http() {
    let check = |(tls, address, [code, _], says, calls): &Row| {
        let station = unit(Options { tls: *tls, ..Options::default() }, "")?;
        put_conf(&station, PASSWORD, &address(&station.api.url()))?;
        boot(&station, &[], *code, says)?;
        calls_fit(&station, calls)
    };
    every(&rows(), described, check);
}

/// Runs `device` with another address than the API's own.
fn device_at(station: &Station, url: &str) -> anyhow::Result<Run> {
    let rootfs = station.rootfs().display().to_string();
    let arguments = station.api_arguments();
    let own = station.api.url();
    let arguments = arguments.iter().map(|argument| if *argument == own { url } else { argument });
    let fixed = ["device", SERIAL, "--rootfs", &rootfs, "--owner", "current", "--json", "--deadline", "2"];
    station.wait(programs::start(station.provision_command(&fixed)?.args(arguments))?)
}

// Promise: the same in the host tool is 69, with a message, and nothing is written.
#[test]
fn bad_answers_to_the_station_below_http() {
    let check = |(tls, address, [_, code], says, calls): &Row| {
        let station = Station::new(Options { tls: *tls, ..Options::default() })?;
        let run = device_at(&station, &address(&station.api.url()))?;
        if *code == 0 {
            return run.ended_with(0).map(drop);
        }
        failed(&run, *code, says)?;
        ensure!(station.password().is_none(), "something was written");
        calls_fit(&station, calls)
    };
    every(&rows(), described, check);
}

// Promise: the host tool, whose clock is trusted, refuses a certificate that is not valid yet at once.
#[test]
fn an_early_certificate_to_the_station() -> anyhow::Result<()> {
    let station = Station::new(Options { tls: Tls::NotYetValid, ..Options::default() })?;
    failed(&device_at(&station, &station.api.url())?, 69, "not valid yet")?;
    calls_fit(&station, &NONE)
}

// Promise: a self-signed certificate that is its own CA is accepted without the CA flag; with it, the message says so.
#[test]
fn a_self_signed_certificate_as_its_own_ca() -> anyhow::Result<()> {
    for (tls, code, says) in [(Tls::SelfSigned, 0, ""), (Tls::SelfSignedCa, 75, "CA:TRUE")] {
        let station = unit(Options { tls, ..Options::default() }, "")?;
        let address = station.api.url().replace("https://", "");
        let show = format!("openssl s_client -connect {address} </dev/null 2>/dev/null | openssl x509");
        let certificate = programs::output(Command::new("sh").args(["-euc", &show]))?;
        station.put("rootfs/etc/azaion/ca.pem", certificate, 0o644)?;
        put_conf(&station, PASSWORD, &station.api.url())?;
        boot(&station, &[], code, says)?;
    }
    Ok(())
}

// Promise: if no server listens, both say so.
#[test]
fn bad_answers_of_nobody() -> anyhow::Result<()> {
    let gone = DevApi::start(Options::default())?.url();
    let station = unit(Options::default(), "")?;
    put_conf(&station, PASSWORD, &gone)?;
    boot(&station, &[], 75, "refused")?;
    failed(&device_at(&Station::new(Options::default())?, &gone)?, 69, "refused")
}

/// OpenSSL's test server on a free port, until dropped.
struct OpenSsl {
    server: Child,
    url: String,
}

impl OpenSsl {
    fn start(station: &Station, options: &[&str]) -> anyhow::Result<Self> {
        let [key, certificate] = ["old.key", "old.pem"].map(|name| station.path(name).display().to_string());
        let new =
            ["req", "-x509", "-nodes", "-subj", "/CN=old", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"];
        programs::output(Command::new("openssl").args(new).args(["-keyout", &key, "-out", &certificate]))?;
        let mut server = Command::new("openssl")
            .args(["s_server", "-accept", "127.0.0.1:0", "-key", &key, "-cert", &certificate])
            .args(options)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("starting openssl")?;
        let mut said = BufReader::new(server.stdout.take().context("its standard output")?);
        let mut line = String::new();
        while !line.starts_with("ACCEPT ") {
            line.clear();
            ensure!(said.read_line(&mut line)? > 0, "openssl s_server does not listen");
        }
        // Drains the output, so that the server never blocks.
        std::thread::spawn(move || said.read_to_end(&mut Vec::new()));
        let url = format!("https://{}", line.trim_start_matches("ACCEPT ").trim());
        Ok(Self { server, url })
    }
}

impl Drop for OpenSsl {
    fn drop(&mut self) {
        // It does not end by itself.
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

// Promise: servers with only insecure protocols are refused: old versions, old ciphers, or ciphers without forward
// secrecy.
#[test]
fn bad_answers_of_an_old_server() {
    let rows: [&[&str]; 6] = [
        &["-tls1", "-cipher", "DEFAULT:@SECLEVEL=0"],
        &["-tls1_1", "-cipher", "DEFAULT:@SECLEVEL=0"],
        &["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA:@SECLEVEL=0"],
        &["-tls1_2", "-cipher", "AES128-SHA256:@SECLEVEL=0"],
        &["-tls1_2", "-cipher", "AECDH-AES256-SHA:@SECLEVEL=0"],
        &["-tls1_3", "-ciphersuites", "TLS_AES_128_CCM_SHA256"],
    ];
    let check = |options: &&[&str]| {
        let station = unit(Options::default(), "")?;
        let old = OpenSsl::start(&station, options)?;
        put_conf(&station, PASSWORD, &old.url)?;
        boot(&station, &[], 75, "TLS")?;
        failed(&device_at(&Station::new(Options::default())?, &old.url)?, 69, "TLS")
    };
    every(&rows, |options| format!("{options:?}"), check);
}
