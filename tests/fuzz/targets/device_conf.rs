//! Fuzzes the `device.conf` parser with arbitrary bytes: it never panics, and an accepted file is unchanged after a
//! round trip of writing and reading.
#![no_main]

use std::path::Path;

use azaion_agent::common::device_conf::DeviceConf;
use libfuzzer_sys::fuzz_target;
use secrecy::ExposeSecret;

fuzz_target!(|input: &[u8]| {
    let path = Path::new("device.conf");
    let Ok(conf) = DeviceConf::parse(input, path) else { return };
    let again = DeviceConf::parse(conf.render().expose_secret().as_bytes(), path).expect("a written file can be parsed");
    assert_eq!((&conf.serial, &conf.email, &conf.provisioned_at), (&again.serial, &again.email, &again.provisioned_at));
    assert_eq!(conf.password.expose_secret(), again.password.expose_secret());
    assert_eq!((&conf.api_url, &conf.module_serial), (&again.api_url, &again.module_serial));
});
