//! The token socket for local clients, in a booted container.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::Context;
use azaion_tests::dev_api::{Fault, Options};
use azaion_tests::programs::workspace;
use azaion_tests::record;
use azaion_tests::schemas;
use azaion_tests::station::{EMAIL, Station};
use serde_json::Value;

use crate::boot::{boot, provisioned};
use crate::container::Booted;
use crate::tree::{BOOKWORM, RELEASES};

const SOCKET: &str = "/run/azaion/token.sock";
/// Number of concurrent clients.
const CLIENTS: usize = 200;
/// Longer than it takes to start a process for each of them, on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_mins(2);
/// An unprivileged client in the container: connects, and prints what it reads.
const CLIENT: &str = "perl -MSocket -e 'socket(S, PF_UNIX, SOCK_STREAM, 0) && connect(S, sockaddr_un($ARGV[0])) \
                      or die $!; print while <S>'";
/// Makes the cached token an expired one.
const SPEND: &str = "sed -i 's/\"lifetime_s\":[0-9]*/\"lifetime_s\":0/' /run/azaion/token.json";

/// Returns the socket's path as seen from outside the container.
fn socket(booted: &Booted) -> PathBuf {
    booted.at(SOCKET)
}

fn connect(booted: &Booted) -> anyhow::Result<UnixStream> {
    let stream = UnixStream::connect(socket(booted)).context("connecting")?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Returns everything sent to a client until the end of file, which is one line of JSON.
fn read(mut stream: UnixStream) -> anyhow::Result<Value> {
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let line = text.strip_suffix('\n').with_context(|| format!("{} bytes without a line end", text.len()))?;
    let answer = serde_json::from_str(line)?;
    schemas::check(schemas::socket_answer(&answer), &answer)?;
    Ok(answer)
}

fn ask(booted: &Booted) -> anyhow::Result<Value> {
    read(connect(booted)?)
}

/// Returns the token of an answer, and records it as a secret.
fn token_of(answer: &Value) -> anyhow::Result<String> {
    let token = answer["access_token"].as_str().with_context(|| format!("no token: {}", answer["reason"]))?;
    record::secret(token)?;
    Ok(token.to_owned())
}

/// Checks that neither a process nor a unit of any client is left.
fn is_at_rest(booted: &Booted) -> anyhow::Result<()> {
    booted.wait_for("systemctl list-units --all --no-legend 'azaion-agent-token@*' | wc -l", "0")?;
    let processes = booted.run("grep -l azaion-agent /proc/[0-9]*/cmdline 2>/dev/null")?;
    // The search's own process has ended by now.
    assert_eq!(booted.run(&format!("ls -d {processes} 2>/dev/null"))?, "", "{}", booted.run("systemctl status")?);
    Ok(())
}

fn is_as_promised(booted: &Booted) -> anyhow::Result<()> {
    booted.wait_for(&format!("stat -c '%F %a %U:%G' {SOCKET}"), "socket 660 root:azaion")
}

// Promise: on each systemd, 200 concurrent clients get the same valid token for one login; clients that never read,
// close at once or send something block nobody; no process or failed unit remains of any of them, and the journal has
// no line for each.
#[test]
#[cfg_attr(not(all(mounts, long)), ignore = "needs mounts and ./tests/run --all")]
fn many_clients_at_once() -> anyhow::Result<()> {
    for release in RELEASES {
        let (station, _tree, booted) = boot(release)?;
        booted.must("systemctl stop azaion-agent.timer")?;
        booted.must("rm /run/azaion/token.json /run/azaion/refresh.json")?;
        station.api.forget_requests();
        let silent = (0..20).map(|_| connect(&booted)).collect::<anyhow::Result<Vec<_>>>()?;
        for number in 0..20 {
            let mut client = connect(&booted)?;
            if number % 2 == 0 {
                // Its process may have answered and ended already.
                let _ = client.write_all(b"GET / HTTP/1.1\r\n\r\n");
                client.shutdown(Shutdown::Both)?;
            }
        }
        let begin = std::time::Instant::now();
        let answers: Vec<anyhow::Result<Value>> = thread::scope(|scope| {
            let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(|| ask(&booted))).collect();
            clients.into_iter().map(|client| client.join().expect("a client")).collect()
        });
        println!("{release}: {CLIENTS} clients in {:.1} s", begin.elapsed().as_secs_f32());
        let answers = answers.into_iter().collect::<anyhow::Result<Vec<_>>>().context(release)?;
        let tokens = answers.iter().map(token_of).collect::<anyhow::Result<BTreeSet<_>>>()?;
        assert_eq!(tokens.len(), 1, "{release}");
        assert_eq!(station.api.calls("POST", "/login"), 1, "{release}");
        assert_eq!(answers[0]["email"], EMAIL, "{release}");
        let on_disk: Value = serde_json::from_str(&booted.must("cat /run/azaion/token.json")?)?;
        assert_eq!(answers[0], on_disk, "{release}");
        is_at_rest(&booted)?;
        assert_eq!(booted.run("systemctl list-units --failed --no-legend 'azaion*'")?, "", "{release}");
        let lines = "journalctl --no-pager -q -u 'azaion-agent-token@*'";
        let journal = booted.run(lines)?;
        // Before version 250 systemd itself ignores LogLevelMax=.
        let most = if release == RELEASES[0] { 10 + 2 * (CLIENTS + 40) } else { 10 };
        assert!(journal.lines().count() < most, "{release}: {journal}");
        drop(silent);
    }
    Ok(())
}

// Promise: only root and the group `azaion` may connect; owner and mode of the socket stay the same through runs of the
// service, its restart, and that of the socket.
#[test]
#[cfg_attr(not(all(mounts, long)), ignore = "needs mounts and ./tests/run --all")]
fn who_may_ask() -> anyhow::Result<()> {
    for release in RELEASES {
        let (_station, _tree, booted) = boot(release)?;
        for action in ["true", "systemctl restart azaion-agent.service", "systemctl restart azaion-agent-token.socket"]
        {
            booted.must(action)?;
            is_as_promised(&booted).with_context(|| format!("{release}: {action}"))?;
        }
        for (options, may) in [
            ("--reuid 0 --regid 0 --clear-groups", true),
            ("--reuid 65534 --regid 65534 --groups $(getent group azaion | cut -d : -f 3)", true),
            ("--reuid 65534 --regid 65534 --clear-groups", false),
        ] {
            let printed = booted.run(&format!("setpriv {options} {CLIENT} {SOCKET}"))?;
            if may {
                token_of(&serde_json::from_str(&printed)?).context(options)?;
            } else {
                assert_eq!(printed, "", "{release}: {options}");
            }
        }
    }
    Ok(())
}

/// A container's mounts: only the directory and, against our advice, the single file; nothing else of `/run`.
const VIEW: &str = "set -e
mount --bind /run/azaion /mnt/directory
mount -o remount,ro,bind /mnt/directory
mount --bind /run/azaion/token.json /mnt/token.json
mount -t tmpfs none /run
touch /mnt/ready
exec sleep 1000
";

// Promise: a container with only the directory, mounted read-only, gets a valid token through five renewals by the
// socket. A mount of the single file `token.json` keeps showing the first one.
#[test]
#[cfg_attr(not(all(mounts, long)), ignore = "needs mounts and ./tests/run --all")]
fn a_container_with_the_directory() -> anyhow::Result<()> {
    let (station, tree, booted) = boot(BOOKWORM)?;
    tree.write("/opt/view", VIEW)?;
    booted.must("systemctl stop azaion-agent.timer; mkdir /mnt/directory; touch /mnt/token.json")?;
    let start = "setsid unshare --mount --propagation private sh /opt/view >/dev/null 2>&1 & echo $!";
    let container = booted.must(start)?.trim().to_owned();
    booted.wait_for("ls /mnt/ready", "/mnt/ready")?;
    let inside = |line: &str| booted.must(&format!("nsenter --target {container} --mount {line}"));
    assert_eq!(inside("ls -A /run")?, "", "the container sees more than it should");
    let first = token_of(&ask(&booted)?)?;
    let mut tokens = BTreeSet::from([first.clone()]);
    for renewal in 1..=5 {
        booted.must(SPEND)?;
        let token = token_of(&serde_json::from_str(&inside(&format!("{CLIENT} /mnt/directory/token.sock"))?)?)?;
        works(&station, &token).with_context(|| format!("renewal {renewal}"))?;
        assert!(tokens.insert(token), "renewal {renewal} brought an old token");
        let stale = token_of(&serde_json::from_str(&inside("cat /mnt/token.json")?)?)?;
        assert_eq!(stale, first, "the mount of the file shows a new token");
    }
    Ok(())
}

/// Checks whether the API accepts a token.
fn works(station: &Station, token: &str) -> anyhow::Result<()> {
    let mut curl = Command::new("curl")
        .args(["--silent", "--show-error", "--fail", "--output", "/dev/null", "--cacert"])
        .arg(station.api.ca_file())
        .args(["--config", "-", &format!("{}/users/current", station.api.url())])
        .stdin(Stdio::piped())
        .spawn()?;
    let header = format!("header = \"Authorization: Bearer {token}\"\n");
    curl.stdin.take().context("curl's input")?.write_all(header.as_bytes())?;
    anyhow::ensure!(curl.wait()?.success(), "the API rejects the token");
    Ok(())
}

// Promise: while there is no token, a client gets the code and the reason, and the service instance that answered has
// not failed.
#[test]
#[cfg_attr(not(all(mounts, long)), ignore = "needs mounts and ./tests/run --all")]
fn a_client_learns_why_there_is_no_token() -> anyhow::Result<()> {
    let station = Station::new(Options::default())?;
    let tree = provisioned(BOOKWORM, &station)?;
    station.api.set_password(EMAIL, "another-password");
    let booted = Booted::new(&tree)?;
    booted.must("systemctl stop azaion-agent.timer")?;
    let logins = station.api.calls("POST", "/login");
    let answer = ask(&booted)?;
    assert_eq!(answer["code"], 77, "{answer}");
    assert!(answer["reason"].as_str().is_some_and(|reason| reason.contains("no login is tried")), "{answer}");
    assert_eq!(station.api.calls("POST", "/login"), logins, "the wait was not obeyed");
    booted.must("rm /run/azaion/*.json && mv /etc/azaion/device.conf /etc/azaion/elsewhere")?;
    assert_eq!(ask(&booted)?["code"], 78);
    is_at_rest(&booted)?;
    assert_eq!(booted.run("systemctl list-units --failed --no-legend 'azaion-agent-token*'")?, "");
    Ok(())
}

/// Files of other programs, some with names like the agent's, and their listing.
const THEIRS: &str = "cd /run/azaion && mkdir token.json.d .ready.json.new.d && touch .in-flight.new agent.lock.old \
    && chown -R nobody:nogroup token.json.d .ready.json.new.d .in-flight.new agent.lock.old";
const LIST_THEIRS: &str =
    "cd /run/azaion && stat -c '%n %F %U:%G' token.json.d .ready.json.new.d .in-flight.new agent.lock.old";

// Promise: on each systemd the agent coexists with other programs in `/run/azaion`: their files are unchanged; a
// directory that is removed, or created again by another program, has token and socket again after the next run;
// another entry at the socket's path affects only the socket.
#[test]
#[cfg_attr(not(all(mounts, long)), ignore = "needs mounts and ./tests/run --all")]
fn a_directory_that_others_use() -> anyhow::Result<()> {
    for release in RELEASES {
        let (_station, _tree, booted) = boot(release)?;
        booted.must("systemctl stop azaion-agent.timer")?;
        booted.must(THEIRS)?;
        let before = booted.must(LIST_THEIRS)?;
        for damage in [
            "true",
            SPEND,
            "rm /run/azaion/*.json /run/azaion/agent.lock",
            "rm /run/azaion/token.sock",
            "rm /run/azaion/token.sock; touch /run/azaion/token.sock",
            "rm /run/azaion/token.sock; ln -s /root/.profile /run/azaion/token.sock",
            "rm -r /run/azaion",
            "rm -r /run/azaion; mkdir -m 0700 /run/azaion; touch /run/azaion/theirs",
        ] {
            booted.must(damage)?;
            booted.must("systemctl start azaion-agent.service").with_context(|| format!("{release}: {damage}"))?;
            is_as_promised(&booted).with_context(|| format!("{release}: {damage}"))?;
            token_of(&ask(&booted)?).with_context(|| format!("{release}: {damage}"))?;
            let directory = booted.must("stat -c '%a %U:%G' /run/azaion; stat -c %a:%U /root/.profile")?;
            assert_eq!(directory, "755 azaion-agent:azaion\n644:root\n", "{release}: {damage}");
            if !damage.starts_with("rm -r ") {
                assert_eq!(booted.must(LIST_THEIRS)?, before, "{release}: {damage}");
            }
        }
        booted.must("rm /run/azaion/token.sock && mkdir /run/azaion/token.sock")?;
        booted.must("systemctl start azaion-agent.service")?;
        booted.must("rmdir /run/azaion/token.sock && systemctl start azaion-agent.service")?;
        is_as_promised(&booted)?;
    }
    Ok(())
}

// Promise: a client that connects while the directory is removed gets an answer, and the next one a token.
#[test]
#[cfg_attr(not(all(mounts, long)), ignore = "needs mounts and ./tests/run --all")]
fn a_directory_that_vanishes_during_a_renewal() -> anyhow::Result<()> {
    let (station, _tree, booted) = boot(BOOKWORM)?;
    booted.must("systemctl stop azaion-agent.timer")?;
    booted.must("rm /run/azaion/*.json")?;
    station.api.forget_requests();
    station.api.inject("POST", "/login", Fault::Delay(Duration::from_secs(3)), 1);
    let client = connect(&booted)?;
    while station.api.calls("POST", "/login") == 0 {
        thread::yield_now();
    }
    booted.must("rm -r /run/azaion")?;
    let answer = read(client)?;
    assert_eq!(answer["code"], 75, "{}", answer["reason"]);
    booted.must("systemctl start azaion-agent.service")?;
    is_as_promised(&booted)?;
    token_of(&ask(&booted)?).map(drop)
}

// Promise: a compromised agent cannot take over a file of root by replacing the socket with a symlink just before the
// socket gets its group.
#[test]
#[cfg_attr(not(all(mounts, long)), ignore = "needs mounts and ./tests/run --all")]
fn a_symlink_in_place_of_the_socket() -> anyhow::Result<()> {
    let text = fs::read_to_string(workspace().join("systemd/azaion-agent-token.socket"))?;
    // systemd's own settings for this follow symlinks.
    assert!(!text.contains("\nSocketUser=") && !text.contains("\nSocketGroup="), "{text}");
    let chown =
        text.lines().find(|line| line.starts_with("ExecStartPost=")).context("the command that sets the group")?;
    let (_station, tree, booted) = boot(BOOKWORM)?;
    let folder = "/etc/systemd/system/azaion-agent-token.socket.d";
    fs::create_dir_all(tree.at(folder))?;
    let attack = "+/bin/ln -sf /root/secret /run/azaion/token.sock";
    let drop_in = format!("[Socket]\nExecStartPost=\nExecStartPost={attack}\n{chown}\n");
    tree.write(&format!("{folder}/attack.conf"), &drop_in)?;
    booted.must("touch /root/secret; systemctl daemon-reload; systemctl restart azaion-agent-token.socket")?;
    assert_eq!(
        booted.must("readlink /run/azaion/token.sock; stat -c %U:%G /root/secret")?,
        "/root/secret\nroot:root\n"
    );
    Ok(())
}
