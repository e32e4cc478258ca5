//! Mixed-up devices: an image on another device's board, a file removed from the wrong target.

use std::fs;

use azaion_tests::dev_api::{DevApi, Options};
use azaion_tests::station::{EMAIL, SERIAL, Station, conf_value};
use serde_json::Value;

use crate::journal::{boot_as_unit, entry};

const CONF: &str = "etc/azaion/device.conf";
const TOKEN: &str = "run/azaion/token.json";
const READY: &str = "run/azaion/ready.json";
/// Where a board reports its module, and where the kernel exposes it.
const BOARD: &str = "rootfs/proc/device-tree/serial-number";
const FIRMWARE: &str = "rootfs/sys/firmware/devicetree/base/serial-number";
/// The device's module, and another one.
const MODULE: &str = "1423221050123";
const OTHER: &str = "1423221050124";

/// Creates a host that has provisioned the device for its module.
fn unit() -> anyhow::Result<Station> {
    let station = Station::new(Options::default())?;
    station.device(&["--module-serial", MODULE])?.ended_with(0)?;
    station.put_policy("")?;
    station.api.forget_requests();
    Ok(station)
}

/// Moves the image to a board with this module.
fn on(station: &Station, module: &str) -> anyhow::Result<()> {
    station.put(BOARD, format!("{module}\0"), 0o444)
}

fn configuration(station: &Station) -> anyhow::Result<Value> {
    Ok(station.agent(&["status", "--json"])?.json_lines()?.remove(0))
}

// Promise: on its own module a device becomes ready, under any path by which the kernel exposes the module, without a
// warning; `status` shows the module.
#[test]
fn the_right_board_is_ready() -> anyhow::Result<()> {
    for place in [BOARD, FIRMWARE] {
        let station = unit()?;
        station.put(place, format!("{MODULE}\0"), 0o444)?;
        let run = station.agent(&["boot"])?.ended_with(0)?;
        assert!(!run.stderr.contains("module"), "{}", run.stderr);
        let check = configuration(&station)?;
        assert!(check["status"] == "ok" && check["message"].to_string().contains(MODULE), "{check}");
    }
    Ok(())
}

// Promise: on another module the credentials are not used: no call, no token, also no earlier one; exit 78, with both
// modules and what to do. The other device, which may be fine, is not reported as not ready.
#[test]
fn the_wrong_board_does_not_use_the_credentials() -> anyhow::Result<()> {
    let station = unit()?;
    on(&station, MODULE)?;
    station.agent(&["boot"])?.ended_with(0)?;
    assert!(station.json(TOKEN).is_some());
    station.api.forget_requests();
    on(&station, OTHER)?;
    for arguments in [&["boot"][..], &["boot", "--now"], &["token"], &["status", "--login"]] {
        let run = station.agent(arguments)?.ended_with(78)?;
        let said = run.words();
        assert!([MODULE, OTHER, SERIAL, "its own image"].iter().all(|part| said.contains(part)), "{said}");
        assert!(station.json(TOKEN).is_none() && !station.inside("run/azaion/refresh.json").exists());
        assert_eq!(station.api.requests().len(), 0, "{arguments:?}");
    }
    let ready = station.json(READY).unwrap();
    assert_eq!((&ready["ready"], &ready["code"], ready.get("serial")), (&false.into(), &78.into(), None));
    let reason = ready["reason"].as_str().unwrap();
    assert!(reason.contains(MODULE) && reason.contains(OTHER), "{reason}");
    assert_eq!(configuration(&station)?["status"], "failed");
    Ok(())
}

// Promise: once the image is on its own board, or the device was provisioned again for this one, it becomes ready at
// once.
#[test]
fn a_mix_up_is_put_right() -> anyhow::Result<()> {
    let station = unit()?;
    on(&station, OTHER)?;
    station.agent(&["boot"])?.ended_with(78)?;
    on(&station, MODULE)?;
    station.agent(&["boot"])?.ended_with(0)?;
    fs::remove_dir_all(station.inside("run"))?;
    on(&station, OTHER)?;
    station.agent(&["boot"])?.ended_with(78)?;
    station.device(&["--module-serial", OTHER])?.ended_with(0)?;
    station.agent(&["boot"])?.ended_with(0)?;
    Ok(())
}

// Promise: a board that does not expose its module, such as a container, is accepted; there is one warning, when the
// device becomes ready, and one in `status`. Without the key nothing is compared.
#[test]
fn a_board_that_says_nothing_is_ready() -> anyhow::Result<()> {
    let station = unit()?;
    for is_warned in [true, false] {
        let run = station.agent(&["boot"])?.ended_with(0)?;
        assert_eq!(run.stderr.contains("cannot check that this is the module"), is_warned, "{}", run.stderr);
    }
    assert_eq!(configuration(&station)?["status"], "warning");
    for placeholder in ["0", "0000000000000", "   "] {
        on(&station, placeholder)?;
        station.agent(&["boot"])?.ended_with(0)?;
        let check = configuration(&station)?;
        assert!(check["status"] == "warning" && check["message"].to_string().contains("placeholder"), "{check}");
    }

    let station = Station::new(Options::default())?;
    station.device(&[])?.ended_with(0)?;
    station.put_policy("")?;
    on(&station, OTHER)?;
    let run = station.agent(&["boot"])?.ended_with(0)?;
    assert!(!run.stderr.contains("module"), "{}", run.stderr);
    assert_eq!(configuration(&station)?["status"], "ok");
    Ok(())
}

// Promise: the journal has one entry with the state, the exit code, both modules and the advice, without naming a
// device.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn the_journal_tells_of_the_wrong_board() -> anyhow::Result<()> {
    let station = unit()?;
    on(&station, OTHER)?;
    let (journal, console) = boot_as_unit(&station)?;
    let told = entry(&journal, "misconfigured")?;
    let message = told["MESSAGE"].as_str().unwrap();
    assert!([MODULE, OTHER, SERIAL, "its own image"].iter().all(|part| message.contains(part)), "{message}");
    assert!(message.starts_with("this device is not ready"), "{message}");
    assert_eq!((&told["PRIORITY"], &told["AZAION_EXIT_CODE"]), (&"3".into(), &"78".into()));
    assert_eq!(told["AZAION_SERIAL"], "");
    assert_eq!(console, "");
    Ok(())
}

// Promise: a second `device` run changes the module and nothing else; without the option, and without a change, it
// keeps the existing one. A change is reported as a warning, because it may be a mix-up.
#[test]
fn the_module_may_change() -> anyhow::Result<()> {
    let station = unit()?;
    let password = station.password();
    let run = |options: &[&str], module: &str, is_warned: bool| -> anyhow::Result<()> {
        let before = fs::read(station.inside(CONF))?;
        let run = station.device(options)?.ended_with(0)?;
        assert_eq!(run.json_lines()?[0]["outcome"], "reused");
        assert_eq!(
            (station.password(), station.conf("AZAION_MODULE_SERIAL").as_deref()),
            (password.clone(), Some(module))
        );
        assert_eq!(fs::read(station.inside(CONF))? != before, is_warned);
        assert_eq!(run.stderr.contains("was for the module"), is_warned, "{}", run.stderr);
        Ok(())
    };
    run(&[], MODULE, false)?;
    run(&["--module-serial", MODULE], MODULE, false)?;
    run(&["--module-serial", OTHER], OTHER, true)?;
    run(&[], OTHER, false)?;
    // A new password, because the API has another, does not affect it.
    station.api.set_password(EMAIL, "another-password");
    station.device(&[])?.ended_with(0)?;
    assert_eq!(station.conf("AZAION_MODULE_SERIAL").as_deref(), Some(OTHER));
    // Another device inherits none of it.
    let rootfs = station.rootfs().display().to_string();
    station
        .provision(&["device", "AZJN-0043", "--rootfs", &rootfs, "--owner", "current", "--replace"])?
        .ended_with(0)?;
    assert_eq!(station.conf("AZAION_MODULE_SERIAL"), None);
    Ok(())
}

// Promise: an invalid module serial number is refused with 65 before anything is done, and not quoted.
#[test]
fn bad_modules_are_refused() -> anyhow::Result<()> {
    let station = Station::new(Options::default())?;
    for module in ["", "hush and hush", "hush\n", "\"hush\"", "hush\u{e9}", &"hush".repeat(17)] {
        let run = station.device(&["--module-serial", module])?.ended_with(65)?;
        assert!(run.stderr.contains("1 to 64") && !run.stderr.contains("hush"), "{module:?}: {}", run.stderr);
        assert!(!station.inside(CONF).exists() && station.api.requests().is_empty());
    }
    for placeholder in ["0", "0000000000000"] {
        let run = station.device(&["--module-serial", placeholder])?.ended_with(65)?;
        assert!(run.stderr.contains("zeros") && run.stderr.contains("omit it"), "{}", run.stderr);
        assert!(!station.inside(CONF).exists() && station.api.requests().is_empty());
    }
    station.device(&["--module-serial", &"m".repeat(64)])?.ended_with(0)?;
    Ok(())
}

// Promise: if two targets name different modules, the run does not choose one; a target without one gets that of the
// other.
#[test]
fn targets_that_disagree() -> anyhow::Result<()> {
    let station = unit()?;
    let second = station.path("APP_b");
    fs::create_dir_all(&second)?;
    let both = |options: &[&str]| station.device(&[&["--rootfs", &second.display().to_string()], options].concat());
    let module = || conf_value(&second.join(CONF), "AZAION_MODULE_SERIAL");
    both(&[])?.ended_with(0)?;
    assert_eq!(module().as_deref(), Some(MODULE));
    let text = fs::read_to_string(second.join(CONF))?;
    station.put(&format!("APP_b/{CONF}"), text.replace(MODULE, OTHER), 0o600)?;
    station.api.forget_requests();
    let run = both(&[])?.ended_with(65)?;
    assert!([MODULE, OTHER, "--module-serial"].iter().all(|part| run.stderr.contains(part)), "{}", run.stderr);
    assert_eq!(station.api.requests().len(), 0);
    both(&["--module-serial", MODULE])?.ended_with(0)?;
    assert_eq!(module().as_deref(), Some(MODULE));
    Ok(())
}

// Promise: inspect shows the module, if there is one.
#[test]
fn inspect_shows_the_module() -> anyhow::Result<()> {
    let station = unit()?;
    let rootfs = station.rootfs().display().to_string();
    let text = station.provision_offline(&["inspect", &rootfs])?.ended_with(0)?.stdout;
    assert!(text.contains(&format!("  module       {MODULE}\n")), "{text}");
    let json = || station.provision_offline(&["inspect", "--json", &rootfs])?.ended_with(0)?.json_lines();
    assert_eq!(json()?[0]["module_serial"], MODULE);
    station.provision_offline(&["clear", &rootfs])?.ended_with(0)?;
    station.device(&[])?.ended_with(0)?;
    assert!(json()?[0].get("module_serial").is_none());
    Ok(())
}

/// Returns the file of a device, as text.
fn conf(api: &DevApi, serial: &str, email: &str) -> String {
    format!(
        "{serial}AZAION_DEVICE_EMAIL={email}\nAZAION_DEVICE_PASSWORD=earlier-password-1\nAZAION_API_URL={}\n",
        api.url()
    )
}

// Promise: `clear --if-serial` removes this device's file; another's is left unchanged with 73 and its name, an
// unreadable one with 65, and an empty target is a success. All targets are tried, and the first failure counts.
#[test]
fn clear_can_be_told_whose() -> anyhow::Result<()> {
    let station = Station::new(Options::default())?;
    let other = "azaion-jetson-0041@azaion.com";
    let (ours, others) = ("AZAION_DEVICE_SERIAL=AZJN-0042\n", "AZAION_DEVICE_SERIAL=AZJN-0041\n");
    for (name, content) in [
        ("ours", Some(conf(&station.api, ours, EMAIL))),
        ("ours-by-mail", Some(conf(&station.api, "", EMAIL))),
        ("others", Some(conf(&station.api, others, other))),
        ("others-by-mail", Some(conf(&station.api, ours, other))),
        ("damaged", Some("hush\n".to_owned())),
        ("empty", None),
    ] {
        fs::create_dir_all(station.path(name))?;
        content.map_or(Ok(()), |content| station.put(&format!("{name}/{CONF}"), content, 0o600))?;
    }
    let clear = |serial: &str, names: &[&str]| {
        let paths: Vec<String> = names.iter().map(|name| station.path(name).display().to_string()).collect();
        let paths = paths.iter().map(String::as_str);
        station
            .provision_offline(&["clear", "--json", "--if-serial", serial].into_iter().chain(paths).collect::<Vec<_>>())
    };
    let is_there = |name: &str| station.path(&format!("{name}/{CONF}")).exists();
    let all = ["empty", "others", "ours", "damaged", "others-by-mail", "ours-by-mail"];

    let run = clear("azjn-0042", &all)?.ended_with(65)?;
    assert!(run.stdout.is_empty() && is_there("ours"), "{}", run.stdout);
    let run = clear(SERIAL, &all)?.ended_with(73)?;
    let cleared: Vec<Value> = run.json_lines()?.iter().map(|line| line["cleared"].clone()).collect();
    assert_eq!(cleared, [false, true, true].map(Value::from));
    let names = ["ours", "ours-by-mail", "others", "others-by-mail", "damaged"];
    assert_eq!(names.map(is_there), [false, false, true, true, true]);
    let says = |part: &str| assert!(run.stderr.contains(part), "{part:?} is not in: {}", run.stderr);
    says(
        "others was not cleared: it holds the device.conf of AZJN-0041 (azaion-jetson-0041@azaion.com), not of AZJN-0042",
    );
    says("damaged");
    assert!(!run.stderr.contains("hush"));

    clear(SERIAL, &["ours", "empty", "ours-by-mail"])?.ended_with(0)?;
    clear(SERIAL, &["damaged", "others"])?.ended_with(65)?;
    assert!(is_there("damaged") && is_there("others"));
    clear("AZJN-0041", &["others"])?.ended_with(0)?;
    assert!(!is_there("others"));
    Ok(())
}
