//! The fixtures' model, to load adapters into.

use burn::tensor::Device;
use nsmc_bert::{BertConfig, BertForSequenceClassification};
use nsmc_peft::PeftModel;

use crate::repository;

thread_local! {
    static BASE: PeftModel = {
        let folder = repository("tests/fixtures/base");
        let config = BertConfig::read(&folder.join("config.json")).expect("there are fixtures");
        let device = Device::flex();
        let base = BertForSequenceClassification::from_pretrained(&folder, &config, 0, &device);
        PeftModel::new(base.expect("there are fixtures"), &config)
    };
}

/// A model of three layers and 32 wide, without adapters.
pub fn base() -> PeftModel {
    BASE.with(PeftModel::clone)
}

/// A fixture's file.
pub fn fixture(path: &str) -> Vec<u8> {
    fs_err::read(repository("tests/fixtures").join(path)).expect("there are fixtures")
}
