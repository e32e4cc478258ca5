//! The columns of a CSV report: those of this program, then those of the list.

/// The columns of this program.
pub(super) const COLUMNS: [&str; 7] = ["serial", "email", "outcome", "target", "duration_ms", "exit_code", "error"];

/// The name of a column of the list in the report, which has one column of each name.
pub(super) fn column_in_report(name: &str) -> String {
    if COLUMNS.iter().any(|ours| ours.eq_ignore_ascii_case(name)) { format!("list_{name}") } else { name.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Promise: a column of the list with the name of one of the report's is another column of the report.
    #[test]
    fn names_are_unique() {
        assert_eq!([column_in_report("error"), column_in_report("order")], ["list_error", "order"]);
    }
}
