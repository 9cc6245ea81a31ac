//! `config.json` of a BERT: what is written is read, and weights of other shapes are refused, however
//! large the model that it describes.
#![no_main]

use std::sync::LazyLock;

use burn::tensor::Device;
use libfuzzer_sys::fuzz_target;
use nsmc_bert::{BertConfig, BertForSequenceClassification};
use nsmc_fuzz::{place, repository};

static WEIGHTS: LazyLock<Vec<u8>> = LazyLock::new(|| {
    fs_err::read(repository("tests/fixtures/base/model.safetensors")).expect("there are fixtures")
});

fuzz_target!(|text: &[u8]| {
    let path = place().file("config.json", text);
    let Ok(config) = BertConfig::read(&path) else { return };
    let folder = path.parent().expect("the file is in a folder");
    config.write(folder, "BertForSequenceClassification").expect("a configuration is written");
    assert_eq!(BertConfig::read(&path).expect("what is written is read"), config);
    nsmc_fuzz::write(&folder.join("model.safetensors"), &WEIGHTS);
    let _ = BertForSequenceClassification::from_pretrained(folder, &config, 0, &Device::flex());
});
