//! The parts of a training step: `cargo bench --package nsmc-training`.
//!
//! Models have one layer of BERT-base's width and batches of NSMC's lengths, without padding.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::data::dataloader::DataLoader;
use burn::tensor::{Device, Distribution, Int, Tensor};
use divan::{Bencher, black_box};
use nsmc_bert::{BertConfig, BertForSequenceClassification, BertInput};
use nsmc_data::{BertTokenizer, EncodedReviews, Format, Order, Review, ReviewLoader, read_reviews};
use nsmc_ops::{AdamWStep, Moments, adamw_step, gelu, multiply, set_amx};
use nsmc_peft::{
    BottleneckConfig, Composition, FusionConfig, LoraConfig, PeftModel, TargetModules, Trains,
};
use nsmc_training::losses;

fn main() {
    divan::main();
}

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

fn tokenizer() -> BertTokenizer {
    BertTokenizer::from_pretrained(&root("models/mini")).expect("models/mini has a tokenizer")
}

fn reviews() -> Vec<Review> {
    let format = Format {
        id_column: Some("id".into()),
        text_column: "document".into(),
        label_column: "label".into(),
        labels: vec!["0".into(), "1".into()],
        delimiter: b'\t',
        quoting: false,
    };
    read_reviews(&root("datasets/sample/ratings_train.txt"), &format).expect("the sample is there")
}

#[divan::bench]
fn tokenize_2000_reviews(bencher: Bencher) {
    let (tokenizer, reviews) = (tokenizer(), reviews());
    bencher.bench(|| EncodedReviews::encode(&reviews, &tokenizer, 128).expect("they are short"));
}

#[divan::bench]
fn batch_2000_reviews(bencher: Bencher) {
    let (tokenizer, reviews) = (tokenizer(), reviews());
    let encoded = EncodedReviews::encode(&reviews, &tokenizer, 128).expect("they are short");
    let indices = (0..reviews.len()).collect();
    let order = Order::Shuffled { seed: 1 };
    let device = Device::flex();
    let loader =
        ReviewLoader::new(Arc::new(reviews), Arc::new(encoded), indices, 32, order, device);
    bencher.bench(|| {
        for batch in loader.iter() {
            black_box(batch.expect("the reviews are encoded"));
        }
    });
}

/// A model of one layer with what a method adds to it.
fn model(method: &str, device: &Device) -> PeftModel {
    let config: BertConfig = serde_json::from_str(
        r#"{"vocab_size": 1000, "hidden_size": 768, "num_hidden_layers": 1,
            "num_attention_heads": 12, "intermediate_size": 3072, "max_position_embeddings": 128}"#,
    )
    .expect("the configuration is valid");
    let base = BertForSequenceClassification::new(&config, 0, device);
    let mut model = PeftModel::new(base, &config);
    let trains = match method {
        "lora" => {
            let lora = LoraConfig {
                exclude_modules: Some(TargetModules::List(vec!["pooler.dense".into()])),
                ..LoraConfig::new(16, 32.0, &["query", "key", "value", "dense"])
            };
            model.add_lora(&lora, 0).expect("the layers are there");
            Trains::lora()
        }
        "adapterfusion" => {
            for (name, factor) in [("ko", 2.0), ("nsmc", 16.0)] {
                let config = BottleneckConfig::pfeiffer(factor);
                model.add_adapter(name, &config, 0).expect("the name is free");
            }
            let fuse = Composition::fuse(["ko", "nsmc"]);
            model.add_fusion(&fuse, FusionConfig::dynamic(), 0).expect("both are there");
            model.set_active(Some(fuse)).expect("all are there");
            Trains::fusion("ko,nsmc")
        }
        _ => Trains::everything(),
    };
    model.train_only(trains)
}

/// The first batch of `benches/nsmc-lengths.txt`.
fn batch(device: &Device) -> (BertInput, Tensor<1, Int>) {
    let lengths = fs_err::read_to_string(root("benches/nsmc-lengths.txt")).expect("it is there");
    let lengths = lengths.lines().next().unwrap_or_default().split_whitespace();
    let row = |(row, length): (usize, &str)| -> Vec<u32> {
        let length: usize = length.parse().expect("the lengths are numbers");
        (0..length).map(|at| 5 + ((row * 613 + at * 31) % 990) as u32).collect()
    };
    let rows: Vec<Vec<u32>> = lengths.enumerate().map(row).collect();
    let labels = Tensor::arange(0..rows.len() as i64, device) % 2;
    (BertInput::from_ids(&rows, device), labels)
}

#[divan::bench(args = ["vanilla", "lora", "adapterfusion"], max_time = 5)]
fn forward(bencher: Bencher, method: &str) {
    let device = Device::flex();
    let (model, (input, _)) = (model(method, &device), batch(&device));
    bencher.bench_local(|| model.forward(&input).into_data());
}

#[divan::bench(args = ["vanilla", "lora", "adapterfusion"], max_time = 5)]
fn forward_and_backward(bencher: Bencher, method: &str) {
    let device = Device::flex().autodiff();
    let (model, (input, labels)) = (model(method, &device), batch(&device));
    bencher.bench_local(|| losses(model.forward(&input), labels.clone()).mean().backward());
}

/// As many rows as a batch of 32 reviews of NSMC has tokens.
const ROWS: usize = 717;

/// The product of a feed-forward layer, with the processor's matrix unit, where there is one, and without.
#[divan::bench(args = [true, false], max_time = 5)]
fn product_of_a_feed_forward_layer(bencher: Bencher, amx: bool) {
    set_amx(amx);
    let device = Device::flex();
    let random = |shape| Tensor::<2>::random(shape, Distribution::Normal(0.0, 1.0), &device);
    let (x, weight) = (random([ROWS, 768]), random([768, 3072]));
    bencher.bench_local(|| multiply(x.clone(), weight.clone()));
}

#[divan::bench(max_time = 5)]
fn gelu_of_a_feed_forward_layer(bencher: Bencher) {
    let device = Device::flex();
    let x = Tensor::<2>::random([ROWS, 3072], Distribution::Normal(0.0, 1.0), &device);
    bencher.bench_local(|| gelu(x.clone()));
}

#[divan::bench(max_time = 5)]
fn adamw_of_a_feed_forward_layer(bencher: Bencher) {
    let device = Device::flex();
    let random = || Tensor::<2>::random([768, 3072], Distribution::Normal(0.0, 0.02), &device);
    let step = AdamWStep {
        beta1: 0.9,
        beta2: 0.999,
        epsilon: 1e-8,
        size: 2e-5,
        correction: 1.0,
        decay: 2e-7,
        decay_last: false,
    };
    let gradient = random();
    let mut state = Some((random(), Moments { first: random(), second: random().square() }));
    bencher.bench_local(|| {
        let (parameter, moments) = state.take().expect("it is put back");
        state = Some(adamw_step(step, parameter, gradient.clone(), Some(moments)));
    });
}
