use std::fs::{self, File};
use std::io::Write;

use nix::sys::stat::Mode;
use tempfile::TempDir;

use super::*;

const USUAL: &str = "proc/device-tree/serial-number";
const OTHER: &str = "sys/firmware/devicetree/base/serial-number";
const MODULE: &str = "1423221050123";

fn conf(module: Option<&str>) -> DeviceConf {
    let module = module.map_or(String::new(), |module| format!("AZAION_MODULE_SERIAL={module}\n"));
    let text = format!(
        "AZAION_DEVICE_SERIAL=AZJN-0042\nAZAION_DEVICE_EMAIL=azaion-jetson-0042@azaion.com\n\
         AZAION_DEVICE_PASSWORD=hush-hush-1234\nAZAION_API_URL=https://a.example\n{module}"
    );
    DeviceConf::parse(text.as_bytes(), Path::new("f")).unwrap()
}

/// Returns a root directory with these files of the device tree.
fn root(files: &[(&str, &[u8])]) -> TempDir {
    let root = tempfile::tempdir().unwrap();
    for (name, content) in files {
        let path = root.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        File::create(path).unwrap().write_all(content).unwrap();
    }
    root
}

fn checked(module: Option<&str>, root: &TempDir) -> Result<Board, WrongBoard> {
    check(&Paths::under(root.path()), &conf(module))
}

// Promise: the module is accepted only if its serial number is exactly the same, apart from a trailing NUL or newline;
// where device.conf names no module, every module is accepted.
#[test]
fn modules_are_compared_exactly() {
    for (module, tree, is_right) in [
        (MODULE, "1423221050123\0", true),
        (MODULE, "1423221050123", true),
        (MODULE, "1423221050123\n", true),
        (MODULE, "1423221050123\0\0\n", true),
        (MODULE, "1423221050124\0", false),
        (MODULE, "01423221050123\0", false),
        (MODULE, "142322105012\0", false),
        (MODULE, "1423221050123 \0", false),
        (MODULE, "\x001423221050123\0", false),
        ("ab-1", "AB-1\0", false),
        (MODULE, &MODULE.repeat(100), false),
    ] {
        let root = root(&[(USUAL, tree.as_bytes())]);
        let board = checked(Some(module), &root);
        assert_eq!(board.ok(), is_right.then(|| Board::Right(module.to_owned())), "{module} {tree:?}");
        assert_eq!(checked(None, &root).unwrap(), Board::Any);
    }
}

// Promise: the message about a mix-up names both modules and what to do, in ASCII whatever the device tree holds, and
// without the password.
#[test]
fn a_mix_up_is_reported() {
    let error = checked(Some(MODULE), &root(&[(USUAL, b"77\x1b\xff\0")])).unwrap_err().to_string();
    for part in ["AZJN-0042", MODULE, "the module 77\\x1b\\xff;", "with its own image", "--module-serial"] {
        assert!(error.contains(part), "{part:?} is not in: {error}");
    }
    assert!(error.is_ascii() && !error.contains("hush"), "{error}");
}

// Promise: the serial number is read from either path, and the usual path has precedence.
#[test]
fn the_serial_number_is_read_from_either_path() {
    let right = Board::Right(MODULE.to_owned());
    assert_eq!(checked(Some(MODULE), &root(&[(OTHER, MODULE.as_bytes())])).unwrap(), right);
    assert_eq!(checked(Some(MODULE), &root(&[(USUAL, MODULE.as_bytes()), (OTHER, b"77\0")])).unwrap(), right);
    assert!(checked(Some(MODULE), &root(&[(USUAL, b"77\0"), (OTHER, MODULE.as_bytes())])).is_err());
}

// Promise: a board without a readable serial number is reported as unknown, and no kind of file in its path hangs the
// agent.
#[test]
fn boards_without_a_serial_number() {
    let unknown = |root: &TempDir| match checked(Some(MODULE), root).unwrap() {
        Board::Unknown(why) => why,
        board => panic!("{board:?}"),
    };
    assert!(unknown(&root(&[])).contains(USUAL));
    for empty in [&b""[..], b"\0", b"\n\0\n"] {
        assert!(unknown(&root(&[(USUAL, empty)])).contains("empty"));
    }
    let directory = root(&[]);
    fs::create_dir_all(directory.path().join(OTHER)).unwrap();
    assert!(unknown(&directory).contains(OTHER));
    let fifo = root(&[]);
    fs::create_dir_all(fifo.path().join("proc/device-tree")).unwrap();
    nix::unistd::mkfifo(&fifo.path().join(USUAL), Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
    unknown(&fifo);
}

// Promise: a placeholder counts as no serial number, on the board and in device.conf; a serial number that only starts
// like a placeholder is accepted as one.
#[test]
fn placeholders_are_no_serial_numbers() {
    for placeholder in [&b"0\0"[..], b"0000000000000\0", b" \0", b"  \t \0", &[0xFF; 13], b"\xff\xff\0", b" 00 \n\0"] {
        let root = root(&[(USUAL, placeholder)]);
        let Board::Unknown(why) = checked(Some(MODULE), &root).unwrap() else { panic!("{placeholder:?}") };
        assert!(why.contains("placeholder") && why.is_ascii(), "{why}");
    }
    for serial in [&b"0100000000000\0"[..], b"0000000000001\0", b"\xff0\0", b"00-00\0"] {
        assert!(checked(Some(MODULE), &root(&[(USUAL, serial)])).is_err(), "{serial:?}");
    }
    for placeholder in ["0", "0000000000000"] {
        assert_eq!(checked(Some(placeholder), &root(&[(USUAL, b"1423221050123\0")])).unwrap(), Board::Any);
    }
}
