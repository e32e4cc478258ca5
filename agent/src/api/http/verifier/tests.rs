use std::sync::OnceLock;

use proptest::prelude::*;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::RootCertStore;
use time::OffsetDateTime;

use super::*;

const DAY: u64 = 24 * 3600;
const YEAR: u64 = 365 * DAY;
/// The floor of most tests.
const FLOOR: u64 = 1_780_000_000;
const NAME: &str = "api.example";

/// The begin and the end of a certificate's validity, in seconds since 1970.
type Window = (u64, u64);

fn time(seconds: u64) -> Timestamp {
    Timestamp::from_unix(seconds)
}

/// Returns the keys of a root, of a CA below it and of a server; generated once, because that is slow.
fn keys() -> &'static [KeyPair; 3] {
    static KEYS: OnceLock<[KeyPair; 3]> = OnceLock::new();
    KEYS.get_or_init(|| [(); 3].map(|()| KeyPair::generate().unwrap()))
}

fn params(names: &[&str], common: &str, (from, until): Window) -> CertificateParams {
    let mut params = CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
    params.distinguished_name.push(DnType::CommonName, common);
    params.not_before = OffsetDateTime::from_unix_timestamp(i64::try_from(from).unwrap()).unwrap();
    params.not_after = OffsetDateTime::from_unix_timestamp(i64::try_from(until).unwrap()).unwrap();
    params
}

fn authority(common: &str, window: Window) -> CertificateParams {
    let mut params = params(&[], common, window);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
}

/// A root and a server's certificate below it, with an intermediate CA if there is a window for one.
struct Made {
    roots: RootCertStore,
    certificates: Vec<CertificateDer<'static>>,
}

fn made(server: Window, between: Option<Window>, name: &str) -> Made {
    let [root_key, ca_key, server_key] = keys();
    let root = CertifiedIssuer::self_signed(authority("root", (0, 4_000_000_000)), root_key).unwrap();
    let below = between.map(|window| CertifiedIssuer::signed_by(authority("below", window), ca_key, &root).unwrap());
    let server = params(&[name], "server", server);
    let server = match &below {
        Some(below) => server.signed_by(server_key, below),
        None => server.signed_by(server_key, &root),
    };
    let mut roots = RootCertStore::empty();
    roots.add(root.der().clone()).unwrap();
    let below = below.map(|below| below.der().clone());
    Made { roots, certificates: [server.unwrap().der().clone()].into_iter().chain(below).collect() }
}

/// A clock that shows `now`; with a `floor`, the true time is unknown but not before it.
#[derive(Debug)]
struct At {
    now: u64,
    floor: Option<u64>,
}

impl TlsClock for At {
    fn now(&self) -> Timestamp {
        time(self.now)
    }

    fn boot(&self) -> Duration {
        Duration::ZERO
    }

    fn unknown_since(&self) -> Option<Timestamp> {
        self.floor.map(time)
    }
}

/// Verifies a chain; returns the result and the verifier.
fn verified(made: Made, clock: At) -> (Result<(), Error>, ChainVerifier) {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let webpki = WebPkiServerVerifier::builder_with_provider(Arc::new(made.roots), provider).build().unwrap();
    let now = UnixTime::since_unix_epoch(Duration::from_secs(clock.now));
    let verifier = ChainVerifier::new(webpki, Arc::new(clock));
    let (own, others) = made.certificates.split_first().unwrap();
    let name = ServerName::try_from(NAME).unwrap();
    (verifier.verify_server_cert(own, others, &name, &[], now).map(drop), verifier)
}

/// Returns the accepted chain, or why it was refused.
fn accepted(made: Made, clock: At) -> Result<Arc<Chain>, Error> {
    let own = made.certificates.first().unwrap().clone();
    let (result, verifier) = verified(made, clock);
    result.map(|()| verifier.chain_of(&own).unwrap())
}

/// Returns any accepted chain.
pub(in super::super) fn some_chain() -> Chain {
    let made = made((0, 4_000_000_000), None, NAME);
    Arc::into_inner(accepted(made, At { now: FLOOR, floor: None }).unwrap()).unwrap()
}

/// Returns whether a chain is accepted for an unknown time; `None` if it is refused.
fn outcome(made: Made, now: u64, floor: Option<u64>) -> Option<bool> {
    accepted(made, At { now, floor }).ok().map(|chain| chain.is_time_unknown())
}

// Promise: a chain is first verified strictly, and with a reliable clock only so. If the time is unknown, a chain is accepted if it
// is valid at some time from the floor up to ten years after it; a chain that expired before the floor is refused.
#[test]
fn the_time_may_be_unknown() {
    let (known, unknown) = (None, Some(FLOOR));
    for (from, until, now, floor, expected) in [
        (FLOOR - DAY, FLOOR + DAY, FLOOR, known, Some(false)),
        (FLOOR - DAY, FLOOR + DAY, FLOOR, unknown, Some(false)),
        // Issued after the latest time that the device knows.
        (FLOOR + DAY, FLOOR + 90 * DAY, FLOOR, known, None),
        (FLOOR + DAY, FLOOR + 90 * DAY, FLOOR, unknown, Some(true)),
        (FLOOR + 3 * YEAR, FLOOR + 4 * YEAR, FLOOR, unknown, Some(true)),
        (FLOOR + 3653 * DAY, FLOOR + 11 * YEAR, FLOOR, unknown, Some(true)),
        (FLOOR + 3653 * DAY + 1, FLOOR + 11 * YEAR, FLOOR, unknown, None),
        // A clock that is decades ahead.
        (FLOOR - DAY, FLOOR + DAY, FLOOR + 35 * YEAR, known, None),
        (FLOOR - DAY, FLOOR + DAY, FLOOR + 35 * YEAR, unknown, Some(true)),
        // Expired around the floor.
        (FLOOR - 90 * DAY, FLOOR, FLOOR + YEAR, unknown, Some(true)),
        (FLOOR - 90 * DAY, FLOOR - 1, FLOOR + YEAR, unknown, None),
        (FLOOR - 90 * DAY, FLOOR - 1, FLOOR, unknown, None),
        // Never valid.
        (FLOOR + 2 * DAY, FLOOR + DAY, FLOOR, unknown, None),
    ] {
        let made = made((from, until), None, NAME);
        assert_eq!(outcome(made, now, floor), expected, "{from} {until} {now} {floor:?}");
    }
}

// Promise: the interval applies only to the time: another name or CA is refused at every time.
#[test]
fn name_and_ca_are_always_checked() {
    for now in [FLOOR, FLOOR + 35 * YEAR] {
        let window = (FLOOR + DAY, FLOOR + 90 * DAY);
        let foreign = made(window, None, "other.example");
        assert_eq!(outcome(foreign, now, Some(FLOOR)), None);
        let root = CertifiedIssuer::self_signed(authority("other", window), &keys()[1]).unwrap();
        let mut forged = made(window, None, NAME);
        forged.roots = RootCertStore::empty();
        forged.roots.add(root.der().clone()).unwrap();
        assert_eq!(outcome(forged, now, Some(FLOOR)), None);
    }
}

// Promise: for a very long chain no time is searched.
#[test]
fn a_long_chain_is_strict() {
    for (extra, expected) in [(MOST_CERTIFICATES - 1, Some(true)), (MOST_CERTIFICATES, None)] {
        let mut made = made((FLOOR + DAY, FLOOR + 90 * DAY), None, NAME);
        let other = made.certificates[0].clone();
        made.certificates.extend(std::iter::repeat_n(other, extra));
        assert_eq!(outcome(made, FLOOR, Some(FLOOR)), expected, "{extra}");
    }
}

// Promise: the reason for a refusal is that at the floor, so that an expiry before the floor is reported.
#[test]
fn the_reason_is_that_of_the_floor() {
    use CertificateError::{ExpiredContext, NotValidYetContext};
    let ended = accepted(made((0, FLOOR - 1), None, NAME), At { now: FLOOR + 35 * YEAR, floor: Some(FLOOR) });
    assert!(
        matches!(ended, Err(Error::InvalidCertificate(ExpiredContext { time, .. })) if time.as_secs() == FLOOR),
        "{ended:?}"
    );
    let late = made((FLOOR + 20 * YEAR, FLOOR + 21 * YEAR), None, NAME);
    let late = accepted(late, At { now: FLOOR, floor: Some(FLOOR) });
    assert!(matches!(late, Err(Error::InvalidCertificate(NotValidYetContext { .. }))), "{late:?}");
}

// Promise: an accepted chain is found by the server's certificate, the last verification counts, and old chains are dropped.
#[test]
fn accepted_chains_are_kept() {
    let chain = made((FLOOR, FLOOR + DAY), None, NAME);
    let own = chain.certificates[0].clone();
    let (result, verifier) = verified(chain, At { now: 0, floor: Some(FLOOR) });
    result.unwrap();
    assert!(verifier.chain_of(&own).unwrap().is_time_unknown());
    assert!(verifier.chain_of(b"another").is_none());
    let at = UnixTime::since_unix_epoch(Duration::from_secs(FLOOR));
    let verify = |own: &CertificateDer<'_>| {
        verifier.verify_server_cert(own, &[], &ServerName::try_from(NAME).unwrap(), &[], at).unwrap();
    };
    verify(&own);
    assert!(!verifier.chain_of(&own).unwrap().is_time_unknown());
    for second in 1..=KEPT_CHAINS as u64 {
        verify(&made((FLOOR - second, FLOOR + DAY), None, NAME).certificates[0]);
    }
    assert!(verifier.chain_of(&own).is_none());
    verify(&own);
    assert_eq!(verifier.last_chain().unwrap().certificates[0], own);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    // Promise: for any windows, a chain is accepted for an unknown time exactly if they have a common time that is not before the
    // floor and at most ten years after it; and a Date is accepted exactly within those windows, with a tolerance of 30 s.
    #[test]
    fn the_interval_is_exact(
        server in (0..15 * YEAR, 0..2 * YEAR),
        between in prop::option::of((0..15 * YEAR, 0..6 * YEAR)),
        floor in 0..3 * YEAR,
        now in prop_oneof![Just(0), Just(FLOOR + 35 * YEAR), FLOOR..FLOOR + 15 * YEAR],
        dates in prop::collection::vec((0..4_usize, 0..62_u64), 8),
    ) {
        let window = |(from, length): (u64, u64)| (FLOOR + from, FLOOR + from + length);
        let (server, between, floor) = (window(server), between.map(window), FLOOR + floor);
        let (from, until) = between.map_or(server, |ca| (server.0.max(ca.0), server.1.min(ca.1)));
        let is_strict = (from..=until).contains(&now);
        let is_possible = from.max(floor) <= until.min(floor + 3653 * DAY);
        let expected = if is_strict { Some(false) } else { is_possible.then_some(true) };
        let chain = accepted(made(server, between, NAME), At { now, floor: Some(floor) });
        prop_assert_eq!(chain.as_ref().ok().map(|chain| chain.is_time_unknown()), expected);
        if let Ok(chain) = chain {
            for (edge, off) in dates {
                // Around each edge, 31 s to both sides.
                let edge = [server.0, server.1, from, until][edge];
                let date = edge + off - 31;
                // A chain that is valid for less than a minute is tried at both ends only.
                prop_assume!(until - from > 60);
                let is_in = date + 30 >= from && date <= until + 30;
                prop_assert_eq!(chain.agrees_with(time(date)).is_ok(), is_in, "{} {}..{}", date, from, until);
            }
        }
    }

    // Promise: the result is that of webpki at every edge of a window.
    #[test]
    fn webpki_decides(server in (0..12 * YEAR, 0..2 * YEAR), ca in (0..12 * YEAR, 0..6 * YEAR), floor in 0..3 * YEAR) {
        let window = |(from, length): (u64, u64)| (FLOOR + from, FLOOR + from + length);
        let (server, ca, floor) = (window(server), window(ca), FLOOR + floor);
        let (_, verifier) = verified(made(server, Some(ca), NAME), At { now: 0, floor: None });
        let made = made(server, Some(ca), NAME);
        let (own, others) = made.certificates.split_first().unwrap();
        let edges = [server.0, server.1, ca.0, ca.1].into_iter().flat_map(|edge| [edge - 1, edge, edge + 1]);
        let latest = floor + 3653 * DAY;
        let is_valid = edges.chain([floor, latest]).filter(|at| (floor..=latest).contains(at)).any(|at| {
            let at = UnixTime::since_unix_epoch(Duration::from_secs(at));
            verifier.webpki.verify_server_cert(own, others, &ServerName::try_from(NAME).unwrap(), &[], at).is_ok()
        });
        prop_assert_eq!(outcome(made, 0, Some(floor)).is_some(), is_valid);
    }
}
