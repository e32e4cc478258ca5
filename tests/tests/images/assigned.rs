//! Server-assigned identities (`--server-assigned`) in images of each kind.

use anyhow::ensure;
use azaion_tests::dev_api::Fault;

use crate::bench::{Bench, for_each, password_in};
use crate::recipe::{Kind, PLAIN};

const ASSIGN: &str = "--server-assigned";

fn image(kind: Kind) -> anyhow::Result<Bench> {
    let bench = Bench::new()?;
    kind.make(&bench, &bench.image(), PLAIN)?;
    Ok(bench)
}

fn each_kind(one: impl Fn(&Bench) -> anyhow::Result<()>) {
    for_each(&Kind::ALL, |kind| kind.name().to_owned(), |kind| one(&image(*kind)?));
}

// Promise: an image gets the server's next identity, once; after `clear`, the one after it; the flasher's checksum is
// correct each time.
#[test]
fn one_after_the_other() {
    each_kind(|bench| {
        for serial in ["azj-0001", "azj-0002"] {
            for outcome in ["assigned", "reused"] {
                let report = bench.device(ASSIGN, &["--verify"])?.ended_with(0)?.json_lines()?.remove(0);
                ensure!(report["serial"] == serial && report["outcome"] == outcome, "{report}");
                bench.holds(serial, &format!("{serial}@azaion.com"))?;
            }
            bench.verb("clear")?.ended_with(0)?;
            ensure!(password_in(&bench.image())?.is_none(), "a password is left");
        }
        Ok(())
    });
}

// Promise: after a lost reply the image holds nothing, and the next run gets an identity; the password from the lost
// reply is stored nowhere.
#[test]
fn a_lost_reply() {
    each_kind(|bench| {
        for fault in [Fault::DropAfter, Fault::Truncate] {
            bench.station.api.inject("POST", "/devices", fault, 1);
            let said = bench.device(ASSIGN, &[])?.ended_with(69)?.stderr;
            ensure!(said.contains("no device has"), "{said}");
            ensure!(
                bench.inspect()?["empty"] == true && password_in(&bench.image())?.is_none(),
                "the target is not empty"
            );
            bench.has_no_leftovers()?;
        }
        bench.device(ASSIGN, &[])?.ended_with(0)?;
        bench.holds("azj-0003", "azj-0003@azaion.com")
    });
}
