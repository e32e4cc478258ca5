use std::os::unix::fs::{PermissionsExt, symlink};

use proptest::prelude::*;
use proptest::string::string_regex;

use super::*;

fn good() -> String {
    format!(
        "{EMAIL}=azaion-jetson-0042@azaion.com\n{PASSWORD}=abcDEF0123456789abcDEF0123456789\n{API_URL}=https://a.example\n"
    )
}

prop_compose! {
    fn any_conf()(
        serial in proptest::option::of(string_regex("AZJN-[A-Z0-9]{1,32}").unwrap()),
        email in string_regex("[a-z0-9._+-]{1,40}@[a-z0-9.-]{1,40}").unwrap(),
        password in string_regex("[A-Za-z0-9@%+=:,./_-]{1,64}").unwrap(),
        host in string_regex("[a-z]([a-z0-9-]{0,20}[a-z0-9])?\\.example(:[1-9][0-9]{0,3})?(/[a-z0-9_%=-]{1,9})?").unwrap(),
        at in proptest::option::of(0u64..253_402_300_800),
    ) -> DeviceConf {
        DeviceConf {
            serial,
            email,
            password: SecretString::from(password),
            api_url: format!("https://{host}").parse().unwrap(),
            provisioned_at: at.map(Timestamp::from_unix),
        }
    }
}

proptest! {
    // Promise: the device reads exactly what the station wrote, padded with newlines or not.
    #[test]
    fn parse_is_the_inverse_of_render(conf in any_conf(), padding in 0usize..64) {
        let text = conf.render().expose_secret().to_owned() + &"\n".repeat(padding);
        let read = DeviceConf::parse(text.as_bytes(), Path::new("f")).unwrap();
        prop_assert_eq!(&read.serial, &conf.serial);
        prop_assert_eq!(&read.email, &conf.email);
        prop_assert_eq!(read.password.expose_secret(), conf.password.expose_secret());
        prop_assert_eq!(&read.api_url, &conf.api_url);
        prop_assert_eq!(read.provisioned_at, conf.provisioned_at);
    }

    // Promise: no bytes whatever make the parser panic.
    #[test]
    fn any_bytes_are_judged(bytes in proptest::collection::vec(any::<u8>(), 0..5000)) {
        let _ = DeviceConf::parse(&bytes, Path::new("f"));
    }
}

// Promise: unknown keys are left aside, so that an older agent reads a newer file.
#[test]
fn unknown_keys_are_left_aside() {
    let text = good() + "AZAION_SHOE_SIZE=42\n# done";
    assert_eq!(DeviceConf::parse(text.as_bytes(), Path::new("f")).unwrap().email, "azaion-jetson-0042@azaion.com");
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

// Promise: what others could have read or put there is refused, and nothing in that place hangs the boot.
#[test]
fn open_files_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("device.conf");
    let problem = |path: &Path| DeviceConf::read(path).unwrap_err().problem;
    assert!(matches!(problem(&path), Problem::NoFile));
    std::io::Write::write_all(&mut File::create(&path).unwrap(), good().as_bytes()).unwrap();
    for mode in [0o600, 0o400, 0o640, 0o644, 0o604, 0o620, 0o602, 0o601, 0o777] {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        let refused =
            matches!(DeviceConf::read(&path), Err(DeviceConfError { problem: Problem::Mode(m), .. }) if m == mode);
        assert_eq!(refused, mode & 0o027 != 0, "{mode:o}");
    }
    let link = dir.path().join("link");
    symlink(&path, &link).unwrap();
    assert!(matches!(problem(&link), Problem::Symlink));
    assert!(matches!(problem(dir.path()), Problem::NotAFile));
    let fifo = dir.path().join("fifo");
    nix::unistd::mkfifo(&fifo, Mode::from_bits_truncate(0o600)).unwrap();
    assert!(matches!(problem(&fifo), Problem::NotAFile));
}
