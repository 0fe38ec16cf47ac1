use super::*;

const DDL: &str = include_str!("tests/tables.sql");

#[test]
fn probe() {
    let text = include_str!("/tmp/probe.sql");
    let mut out = String::new();
    for query in text.split("----\n") {
        out += &format!("==== {query}");
        match plan(&format!("{DDL}{query}")) {
            Ok(plan) => out += &crate::explain(&plan, 4),
            Err(error) => out += &format!("{:?}\n{}\n", error.code, error.render(&format!("{DDL}{query}"))),
        }
    }
    std::fs::write("/tmp/probe.out", out).unwrap();
}
