use std::fmt::Write;

use crate::world::World;

#[test]
fn prediction_files_made_elsewhere_are_compared() {
    let world = World::new();
    // 100 reviews; A is wrong on the first 10, B on the first 30, in another order and as CSV.
    let mut a = String::from("id\tlabel\tprediction\n");
    let mut b = String::from("prediction,id,label\n");
    for review in 0..100 {
        let label = review % 2;
        let wrong = |until| if review < until { 1 - label } else { label };
        writeln!(a, "{review}\t{label}\t{}", wrong(10)).unwrap();
        writeln!(b, "{},{review},{label}", wrong(30)).unwrap();
    }
    world.write("a.tsv", &a);
    world.write("b.csv", &b);
    let ran = world.nsmc(&["compare", "a.tsv", "other=b.csv", "--markdown"]);
    assert!(ran.success, "{}", ran.stderr);
    for expected in ["Accuracy on 100 reviews", "| a ", "| other ", "0.9000", "0.7000", "+0.2000"] {
        assert!(ran.stdout.contains(expected), "{expected}\nis not in\n{}", ran.stdout);
    }
    // 20 reviews that only A has right, none that only B has: p = 2 · 2⁻²⁰ exactly.
    let row = ran.stdout.trim_end().lines().last().unwrap();
    let cells: Vec<&str> = row.split('|').map(str::trim).collect();
    assert_eq!((cells[5], cells[6]), ("20", "0"), "{row}");
    assert!(cells[7].starts_with("< 0.0001 (exact"), "{row}");

    world.write("short.csv", b.lines().take(50).collect::<Vec<_>>().join("\n"));
    let ran = world.nsmc(&["compare", "a.tsv", "short.csv"]);
    assert!(!ran.success && ran.stderr.contains("short.csv: no prediction for 51 reviews"));
    world.write("bad.csv", "id,label,prediction\n1,0,good\n");
    let ran = world.nsmc(&["compare", "a.tsv", "bad.csv"]);
    assert!(
        !ran.success && ran.stderr.contains("bad.csv:2: expected prediction"),
        "{}",
        ran.stderr
    );
    assert!(!world.nsmc(&["compare", "a.tsv"]).success);
}
