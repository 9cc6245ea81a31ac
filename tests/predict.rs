use std::io::Write;

use serde_json::Value;

use crate::world::{Running, World};

#[test]
fn texts_are_classified_from_the_command_line_a_file_and_standard_input() {
    let world = World::new();
    assert!(world.train(&world.config(), "run").success);
    let texts = ["정말 최고 영화", "최악 그냥 결말", "", "모르는 글자 \"뷁\"\tok"];

    let mut arguments = vec!["predict", "--run", "run", "--device", "cpu"];
    for text in texts {
        arguments.extend(["--text", text]);
    }
    let from_arguments = world.nsmc(&arguments);
    assert!(from_arguments.success, "{}", from_arguments.stderr);
    let answers: Vec<Value> =
        from_arguments.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(answers.len(), texts.len());
    for (answer, text) in answers.iter().zip(texts) {
        assert_eq!(answer["text"], text);
        let probability = |label: &str| answer["probabilities"][label].as_f64().unwrap();
        let logit = |label: &str| answer["logits"][label].as_f64().unwrap();
        let difference = logit("positive") - logit("negative");
        let expected = 1.0 / (1.0 + (-difference).exp());
        assert!((probability("positive") - expected).abs() < 1e-5, "{answer}");
        assert!((probability("positive") + probability("negative") - 1.0).abs() < 1e-5);
        let label = if difference > 0.0 { "positive" } else { "negative" };
        assert_eq!(answer["label"], label);
    }
    assert_eq!(
        (&answers[0]["label"], &answers[1]["label"]),
        (&"positive".into(), &"negative".into())
    );

    world.write("texts.txt", texts.join("\n"));
    let arguments = ["predict", "--run", "run", "--device", "cpu", "--input", "texts.txt"];
    assert_eq!(world.nsmc(&arguments).stdout, from_arguments.stdout);
    // As Windows saves it; a mark anywhere else is part of a text.
    world.write("texts.txt", format!("\u{feff}{}", texts.join("\n")));
    assert_eq!(world.nsmc(&arguments).stdout, from_arguments.stdout);

    let (input, mut typed) = std::io::pipe().unwrap();
    let arguments = ["predict", "--run", "run", "--input", "-", "--output", "tsv"];
    let mut command = world.command(&arguments);
    command.stdin(input);
    let running = Running::start(command);
    typed.write_all(texts.join("\n").as_bytes()).unwrap();
    drop(typed);
    let table = running.end().stdout;
    let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split('\t').collect()).collect();
    assert_eq!(
        lines[0],
        [
            "label",
            "probability_negative",
            "probability_positive",
            "logit_negative",
            "logit_positive",
            "text"
        ]
    );
    assert_eq!(lines.len(), 5);
    for (line, answer) in lines[1..].iter().zip(&answers) {
        assert_eq!(line.len(), 6);
        assert_eq!(answer["label"], line[0]);
        let logit: f64 = line[4].parse().unwrap();
        assert!((logit - answer["logits"]["positive"].as_f64().unwrap()).abs() < 1e-6);
    }
    let arguments = ["predict", "--run", "run", "--output", "tsv", "--text", "정말\n최고\r\t영화"];
    let table = world.nsmc(&arguments).stdout;
    assert!(table.ends_with("\t정말 최고  영화\n") && table.lines().count() == 2, "{table}");
}

#[test]
fn a_number_has_no_more_digits_than_the_float32_that_it_is() {
    let world = World::new();
    assert!(world.train(&world.config(), "run").success);
    let ran = world.nsmc(&["predict", "--run", "run", "--device", "cpu", "--text", "정말 최고"]);
    let answer: Value = serde_json::from_str(&ran.stdout).unwrap();
    for numbers in ["probabilities", "logits"] {
        for label in ["negative", "positive"] {
            let written = answer[numbers][label].as_f64().unwrap();
            let shortest: f64 = (written as f32).to_string().parse().unwrap();
            assert_eq!(written.to_bits(), shortest.to_bits(), "{}", ran.stdout);
        }
    }
}

#[test]
fn tables_and_json_lines_are_read_by_their_columns_and_their_ids_stand_by_the_answers() {
    let world = World::new();
    assert!(world.train(&world.config(), "run").success);
    let predict = |more: &[&str]| {
        world.nsmc(&[&["predict", "--run", "run", "--device", "cpu"], more].concat())
    };
    let answers = |more: &[&str]| -> Vec<Value> {
        let ran = predict(more);
        assert!(ran.success, "{}", ran.stderr);
        ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let plain = answers(&["--text", "정말 최고, 영화", "--text", "최악 \"그냥\" 결말"]);
    let with_ids = |ids: [&str; 2]| -> Vec<Value> {
        let mut answers = plain.clone();
        for (answer, id) in answers.iter_mut().zip(ids) {
            answer["id"] = id.into();
        }
        answers
    };

    // The columns of the run's data, among others.
    let csv = "stars,document,id\n9,\"정말 최고, 영화\",b7\n1,\"최악 \"\"그냥\"\" 결말\",a8\n";
    world.write("texts.CSV", csv);
    assert_eq!(answers(&["--input", "texts.CSV"]), with_ids(["b7", "a8"]));
    // Delimited as the run's data, in which a quote is a character like any other.
    world.write("texts.tsv", "id\tdocument\n1\t정말 최고, 영화\n2\t최악 \"그냥\" 결말\n");
    assert_eq!(answers(&["--input", "texts.tsv"]), with_ids(["1", "2"]));
    let table = predict(&["--input", "texts.tsv", "--output", "tsv"]).stdout;
    let fields: Vec<[&str; 2]> = table
        .lines()
        .map(|line| line.split('\t').collect::<Vec<_>>())
        .map(|fields| [fields[0], fields[fields.len() - 1]])
        .collect();
    let expected = [["id", "text"], ["1", "정말 최고, 영화"], ["2", "최악 \"그냥\" 결말"]];
    assert_eq!(fields, expected);
    // Columns of another name, and none of ids.
    world.write("theirs.csv", csv.replace("document", "review").replace("id", "key"));
    let theirs = ["--input", "theirs.csv", "--text-column", "review"];
    assert_eq!(answers(&theirs), plain);
    let keyed = [&theirs[..], &["--id-column", "key"]].concat();
    assert_eq!(answers(&keyed), with_ids(["b7", "a8"]));
    let json = "{\"document\": \"정말 최고, 영화\", \"id\": 7}\n\
                {\"document\": \"최악 \\\"그냥\\\" 결말\", \"id\": \"a8\", \"stars\": []}\n";
    world.write("texts.jsonl", json);
    assert_eq!(answers(&["--input", "texts.jsonl"]), with_ids(["7", "a8"]));

    world.write("bad.jsonl", format!("{json}{{\"document\": null, \"id\": 9}}\n"));
    world.write("no.jsonl", "[1]\n");
    world.write("texts.txt", csv);
    let advice =
        "; the columns of the run's data are looked for, but `--text-column NAME` names another";
    for (arguments, expected) in [
        (
            &["--input", "theirs.csv"][..],
            format!("theirs.csv:1: expected a column `document`, found stars, review, key{advice}"),
        ),
        (
            &["--input", "theirs.csv", "--text-column", "text"],
            "theirs.csv:1: expected a column `text`, found stars, review, key\n".into(),
        ),
        (
            &["--input", "bad.jsonl"],
            format!("bad.jsonl:3: `document`: expected a string, found null{advice}"),
        ),
        (
            &["--input", "bad.jsonl", "--text-column", "text"],
            "bad.jsonl:1: `text`: expected a string, found the keys document, id\n".into(),
        ),
        (&["--input", "no.jsonl"], "no.jsonl:1: expected a JSON object: ".into()),
        (
            &["--input", "texts.txt", "--text-column", "review"],
            "`--text-column`: expected an `--input` whose name ends in .csv, .tsv or .jsonl".into(),
        ),
        (&["--text", "x", "--text-column", "document"], "cannot be used with".into()),
        (&["--text", "x", "--id-column", "id"], "cannot be used with".into()),
    ] {
        let ran = predict(arguments);
        assert!(!ran.success && ran.stderr.contains(&expected), "{expected}\n{}", ran.stderr);
    }
}

#[test]
fn a_run_answers_for_the_files_that_it_was_trained_and_tested_on() {
    let world = World::new();
    let predict = |more: &[&str]| -> (Vec<Value>, String) {
        let ran = world
            .nsmc(&[&["predict", "--run", "run", "--device", "cpu", "--input"], more].concat());
        assert!(ran.success, "{}", ran.stderr);
        (ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect(), ran.stderr)
    };
    let plain = world.read("test.txt");
    let ids: Vec<&str> =
        plain.lines().skip(1).map(|line| line.split_once('\t').unwrap().0).collect();
    let ids_of = |answers: &[Value]| -> Vec<String> {
        answers.iter().map(|answer| answer["id"].as_str().unwrap().into()).collect()
    };

    // NSMC's own format: a table in tabs, though its name ends in .txt.
    assert!(world.train(&world.config(), "run").success);
    let (answers, said) = predict(&["test.txt"]);
    assert_eq!(
        (ids_of(&answers), said),
        (ids.iter().map(|&id| id.into()).collect(), String::new())
    );
    let with_columns = predict(&["test.txt", "--text-column", "document", "--id-column", "id"]);
    assert_eq!(with_columns.0, answers);

    // As a spreadsheet that takes a comma for a decimal point writes it.
    let quoted = |text: &str, delimiter: &str| -> String {
        let fields = |line: &str| {
            let field = |field: &str| match field.contains('"') {
                true => format!("\"{}\"", field.replace('"', "\"\"")),
                false => field.into(),
            };
            line.split('\t').map(field).collect::<Vec<_>>().join(delimiter) + "\n"
        };
        text.lines().map(fields).collect()
    };
    world.write("as_tabs.tsv", quoted(&plain, "\t"));
    let (taken_as_it_stands, said) = predict(&["as_tabs.tsv"]);
    assert_ne!(taken_as_it_stands, answers);
    assert!(said.contains("WARN") && said.contains(": probably `quoting = true`"), "{said}");
    assert_eq!(predict(&["as_tabs.tsv", "--quoting", "true"]), (answers, String::new()));

    for file in ["train", "test"] {
        let text = quoted(&world.read(format!("{file}.txt")), ";");
        world.write(&format!("{file}.txt"), &text);
        world.write(&format!("{file}.csv"), &text);
    }
    let config = world.config();
    let config = config.replace("\"\\t\"\nquoting = false", "\";\"\nquoting = true");
    let config = config.replace("train.txt", "train.csv").replace("test.txt", "test.csv");
    fs_err::remove_dir_all(world.path("run")).unwrap();
    let trained = world.train(&config, "run");
    assert!(trained.success, "{}", trained.stderr);
    let (answers, _) = predict(&["test.csv"]);
    assert_eq!(ids_of(&answers), ids);
    assert_eq!(predict(&["test.txt"]).0, answers);
    for (name, delimiter) in [("comma.csv", ","), ("bar.txt", "|")] {
        world.write(name, quoted(&plain, delimiter));
    }
    assert_eq!(predict(&["comma.csv"]).0, answers);
    assert_eq!(predict(&["bar.txt", "--delimiter", "|"]).0, answers);
}

#[test]
fn a_file_that_is_none_of_texts_is_refused_before_anything_is_answered() {
    let world = World::new();
    assert!(world.train(&world.config(), "run").success);
    let object = |id: &str| format!("{{\"document\": \"정말 최고\", \"id\": {id}}}\n");
    // More than a batch of good ones before it.
    let many: String = (0..70).map(|id| object(&id.to_string())).collect();
    world.write("good.ndjson", format!("{many}\n\n"));
    world.write("twice.jsonl", format!("{many}{}", object("\"3\"")));
    world.write("large.jsonl", format!("{many}{}", object("18446744073709551616")));
    world.write("objects.txt", &many);
    world.write("list.json", format!("[{}]", object("1").trim()));
    world.write("commas.txt", "id,document,label\n1,정말 최고,1\n");
    let predict = |input: &str| {
        let arguments = ["predict", "--run", "run", "--device", "cpu", "--output", "tsv"];
        world.nsmc(&[&arguments[..], &["--input", input]].concat())
    };
    let good = predict("good.ndjson");
    assert!(good.success && good.stdout.lines().count() == 71, "{}", good.stderr);
    for (input, expected) in [
        ("twice.jsonl", "twice.jsonl:71: the id \"3\" stands on line 4 already"),
        ("large.jsonl", "large.jsonl:71: `id`: expected a string, or a whole number that 64 bits"),
        (
            "objects.txt",
            "objects.txt:1: expected a text, found a JSON object with the key `document`",
        ),
        ("list.json", "list.json: expected a table, JSON Lines or a text per line, found a name"),
        (
            "commas.txt",
            "commas.txt:1: expected a text, found the header of a table with the column",
        ),
    ] {
        let ran = predict(input);
        assert!(!ran.success && ran.stderr.contains(expected), "{expected}\n{}", ran.stderr);
        assert_eq!(ran.stdout, "", "{input}");
    }

    let (input, mut typed) = std::io::pipe().unwrap();
    let mut command =
        world.command(&["predict", "--run", "run", "--device", "cpu", "--input", "-"]);
    command.stdin(input);
    let running = Running::start(command);
    typed.write_all(world.read("test.txt").as_bytes()).unwrap();
    drop(typed);
    let ran = running.end();
    let expected = "standard input:1: expected a text, found the header of a table with the column \
                    `document`; give it as a file, with `--delimiter '\\t'`";
    assert!(!ran.success && ran.stderr.contains(expected), "{}", ran.stderr);
    assert_eq!(ran.stdout, "");
}

#[test]
fn how_many_texts_were_cut_is_said_of_all_batches_together() {
    let world = World::new();
    assert!(world.train(&world.config(), "run").success);
    let long = "정말 ".repeat(30);
    // More than the texts of a batch.
    let mut texts = vec!["정말 최고"; 70];
    for cut in [0, 63, 64, 69] {
        texts[cut] = &long;
    }
    world.write("texts.txt", texts.join("\n"));
    let predict = |more: &[&str]| {
        let ran = world.nsmc(&[&["predict", "--run", "run", "--device", "cpu"], more].concat());
        assert!(ran.success, "{}", ran.stderr);
        (ran.stdout.lines().count(), ran.stderr)
    };
    assert_eq!(predict(&["--text", "정말 최고"]), (1, String::new()));
    let (answers, said) = predict(&["--input", "texts.txt"]);
    assert!(answers == 70 && said.contains("texts that were cut to 24 tokens: 4\n"), "{said}");
    // Colours are for a terminal.
    assert!(said.contains("WARN") && !said.contains('\u{1b}'), "{said:?}");
    world.write("cp949.txt", b"good\n\xba\xb0\xb7\xce\n");
    let predict = ["predict", "--run", "run", "--device", "cpu", "--input", "cp949.txt"];
    let ran = world.nsmc(&predict);
    let expected = "cp949.txt:2: it may be CP949 (EUC-KR): `iconv";
    assert!(!ran.success && ran.stderr.contains(expected), "{}", ran.stderr);
}

#[test]
fn a_tokenizer_of_another_model_is_refused_before_it_names_a_row_that_is_not_there() {
    let world = World::new();
    assert!(world.train(&world.config(), "run").success);
    let path = "run/checkpoint/best/tokenizer.json";
    let mut tokenizer: Value = serde_json::from_str(&world.read(path)).unwrap();
    let config: Value =
        serde_json::from_str(&world.read("run/checkpoint/best/config.json")).unwrap();
    let rows = config["vocab_size"].as_u64().unwrap();
    let vocab = tokenizer["model"]["vocab"].as_object_mut().unwrap();
    for id in vocab.len() as u64..=rows {
        vocab.insert(format!("뷁{id}"), id.into());
    }
    world.write(path, tokenizer.to_string());
    // Of a run with hashes it is refused for being another file.
    fs_err::remove_file(world.path("run/SHA256SUMS")).unwrap();
    let result = world.nsmc(&["predict", "--run", "run", "--device", "cpu", "--text", "영화"]);
    assert!(!result.success);
    let expected = format!("the tokenizer has {} entries, but the model's word", rows + 1);
    assert!(result.stderr.contains(&expected), "{}", result.stderr);
}

#[test]
fn a_folder_that_is_no_run_is_refused() {
    let world = World::new();
    let ran = world.nsmc(&["predict", "--run", "nowhere", "--text", "x"]);
    let expected = "nowhere: expected the directory of a finished run, found no record.json in it";
    assert!(!ran.success && ran.stderr.contains(expected), "{}", ran.stderr);
    for (texts, expected) in [
        (&[][..], "--text <TEXT>|--input <FILE>"),
        (&["--text", "x", "--input", "y"], "cannot be used with"),
    ] {
        let ran = world.nsmc(&[&["predict", "--run", "nowhere"], texts].concat());
        assert!(!ran.success && ran.stderr.contains(expected), "{}", ran.stderr);
    }
}

#[test]
#[cfg(target_os = "linux")]
fn an_error_that_cannot_be_said_is_an_exit_code() {
    let world = World::new();
    let mut command = world.command(&["predict", "--run", "nowhere", "--text", "x"]);
    command.stdout(std::process::Stdio::null());
    command.stderr(fs_err::OpenOptions::new().write(true).open("/dev/full").unwrap().into_file());
    assert_eq!(command.status().unwrap().code(), Some(1));
}

#[test]
fn a_reader_that_has_heard_enough_is_no_error() {
    let world = World::new();
    assert!(world.train(&world.config(), "run").success);
    world.write("many.txt", "정말 최고\n".repeat(5_000));
    let unread = |arguments: &[&str]| {
        let (reader, output) = std::io::pipe().unwrap();
        drop(reader);
        Running::start_into(world.command(arguments), output.into()).end()
    };
    let ran = unread(&["predict", "--run", "run", "--input", "many.txt"]);
    assert!(ran.success);
    assert_eq!(ran.stderr, "");

    // What is wrong is so whether anybody reads it or not.
    world.write("run/predictions.tsv", "id\tlabel\tin_training\tlogit_0\tlogit_1\n");
    for arguments in [["verify", "run"].as_slice(), &["evaluate", "--run", "run"]] {
        let ran = unread(arguments);
        assert_eq!(ran.code, Some(1), "{arguments:?}: {}", ran.stderr);
    }
}
