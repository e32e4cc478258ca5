//! Names of the columns of a CSV report: those of this program, then those of the list.

/// The columns of this program.
pub(super) const COLUMNS: [&str; 7] = ["serial", "email", "outcome", "target", "duration_ms", "exit_code", "error"];

/// Returns the name that a column of the list has in the report: with a prefix if the report has its own column of that name.
pub(super) fn column_in_report(name: &str) -> String {
    if COLUMNS.iter().any(|ours| ours.eq_ignore_ascii_case(name)) { format!("list_{name}") } else { name.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Promise: a column of the list with the name of a report column gets another name.
    #[test]
    fn names_are_unique() {
        assert_eq!([column_in_report("error"), column_in_report("order")], ["list_error", "order"]);
    }
}
