//! Checkpoints in and out, whole and broken.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

use burn::tensor::{DType, Device, Tensor};
use nsmc_bert::{
    BertConfig, BertForMaskedLm, BertForSequenceClassification, BertInput, NoHooks, state_dict,
};
use safetensors::tensor::{Dtype, TensorView};
use safetensors::{SafeTensors, serialize_to_file};

fn base() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/base")
}

fn config() -> BertConfig {
    BertConfig::read(&base().join("config.json")).unwrap()
}

type Entry = (String, Dtype, Vec<usize>, Vec<u8>);

/// The fixture's tensors, changed by `change`, in a folder of their own.
fn changed(change: impl FnOnce(&mut Vec<Entry>)) -> tempfile::TempDir {
    changed_from(&base(), change)
}

/// [`changed`] for the tensors of another folder.
fn changed_from(from: &Path, change: impl FnOnce(&mut Vec<Entry>)) -> tempfile::TempDir {
    let bytes = fs_err::read(from.join("model.safetensors")).unwrap();
    let mut entries: Vec<Entry> = SafeTensors::deserialize(&bytes)
        .unwrap()
        .iter()
        .map(|(name, view)| {
            (name.to_owned(), view.dtype(), view.shape().to_vec(), view.data().to_vec())
        })
        .collect();
    change(&mut entries);
    let folder = tempfile::tempdir().unwrap();
    let views = entries.iter().map(|(name, dtype, shape, data)| {
        (name.clone(), TensorView::new(*dtype, shape.clone(), data).unwrap())
    });
    serialize_to_file(views, None, &folder.path().join("model.safetensors")).unwrap();
    folder
}

fn load(folder: &Path) -> Result<BertForSequenceClassification, String> {
    BertForSequenceClassification::from_pretrained(folder, &config(), 0, &Device::flex())
        .map_err(|error| error.to_string())
}

fn logits(model: &BertForSequenceClassification) -> Vec<f32> {
    let input =
        BertInput::from_ids(&[vec![101, 7, 102], vec![101, 9, 4, 11, 102]], &Device::flex());
    model.forward(&input, &NoHooks).into_data().try_to_vec().unwrap()
}

fn entry<'a>(entries: &'a mut [Entry], name: &str) -> &'a mut Entry {
    entries.iter_mut().find(|entry| entry.0 == name).unwrap()
}

#[test]
fn what_is_saved_is_loaded_to_the_last_bit() {
    let model = load(&base()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    model.save_pretrained(folder.path(), &config()).unwrap();
    let back = load(folder.path()).unwrap();
    assert_eq!(state_dict(&back), state_dict(&model));
    assert_eq!(BertConfig::read(&folder.path().join("config.json")).unwrap(), config());

    // The file holds transformers' names and layout: it differs from theirs in no tensor.
    let read = |folder: &Path| fs_err::read(folder.join("model.safetensors")).unwrap();
    let (ours, theirs) = (read(folder.path()), read(&base()));
    let (ours, theirs) =
        (SafeTensors::deserialize(&ours).unwrap(), SafeTensors::deserialize(&theirs).unwrap());
    assert_eq!(ours.len(), theirs.len());
    for (name, view) in theirs.iter() {
        let own = ours.tensor(name).unwrap();
        assert_eq!((own.shape(), own.data()), (view.shape(), view.data()), "{name}");
    }
    let header = SafeTensors::read_metadata(&read(folder.path())).unwrap().1;
    assert_eq!(header.metadata().as_ref().unwrap()["format"], "pt");
}

#[test]
fn a_masked_language_model_survives_being_saved() {
    let device = Device::flex();
    let model = BertForMaskedLm::new(&config(), 5, &device);
    let folder = tempfile::tempdir().unwrap();
    model.save_pretrained(folder.path(), &config(), DType::F32).unwrap();
    let back = BertForMaskedLm::from_pretrained(folder.path(), &config(), &device).unwrap();
    assert_eq!(state_dict(&back), state_dict(&model));
    let names: Vec<String> = state_dict(&model).into_keys().collect();
    assert!(names.contains(&"cls.predictions.transform.LayerNorm.weight".into()), "{names:?}");

    // It is a base for a classifier, too: its head is left out, classifier and pooler are new.
    let classifier = state_dict(&load(folder.path()).unwrap());
    let new = state_dict(&BertForSequenceClassification::new(&config(), 0, &device));
    let query = "bert.encoder.layer.1.attention.self.query.weight";
    assert_eq!(classifier[query], state_dict(&model)[query]);
    assert_eq!(classifier["bert.pooler.dense.weight"], new["bert.pooler.dense.weight"]);

    // In half precision it comes back rounded, and the config says so.
    let declared = || {
        let text = fs_err::read_to_string(folder.path().join("config.json")).unwrap();
        serde_json::from_str::<serde_json::Value>(&text).unwrap()["torch_dtype"].clone()
    };
    assert_eq!(declared(), "float32");
    // Whoever may read one file may read both.
    let permissions = |name| fs_err::metadata(folder.path().join(name)).unwrap().permissions();
    assert_eq!(permissions("model.safetensors"), permissions("config.json"));
    model.save_pretrained(folder.path(), &config(), DType::F16).unwrap();
    assert_eq!(declared(), "float16");
    let bytes = fs_err::read(folder.path().join("model.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    assert!(tensors.iter().all(|(_, tensor)| tensor.dtype() == Dtype::F16));
    let half =
        state_dict(&BertForMaskedLm::from_pretrained(folder.path(), &config(), &device).unwrap());
    let (half, whole): (Vec<f32>, Vec<f32>) =
        (half[query].try_to_vec().unwrap(), state_dict(&model)[query].try_to_vec().unwrap());
    for (half, whole) in half.into_iter().zip(whole) {
        assert!((half - whole).abs() <= whole.abs() / 1024.0, "{half} {whole}");
    }
}

#[test]
fn half_precision_files_are_widened() {
    let expected = logits(&load(&base()).unwrap());
    for dtype in [Dtype::F16, Dtype::BF16] {
        let folder = changed(|entries| {
            for (_, kind, _, data) in entries.iter_mut() {
                *kind = dtype;
                *data = data
                    .chunks_exact(4)
                    .map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()))
                    .flat_map(|value| match dtype {
                        Dtype::F16 => half(value).to_le_bytes(),
                        _ => ((value.to_bits() >> 16) as u16).to_le_bytes(),
                    })
                    .collect();
            }
        });
        let model = load(folder.path()).unwrap();
        let dtype_of = |tensor: Tensor<2>| tensor.dtype();
        assert_eq!(dtype_of(model.classifier.weight.val()), burn::tensor::DType::F32);
        for (logit, expected) in logits(&model).into_iter().zip(&expected) {
            assert!((logit - expected).abs() < 0.3, "{dtype:?}: {logit}, {expected}");
        }
    }
}

/// `f32` to the bits of the nearest normal `f16` towards zero; the fixture's weights are all normal.
fn half(value: f32) -> u16 {
    let bits = value.to_bits();
    let exponent = ((bits >> 23) & 0xff) as i32 - 127 + 15;
    let sign = ((bits >> 16) & 0x8000) as u16;
    if exponent <= 0 {
        sign
    } else {
        sign | (exponent as u16) << 10 | ((bits >> 13) & 0x3ff) as u16
    }
}

#[test]
fn a_base_without_classifier_gets_a_new_one_from_the_seed() {
    let folder = changed(|entries| entries.retain(|entry| !entry.0.starts_with("classifier")));
    let load = |seed| {
        let device = Device::flex();
        let model = BertForSequenceClassification::from_pretrained(
            folder.path(),
            &config().with_labels(["a", "b", "c"]),
            seed,
            &device,
        );
        state_dict(&model.unwrap())
    };
    assert_eq!(load(1)["classifier.weight"].shape().as_slice(), [3, config().hidden_size]);
    assert_eq!(load(1), load(1));
    let (one, two) = (load(1), load(2));
    let differing: Vec<_> = one.keys().filter(|name| one[*name] != two[*name]).collect();
    assert_eq!(differing, ["classifier.weight"]);
}

/// The fixture as transformers' class `architecture` would have written it.
fn written_by(architecture: &str, change: impl FnOnce(&mut Vec<Entry>)) -> tempfile::TempDir {
    let folder = changed(change);
    let json = serde_json::json!({"architectures": [architecture], "model_type": "bert"});
    fs_err::write(folder.path().join("config.json"), json.to_string()).unwrap();
    folder
}

fn float(name: &str, shape: &[usize]) -> Entry {
    let bytes = 0.5f32.to_le_bytes().repeat(shape.iter().product());
    (name.to_owned(), Dtype::F32, shape.to_vec(), bytes)
}

#[test]
fn any_bert_is_a_base_and_what_it_lacks_is_new() {
    let whole = state_dict(&load(&base()).unwrap());
    let new = state_dict(&BertForSequenceClassification::new(&config(), 0, &Device::flex()));
    let width = config().hidden_size;
    let without = |entries: &mut Vec<Entry>, modules: &[&str]| {
        entries.retain(|entry| !modules.iter().any(|module| entry.0.starts_with(module)));
    };
    let both = &["bert.pooler.", "classifier."][..];
    for (what, folder, fresh) in [
        (
            "questions and answers",
            written_by("BertForQuestionAnswering", |entries| {
                without(entries, both);
                entries.push(float("qa_outputs.weight", &[2, width]));
                entries.push(float("qa_outputs.bias", &[2]));
            }),
            both,
        ),
        (
            "classes of tokens, as many as ours",
            written_by("BertForTokenClassification", |entries| without(entries, &both[..1])),
            both,
        ),
        (
            "classes of tokens, more than ours",
            written_by("BertForTokenClassification", |entries| {
                without(entries, both);
                entries.push(float("classifier.weight", &[9, width]));
                entries.push(float("classifier.bias", &[9]));
            }),
            both,
        ),
        (
            "choices",
            written_by("BertForMultipleChoice", |entries| {
                without(entries, &both[1..]);
                entries.push(float("classifier.weight", &[1, width]));
                entries.push(float("classifier.bias", &[1]));
            }),
            &both[1..],
        ),
        (
            "a bare BertModel without a pooler",
            written_by("BertModel", |entries| {
                without(entries, both);
                for entry in entries.iter_mut() {
                    entry.0 = entry.0.strip_prefix("bert.").unwrap().to_owned();
                }
            }),
            both,
        ),
        (
            "a classifier of an own class without a pooler",
            written_by("BertForNsmc", |entries| without(entries, &both[..1])),
            &both[..1],
        ),
    ] {
        let loaded =
            state_dict(&load(folder.path()).unwrap_or_else(|error| panic!("{what}: {error}")));
        assert_eq!(loaded.len(), whole.len(), "{what}");
        for (name, data) in loaded {
            let fresh = fresh.iter().any(|module| name.starts_with(module));
            assert_eq!(data, if fresh { &new } else { &whole }[&name], "{what}: {name}");
        }
    }
    assert_ne!(whole["classifier.weight"], new["classifier.weight"]);
    assert_ne!(whole["bert.pooler.dense.weight"], new["bert.pooler.dense.weight"]);
}

#[test]
fn a_classifier_of_the_same_classes_in_another_order_is_refused() {
    let saved = config().with_labels(["bad", "good"]);
    let folder = tempfile::tempdir().unwrap();
    load(&base()).unwrap().save_pretrained(folder.path(), &saved).unwrap();
    let load_as = |names: [&str; 2]| {
        let config = config().with_labels(names);
        BertForSequenceClassification::from_pretrained(folder.path(), &config, 0, &Device::flex())
            .map_err(|error| error.to_string())
    };
    load_as(["bad", "good"]).unwrap();
    // In another language, say: which of the classes is meant cannot be told.
    load_as(["나쁨", "좋음"]).unwrap();
    let message = load_as(["good", "bad"]).unwrap_err();
    for words in [
        "config.json: `id2label`: expected the classes in their order, [good, bad], found [bad, good]",
        "that is `label_names` and with it `labels`",
    ] {
        assert!(message.contains(words), "{message}");
    }
    // A classifier that is drawn anew has no order.
    let headless = changed_from(folder.path(), |entries| {
        entries.retain(|entry| !entry.0.starts_with("classifier"));
    });
    fs_err::copy(folder.path().join("config.json"), headless.path().join("config.json")).unwrap();
    let other = config().with_labels(["good", "bad"]);
    BertForSequenceClassification::from_pretrained(headless.path(), &other, 0, &Device::flex())
        .unwrap();
}

#[test]
fn a_checkpoint_is_taken_whole_or_not_at_all() {
    let device = Device::flex();
    let load_whole = |folder: &Path| {
        BertForSequenceClassification::from_checkpoint(folder, &config(), &device)
            .map(|model| state_dict(&model))
            .map_err(|error| error.to_string())
    };
    let whole = tempfile::tempdir().unwrap();
    load(&base()).unwrap().save_pretrained(whole.path(), &config()).unwrap();
    assert_eq!(load_whole(whole.path()).unwrap(), state_dict(&load(&base()).unwrap()));
    for module in ["bert.pooler.", "classifier."] {
        let folder = changed(|entries| entries.retain(|entry| !entry.0.starts_with(module)));
        load(folder.path()).unwrap();
        let message = load_whole(folder.path()).unwrap_err();
        assert!(message.contains(&format!("missing (2):\n  {module}")), "{message}");
    }
    let other = written_by("BertForTokenClassification", |_| ());
    let message = load_whole(other.path()).unwrap_err();
    assert!(message.contains("missing (2):\n  classifier."), "{message}");
}

#[test]
fn a_classifier_of_another_problem_is_refused() {
    let declare = |folder: &Path, problem: serde_json::Value| {
        let json = serde_json::json!({"model_type": "bert", "problem_type": problem});
        fs_err::write(folder.join("config.json"), json.to_string()).unwrap();
    };
    let whole = changed(|_| ());
    for problem in [serde_json::Value::Null, "single_label_classification".into()] {
        declare(whole.path(), problem);
        load(whole.path()).unwrap();
    }
    let headless = changed(|entries| entries.retain(|entry| !entry.0.starts_with("classifier")));
    for problem in ["multi_label_classification", "regression"] {
        declare(whole.path(), problem.into());
        let message = load(whole.path()).unwrap_err();
        let expected = format!("or null, found \"{problem}\", for which the classifier");
        assert!(message.contains("config.json: `problem_type`: expected"), "{message}");
        assert!(message.contains(&expected), "{message}");
        // A new classifier is of this problem.
        declare(headless.path(), problem.into());
        load(headless.path()).unwrap();
    }
}

#[test]
fn half_a_classifier_is_refused() {
    let folder = changed(|entries| entries.retain(|entry| entry.0 != "classifier.weight"));
    let message = load(folder.path()).unwrap_err();
    assert!(message.contains("missing (1):\n  classifier.weight"), "{message}");
}

#[test]
fn a_masked_language_model_with_a_decoder_of_its_own_is_refused() {
    let device = Device::flex();
    let folder = tempfile::tempdir().unwrap();
    let model = BertForMaskedLm::new(&config(), 5, &device);
    model.save_pretrained(folder.path(), &config(), DType::F32).unwrap();
    let path = folder.path().join("config.json");
    let written = fs_err::read_to_string(&path).unwrap();
    let load_lm = |tie: serde_json::Value| {
        let mut json: serde_json::Value = serde_json::from_str(&written).unwrap();
        json["tie_word_embeddings"] = tie;
        fs_err::write(&path, json.to_string()).unwrap();
        BertForMaskedLm::from_pretrained(folder.path(), &config(), &device)
    };
    assert!(load_lm(true.into()).is_ok());
    // Python takes null for false.
    for tie in [serde_json::Value::Null, false.into()] {
        let expected = format!("config.json: `tie_word_embeddings`: expected true, found {tie}");
        let message = load_lm(tie).unwrap_err().to_string();
        assert!(message.contains(&expected), "{message}");
    }
    // A classifier has no decoder.
    load(folder.path()).unwrap();
}

#[test]
fn a_masked_language_model_is_taken_from_beside_heads_for_other_tasks() {
    let device = Device::flex();
    let model = BertForMaskedLm::new(&config(), 5, &device);
    let saved = tempfile::tempdir().unwrap();
    model.save_pretrained(saved.path(), &config(), DType::F32).unwrap();
    let load_with = |names: &[&str]| {
        let folder = changed_from(saved.path(), |entries| {
            entries.extend(names.iter().map(|name| float(name, &[2])));
        });
        BertForMaskedLm::from_pretrained(folder.path(), &config(), &device)
            .map(|model| state_dict(&model))
            .map_err(|error| error.to_string())
    };
    let heads = ["qa_outputs.bias", "classifier.bias", "cls.seq_relationship.bias"];
    assert_eq!(load_with(&heads).unwrap(), state_dict(&model));
    for own in ["bert.encoder.layer.9.x", "cls.predictions.transform.x"] {
        let message = load_with(&[own]).unwrap_err();
        assert!(message.contains(&format!("surplus (1):\n  {own}")), "{message}");
    }
}

#[test]
fn a_layer_norms_old_name_beside_its_new_one_is_refused() {
    let norm = "bert.encoder.layer.1.output.LayerNorm";
    let width = config().hidden_size;
    for (old, new) in [("gamma", "weight"), ("beta", "bias")] {
        let [old, new] = [old, new].map(|name| format!("{norm}.{name}"));
        // By the old name alone it is the same tensor.
        let folder = changed(|entries| entry(entries, &new).0.clone_from(&old));
        assert_eq!(state_dict(&load(folder.path()).unwrap()), state_dict(&load(&base()).unwrap()));
        let folder = changed(|entries| entries.push(float(&old, &[width])));
        let message = load(folder.path()).unwrap_err();
        let expected = format!("`{old}` and `{new}` are two tensors for one place");
        let other = format!("`{new}` and `{old}` are two tensors for one place");
        assert!(message.contains("model.safetensors: "), "{message}");
        assert!(message.contains(&expected) || message.contains(&other), "{message}");
    }
    // transformers renames these of a LayerNorm alone.
    let folder =
        changed(|entries| entries.push(float("bert.encoder.layer.1.scale.gamma", &[width])));
    let message = load(folder.path()).unwrap_err();
    assert!(message.contains("surplus (1):\n  bert.encoder.layer.1.scale.gamma"), "{message}");
}

#[test]
fn missing_surplus_and_mismatched_tensors_are_listed_together() {
    let folder = changed(|entries| {
        entry(entries, "bert.pooler.dense.weight").0 = "bert.pooler.dense.wight".into();
        let bias = entry(entries, "classifier.bias");
        *bias = (bias.0.clone(), Dtype::F32, vec![5], vec![0; 20]);
    });
    let message = load(folder.path()).unwrap_err();
    for expected in [
        "model.safetensors: the tensors do not fit the model",
        "missing (1):\n  bert.pooler.dense.weight",
        "surplus (1):\n  bert.pooler.dense.wight",
        "mismatched (1):\n  classifier.bias: the model's shape is [2], the file's [5]",
    ] {
        assert!(message.contains(expected), "{expected}\nis not in\n{message}");
    }
}

#[test]
fn swapped_tensors_of_other_shapes_are_refused() {
    let folder = changed(|entries| {
        entry(entries, "bert.encoder.layer.0.intermediate.dense.weight").0 = "x".into();
        entry(entries, "bert.encoder.layer.0.output.dense.weight").0 =
            "bert.encoder.layer.0.intermediate.dense.weight".into();
        entry(entries, "x").0 = "bert.encoder.layer.0.output.dense.weight".into();
    });
    let message = load(folder.path()).unwrap_err();
    assert!(message.contains("mismatched (2)"), "{message}");
}

#[test]
fn a_value_that_is_not_finite_is_refused() {
    for value in [f32::NAN, f32::NEG_INFINITY] {
        let folder = changed(|entries| {
            let weight = entry(entries, "bert.encoder.layer.1.output.LayerNorm.weight");
            weight.3[4..8].copy_from_slice(&value.to_le_bytes());
        });
        let message = load(folder.path()).unwrap_err();
        assert!(
            message.contains("bert.encoder.layer.1.output.LayerNorm.weight")
                && message.contains("not finite"),
            "{message}"
        );
    }
}

#[test]
fn a_truncated_file_is_refused() {
    let bytes = fs_err::read(base().join("model.safetensors")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    for length in [0, 7, 100, bytes.len() / 2, bytes.len() - 1] {
        fs_err::write(folder.path().join("model.safetensors"), &bytes[..length]).unwrap();
        let message = load(folder.path()).unwrap_err();
        assert!(message.contains("is the file complete?"), "{length}: {message}");
    }

    let legacy = base().with_file_name("base_legacy");
    for file in ["pytorch_model.bin", "pytorch_model_zip.bin"] {
        let bytes = fs_err::read(legacy.join(file)).unwrap();
        let folder = tempfile::tempdir().unwrap();
        for length in [0, 7, 100, bytes.len() / 2, bytes.len() - 1] {
            fs_err::write(folder.path().join("pytorch_model.bin"), &bytes[..length]).unwrap();
            assert!(load(folder.path()).is_err(), "{file} cut to {length} bytes was read");
        }
    }
}

#[test]
fn a_folder_without_weights_says_what_it_lacks() {
    let folder = tempfile::tempdir().unwrap();
    let message = load(folder.path()).unwrap_err();
    assert!(message.contains("no weights: expected model.safetensors or"), "{message}");
}

#[test]
fn an_adapter_in_the_models_folder_is_refused_as_transformers_would_take_it() {
    let folder = changed(|_| ());
    load(folder.path()).unwrap();
    fs_err::write(folder.path().join("adapter_config.json"), "{}").unwrap();
    let message = load(folder.path()).unwrap_err();
    assert!(message.contains("adapter_config.json: an adapter beside a model"), "{message}");
}

#[test]
fn weights_in_several_files_are_refused_where_transformers_takes_them() {
    let folder = changed(|_| ());
    let write = |name: &str| fs_err::write(folder.path().join(name), "{}").unwrap();
    let remove = |name: &str| fs_err::remove_file(folder.path().join(name)).unwrap();
    let refused = |index: &str| {
        let message = load(folder.path()).unwrap_err();
        assert!(message.contains(&format!("{index}: weights in several files")), "{message}");
    };
    write("model.safetensors.index.json");
    write("pytorch_model.bin.index.json");
    // A single file comes before either.
    load(folder.path()).unwrap();
    remove("model.safetensors");
    write("pytorch_model.bin");
    refused("model.safetensors.index.json");
    remove("model.safetensors.index.json");
    remove("pytorch_model.bin");
    refused("pytorch_model.bin.index.json");
}
