//! Bad answers of the server, each as a row of a table: what the agent and the host tool make of them.

mod host;
mod later;

use std::ops::RangeInclusive;
use std::time::Duration;

use anyhow::{Context, ensure};
use azaion_tests::dev_api::{BadToken, DevApi, Fault, Generation, Options, Tls};
use azaion_tests::programs::Run;
use azaion_tests::station::{EMAIL, SERIAL, Station};
use serde_json::Value;

const LOGIN: (&str, &str) = ("POST", "/login");
const KEYS: (&str, &str) = ("GET", "/.well-known/jwks.json");
const DEVICE_CONF: &str = "rootfs/etc/azaion/device.conf";
const PASSWORD: &str = "device-password-0042";

/// One bad answer to the agent, given again and again.
#[derive(Clone)]
struct Row {
    route: (&'static str, &'static str),
    fault: Fault,
    code: i32,
    /// A part of the message.
    says: &'static str,
    logins: RangeInclusive<usize>,
    generation: Generation,
    policy: &'static str,
}

/// An answer to the login: what will not change is asked for once, the rest at most as often as the API allows.
fn login(fault: Fault, code: i32, says: &'static str) -> Row {
    let logins = if code == 75 { 1..=10 } else { 1..=1 };
    Row { route: LOGIN, fault, code, says, logins, generation: Generation::G2, policy: "" }
}

/// An answer to the question for keys: however often that is asked, one login of the ten a minute is spent.
fn keys(fault: Fault, code: i32, says: &'static str) -> Row {
    Row { route: KEYS, logins: 1..=1, ..login(fault, code, says) }
}

fn status(code: u16, error: Option<u32>) -> Fault {
    Fault::Status { code, error, headers: Vec::new() }
}

fn status_with(code: u16, name: &str, value: &str) -> Fault {
    Fault::Status { code, error: None, headers: vec![(name.into(), value.into())] }
}

fn answer(content_type: &str, body: impl Into<String>) -> Fault {
    Fault::Answer { status: 200, content_type: content_type.into(), body: body.into(), headers: Vec::new() }
}

/// A body with the right content type.
fn body(body: &str) -> Fault {
    answer("application/json", body)
}

fn portal() -> Fault {
    answer("text/html", "<html><body>hush: please log in to the hotel's network</body></html>")
}

fn token(bad: BadToken, code: i32, says: &'static str) -> Row {
    login(Fault::Token(bad), code, says)
}

fn statuses() -> Vec<Row> {
    let permanent = [
        (400, None, 76, "400"),
        (400, Some(37), 76, "400"),
        (404, None, 76, "URL"),
        (405, None, 76, "405"),
        (409, None, 76, "409"),
        (409, Some(20), 76, "409"),
        (418, None, 76, "418"),
        (401, None, 77, "credentials are refused"),
        (401, Some(70), 77, "credentials are refused"),
        (403, None, 77, "not permitted"),
        (409, Some(10), 77, "no account"),
        (409, Some(30), 77, "password is wrong"),
        (409, Some(38), 77, "disabled"),
    ];
    let transient = [408, 425, 500, 501, 502, 503, 504, 599].map(|code| (code, None, 75, "can't answer now"));
    let limits = [(423, Some(50), 75, "locked"), (423, None, 75, "locked"), (429, Some(51), 75, "too many logins")];
    let rows = permanent.into_iter().chain(transient).chain(limits);
    rows.map(|(code, error, exit, says)| login(status(code, error), exit, says)).collect()
}

fn headers() -> Vec<Row> {
    let waits = |code, value| Row { logins: 1..=1, ..login(status_with(code, "Retry-After", value), 75, "") };
    let redirect = |code| login(status_with(code, "Location", "/elsewhere"), 76, "redirect");
    vec![
        login(status_with(401, "Retry-After", "0"), 75, "401"),
        waits(401, "600"),
        waits(429, "600"),
        waits(503, "600"),
        waits(503, "99999999999999999999"),
        waits(503, "Tue, 31 Dec 2199 23:59:59 GMT"),
        login(status_with(401, "Retry-After", "soon"), 75, "asks to wait"),
        redirect(301),
        redirect(302),
        redirect(303),
        redirect(308),
        login(Fault::Redirect("/elsewhere".into()), 76, "redirect"),
        login(Fault::Redirect("http://hush.example/login".into()), 76, "redirect"),
    ]
}

fn bodies() -> Vec<Row> {
    let no_json = ["", "hush", "{\"token\":\"hush\"} more", "404 page not found", "[{\"hush\""].map(body);
    let no_login = ["[]", "null", "7", "\"hush\"", "{}", "{\"token\":null}", "{\"token\":12345}", "{\"token\":{}}"];
    let no_json = no_json.into_iter().chain([portal()]).map(|fault| login(fault, 75, "is not JSON"));
    let no_login = no_login.into_iter().map(|text| login(body(text), 76, "token"));
    let mfa = login(body("{\"mfa_required\":true,\"mfa_token\":\"hush\",\"expires_in\":300}"), 77, "second factor");
    let large = [Fault::Huge(1_000_000), Fault::Endless].map(|fault| login(fault, 75, "larger than"));
    no_json.chain(no_login).chain(large).chain([mfa]).collect()
}

fn connections() -> Vec<Row> {
    vec![
        login(Fault::DropBefore, 75, "cut"),
        login(Fault::DropAfter, 75, "cut"),
        login(Fault::Truncate, 75, "cut"),
        login(Fault::Hang, 75, "no answer in time"),
        login(Fault::Delay(Duration::from_mins(1)), 75, "no answer in time"),
        login(Fault::Drip(Duration::from_millis(300)), 75, "no answer in time"),
    ]
}

fn key_sets() -> Vec<Row> {
    let rsa = r#"{"keys":[{"kty":"RSA","kid":"a","use":"sig","alg":"RS256","n":"AQAB","e":"AQAB"}]}"#;
    let encryption = r#"{"keys":[{"kty":"EC","crv":"P-256","use":"enc","x":"AQAB","y":"AQAB"}]}"#;
    vec![
        keys(status(500, None), 75, "can't answer now"),
        keys(status_with(503, "Retry-After", "600"), 75, "503"),
        keys(status(429, None), 75, "429"),
        // No credentials are sent with this question, so none can be refused: the keys are out of reach.
        keys(status(403, None), 75, "403"),
        keys(status(401, None), 75, "401"),
        keys(status(400, None), 76, "400"),
        keys(Fault::Redirect("/elsewhere".into()), 76, "redirect"),
        keys(portal(), 75, "is not JSON"),
        keys(body(""), 75, "is not JSON"),
        keys(body("{}"), 76, "keys"),
        keys(body("[]"), 76, "keys"),
        keys(body("{\"keys\":null}"), 76, "keys"),
        keys(body("{\"keys\":[]}"), 76, "no key for ES256"),
        keys(body("{\"keys\":[null,7,{}]}"), 76, "no key for ES256"),
        keys(body(rsa), 76, "no key for ES256"),
        keys(body(encryption), 76, "no key for ES256"),
        keys(Fault::Truncate, 75, "cut"),
        keys(Fault::Hang, 75, "no answer in time"),
        keys(Fault::DropBefore, 75, "cut"),
        keys(Fault::Huge(1_000_000), 75, "larger than"),
        Row { logins: 1..=1, ..keys(status(404, None), 76, "no key to check it with") },
    ]
}

fn tokens() -> Vec<Row> {
    use BadToken as Bad;
    let roles = |list: &[&str]| Bad::RolesArray(list.iter().map(|role| (*role).to_owned()).collect());
    let audience = "audience = \"AzaionDevices\"\n";
    vec![
        token(Bad::AlgNone, 76, "algorithm"),
        token(Bad::KeyConfusionPem, 76, "shared secret"),
        token(Bad::KeyConfusionPoint, 76, "shared secret"),
        token(Bad::Hs256, 76, "shared secret"),
        token(Bad::UnknownKid, 76, "key id"),
        token(Bad::ForeignKey, 76, "signature is wrong"),
        token(Bad::TamperedSignature, 76, "signature is wrong"),
        token(Bad::TamperedPayload, 76, "signature is wrong"),
        token(Bad::OtherAlgorithm, 76, "algorithm"),
        token(Bad::WrongIssuer, 76, "issuer"),
        Row { policy: audience, ..token(Bad::WrongAudience, 76, "audience") },
        token(Bad::WrongRole("ApiAdmin".into()), 76, "role"),
        token(Bad::NoRole, 76, "role"),
        token(roles(&["CompanionPC", "ApiAdmin"]), 76, "role"),
        token(roles(&[]), 76, "role"),
        token(Bad::WrongEmail("azaion-jetson-0043@azaion.com".into()), 76, "e-mail"),
        token(Bad::NoEmail, 76, "e-mail"),
        token(Bad::Expired(60), 76, "expired"),
        token(Bad::FromFuture(60), 76, "future"),
        token(Bad::NoExp, 76, "expires"),
        token(Bad::NotAJwt, 76, "not a JWT"),
        token(Bad::TwoParts, 76, "not a JWT"),
        token(Bad::Empty, 76, "not a JWT"),
        token(Bad::NumberInsteadOfString, 76, "token"),
        token(Bad::Missing, 76, "no token"),
        // What is odd, and still a device's token: no key id where a listed key fits, one role in a list, an
        // audience that no policy asks for, a start within the skew.
        token(Bad::NoKid, 0, ""),
        token(roles(&["CompanionPC"]), 0, ""),
        token(Bad::WrongAudience, 0, ""),
        token(Bad::FromFuture(10), 0, ""),
    ]
}

fn older_tokens() -> Vec<Row> {
    use BadToken as Bad;
    let g1 = |bad, says| Row { generation: Generation::G1, ..token(bad, 76, says) };
    vec![
        g1(Bad::AlgNone, "algorithm"),
        g1(Bad::WrongIssuer, "issuer"),
        g1(Bad::WrongRole("ApiAdmin".into()), "role"),
        g1(Bad::WrongEmail("azaion-jetson-0043@azaion.com".into()), "e-mail"),
        g1(Bad::Expired(60), "expired"),
        g1(Bad::NoExp, "expires"),
        Row { policy: "signature = \"required\"\n", ..g1(Bad::Hs256, "required") },
        Row { code: 0, ..g1(Bad::Hs256, "") },
        Row { policy: "audience = \"Annotators/OrangePi/Admins\"\n", ..g1(Bad::WrongAudience, "audience") },
    ]
}

/// A station with a unit's device.conf, a user to go with it, and a policy.
fn unit(options: Options, policy: &str) -> anyhow::Result<Station> {
    let station = Station::new(options)?;
    station.api.add_user(EMAIL, PASSWORD, "CompanionPC");
    put_conf(&station, PASSWORD, &station.api.url())?;
    station.put_policy(policy)?;
    Ok(station)
}

fn put_conf(station: &Station, password: &str, url: &str) -> anyhow::Result<()> {
    let lines = format!(
        "AZAION_DEVICE_SERIAL={SERIAL}\nAZAION_DEVICE_EMAIL={EMAIL}\nAZAION_DEVICE_PASSWORD={password}\nAZAION_API_URL={url}\n"
    );
    station.put(DEVICE_CONF, lines, 0o600)
}

/// One short run; not ready in exactly this way, or ready with 0.
fn boot(station: &Station, options: &[&str], code: i32, says: &str) -> anyhow::Result<Run> {
    let run = station.agent(&[&["boot", "--deadline", "2"], options].concat())?.ended_with(code)?;
    let ready = station.json("run/azaion/ready.json").context("there is no ready.json")?;
    let has = |file: &str| station.inside(file).exists();
    if code == 0 {
        ensure!(ready.get("ready") == Some(&true.into()) && has("run/azaion/token.json"), "not ready: {ready}");
        return Ok(run);
    }
    let says_so = ready.get("ready") == Some(&false.into()) && ready.get("code") == Some(&code.into());
    ensure!(says_so, "ready.json: {ready}");
    ensure!(!has("run/azaion/token.json") && !has("run/azaion/refresh.json"), "there is a token");
    let reason = ready.get("reason").and_then(Value::as_str).context("ready.json has no reason")?;
    ensure!(reason.contains(says) && run.stderr.contains(says), "{says:?} is not in {reason:?} or\n{}", run.stderr);
    ensure!(!format!("{reason}{}", run.words()).contains("hush"), "the answer is repeated: {}", run.stderr);
    Ok(run)
}

fn check(row: &Row) -> anyhow::Result<()> {
    let station = unit(Options { generation: row.generation, ..Options::default() }, row.policy)?;
    station.api.inject(row.route.0, row.route.1, row.fault.clone(), usize::MAX);
    boot(&station, &[], row.code, row.says)?;
    let logins = station.api.calls("POST", "/login");
    ensure!(row.logins.contains(&logins), "{logins} logins, not {:?}", row.logins);
    let elsewhere = station.api.requests().into_iter().find(|call| ![KEYS.1, LOGIN.1].contains(&call.path.as_str()));
    ensure!(elsewhere.is_none(), "another call was made: {elsewhere:?}");
    Ok(())
}

/// All rows, some at a time since most of them wait, and all that went wrong at once.
fn every<T: Sync>(rows: &[T], name: impl Fn(&T) -> String + Sync, check: impl Fn(&T) -> anyhow::Result<()> + Sync) {
    const AT_ONCE: usize = 12;
    let wrong = |row| check(row).err().map(|error| format!("{}: {error:#}", name(row)));
    let share = |start| rows.iter().skip(start).step_by(AT_ONCE).filter_map(wrong).collect::<Vec<String>>();
    let share = &share;
    let failures: Vec<String> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..AT_ONCE).map(|start| scope.spawn(move || share(start))).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap_or_else(|_| vec!["a row panicked".into()])).collect()
    });
    assert!(failures.is_empty(), "{} of {} rows:\n{}", failures.len(), rows.len(), failures.join("\n"));
}

fn described(row: &Row) -> String {
    let fault: String = format!("{:?}", row.fault).chars().take(150).collect();
    format!("{:?} {} {fault}, expected {}", row.generation, row.route.1, row.code)
}

// Promise: each bad answer leads to its exit code, a reason that people understand, no token, and no call too many.
#[test]
fn bad_answers_of_the_login() {
    every(&[statuses(), headers(), bodies(), connections()].concat(), described, check);
}

// Promise: keys that can't be had or used lead to their exit code, and no login is spent before they are there.
#[test]
fn bad_answers_of_the_keys() {
    every(&key_sets(), described, check);
}

// Promise: a token that fails a check is refused with 76 after one login, and is never cached.
#[test]
fn bad_answers_with_bad_tokens() {
    every(&[tokens(), older_tokens()].concat(), described, check);
}

/// From the API's own address and one where nobody listens, the address that device.conf has.
type Address = fn(&str, &str) -> String;

const BELOW_HTTP: [(Tls, Address, &str); 8] = [
    (Tls::Expired, |own, _| own.into(), "TLS"),
    (Tls::NotYetValid, |own, _| own.into(), "not valid yet"),
    (Tls::SelfSigned, |own, _| own.into(), "TLS"),
    (Tls::WrongName, |own, _| own.into(), "TLS"),
    (Tls::Plain, |own, _| own.replace("http://", "https://"), "TLS"),
    (Tls::Valid, |own, _| own.replace("https://", "http://"), ""),
    (Tls::Valid, |_, gone| gone.into(), "refused"),
    (Tls::Valid, |_, _| "https://no-such-host.invalid".into(), "looked up"),
];

// Promise: whatever is wrong with connection or TLS is "not yet", and the message says what it is.
#[test]
fn bad_answers_below_http() -> anyhow::Result<()> {
    let gone = DevApi::start(Options::default())?.url();
    let check = |(tls, address, says): &(Tls, Address, &str)| {
        let station = unit(Options { tls: *tls, ..Options::default() }, "")?;
        put_conf(&station, PASSWORD, &address(&station.api.url(), &gone))?;
        boot(&station, &[], 75, says)?;
        ensure!(station.api.requests().is_empty(), "a request got through");
        Ok(())
    };
    every(&BELOW_HTTP, |(tls, _, says)| format!("{tls:?} {says}"), check);
    Ok(())
}
