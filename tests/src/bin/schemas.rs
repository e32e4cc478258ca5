//! Regenerates `docs/schema`: `cargo run -p azaion-tests --bin schemas`, after a printed or written type was changed.

fn main() -> anyhow::Result<()> {
    azaion_tests::schemas::write()
}
