//! Writes `docs/schema` again: `cargo run -p azaion-tests --bin schemas`, after a type that is printed or written was changed.

fn main() -> anyhow::Result<()> {
    azaion_tests::schemas::write()
}
