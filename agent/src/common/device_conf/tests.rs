use std::fs::File;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::{Mutex, Once};

use nix::sys::stat::Mode;
use nix::unistd::geteuid;
use proptest::prelude::*;
use proptest::string::string_regex;
use secrecy::ExposeSecret;

use super::*;

fn good() -> String {
    let [email, password, api_url] = ["AZAION_DEVICE_EMAIL", "AZAION_DEVICE_PASSWORD", "AZAION_API_URL"];
    format!(
        "{email}=azaion-jetson-0042@azaion.com\n{password}=abcDEF0123456789abcDEF0123456789\n{api_url}=https://a.example\n"
    )
}

prop_compose! {
    fn any_conf()(
        serial in proptest::option::of(string_regex("AZJN-[A-Z0-9]{1,32}").unwrap()),
        email in string_regex("[a-z0-9._+-]{1,40}@[a-z0-9.-]{1,40}").unwrap(),
        password in string_regex("[A-Za-z0-9@%+=:,./_-]{1,64}").unwrap(),
        host in string_regex("[a-z]([a-z0-9-]{0,20}[a-z0-9])?\\.example(:[1-9][0-9]{0,3})?(/[a-z0-9_%=-]{1,9})?").unwrap(),
        at in proptest::option::of(0u64..253_402_300_800),
        module_serial in proptest::option::of(string_regex("[A-Za-z0-9@%+=:,./_-]{1,64}").unwrap()),
    ) -> DeviceConf {
        DeviceConf {
            serial,
            email,
            password: SecretString::from(password),
            api_url: format!("https://{host}").parse().unwrap(),
            provisioned_at: at.map(Timestamp::from_unix),
            module_serial,
        }
    }
}

proptest! {
    // Promise: the device reads exactly what the host wrote, with or without newlines appended.
    #[test]
    fn parse_is_the_inverse_of_render(conf in any_conf(), padding in 0usize..64) {
        let text = conf.render().expose_secret().to_owned() + &"\n".repeat(padding);
        let read = DeviceConf::parse(text.as_bytes(), Path::new("f")).unwrap();
        prop_assert_eq!(&read.serial, &conf.serial);
        prop_assert_eq!(&read.email, &conf.email);
        prop_assert_eq!(read.password.expose_secret(), conf.password.expose_secret());
        prop_assert_eq!(&read.api_url, &conf.api_url);
        prop_assert_eq!(read.provisioned_at, conf.provisioned_at);
        prop_assert_eq!(&read.module_serial, &conf.module_serial);
    }

    // Promise: no input makes the parser panic.
    #[test]
    fn the_parser_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..5000)) {
        let _ = DeviceConf::parse(&bytes, Path::new("f"));
    }
}

/// Returns the directory of the sample files, which the tests of the whole programs use, too.
fn samples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/device_conf")
}

// Promise: each error says what is wrong, in which file and, if it is in one line, in which line.
#[test]
fn errors_name_file_and_line() {
    let expected = std::fs::read_to_string(samples().join("expected.tsv")).unwrap();
    let rows: Vec<Vec<&str>> =
        expected.lines().filter(|l| !l.starts_with('#')).map(|l| l.split('\t').collect()).collect();
    assert!(rows.len() > 80);
    for row in rows {
        let (name, line, part) = (row[0], row[1], row[2]);
        let bytes = std::fs::read(samples().join(format!("{name}.conf"))).unwrap();
        match DeviceConf::parse(&bytes, Path::new("f")) {
            Ok(conf) => assert_eq!((part, conf.email.as_str()), ("good", "azaion-jetson-0042@azaion.com"), "{name}"),
            Err(error) => {
                let expected = if line == "-" { "f".to_owned() } else { format!("f:{line}") };
                assert_eq!(error.to_string(), expected, "{name}");
                assert!(error.problem.to_string().contains(part), "{name}: {}", error.problem);
            }
        }
    }
}

/// Collects what is logged. No other test of this crate sets a logger.
struct Logged(Mutex<Vec<String>>);

impl log::Log for Logged {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        self.0.lock().unwrap().push(record.args().to_string());
    }

    fn flush(&self) {}
}

static LOGGED: Logged = Logged(Mutex::new(Vec::new()));

/// Returns what was logged about this file, without its name.
fn logged_about(file: &Path) -> Vec<String> {
    let logged = LOGGED.0.lock().unwrap();
    let name = file.display().to_string();
    logged.iter().filter_map(|line| line.strip_prefix(&name).map(str::to_owned)).collect()
}

fn install_logger() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| log::set_logger(&LOGGED).unwrap());
    log::set_max_level(log::LevelFilter::Warn);
}

// Promise: unknown keys are ignored with one warning each, so that an older agent reads a newer file.
#[test]
fn unknown_keys_are_ignored() {
    install_logger();
    let (text, file) = (good() + "AZAION_SHOE_SIZE=42\n# done", Path::new("newer"));
    assert_eq!(DeviceConf::parse(text.as_bytes(), file).unwrap().email, "azaion-jetson-0042@azaion.com");
    assert_eq!(logged_about(file), [":4: unknown key ignored"]);
}

// Promise: a file that another user than root owns is read, and root gets a warning.
#[test]
fn another_owner_is_a_warning() {
    if !geteuid().is_root() {
        return;
    }
    install_logger();
    for (owner, warnings) in [(0, 0), (1000, 1)] {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::io::Write::write_all(&mut file.as_file(), good().as_bytes()).unwrap();
        std::os::unix::fs::chown(file.path(), Some(owner), None).unwrap();
        assert!(DeviceConf::read(file.path()).is_ok());
        assert_eq!(logged_about(file.path()).len(), warnings, "{owner}");
    }
}

// Promise: a missing permission is distinguished from other I/O errors, so that a user who is not root is not told that the file
// is damaged.
#[test]
fn permission_denied_is_distinguished() {
    let io = |kind: io::ErrorKind| Problem::Io(Arc::new(kind.into()));
    for (problem, expected) in
        [(io(io::ErrorKind::PermissionDenied), true), (io(io::ErrorKind::Interrupted), false), (Problem::NoFile, false)]
    {
        let error = DeviceConfError { file: "f".into(), line: None, problem };
        assert_eq!(error.is_permission_denied(), expected, "{:?}", error.problem);
    }
}

// Promise: a file of 4096 bytes is read completely, and a larger one is refused.
#[test]
fn the_size_limit_is_exact() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let last = "\nAZAION_DEVICE_SERIAL=AZJN-0042";
    let text = good();
    let text = format!("{text}{}{last}", "\n".repeat(LARGEST - text.len() - last.len()));
    std::io::Write::write_all(&mut file.as_file(), text.as_bytes()).unwrap();
    assert_eq!(DeviceConf::read(file.path()).unwrap().serial.as_deref(), Some("AZJN-0042"));
    std::io::Write::write_all(&mut file.as_file(), b"\n").unwrap();
    assert!(matches!(DeviceConf::read(file.path()).unwrap_err().problem, Problem::TooLarge));
}

// Promise: neither `Debug` nor an error shows the password.
#[test]
fn the_password_is_not_shown() {
    let conf = DeviceConf::parse(good().as_bytes(), Path::new("f")).unwrap();
    assert!(!format!("{conf:?}").contains("abcDEF"));
    let text = good().replace("abcDEF0123456789", "abc DEF");
    let error = DeviceConf::parse(text.as_bytes(), Path::new("f")).unwrap_err();
    assert!(!format!("{error} {error:?}").contains("DEF0123"));
}

// Promise: a file that others can read or change is refused, and no kind of file at this path blocks the boot.
#[test]
fn files_that_others_can_access_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("device.conf");
    let problem = |path: &Path| DeviceConf::read(path).unwrap_err().problem;
    assert!(matches!(problem(&path), Problem::NoFile));
    std::io::Write::write_all(&mut File::create(&path).unwrap(), good().as_bytes()).unwrap();
    for mode in [0o600, 0o400, 0o640, 0o644, 0o604, 0o620, 0o602, 0o601, 0o777] {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        let read = DeviceConf::read(&path);
        let refused = matches!(&read, Err(DeviceConfError { problem: Problem::Mode(m), .. }) if *m == mode);
        assert_eq!((refused, read.is_ok()), (mode & 0o027 != 0, mode & 0o027 == 0), "{mode:o}");
    }
    let link = dir.path().join("link");
    symlink(&path, &link).unwrap();
    assert!(matches!(problem(&link), Problem::Symlink));
    assert!(matches!(problem(dir.path()), Problem::NotAFile));
    let fifo = dir.path().join("fifo");
    nix::unistd::mkfifo(&fifo, Mode::from_bits_truncate(0o600)).unwrap();
    assert!(matches!(problem(&fifo), Problem::NotAFile));
}

// Promise: a file belongs to the device with its e-mail address and, if it has one, its serial; messages name the serial.
#[test]
fn a_file_belongs_to_one_device() {
    let serial: Serial = "AZJN-0042".parse().unwrap();
    let (own, other) = ("azaion-jetson-0042@azaion.com", "azaion-jetson-0041@azaion.com");
    for (named, email, is_of, whose) in [
        (Some("AZJN-0042"), own, true, "AZJN-0042"),
        (None, own, true, own),
        (Some("AZJN-0041"), own, false, "AZJN-0041"),
        (Some("AZJN-0042"), other, false, "AZJN-0042"),
        (None, other, false, other),
    ] {
        let mut conf = DeviceConf::parse(good().as_bytes(), Path::new("f")).unwrap();
        (conf.serial, conf.email) = (named.map(str::to_owned), email.to_owned());
        assert_eq!((conf.is_of(&serial), conf.whose()), (is_of, whose), "{named:?} {email}");
    }
}

// Promise: a module's serial number has 1 to 64 characters that need no quotes; a file with any other is refused.
#[test]
fn module_serials_are_validated() {
    let key = MODULE_SERIAL.name;
    let (longest, too_long) = ("1".repeat(64), "1".repeat(65));
    for (text, expected) in [("1421024001234", true), (&longest, true), (&too_long, false), ("", false), ("1 2", false)]
    {
        assert_eq!(is_module_serial(text), expected, "{text}");
        let read = DeviceConf::parse(format!("{}{key}={text}\n", good()).as_bytes(), Path::new("f"));
        assert_eq!(read.ok().and_then(|conf| conf.module_serial).as_deref(), expected.then_some(text), "{text}");
    }
}

// Promise: the fingerprint identifies one version of the file: it differs for other content, and for another file with the same
// content.
#[test]
#[expect(clippy::disallowed_methods, reason = "a temporary file of this test")]
fn fingerprints_identify_versions() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("device.conf");
    let write = |name: &str, text: &str| {
        let file = dir.path().join(name);
        std::fs::write(&file, text).unwrap();
        std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        std::fs::rename(&file, &path).unwrap();
        ConfFile::open(&path).unwrap().fingerprint().to_owned()
    };
    let first = write("1", "one");
    assert_eq!(ConfFile::open(&path).unwrap().fingerprint(), first);
    let second = write("2", "one");
    assert_ne!(second, first);
    std::fs::write(&path, "two!").unwrap();
    assert_ne!(ConfFile::open(&path).unwrap().fingerprint(), second);
}
