//! The tokenizer against transformers: the fixture `tokenizer`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

use nsmc_data::{BertTokenizer, Encoding};
use serde_json::Value;

fn fixture() -> PathBuf {
    let fixtures = std::env::var_os("PARITY_FIXTURES").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures"),
        PathBuf::from,
    );
    fixtures.join("tokenizer")
}

fn cases() -> Value {
    serde_json::from_slice(&fs_err::read(fixture().join("cases.json")).unwrap()).unwrap()
}

fn tokenizers() -> [(&'static str, BertTokenizer); 3] {
    let file = |name| fixture().join(name);
    [
        ("the folder", BertTokenizer::from_pretrained(&fixture()).unwrap()),
        ("tokenizer.json", BertTokenizer::from_json(&file("tokenizer.json")).unwrap()),
        (
            "vocab.txt",
            BertTokenizer::from_vocab(&file("vocab.txt"), &file("tokenizer_config.json")).unwrap(),
        ),
    ]
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

/// The fixture's padded ids without their padding.
fn unpadded(case: &Value) -> Encoding {
    let mask = ids(&case["attention_mask"]);
    let length = mask.iter().filter(|&&token| token == 1).count();
    Encoding {
        input_ids: ids(&case["input_ids"])[..length].to_vec(),
        token_type_ids: ids(&case["token_type_ids"])[..length].to_vec(),
        truncated: false,
    }
}

#[test]
fn ids_are_those_of_the_fast_tokenizer() {
    let cases = cases();
    let max_length = cases["max_length"].as_u64().unwrap() as usize;
    let list = cases["cases"].as_array().unwrap();
    assert!(list.len() > 5);
    for (source, tokenizer) in tokenizers() {
        let texts: Vec<&str> = list.iter().map(|case| case["text"].as_str().unwrap()).collect();
        let encodings = tokenizer.encode(&texts, max_length).unwrap();
        for (case, encoding) in list.iter().zip(encodings) {
            let expected = unpadded(case);
            let text = &case["text"];
            assert_eq!(encoding.input_ids, expected.input_ids, "{source}: {text}");
            assert_eq!(encoding.token_type_ids, expected.token_type_ids, "{source}: {text}");
            let tokens = case["fast_tokens"].as_array().unwrap().len();
            assert_eq!(encoding.truncated, tokens + 2 > max_length, "{source}: {text}");
        }
    }
}

#[test]
fn tokens_are_those_of_the_fast_tokenizer() {
    let cases = cases();
    for (source, tokenizer) in tokenizers() {
        for case in cases["cases"].as_array().unwrap() {
            let text = case["text"].as_str().unwrap();
            let encoding = tokenizer.encode(&[text], 512).unwrap().remove(0);
            let ids = &encoding.input_ids[1..encoding.input_ids.len() - 1];
            let tokens: Vec<&str> =
                ids.iter().map(|&id| tokenizer.vocab()[id as usize].as_str()).collect();
            let expected: Vec<&str> = case["fast_tokens"]
                .as_array()
                .unwrap()
                .iter()
                .map(|t| t.as_str().unwrap())
                .collect();
            assert_eq!(tokens, expected, "{source}: {text}");
        }
    }
}

#[test]
fn a_pair_is_cut_at_its_longer_text() {
    let cases = cases();
    let pair = &cases["pair"];
    let [first, second] = ["a", "b"].map(|key| pair[key].as_str().unwrap());
    let max_length = cases["max_length"].as_u64().unwrap() as usize;
    for (source, tokenizer) in tokenizers() {
        let encoding = tokenizer.encode_pair(first, second, max_length).unwrap();
        assert_eq!(encoding.input_ids, ids(&pair["input_ids"]), "{source}");
        assert_eq!(encoding.token_type_ids, ids(&pair["token_type_ids"]), "{source}");
    }
}
