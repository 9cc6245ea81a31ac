//! Pre-training through the program, killed at any moment.

use std::time::Instant;

use crate::kill::{Campaign, Happened, Moments};
use crate::world::World;

const CONFIG: &str = r#"
seed = 5
numerics = 2
[model]
source = "scratch"
vocab_size = 130
hidden_size = 16
num_hidden_layers = 2
num_attention_heads = 2
intermediate_size = 32
max_position_embeddings = 32
hidden_dropout_prob = 0.1
attention_probs_dropout_prob = 0.1
[corpus]
archive = "crawl.tar.gz"
test = "test.txt"
sha256 = "{sha256}"
held_out_fraction = 0.1
max_length = 32
[training]
num_train_steps = 60
warmup_steps = 5
decay_steps = 20
tokens_per_batch = 200
length_window = 4
gradient_accumulation_steps = 2
optimizer = "muon"
learning_rate = 5e-3
adam_beta1 = 0.9
adam_beta2 = 0.98
adam_epsilon = 1e-6
weight_decay = 0.01
max_grad_norm = 1.0
mask_fraction = 0.15
[evaluation]
evaluate_every = 20
save_every = 3
"#;

/// An archive as GitHub serves it: 40 files of 10 reviews, some of them of the test set.
fn archive(world: &World) {
    let words = ["영화", "배우", "음악", "감독", "결말", "처음", "그냥", "정말", "최고", "최악"];
    let file = fs_err::File::create(world.path("crawl.tar.gz")).unwrap();
    let gzip = flate2::write::GzEncoder::new(file, flate2::Compression::default());
    let mut tar = tar::Builder::new(gzip);
    for file in 0..40 {
        let reviews: Vec<serde_json::Value> = (0..10)
            .map(|row| {
                let id = 1000 + file * 10 + row;
                let text: Vec<&str> = (0..2 + id % 9)
                    .map(|word| words[(id * 7 + word * (3 + id % 4)) % 10])
                    .collect();
                serde_json::json!({
                    "review_id": id.to_string(), "movie_id": "1", "author": "a", "date": "10.10.10",
                    "review": format!("{} {id}", text.join("\u{3000}")),
                    "rating": (1 + id % 10).to_string(),
                })
            })
            .collect();
        let json = serde_json::to_vec(&reviews).unwrap();
        let mut header = tar::Header::new_gnu();
        header.set_size(json.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, format!("nsmc-1/raw/{file}.json"), &json[..]).unwrap();
    }
    tar.into_inner().unwrap().finish().unwrap();
}

/// A configuration whose corpus is the one that is made of the archive.
fn config(world: &World) -> String {
    world.write("wrong.toml", CONFIG.replace("{sha256}", &"0".repeat(64)));
    let ran = world.nsmc(&["pretrain", "--config", "wrong.toml", "--out", "wrong"]);
    assert!(!ran.success);
    let (_, found) = ran.stderr.split_once("found ").unwrap_or_else(|| panic!("{}", ran.stderr));
    assert!(ran.stderr.contains("crawl.tar.gz: the corpus made of it should have sha256"));
    CONFIG.replace("{sha256}", &found[..64])
}

/// The measurements without their times.
fn metrics(world: &World, run: &str) -> Vec<serde_json::Value> {
    let lines = world.read(format!("{run}/metrics.jsonl"));
    let without_time = |line: &str| {
        let mut line: serde_json::Value = serde_json::from_str(line).unwrap();
        line.as_object_mut().unwrap().remove("seconds");
        line
    };
    lines.lines().map(without_time).collect()
}

/// Puts an archive and the configuration of a pre-training on it into the folder.
pub(crate) fn prepare(world: &World) {
    archive(world);
    let config = config(world);
    world.write("pretraining.toml", config);
}

/// The models and what was measured of them, without the time.
pub(crate) fn assert_same(world: &World, run: &str, other: &str) {
    let weights =
        |run: &str| fs_err::read(world.path(&format!("{run}/model/model.safetensors"))).unwrap();
    assert!(weights(run) == weights(other), "{run} and {other} have other weights");
    assert_eq!(metrics(world, run), metrics(world, other));
}

/// Pre-trains `whole` undisturbed, and `killed` in a campaign with at least so many kills and
/// resumptions: they must come to the same.
pub(crate) fn fight(
    world: &World,
    moments: Moments,
    (kills, resumptions): (usize, usize),
    seed: &mut u64,
) -> Happened {
    let arguments =
        |run| ["pretrain", "--config", "pretraining.toml", "--out", run, "--device", "cpu"];
    let started = Instant::now();
    let ran = world.nsmc(&arguments("whole"));
    assert!(ran.success, "{}", ran.stderr);
    let arguments = arguments("killed");
    let campaign =
        Campaign { world, run: "killed", arguments: &arguments, whole: started.elapsed(), moments };
    campaign.fight(kills, resumptions, seed, || assert_same(world, "killed", "whole"))
}

#[test]
fn a_pre_training_that_is_killed_again_and_again_ends_with_the_same_model() {
    let world = World::new();
    prepare(&world);
    fight(&world, Moments::RandomAndAtCheckpoints, (10, 2), &mut 1);

    // What it made is a base to fine-tune, and knows what it was trained on.
    let ran = world.nsmc(&["fill-mask", "--model", "whole/model", "--text", "정말 [MASK] 최고"]);
    assert!(ran.success && ran.stdout.contains("\"position\":2"), "{} {}", ran.stdout, ran.stderr);
    let ran = world.nsmc(&["fill-mask", "--model", "whole/model", "--text", "정말 최고"]);
    let expected = "expected a text with [MASK] in it, found \"정말 최고\"";
    assert!(!ran.success && ran.stderr.contains(expected), "{}", ran.stderr);
    let long = format!("{}[MASK]", "정말 ".repeat(200));
    let ran = world.nsmc(&["fill-mask", "--model", "whole/model", "--text", &long]);
    assert!(!ran.success && ran.stderr.contains("all that the model takes"), "{}", ran.stderr);
    // It is none of the runs whose metrics can be computed again, and says so.
    let ran = world.nsmc(&["verify", "whole"]);
    assert!(ran.success && ran.stdout.contains("a pre-training: it has no"), "{}", ran.stderr);
    // The record holds no place of the machine.
    let record: serde_json::Value = serde_json::from_str(&world.read("whole/record.json")).unwrap();
    assert_eq!(record["config"]["corpus"]["archive"], "");
    world.write("whole/model/tokenizer.json", include_str!("../models/mini/tokenizer.json"));
    let ran = world.nsmc(&["fill-mask", "--model", "whole/model", "--text", "[MASK]"]);
    let expected = "the tokenizer has 8000 entries, the model's embeddings";
    assert!(!ran.success && ran.stderr.contains(expected), "{}", ran.stderr);
    let other = world.read("pretraining.toml").replace("seed = 5", "seed = 6");
    world.write("pretraining.toml", other);
    let ran = world.nsmc(&["pretrain", "--config", "pretraining.toml", "--out", "whole"]);
    assert!(!ran.success && ran.stderr.contains("another configuration"), "{}", ran.stderr);

    // One of a program that computed otherwise is neither taken up nor made.
    let of_before = world.read("killed/config.toml").replace("numerics = 2\n", "");
    world.write("killed/config.toml", &of_before);
    world.write("before.toml", &of_before);
    let pretrain = |config: &str| world.nsmc(&["pretrain", "--config", config, "--out", "killed"]);
    world.write("pretraining.toml", world.read("whole/config.toml"));
    let ran = pretrain("pretraining.toml");
    let expected = "another configuration was begun there (`numerics` is – there and 2 here)";
    assert!(!ran.success && ran.stderr.contains(expected), "{}", ran.stderr);
    let ran = pretrain("before.toml");
    let expected =
        "before.toml: expected `numerics = 2`, found 1: it is of a program before this change";
    assert!(!ran.success && ran.stderr.contains(expected), "{}", ran.stderr);
}

#[test]
fn a_model_that_is_trained_further_keeps_its_dropout() {
    let world = World::new();
    prepare(&world);
    let pretrain = |config: &str, run: &str| {
        let ran = world.nsmc(&["pretrain", "--config", config, "--out", run, "--device", "cpu"]);
        assert!(ran.success, "{}", ran.stderr);
    };
    pretrain("pretraining.toml", "first");

    let config = world.read("pretraining.toml");
    let rest = &config[config.find("[corpus]").unwrap()..];
    let read = |run: &str| -> serde_json::Value {
        serde_json::from_str(&world.read(format!("{run}/model/config.json"))).unwrap()
    };
    let keys = ["hidden_dropout_prob", "attention_probs_dropout_prob"];
    let further = [0.0, 0.25].map(|dropout| {
        let mut bert = read("first");
        for key in keys {
            bert[key] = dropout.into();
        }
        world.write("first/model/config.json", bert.to_string());
        let model = world.pretrained("first/model");
        world.write("further.toml", format!("seed = 5\nnumerics = 2\n{model}{rest}"));
        let run = format!("further-{dropout}");
        pretrain("further.toml", &run);
        assert!(keys.iter().all(|key| read(&run)[key] == dropout), "{}", read(&run));
        metrics(&world, &run)
    });
    assert_ne!(further[0], further[1], "nothing was dropped");
}
