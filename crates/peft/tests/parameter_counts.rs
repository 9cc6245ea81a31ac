//! How many parameters train, at the sizes of multilingual BERT, as the Python libraries count them.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;

use burn::tensor::Device;
use nsmc_bert::{BertConfig, BertForSequenceClassification};
use nsmc_peft::{
    BottleneckConfig, Composition, FusionConfig, LoraConfig, PeftModel, TargetModules, Trains,
};

const CLASSIFIER: usize = 1_538;
const POOLER: usize = 590_592;
const FLEX_HEAD: usize = 592_130;

/// Multilingual BERT; its weights are drawn when they are used, and here none is.
fn mbert() -> PeftModel {
    let config: BertConfig = serde_json::from_str(
        r#"{"vocab_size": 119547, "hidden_size": 768, "num_hidden_layers": 12,
            "num_attention_heads": 12, "intermediate_size": 3072, "max_position_embeddings": 512}"#,
    )
    .unwrap();
    let base = BertForSequenceClassification::new(&config, 0, &Device::flex());
    PeftModel::new(base, &config)
}

fn trainable(model: PeftModel, trains: Trains) -> usize {
    model.train_only(trains).parameter_counts().trainable
}

fn adapter(config: &BottleneckConfig, trains: impl Fn(Trains) -> Trains) -> usize {
    let mut model = mbert();
    model.add_adapter("nsmc", config, 0).unwrap();
    trainable(model, trains(Trains { head: false, ..Trains::adapters(["nsmc"]) }))
}

#[test]
fn full_fine_tuning_trains_everything() {
    let counts = mbert().parameter_counts();
    assert_eq!((counts.trainable, counts.total), (177_854_978, 177_854_978));
}

#[test]
fn bottleneck_adapters() {
    let (pfeiffer, houlsby) = (BottleneckConfig::pfeiffer, BottleneckConfig::houlsby);
    for (config, expected) in [
        (pfeiffer(16.0), 894_528),
        (pfeiffer(2.0), 7_091_712),
        (pfeiffer(2.0).with_invertible(), 7_387_776),
        (houlsby(16.0), 1_789_056),
        (houlsby(2.0), 14_183_424),
    ] {
        assert_eq!(adapter(&config, |trains| trains), expected, "{config:?}");
        let head = adapter(&config, |trains| Trains { head: true, ..trains });
        assert_eq!(head, expected + CLASSIFIER);
        let pooler = adapter(&config, |trains| Trains { head: true, pooler: true, ..trains });
        assert_eq!(pooler, expected + CLASSIFIER + POOLER);
    }
    let mut model = mbert();
    model.add_adapter("nsmc", &pfeiffer(16.0), 0).unwrap();
    model.add_head("nsmc", 0);
    // The head stands in the place of the pooler, which then does not train.
    let with_pooler = Trains { pooler: true, ..Trains::adapters(["nsmc"]) };
    assert_eq!(trainable(model.clone(), with_pooler), 894_528 + FLEX_HEAD);
    assert_eq!(trainable(model, Trains::adapters(["nsmc"])), 894_528 + FLEX_HEAD);
}

/// The language adapter and the task adapter of the paper, fused.
fn fused(config: FusionConfig) -> PeftModel {
    let mut model = mbert();
    model.add_adapter("ko", &BottleneckConfig::pfeiffer(2.0).with_invertible(), 0).unwrap();
    model.add_adapter("nsmc", &BottleneckConfig::pfeiffer(16.0), 0).unwrap();
    let fuse = Composition::fuse(["ko", "nsmc"]);
    model.add_fusion(&fuse, config, 0).unwrap();
    model.set_active(Some(fuse)).unwrap();
    model
}

#[test]
fn adapter_fusion() {
    let fusion = || Trains::fusion("ko,nsmc");
    let unfrozen =
        || Trains { bottlenecks: BTreeSet::from(["ko".to_owned(), "nsmc".to_owned()]), ..fusion() };
    assert_eq!(trainable(fused(FusionConfig::dynamic()), fusion()), 21_252_096 + CLASSIFIER);
    assert_eq!(trainable(fused(FusionConfig::static_()), fusion()), 14_174_208 + CLASSIFIER);
    assert_eq!(trainable(fused(FusionConfig::dynamic()), unfrozen()), 29_238_336 + CLASSIFIER);
    let mut flex = fused(FusionConfig::dynamic());
    flex.add_head("nsmc", 0);
    assert_eq!(trainable(flex.clone(), fusion()), 21_844_226);
    assert_eq!(trainable(flex, unfrozen()), 29_830_466);
}

#[test]
fn lora() {
    let encoder: &[&str] =
        &["query", "key", "value", "attention.output.dense", "intermediate.dense", "output.dense"];
    for (targets, at_rank_16) in [
        (&["query", "value"][..], 589_824),
        (&["query", "key", "value"], 884_736),
        (&["query", "key", "value", "attention.output.dense"], 1_179_648),
        (encoder, 2_654_208),
    ] {
        for (rank, factor) in [(16, 1), (32, 2), (64, 4)] {
            let mut model = mbert();
            model.add_lora(&LoraConfig::new(rank, 1.0, targets), 0).unwrap();
            let expected = at_rank_16 * factor;
            let head = Trains::lora();
            assert_eq!(
                trainable(model.clone(), head.clone()),
                expected + CLASSIFIER,
                "{targets:?}"
            );
            let frozen = Trains { head: false, ..head };
            assert_eq!(trainable(model, frozen), expected);
        }
    }
    for (targets, expected) in [
        (TargetModules::AllLinear, 2_678_784),
        (TargetModules::Regex(r".*(query|key|value|dense|classifier)".into()), 2_691_104),
        (
            TargetModules::Regex(r".*(query|key|value|dense|classifier|_embeddings)".into()),
            4_648_944,
        ),
    ] {
        let config = LoraConfig { target_modules: targets, ..LoraConfig::new(16, 1.0, &[]) };
        let mut model = mbert();
        model.add_lora(&config, 0).unwrap();
        let trains = Trains { head: false, ..Trains::lora() };
        assert_eq!(trainable(model, trains), expected, "{config:?}");
    }
}
