use std::fmt::Write;

use crate::world::{Running, World};

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
    // Tables and sentences are apart from each other, else Markdown takes them for one table.
    let paragraphs: Vec<&str> = ran.stdout.trim_end().split("\n\n").collect();
    assert_eq!(paragraphs.len(), 4, "{}", ran.stdout);
    assert!(paragraphs[1].starts_with("| ") && paragraphs[3].starts_with("| "), "{paragraphs:?}");
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
    let ran = world.nsmc(&["compare", "x=a.tsv", "x=./a.tsv", "b.csv"]);
    assert!(!ran.success && ran.stderr.contains("./a.tsv: given twice"), "{}", ran.stderr);
    // As a shell's `<(command)`.
    let pipe = "cat b.csv | \"$0\" compare a.tsv other=/dev/stdin";
    let mut command = world.program("sh");
    command.args(["-c", pipe, env!("CARGO_BIN_EXE_nsmc")]);
    let ran = Running::start(command).end();
    assert!(ran.success && ran.stdout.contains("+0.2000"), "{}{}", ran.stdout, ran.stderr);
}

#[test]
fn what_runs_cannot_be_compared_with_is_refused() {
    let world = World::new();
    let baseline = world.config_with("[method]\nname = \"majority\"\n");
    for (seed, run) in [(1, "one"), (2, "two")] {
        let config = baseline.replace("seed = 7", &format!("seed = {seed}"));
        let ran = world.train(&config, run);
        assert!(ran.success, "{}", ran.stderr);
    }
    let ran = world.nsmc(&["compare", "one", "two"]);
    assert!(!ran.success && ran.stderr.contains("a baseline has no seed"), "{}", ran.stderr);

    // Runs on other texts with the same ids and labels; the same reviews may stand in two files.
    let texts = world.read("test.txt");
    world.write("other.txt", texts.replace("영화", "연극"));
    let hash = |name: &str| nsmc_experiment::sha256_hex(world.read(name).as_bytes());
    let of_other = world
        .config_with("[method]\nname = \"vanilla\"\n")
        .replace("num_train_epochs = 6", "num_train_epochs = 1")
        .replace("test.txt", "other.txt")
        .replace(&hash("test.txt"), &hash("other.txt"));
    assert!(world.train(&of_other, "other").success);
    let ran = world.nsmc(&["compare", "one", "mine=other"]);
    assert!(!ran.success, "{}", ran.stdout);
    for expected in [
        format!(
            "other/predictions.tsv (`data.test`: {}, sha256 ",
            world.path("other.txt").display()
        ),
        format!("test.txt, sha256 {}) and ", hash("test.txt")),
        "tested on different files".into(),
        "NAME=one/predictions.tsv NAME=other/predictions.tsv".into(),
    ] {
        assert!(ran.stderr.contains(&expected), "{expected}\nis not in\n{}", ran.stderr);
    }
    let ran = world.nsmc(&["compare", "one/predictions.tsv", "other/predictions.tsv"]);
    assert!(ran.success, "{}", ran.stderr);
    for name in ["one/predictions.tsv", "other/predictions.tsv"] {
        assert!(ran.stdout.contains(name), "{}", ran.stdout);
    }

    // Classes that count from 1.
    let predictions = world.read("one/predictions.tsv");
    let mut theirs = String::from("id,label,prediction\n");
    for row in predictions.lines().skip(1) {
        let fields: Vec<&str> = row.split('\t').collect();
        writeln!(theirs, "{},{},2", fields[0], fields[1]).unwrap();
    }
    world.write("theirs.csv", theirs);
    let ran = world.nsmc(&["compare", "one", "theirs.csv"]);
    let expected =
        "prediction 2: the classes of one/predictions.tsv are numbers from 0, in the order 0, 1";
    assert!(!ran.success && ran.stderr.contains(expected), "{}", ran.stderr);

    // A file that is not the run's any more.
    world.write("one/predictions.tsv", predictions.replacen("\t0\t", "\t1\t", 1));
    let ran = world.nsmc(&["compare", "one", "theirs.csv"]);
    assert!(!ran.success && ran.stderr.contains("not the predictions that"), "{}", ran.stderr);
}
