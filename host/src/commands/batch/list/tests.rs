use super::rows::{MOST_FIELDS, MOST_LINES};
use super::*;

fn serials(devices: &[ListedDevice]) -> Vec<String> {
    devices.iter().map(|device| device.serial.to_string()).collect()
}

// Promise: a range includes both ends, and its numbers keep their leading zeros.
#[test]
fn ranges() {
    for (list, expected) in [
        ("AZJN-0001..AZJN-0003", &["AZJN-0001", "AZJN-0002", "AZJN-0003"][..]),
        ("AZJN-9..AZJN-9", &["AZJN-9"]),
        ("AZJN-B099..AZJN-B100", &["AZJN-B099", "AZJN-B100"]),
    ] {
        assert_eq!(serials(&List::read(list).unwrap().devices), expected);
    }
    assert_eq!(List::read("AZJN-000001..AZJN-010000").unwrap().devices.len(), 10_000);
}

// Promise: an invalid range is refused, with the reason.
#[test]
fn invalid_ranges() {
    for (list, why) in [
        ("AZJN-0003..AZJN-0001", "before the first"),
        ("AZJN-9..AZJN-10", "as many digits"),
        ("AZJN-A1..AZJN-B2", "as many digits"),
        ("AZJN-A..AZJN-B", "as many digits"),
        ("AZJN-0000001..AZJN-9999999", "a million"),
        ("AZJN-1..", "AZJN-"),
        ("azjn-1..azjn-2", "AZJN-"),
        ("AZJN-00000000000000000000000000000001..AZJN-99999999999999999999999999999999", "too large"),
    ] {
        let error = List::read(list).unwrap_err().to_string();
        assert!(error.contains(why), "{list}: {error}");
    }
}

// Promise: lists of serials and tables are parsed as people and spreadsheets write them.
#[test]
fn files() {
    let two = ["AZJN-1", "AZJN-2"];
    for text in [
        "AZJN-1\nAZJN-2",
        "AZJN-1\t# spare; blue, old\nAZJN-2",
        "# line 7\n\n AZJN-1 \r\nAZJN-2 # spare\n",
        "\u{feff}serial\r\nAZJN-1\r\nAZJN-2\r\n",
    ] {
        let list = List::parse(text).unwrap();
        assert_eq!((serials(&list.devices), list.columns.len()), (two.map(String::from).to_vec(), 0), "{text}");
    }
    let list = List::parse("serial;order, customer;;\nAZJN-1;7;;\nAZJN-2;8;;\n").unwrap();
    assert_eq!(
        (serials(&list.devices), list.columns),
        (two.map(String::from).to_vec(), vec!["order, customer".into()])
    );
    let list = List::parse("order,Serial,note\n7,AZJN-1,\"a, b\"\n8,AZJN-2,\n").unwrap();
    assert_eq!(
        (serials(&list.devices), list.columns),
        (two.map(String::from).to_vec(), vec!["order".into(), "note".into()])
    );
    assert_eq!(list.devices[0].columns, ["7", "a, b"]);
    for separator in [";", "\t"] {
        let table = "order,Serial,note\n7,AZJN-1,\"a, b; c\"\n8,AZJN-2,M-3\n".replace(',', separator);
        let list = List::parse(&table.replace("a; b", "a, b")).unwrap();
        assert_eq!((serials(&list.devices), list.columns.len()), (two.map(String::from).to_vec(), 2), "{table:?}");
        assert_eq!(list.devices[1].columns, ["8", "M-3"]);
    }
    let list = List::parse("serial,module_serial\nAZJN-1,14E12\nAZJN-2,M-3.1\n").unwrap();
    assert_eq!(list.devices[0].module_serial.as_deref(), Some("14E12"));
    let list = List::parse("module_serial,serial\n1421222333,AZJN-1\n,AZJN-2\n").unwrap();
    let modules = list.devices.iter().map(|device| device.module_serial.as_deref());
    assert_eq!(modules.collect::<Vec<_>>(), [Some("1421222333"), None]);
}

// Promise: a list that would need too much memory or would block is refused.
#[test]
fn too_large() {
    for text in ["A\n".repeat(MOST_LINES + 1), "serial,x\n".repeat(MOST_LINES + 2), ",".repeat(MOST_FIELDS + 1)] {
        let problems = List::parse(&text).unwrap_err();
        assert!(problems[0].contains("divide it"), "{}", problems[0]);
    }
    let dir = tempfile::tempdir().unwrap();
    let list = dir.path().join("list");
    File::create(&list).unwrap().set_len(LARGEST + 1).unwrap();
    let read = || List::read(list.to_str().unwrap()).unwrap_err().to_string();
    assert!(read().contains("larger than 32 MiB"));
    // A character has two bytes, and the limit is inside one.
    std::fs::write(&list, "x".to_owned() + &"\u{e4}".repeat((LARGEST >> 1) as usize + 1)).unwrap();
    assert!(read().contains("larger than 32 MiB"));
    std::fs::remove_file(&list).unwrap();
    nix::unistd::mkfifo(&list, nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(read().contains("is a FIFO"));
}

// Promise: all invalid lines of a list are reported at once, before the first device is provisioned.
#[test]
fn invalid_files() {
    for (text, lines) in [
        ("AZJN-1\nazjn-2\nAZJN-1\n", &["2: ", "3: duplicate serial AZJN-1, already on line 1"][..]),
        ("serial,note\nAZJN-1\nAZJN-2,x\n", &["2: "]),
        ("name,note\nAZJN-1,x\n", &["1: the first line"]),
        ("# nothing\n", &["1: the list has no device"]),
        ("serial\n", &["1: the list has no device"]),
        ("serial,module_serial\nAZJN-1,\nAZJN-2,a b\n", &["3: the module_serial"]),
        ("AZJN-1 AZJN-2\n", &["1: "]),
        ("serial,note,Note\nAZJN-1,x,y\n", &["1: two columns have the name Note"]),
        ("serial,Serial\nAZJN-1,AZJN-2\n", &["1: two columns"]),
        ("serial,module_serial\nAZJN-1,1.42292E+12\n", &["2: the module_serial is a number that a spreadsheet"]),
        ("serial,module_serial\nAZJN-1,1422924012345.0\n", &["2: the module_serial is a number that a spreadsheet"]),
        ("serial;module_serial\nAZJN-1;1,42292E+12\n", &["2: the module_serial is a number that a spreadsheet"]),
        ("serial;module_serial\nAZJN-1;1422924012345,0\n", &["2: the module_serial is a number that a spreadsheet"]),
        ("serial,error,list_error\nAZJN-1,x,y\n", &["1: two columns have the name list_error"]),
        ("serial,module_serial\nAZJN-1,\"1,422,924,012,345\"\n", &["2: the module_serial is a number"]),
        ("serial;module_serial\nAZJN-1;1.422.924\n", &["2: the module_serial is a number"]),
        ("serial,module_serial\nAZJN-1,1E+12\n", &["2: the module_serial is a number that a spreadsheet"]),
        ("serial,module_serial\nAZJN-1,14\nAZJN-2,14\n", &["3: duplicate module_serial 14, already on line 2"]),
    ] {
        let problems = List::parse(text).unwrap_err();
        let is_reported =
            problems.len() == lines.len() && problems.iter().zip(lines).all(|(p, line)| p.starts_with(line));
        assert!(is_reported, "{text:?}: {problems:?}");
    }
}
