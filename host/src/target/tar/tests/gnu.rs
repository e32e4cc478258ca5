//! What this walk and GNU tar make of the same odd archive.

use super::*;

/// Numbers that are the same in each run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % limit
    }
}

/// Changes a header in one place, checksum and all.
fn change(header: &mut [u8], dice: &mut Dice) {
    const KINDS: &[u8] = b"01234567xgLKSDMVN\0A";
    const NAMES: [&[u8]; 5] =
        [b"etc\0", b"./etc/azaion\0", b"etc/azaion/device.conf\0", b"/etc//azaion/./device.conf\0", b"etc/\0"];
    match dice.below(5) {
        0 => header[156] = KINDS[dice.below(KINDS.len())],
        1 => {
            let size = format!("{:011o}\0", [0, 1, 511, 512, 513, 4096, 5000][dice.below(7)]);
            header[124..136].copy_from_slice(size.as_bytes());
        }
        2 => header[dice.below(512)] = u8::try_from(dice.below(256)).unwrap(),
        3 => header[124 + dice.below(12)] = u8::try_from(dice.below(256)).unwrap(),
        _ => {
            let (name, at) = (NAMES[dice.below(NAMES.len())], [0, 157][dice.below(2)]);
            header[at..at + name.len()].copy_from_slice(name);
        }
    }
    let mut right = ::tar::Header::from_byte_slice(header).clone();
    right.set_cksum();
    header.copy_from_slice(right.as_bytes());
}

// Promise: of whatever archive is not refused, GNU tar unpacks our file last.
#[test]
fn gnu_tar_agrees() {
    let mut dice = Dice(77);
    let mut accepted = 0;
    for format in ["--format=gnu", "--format=posix"] {
        let fixture = Fixture::tree();
        let long = "l".repeat(200);
        fs::create_dir_all(fixture.root(&format!("usr/{long}"))).unwrap();
        fs::create_dir(fixture.root("etc/azaion")).unwrap();
        let sparse = File::create(fixture.root("usr/sparse")).unwrap();
        (0..10).for_each(|at| sparse.write_all_at(b"data", at * 100_000).unwrap());
        fixture.pack(&["--sparse", format, "."]);
        fs::remove_file(fixture.dir.path().join("system.img.sha1sum")).unwrap();
        let whole = fixture.bytes();
        let is_header = |at: &usize| whole[at + 257..].starts_with(b"ustar");
        let headers: Vec<usize> = (0..whole.len()).step_by(512).filter(is_header).collect();
        for _ in 0..120 {
            let mut bytes = whole.clone();
            for _ in 0..=dice.below(2) {
                let at = headers[dice.below(headers.len())];
                change(&mut bytes[at..at + 512], &mut dice);
            }
            put(&fixture.image(), &bytes);
            let Ok(target) = open(&fixture.image()) else { continue };
            target.write(&SecretString::from(CONF), Owner::Root).unwrap();
            drop(target);
            accepted += 1;
            assert_unpacks_last(&fixture);
        }
    }
    assert!(accepted > 20, "{accepted}");
}

fn assert_unpacks_last(fixture: &Fixture) {
    let out = fixture.dir.path().join("out");
    let _ = fs::remove_dir_all(&out);
    fs::create_dir(&out).unwrap();
    // It may complain of what was changed.
    let unpack = ["--numeric-owner", "--xattrs", "-xpf", NAME, "-C", "out"];
    Command::new("tar").args(unpack).current_dir(&fixture.dir).output().unwrap();
    let file = out.join("etc/azaion/device.conf");
    assert!(fs::read_to_string(&file).unwrap().contains(CONF));
    assert_eq!(file.metadata().unwrap().mode() & 0o7777, 0o600);
}
