use nsmc_experiment::{ExperimentConfig, RunRecord, RunStatus};
use safetensors::SafeTensors;

use crate::world::World;

#[test]
fn a_run_trains_tests_and_leaves_its_record() {
    let world = World::new();
    let ran = world.train(&world.config(), "run");
    assert!(ran.success, "{}", ran.stderr);
    for column in ["accuracy", "precision", "recall", "F1", "time per", "parameters", "peak"] {
        assert!(ran.stdout.contains(column), "{column} is not in\n{}", ran.stdout);
    }
    assert!(ran.stderr.contains("epoch 6/6: "), "{}", ran.stderr);

    let record = RunRecord::read(&world.path("run/record.json")).unwrap();
    assert_eq!(record.status, RunStatus::Success);
    let config = ExperimentConfig::read(&world.path("run/config.toml")).unwrap();
    assert_eq!((&record.config, &record.identity), (&config.without_paths(), &config.identity()));
    let results = record.results.unwrap();
    // 24 of 240 reviews are held out; of the 200 asked for, a tenth would have been.
    assert_eq!(
        (results.train_reviews, results.validation_reviews, results.test_reviews),
        (180, 24, 80)
    );
    assert_eq!((results.steps, results.epochs.len()), (72, 6));
    assert_eq!(results.trainable_parameters, results.total_parameters);
    assert!(results.peak_memory_mib.unwrap() > 1.0);

    let predictions = world.read("run/predictions.tsv");
    let lines: Vec<&str> = predictions.lines().collect();
    assert_eq!(lines.len(), 81);
    assert_eq!(lines[0], "id\tlabel\tin_training\tlogit_0\tlogit_1");
    // In the order of the test file; an empty document stands in the training file, too.
    assert!(lines[1].starts_with("1000\t0\t") && lines[80].starts_with("1079\t1\t"));
    assert!(lines[44].starts_with("1043\t1\t1\t"), "{}", lines[44]);
    let right = lines[1..].iter().filter(|line| {
        let fields: Vec<f32> =
            line.split('\t').skip(1).map(|field| field.parse().unwrap()).collect();
        (fields[3] > fields[2]) == (fields[0] > 0.5)
    });
    assert!(right.count() >= 72, "{predictions}");

    let log = world.read("run/log.txt");
    assert!(log.contains("run started") && log.contains("epoch done"), "{log}");
    for checkpoint in ["last", "best"] {
        let path = world.path(&format!("run/checkpoint/{checkpoint}/model.safetensors"));
        let bytes = fs_err::read(path).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        assert!(tensors.tensor("bert.encoder.layer.1.attention.self.query.weight").is_ok());
    }
}

#[test]
fn a_run_repeats_itself_to_the_last_bit_and_is_evaluated_in_another_process() {
    let world = World::new();
    for run in ["one", "two"] {
        let ran = world.train(&world.config(), run);
        assert!(ran.success, "{}", ran.stderr);
    }
    assert_eq!(world.read("one/predictions.tsv"), world.read("two/predictions.tsv"));
    let ran = world.nsmc(&["evaluate", "--run", "one", "--device", "cpu"]);
    assert!(ran.success, "{}", ran.stderr);
    assert!(ran.stdout.contains("come back to the last bit"), "{}", ran.stdout);

    let predictions = world.read("one/predictions.tsv");
    let (all_but_one, _) = predictions.trim_end().rsplit_once('\n').unwrap();
    world.write("one/predictions.tsv", format!("{all_but_one}\n"));
    let ran = world.nsmc(&["evaluate", "--run", "one", "--device", "cpu"]);
    let expected = "of other reviews: 79 of them, 80 tested now";
    assert!(!ran.success && ran.stdout.contains(expected), "{} {}", ran.stdout, ran.stderr);
    world.write("one/predictions.tsv", predictions);

    let other = world.config().replace("seed = 7", "seed = 8");
    assert!(world.train(&other, "three").success);
    assert_ne!(world.read("one/predictions.tsv"), world.read("three/predictions.tsv"));
}

#[test]
fn data_that_a_run_can_hardly_be_meant_to_have_are_warned_of() {
    let world = World::new();
    let config = || world.config().replace("num_train_epochs = 6", "num_train_epochs = 1");
    let ran = world.train(&config(), "usual");
    assert!(ran.success && !ran.stderr.contains("WARN"), "{}", ran.stderr);
    // Tested on its own training file, which lacks a class, every text cut.
    world.write("test.txt", world.read("train.txt"));
    let config = config()
        .replace("labels = [\"0\", \"1\"]", "labels = [\"0\", \"1\", \"2\"]")
        .replace("[\"negative\", \"positive\"]", "[\"negative\", \"positive\", \"neutral\"]")
        .replace("max_length = 24", "max_length = 3");
    let ran = world.train(&config, "run");
    assert!(ran.success, "{}", ran.stderr);
    for expected in [
        "no review that is trained on has the label \"2\"",
        "no review that is tested has the label \"2\": it counts as 0 in the means over the classes",
        "every text that is tested stands in the training file, too",
        "`data.max_length` = 3 cuts ",
        "texts of the training file",
        "texts of the test file",
    ] {
        assert!(ran.stderr.contains(expected), "{expected}\nis not in\n{}", ran.stderr);
    }

    // Of two classes the metrics are those of the second, be it tested or not.
    for (kept, told) in [
        ("0", "the label \"1\": precision, recall and F1 are of that class, and 0"),
        ("1", "the label \"0\"\n"),
    ] {
        let all = world.read("train.txt");
        let is_kept = |line: &&str| line.ends_with(&format!("\t{kept}"));
        let reviews: Vec<&str> = all.lines().skip(1).filter(is_kept).collect();
        world.write("test.txt", format!("id\tdocument\tlabel\n{}\n", reviews.join("\n")));
        let majority = world.config_with("[method]\nname = \"majority\"\n");
        let ran = world.train(&majority, &format!("only-{kept}"));
        let expected = format!("no review that is tested has {told}");
        assert!(ran.success && ran.stderr.contains(&expected), "{expected}: {}", ran.stderr);
        assert!(!ran.stderr.contains("trained on has"), "{}", ran.stderr);
    }
}

#[test]
fn a_pretrained_folder_with_three_classes_and_quoted_fields_will_do() {
    let world = World::new();
    assert!(world.train(&world.config(), "first").success);
    let mut csv = String::from("text,stars\n");
    for row in 0..60 {
        let (word, stars) = [("최악", "bad"), ("그냥", "fair"), ("최고", "good")][row % 3];
        csv += &format!("\"{word}, 영화 \"\"{row}\"\"\",{stars}\n");
    }
    world.write("train.txt", &csv);
    world.write("test.txt", csv.lines().take(31).collect::<Vec<_>>().join("\n"));
    // Of another task's checkpoint the encoder is used, and its classifier is not.
    let weights = world.path("first/checkpoint/best/model.safetensors");
    drop_classifier(&weights);
    let config = World::with_model(&world.config(), &world.pretrained("first/checkpoint/best"))
        .replace("id_column = \"id\"", "id_column = \"\"")
        .replace("\"document\"", "\"text\"")
        .replace("label_column = \"label\"", "label_column = \"stars\"")
        .replace("labels = [\"0\", \"1\"]", "labels = [\"bad\", \"fair\", \"good\"]")
        .replace("[\"negative\", \"positive\"]", "[\"나쁨\", \"보통\", \"좋음\"]")
        .replace("delimiter = \"\\t\"", "delimiter = \",\"")
        .replace("quoting = false", "quoting = true")
        .replace("train_size = 200", "train_size = \"all\"");
    let ran = world.train(&config, "second");
    assert!(ran.success, "{}", ran.stderr);
    let predictions = world.read("second/predictions.tsv");
    assert!(predictions.starts_with("id\tlabel\tin_training\tlogit_0\tlogit_1\tlogit_2\n"));
    assert_eq!(predictions.lines().count(), 31);
    let saved = world.read("second/checkpoint/best/config.json");
    assert!(saved.contains("보통"), "{saved}");
}

fn drop_classifier(weights: &std::path::Path) {
    let bytes = fs_err::read(weights).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let kept: Vec<_> = tensors.iter().filter(|(name, _)| !name.starts_with("classifier")).collect();
    // `best` shares its file with `last`: the name is given to a new one.
    let other = weights.with_extension("new");
    safetensors::serialize_to_file(kept, None, &other).unwrap();
    fs_err::rename(other, weights).unwrap();
}
